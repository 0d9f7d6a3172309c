"""The lock entry of a model, from a stand-in that speaks the hub's protocol and from folders."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.locking import Choice, HubLock, lock_folder
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.fetch.http import Network

from planner import plan
from provenance.bom import Known, bom
from tests.support.fault_server import Asked, Fault, FaultServer, serving
from tests.support.image_archives import payload
from tests.support.plan_documents import document
from tests.support.weight_trees import manifest, write_tree

REPOSITORY = Path(__file__).resolve().parents[2]
COMMIT = "c0" * 20
TOKEN = "hf_token"
API = "/api/models/org/Tiny"
SMALL = {"config.json": b"{}", "tokenizer/vocab.json": b'{"a": 1}', "README.md": b"words", ".gitattributes": b"x"}
LARGE = {"model.safetensors": payload(5000, 1), "pytorch_model.bin": payload(300, 2)}


def tree() -> list[dict[str, Any]]:
    """What the hub says of the repository's files."""
    rows: list[dict[str, Any]] = [{"type": "directory", "path": "tokenizer", "oid": "0" * 40, "size": 0}]
    for path, data in SMALL.items():
        name = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        rows.append({"type": "file", "path": path, "oid": name, "size": len(data)})
    for path, data in LARGE.items():
        large = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        rows.append({"type": "file", "path": path, "oid": "1" * 40, "size": len(data), "lfs": large})
    return rows


@pytest.fixture
def hub() -> Iterator[FaultServer]:
    about = {"sha": COMMIT, "cardData": {"license": "apache-2.0"}}
    files = {f"{API}/revision/{name}": json.dumps(about).encode() for name in (COMMIT, "main")}
    files |= {f"/org/Tiny/resolve/{COMMIT}/{path}": data for path, data in SMALL.items()}
    rows = tree()
    pages = {"": json.dumps(rows[:3]).encode(), "2": json.dumps(rows[3:]).encode()}

    def rule(asked: Asked) -> Fault | None:
        if asked.headers.get("Authorization") != f"Bearer {TOKEN}":
            return Fault(status=401)
        if asked.path != f"{API}/tree/{COMMIT}":
            return None
        page = "2" if "cursor=2" in asked.target else ""
        link = {} if page else {"Link": f'<{API}/tree/{COMMIT}?recursive=true&cursor=2>; rel="next"'}
        return Fault(status=200, headers=link, body=pages[page])

    with serving(files) as server:
        server.rule = rule
        yield server


def locked(hub: FaultServer, revision: str = "main", choice: Choice | None = None, token: str = TOKEN) -> Any:
    return HubLock(hub.base, "org/Tiny", Network(timeout=5), token).lock(revision, choice or Choice())


def test_an_entry_from_a_hub_tells_the_bill_of_materials_where_it_comes_from(hub: FaultServer) -> None:
    made = plan(document(locks={"small": locked(hub)}))
    components = json.loads(bom("site", {"h1": made}, Known()))["components"]
    (found,) = [component for component in components if component["type"] == "machine-learning-model"]
    assert found["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert found["purl"] == f"pkg:huggingface/org/Tiny@{COMMIT}"
    assert found["version"] == COMMIT
    assert [item["name"] for item in found["components"]] == [
        "config.json",
        "model.safetensors",
        "tokenizer/vocab.json",
    ]


def test_entry_from_a_hub_has_every_digest_and_leaves_out_what_is_not_needed(hub: FaultServer) -> None:
    wanted = {**SMALL, **LARGE}
    for name in ("README.md", ".gitattributes", "pytorch_model.bin"):
        del wanted[name]
    entry = locked(hub)
    assert entry == {
        "repo": "org/Tiny",
        "license": "apache-2.0",
        "revision": COMMIT,
        "total_size": sum(map(len, wanted.values())),
        "files": manifest(wanted),
    }
    assert locked(hub, COMMIT) == entry
    assert parse_models([{"name": "tiny", **entry}])
    assert not [asked for asked in hub.asked if "safetensors" in asked.path]  # large files are not fetched for it


def test_patterns_choose(hub: FaultServer) -> None:
    entry = locked(hub, choice=Choice(["*.bin", "*.json"], []))
    assert [file["path"] for file in entry["files"]] == ["config.json", "pytorch_model.bin", "tokenizer/vocab.json"]


def test_small_file_with_other_bytes_than_the_commit_has_is_refused(hub: FaultServer) -> None:
    hub.files[f"/org/Tiny/resolve/{COMMIT}/config.json"] = b"[]"
    with pytest.raises(Refusal, match=r"config\.json: its bytes are not those that the commit has"):
        locked(hub)


def test_what_a_hub_says_wrong_is_refused(hub: FaultServer) -> None:
    with pytest.raises(Refusal, match="the server answers 401 Unauthorized; is a token needed"):
        locked(hub, token="")
    with pytest.raises(Refusal, match="404"):
        locked(hub, "d" * 40)
    hub.files[f"{API}/revision/{'d' * 40}"] = json.dumps({"sha": COMMIT}).encode()
    with pytest.raises(Refusal, match=f"asked for org/Tiny at {'d' * 40}, it speaks of {COMMIT}"):
        locked(hub, "d" * 40)
    hub.files[f"{API}/revision/main"] = b"<html>"
    with pytest.raises(Refusal, match="is not JSON; does the server speak the hub's protocol"):
        locked(hub)


def test_folder_is_hashed_and_links_are_refused(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "sub/model.safetensors": payload(3000, 4), "notes.md": b"x"}
    write_tree(tmp_path / "tiny", files)
    del files["notes.md"]
    entry = lock_folder(tmp_path / "tiny", "", Choice())
    assert entry["files"] == manifest(files)
    assert parse_models([{"name": "tiny", **entry}])
    assert lock_folder(tmp_path / "tiny", "", Choice())["revision"] == entry["revision"]
    (tmp_path / "tiny/config.json").write_bytes(b"[]")
    assert lock_folder(tmp_path / "tiny", "", Choice())["revision"] != entry["revision"]
    (tmp_path / "tiny/link").symlink_to("config.json")
    with pytest.raises(Refusal, match="link is not a regular file"):
        lock_folder(tmp_path / "tiny", "", Choice())


def test_playbook_writes_the_entry_that_the_installation_reads(tmp_path: Path) -> None:
    files = {"config.json": b"{}"}
    write_tree(tmp_path / "tiny", files)
    target = tmp_path / "made/tiny.yml"
    variables = {
        "weights_lock_name": "tiny",
        "weights_lock_folder": str(tmp_path / "tiny"),
        "weights_lock_file": str(target),
    }
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "-i",
        "h1,",
        "playbooks/weights_lock.yml",
    ]
    done = subprocess.run(
        [*command, "-e", json.dumps(variables)],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (entry,) = yaml.safe_load(target.read_text())["redoubt_model_locks"].values()
    assert entry["files"] == manifest(files)
