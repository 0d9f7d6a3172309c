"""`./redoubt bundle …` as an operator types it; on a bare machine with nothing but Python."""

from __future__ import annotations

import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.bundle.planning import plan, table
from ansible.module_utils.bundle.sbom import sbom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from cli import bundle
from library import bundle as module
from locks.folder import write
from tests.support.bundles import Site, several, site
from tests.support.lock_documents import Contents, changed
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


def indexes_of(made: Site) -> dict[str, dict[str, str]]:
    """The package lists of a lock's platforms, as files of its folder."""
    return {
        name: {item["path"]: made.contents[item["sha256"]].decode() for item in row["indexes"]}
        for name, row in made.lock["platforms"].items()
    }


def test_plan_build_and_delta_read_the_lock_from_git(
    made: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "lock"
    write(folder, made.lock, indexes_of(made))
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


@pytest.mark.parametrize("former", ["inventory", "manifest"])
def test_plan_against_a_former_state_shows_what_a_delta_carries(
    made: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], former: str
) -> None:
    made.bring()
    far = tmp_path / "inventory.json"
    far.write_text(json.dumps(made.far.inventory()))
    known = far if former == "inventory" else made.bundle / "manifest.json"
    data = b"a new curl" * 50
    row = Contents().keep(data)

    def newer(body: dict[str, Any]) -> None:
        rows = body["platforms"]["debian-13-amd64"]["packages"]
        (curl,) = [item for item in rows if item["name"] == "curl"]
        curl.update(row, version="8.15.0-1", path="pool/c/curl_8.15.0-1_amd64.deb")

    lock = changed(made.lock, newer)
    folder = tmp_path / "lock"
    write(folder, lock, indexes_of(made))
    command = ["plan", "--lock", str(folder), "--depot", str(made.near.root), "--against", str(known)]
    assert bundle.main([*command, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == "delta"
    assert [part["sha256"] for part in document["parts"] if part["new"]] == [row["sha256"]]
    total = document["totals"]["all"]
    assert (total["carried_bytes"], total["missing_bytes"]) == (len(data), len(data))

    def listed(*options: str) -> list[str]:
        assert bundle.main([*command, *options]) == 0
        lines = capsys.readouterr().out.splitlines()
        return lines[1 : lines.index("")]

    assert len(listed()) == total["parts"]
    (line,) = listed("--new")
    assert "curl 8.15.0-1" in line
    assert f" lack {row['sha256'][:12]}" in line
    made.near.add_blob(BytesIO(data), row["sha256"], row["size"])
    assert " lack " not in listed("--new")[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no JSON", "is not JSON"),
        ("[]", "is neither a depot's inventory.json nor a bundle's manifest.json"),
        ('{"schema": 1, "blobs": {"a": 1}}', "its blobs are not SHA-256 with sizes"),
    ],
)
def test_plan_against_something_else_names_the_file(
    made: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, problem: str
) -> None:
    folder, other = tmp_path / "lock", tmp_path / "other.json"
    write(folder, changed(made.lock, lambda body: body.update(platforms={})), {})
    other.write_text(text)
    command = ["plan", "--lock", str(folder), "--depot", str(made.near.root), "--against"]
    assert bundle.main([*command, str(other)]) == 1
    assert f"{other}: {problem}" in capsys.readouterr().err
    assert bundle.main([*command, str(tmp_path / "nowhere.json")]) == 1
    assert "nowhere.json: No such file or directory" in capsys.readouterr().err


def test_volumes_are_of_the_size_that_was_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = several(tmp_path)
    write(tmp_path / "lock", made.lock, indexes_of(made))
    common = ["--lock", str(tmp_path / "lock"), "--depot", str(made.near.root), "--piece-size", "1M"]
    out = tmp_path / "out"
    assert bundle.main(["build", str(out), *common, "--volume-size", "3M"]) == 0
    sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in out.glob("volume-*")]
    assert len(sizes) > 1
    assert max(sizes) < 3_000_000
    capsys.readouterr()
    for text, told in (("3X", "'3X' is no size such as 4G, 25G or 700Mi"), ("1M", "choose a larger volume size")):
        assert bundle.main(["build", str(tmp_path / text), *common, "--volume-size", text]) == 1
        assert told in capsys.readouterr().err
        assert not (tmp_path / text).exists()
    params: dict[str, Any] = {
        "state": "built",
        "path": str(tmp_path / "module"),
        "directory": str(made.near.root),
        "lock": made.lock,
    }
    params |= {"gnupg": str(tmp_path / "no-key"), "lock_timeout": 1, "piece_size": "1M", "volume_size": "3M"}
    params |= {"against": "", "installer": None, "sign_key": None, "progress_file": str(tmp_path / "progress.json")}
    assert len(module.run(params, check=False)["volumes"]) > 1
    with pytest.raises(Refusal, match="'3X' is no size"):
        module.run({**params, "volume_size": "3X"}, check=False)


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
