"""playbooks/lock.yml as an operator runs it, with a repository and archives of this machine: no network, no host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from locks import folder as files
from tests.support import image_archives
from tests.support.apt_repository import Package, Repository
from tests.support.depot_plays import files as everything
from tests.support.plan_documents import images, model
from tests.support.plays import Run
from tests.support.preflight_runs import playbook, site, write_inventory

PLATFORM = "debian-13-amd64"
#: What the roles of a host without a GPU wish, and a base system.
PACKAGES = (
    *("ca-certificates", "curl", "docker-cli", "docker-compose", "docker.io", "iproute2", "libnginx-mod-http-js"),
    *("logrotate", "nginx", "openssl", "procps", "python3-cryptography"),
)
BASE = Package("base", "1.0", essential=True)


@pytest.fixture
def _repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository(tmp_path_factory.mktemp("apt"))
    made.publish([BASE, *(Package(name, "1.0") for name in PACKAGES)])
    return made


@pytest.fixture
def options(_repository: Repository, tmp_path: Path) -> list[str]:
    """The site as an inventory, and the variables for `ansible-playbook`."""
    (tmp_path / "images").mkdir()
    known: dict[str, Any] = {}
    for key, row in images().items():
        built = image_archives.build(tmp_path / f"images/{key}.tar", [f"{row['name']}:{row['tag']}"], key.encode())
        known[key] = {**built.entry(row["name"], row["tag"]), "archive": f"{key}.tar"}
        del known[key]["key"]
    variables = {
        **site(),
        "redoubt_models": [model()],
        "redoubt_images": known,
        "redoubt_site": "bank-north",
        "redoubt_platforms": [PLATFORM],
        "redoubt_lock": str(tmp_path / "lock"),
        "lock_images_source": f"file://{tmp_path}/images",
        "lock_package_sources": {PLATFORM: _repository.source("KEYRINGS/stub.asc")},
        "lock_package_keys": {PLATFORM: {"stub.asc": _repository.key}},
        "lock_base_packages": [],
        "lock_bootstrap": [],
        "lock_python": [],
    }
    return ["-i", str(write_inventory(tmp_path, variables)), "playbooks/lock.yml"]


def lock(options: list[str], *more: str) -> Run:
    done = playbook(*options, *more)
    return Run(done.returncode, done.stdout)


def test_check_says_what_a_run_will_write_and_writes_nothing(
    options: list[str], _repository: Repository, tmp_path: Path
) -> None:
    folder = tmp_path / "lock"
    for serial, version in ((1, "1.0"), (2, "2.0")):
        if serial > 1:
            _repository.publish([Package("curl", version)])
        before = everything(tmp_path)
        forecast = lock(options, "--check")
        assert (forecast.status, forecast.changed) == (0, 1)
        assert everything(tmp_path) == before
        done = lock(options)
        assert (done.status, done.changed) == (0, 1)
        made = files.load(folder)
        (curl,) = [row for row in made["platforms"][PLATFORM]["packages"] if row["name"] == "curl"]
        assert (made["serial"], curl["version"]) == (serial, version)
        head = f"Lock {serial} of bank-north, {made['digest']}"
        assert f"{head} (nothing was written)" in forecast.words
        assert f"{head} is in {folder}" in done.words
    assert "curl 1.0 -> 2.0" in forecast.words
    before = everything(folder)
    for more in (["--check"], []):
        again = lock(options, *more)
        assert (again.status, again.changed) == (0, 0)
        assert everything(folder) == before
