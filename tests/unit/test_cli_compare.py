"""The verb compare on files and on what `verify` left, through the launcher's own command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli import compare
from cli.main import main
from locks.folder import write
from tests.support import lock_documents
from tests.support.fingerprints import PLATFORM, fingerprint, gathered


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "fingerprints"
    folder.mkdir()
    other = gathered()
    other.sections["kernel"]["net.core.somaxconn"]["value"] = "128"
    for name, document in (("h1", fingerprint("h1")), ("h2", fingerprint("h2", other)), ("h3", fingerprint("h3"))):
        (folder / f"{name}.json").write_text(json.dumps(document))
    monkeypatch.setattr(compare.compare, "__defaults__", (tmp_path,))
    return tmp_path


def say(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run the verb: its exit code and all that it said."""
    status = main(["compare", *words])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_hosts_that_are_the_same(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(capsys, "h1", "h3") == (0, "nothing differs (on h1, on h3)\n")
    assert say(capsys, "h1") == (0, "nothing differs (recorded, on h1)\n")


def test_what_differs_is_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "  kernel net.core.somaxconn: value 4096 {}, 128 {}\n"
    assert say(capsys, "h1", "h2") == (1, "1 difference:\n" + line.format("on h1", "on h2"))
    assert say(capsys, "h2") == (1, "1 difference:\n" + line.format("recorded", "on h2"))
    status, text = say(capsys, "h1", str(runs / "fingerprints/h2.json"), "--json")
    row = {"section": "kernel", "name": "net.core.somaxconn", "field": "value", "left": "4096", "right": "128"}
    assert (status, json.loads(text)["differences"]) == (1, [row])


def test_one_host_at_two_times(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later = gathered()
    later.local["system"]["addresses"] = {"value": "10.0.0.9"}
    (runs / "later.json").write_text(json.dumps(fingerprint("h1", later, "2026-02-02T00:00:00Z")))
    status, text = say(capsys, "h1", str(runs / "later.json"))
    assert status == 1
    assert "addresses: value 10.0.0.5 at 2026-01-01T00:00:00Z, 10.0.0.9 at 2026-02-02T00:00:00Z" in text


def test_unknown_hosts_get_the_nearest(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = say(capsys, "h11")
    assert (status, "did you mean h1?" in text) == (2, True)
    status, text = say(capsys, "nowhere/x.json")
    assert (status, "there is no file nowhere/x.json" in text) == (2, True)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 9}'])
def test_unreadable_files_are_no_difference(runs: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (runs / "fingerprints/h1.json").write_text(text)
    assert say(capsys, "h1", "h2")[0] == 2


def test_a_fingerprint_that_somebody_edited_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = runs / "fingerprints/h2.json"
    path.write_text(path.read_text().replace('"128"', '"4096"', 1))
    status, text = say(capsys, "h2", "h1")
    assert (status, "was edited or damaged" in text) == (2, True)


@pytest.fixture
def locked(runs: Path) -> dict[str, Any]:
    """A lock; h4 has what it allows."""
    document, _ = lock_documents.make()
    image, (name, model) = document["images"]["vllm"], next(iter(document["models"].items()))
    tree = f"{name}/{model['revision'][:12]}"
    made = gathered()
    made.sections["images"] = {f"{image['name']}:{image['tag']}": {"digest": image["config_digest"]}}
    made.sections["weights"] = {f"{tree}/{row['path']}": {"sha256": row["sha256"]} for row in model["files"]}
    (runs / "fingerprints/h4.json").write_text(json.dumps(fingerprint("h4", made)))
    return document


def _newer(body: dict[str, Any]) -> None:
    row = next(row for row in body["platforms"][PLATFORM]["packages"] if row["name"] == "curl")
    row["version"] = "9"


def test_a_host_and_a_lock(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, locked: dict[str, Any]
) -> None:
    folder, file = tmp_path / "lock", tmp_path / "site.json"
    write(folder, locked, {})
    assert say(capsys, "h4", "--lock", str(folder)) == (0, "nothing differs (locked, on h4)\n")
    next_one = lock_documents.changed(locked, _newer)
    write(folder, next_one, {})
    file.write_text(json.dumps(next_one))
    for place in (folder, file):
        status, text = say(capsys, "h4", "--lock", str(place))
        assert (status, "packages curl: version 9 locked, 8.14.1-2 on h4" in text) == (1, True)


def test_locks_that_do_not_fit_are_refused(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, locked: dict[str, Any]
) -> None:
    (tmp_path / "empty").mkdir()
    assert say(capsys, "h4", "--lock", str(tmp_path / "empty"))[0] == 2
    file = tmp_path / "site.json"
    file.write_text(json.dumps({**locked, "serial": 9, "keys": []}))
    status, text = say(capsys, "h4", "--lock", str(file))
    assert (status, "somebody edited it by hand" in " ".join(text.split())) == (2, True)
    file.write_text(json.dumps(lock_documents.changed(locked, lambda body: body["platforms"].pop(PLATFORM))))
    status, text = say(capsys, "h4", "--lock", str(file))
    assert status == 2
    assert f"lacks the platform of h4, {PLATFORM} (it has: {lock_documents.ARM64})" in " ".join(text.split())
    assert say(capsys, "h1", "h2", "--lock", str(file))[0] == 2
