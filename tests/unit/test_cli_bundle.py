"""`./redoubt bundle …` as an operator types it; on a bare machine with nothing but Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.module_utils.bundle.planning import plan, table
from ansible.module_utils.bundle.sbom import sbom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from cli import bundle
from locks.folder import write
from tests.support.bundles import Site, site
from tests.support.site import REPOSITORY


@pytest.fixture
def made(tmp_path: Path) -> Site:
    small = site(tmp_path)
    small.build()
    return small


def bare(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The launcher on a Python without any package: no Ansible, no YAML."""
    command = [sys.executable, "-I", "-S", str(REPOSITORY / "redoubt"), "bundle", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", timeout=60)


def test_verify_needs_the_standard_library_alone(made: Site, tmp_path: Path) -> None:
    good = bare("verify", made.bundle, "--key", made.public)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.endswith(": good\n")
    path = next(path for path in made.bundle.glob("volume-001/*") if len(path.name) == 64)
    path.unlink()
    bad = bare("verify", made.bundle, "--key", made.public, "--json")
    assert bad.returncode == 1
    assert [fault["path"] for fault in json.loads(bad.stdout)["faults"]] == [f"volume-001/{path.name}"]
    assert bare("verify", tmp_path / "nowhere", "--key", made.public).returncode == 2
    assert "nobody's signature" in bare("verify", made.bundle).stderr


def test_import_and_inventory_need_the_standard_library_alone(made: Site) -> None:
    done = bare("import", made.bundle, "--key", made.public, "--depot", made.far.root)
    assert (done.returncode, done.stderr) == (0, "")
    assert "published" in done.stdout
    listed = bare("inventory", "--depot", made.far.root)
    assert json.loads(listed.stdout) == made.far.inventory()
    wrong = bare("import", made.bundle, "--key", made.public, "--depot", made.far.root, "--site", "elsewhere")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "site elsewhere was asked for" in wrong.stderr


def test_plan_build_and_delta_read_the_lock_from_git(
    made: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "lock"
    indexes = {
        name: {item["path"]: made.contents[item["sha256"]].decode() for item in row["indexes"]}
        for name, row in made.lock["platforms"].items()
    }
    write(folder, made.lock, indexes)
    common = ["--lock", str(folder), "--depot", str(made.near.root)]
    assert bundle.main(["plan", *common, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["all"]["missing_bytes"] == 0
    out = tmp_path / "out"
    assert bundle.main(["build", str(out), *common, "--sign-key", str(made.secret)]) == 0
    assert bare("verify", out, "--key", made.public).returncode == 0
    made.bring()
    inventory = tmp_path / "inventory.json"
    inventory.write_text(json.dumps(made.far.inventory()))
    assert bundle.main(["delta", str(tmp_path / "delta"), *common, "--against", str(inventory)]) == 0
    assert list((tmp_path / "delta/volume-001").iterdir()) == [tmp_path / "delta/volume-001/volume.json"]
    assert "It is not signed yet" in capsys.readouterr().out


def test_the_forecast_names_every_file_and_adds_up(made: Site) -> None:
    document = plan(made.lock, set(list(made.contents)[:3]))
    total = document["totals"]["all"]
    assert total["bytes"] == sum(map(len, made.contents.values()))
    assert sum(row["gathered"] for row in document["parts"]) >= 3
    lines = table(document)
    for row in document["parts"]:
        assert any(row["sha256"][:12] in line for line in lines)


def test_the_bill_of_materials_lists_every_hash_and_is_always_the_same(made: Site) -> None:
    document = sbom(made.lock)
    assert document == sbom(json.loads(json.dumps(made.lock)))
    text = json.dumps(document)
    indexes = {row["indexes"][0]["sha256"] for row in made.lock["platforms"].values()}
    for sha256 in made.contents:
        assert (sha256 in text) is (sha256 not in indexes)
    refs = [item["bom-ref"] for item in document["components"]]
    assert len(refs) == len(set(refs))
    assert {item["type"] for item in document["components"]} >= {"machine-learning-model", "container", "library"}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
