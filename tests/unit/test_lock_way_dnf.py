"""The way of a DNF platform on the connected side: locked, kept in git, gathered, published, installed by DNF."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.depot.signing import Signer
from ansible.module_utils.lock.document import EMPTY, sealed

from library import gather, package_closure
from locks import folder as files
from tests.support import programs
from tests.support.rpm_repository import Rpm, RpmRepository

PLATFORM = "rocky-9-amd64"


@pytest.fixture(scope="module")
def _answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    programs.rpm_tools()
    made = RpmRepository(tmp_path_factory.mktemp("rpm"))
    made.publish([Rpm("base", "1", core=True), Rpm("engine", "2.0", epoch=1, requires=("libs",)), Rpm("libs", "3")])
    given: dict[str, Any] = {
        "state": "resolved",
        "platform": PLATFORM,
        "wishes": {"serve": ["engine"]},
        "bootstrap": [],
        "base": "minimal",
        "base_packages": [],
        "base_status": None,
        "streams": [],
        "sources": made.source("KEYRINGS/stub.asc"),
        "keys": {"stub.asc": made.key},
        "repositories": [],
        "folder": None,
        "timeout": 60,
    }
    return package_closure.run(given, False)


@pytest.fixture
def lock(_answer: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The lock as it comes back from its folder."""
    made = sealed({**EMPTY, "platforms": {PLATFORM: _answer["platform"]}}, "bank-north")
    files.write(tmp_path / "lock", made, {PLATFORM: _answer["indexes"]})
    assert files.load(tmp_path / "lock") == made
    assert files.write(tmp_path / "lock", made, {PLATFORM: _answer["indexes"]}) == []
    return dict(made)


def indexes(lock: dict[str, Any], folder: Path) -> dict[str, str]:
    rows = lock["platforms"][PLATFORM]["indexes"]
    return {f"{PLATFORM}/{row['path']}": files.read_index(folder, PLATFORM, row).decode() for row in rows}


def test_dnf_installs_from_a_depot_that_gathered_the_lock(lock: dict[str, Any], tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "lock": lock, "indexes": indexes(lock, tmp_path / "lock"), "packages": None, "directory": f"{tmp_path}/depot",
        "images": "registry", "models": [], "project": None, "python": "", "python_index": "",
        "ca_file": "", "proxy": "", "no_proxy": "",
        "connections": 2, "bandwidth": 0, "timeout": 60, "progress_file": str(tmp_path / "progress.json"),
    }  # fmt: skip
    assert {row["name"] for row in gather.run(given, False)["missing"]} == {"base", "engine", "libs", "index"}
    signer = Signer(tmp_path / "gnupg")
    signer.create("depot of a test")
    assert Depot(tmp_path / "depot", signer=signer).publish(lock)
    key = tmp_path / "depot.asc"
    key.write_bytes(signer.public())
    (tmp_path / "depot.repo").write_text(
        f"[depot]\nname=depot\nbaseurl=file://{tmp_path}/depot/sites/bank-north/packages/{PLATFORM}\n"
        f"gpgcheck=0\nrepo_gpgcheck=1\nskip_if_unavailable=0\ngpgkey=file://{key}\n"
    )
    command = ["dnf", "-q", "-y", "--installroot", str(tmp_path / "root"), "--releasever", "9", "--forcearch", "x86_64"]
    command += [f"--setopt=reposdir={tmp_path}", f"--destdir={tmp_path}/got", "--downloadonly", "install", "engine"]
    subprocess.run(command, check=True, capture_output=True)
    assert sorted(path.name for path in (tmp_path / "got").iterdir()) == [
        "engine-2.0-1.el9.noarch.rpm",
        "libs-3-1.el9.noarch.rpm",
    ]


@pytest.mark.parametrize("path", ["repodata/primary.xml", "repodata/repomd.xml"])
def test_a_list_that_was_edited_or_lost_is_told(lock: dict[str, Any], tmp_path: Path, path: str) -> None:
    file = tmp_path / f"lock/platforms/{PLATFORM}.{path}"
    file.write_bytes(file.read_bytes().replace(b"engine", b"motor!").replace(b"revision", b"division"))
    with pytest.raises(Refusal, match=f"{path}: expected sha256"):
        indexes(lock, tmp_path / "lock")
    file.unlink()
    with pytest.raises(Refusal, match="take it from git"):
        indexes(lock, tmp_path / "lock")


def test_a_platform_that_goes_takes_its_lists(lock: dict[str, Any], tmp_path: Path) -> None:
    after = sealed({**EMPTY}, "bank-north", lock)
    changed = files.write(tmp_path / "lock", after, {})
    assert {f"platforms/{PLATFORM}.repodata", f"platforms/{PLATFORM}.yml"} <= set(changed)
    assert list((tmp_path / "lock/platforms").iterdir()) == []
