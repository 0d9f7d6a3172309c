"""A conversion on a host: published once and whole with its manifest, or not at all."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import present, verified
from ansible.module_utils.artifacts.settling import Settings
from ansible.module_utils.fetch.choose import make_sources
from ansible.module_utils.fetch.http import Network

from tests.support.weight_trees import digest, model
from tests.unit.conversion_support import DIGEST, INPUT, RESULT, Site, safetensors

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "job fails": ({"exit": 3}, "ended with 3. Log: .*something is wrong with layer 7"),
    "no memory": ({"exit": 137, "oom": True}, "ended with 137 for lack of memory"),
    "nothing written": ({"files": {}}, "it wrote nothing"),
    "torn weights": (
        {"files": {**RESULT, "model.safetensors": RESULT["model.safetensors"][:-2]}},
        "cannot be loaded: model.safetensors",
    ),
    "no weights": ({"files": {"config.json": RESULT["config.json"]}}, "there is no .safetensors file"),
    "not quantized": ({"files": {**RESULT, "config.json": b"{}"}}, "config.json has no quantization_config"),
    "a link": ({"links": {"more": "/etc/passwd"}}, "more is not a regular file"),
    "a pickle": ({"files": {**RESULT, "optimizer.pt": b"x"}}, "optimizer.pt is of a pickle format"),
    "a program": ({"files": {**RESULT, "model.py": b"x"}}, "model.py is a program"),
    "a manifest of its own": ({"files": {**RESULT, "conversion.json": b"{}"}}, "conversion.json of its own"),
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def test_result_is_a_proved_model_with_a_manifest(site: Site) -> None:
    answer = site.convert()
    assert (answer["changed"], answer["state"]) == (True, "converted")
    entry = answer["entry"]
    models = parse_models([{**entry, "name": "tiny-fp8"}])
    (verdict,) = verified(site.store, models, Settings(), deep=True)
    assert verdict["ok"]
    folder = Path(answer["path"])
    text = (folder / "conversion.json").read_text()
    assert entry["revision"] == digest(text.encode())[:40]
    assert entry["license"] == "apache-2.0"
    manifest = json.loads(text)
    assert manifest["inputs"] == [
        {
            "name": "tiny",
            "revision": "a" * 40,
            "files": [
                {"path": path, "size": len(data), "sha256": digest(data)} for path, data in sorted(INPUT.items())
            ],
        }
    ]
    assert manifest["image"] == {"ref": "example/stub:1", "digest": None, "config_digest": DIGEST}
    assert manifest["command"] == ["python3", "/programs/common.py", "--scheme", "FP8_DYNAMIC"]
    assert manifest["programs"] == {"common.py": digest(b"print()\n")}
    assert manifest["tools"] == {"stub": "1"}
    assert [file["path"] for file in manifest["outputs"]] == sorted(RESULT)
    record = json.loads(Path(answer["record"]).read_text())
    assert record["begun"] <= record["ended"]
    assert record["manifest"] == manifest
    assert "Loading weights" in Path(answer["log"]).read_text()
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
    assert {path.stat().st_uid for path in folder.iterdir()} == {os.geteuid()}


def test_container_gets_the_proved_image_and_is_removed(site: Site) -> None:
    site.convert()
    seen = site.docker()
    assert seen["containers"] == {}
    assert seen["read"] == {"common.py": "print()\n"}
    assert [path for path in site.visible() if path.startswith(".")] == []


def test_second_run_does_nothing(site: Site) -> None:
    first = site.convert()
    again = site.convert()
    assert (again["changed"], again["state"], site.ran()) == (False, "present", 1)
    assert json.dumps(again["entry"]) == json.dumps(first["entry"]), "in the same order: the role writes it to a file"


def test_same_bytes_made_again_are_the_same_revision(site: Site) -> None:
    first = site.convert()
    Path(first["record"]).unlink()
    again = site.convert()
    assert (again["changed"], again["entry"], site.ran()) == (True, first["entry"], 2)
    assert [path for path in site.visible() if path.startswith(".")] == []


@pytest.mark.parametrize(
    "other",
    [
        {"command": ["/programs/common.py", "--scheme", "FP8_BLOCK"]},
        {"inputs": [model(INPUT, revision="b" * 40)]},
        {"environment": {"HOME": "/other"}},
        {"program": "print(1)\n"},
    ],
    ids=["command", "input", "environment", "program"],
)
def test_another_recipe_is_another_conversion_and_both_stay(site: Site, other: dict[str, Any]) -> None:
    sources = make_sources([f"file://{site.root}/source"], "weights_source", Network())
    present(site.store, parse_models([model(INPUT, revision="b" * 40)]), sources, Settings())
    first = site.convert()
    second = site.convert(site.job(**other))
    assert second["entry"]["revision"] != first["entry"]["revision"]
    assert Path(first["path"]).is_dir()
    assert Path(second["path"]).is_dir()
    assert not site.convert()["changed"]


def test_damaged_result_is_made_again(site: Site) -> None:
    first = site.convert()
    place = Path(first["path"]) / "model.safetensors"
    place.chmod(0o644)
    place.write_bytes(safetensors(7))
    again = site.convert()
    assert again["changed"]
    assert "model.safetensors" in again["why"]
    assert place.read_bytes() == RESULT["model.safetensors"]


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_job_publishes_nothing_and_says_why(site: Site, fault: str) -> None:
    behaviour, said = FAULTS[fault]
    site.behave(**behaviour)
    with pytest.raises(Refusal, match=f"(?s)conversion tiny-fp8: .*{said}.*Nothing of tiny-fp8 was published"):
        site.convert()
    assert site.visible() == []
    assert site.docker()["containers"] == {}


def test_run_after_a_failed_one_converts(site: Site) -> None:
    site.behave(exit=1)
    with pytest.raises(Refusal):
        site.convert()
    site.behave()
    assert site.convert()["changed"]


def test_tampered_input_is_found_before_the_job(site: Site) -> None:
    place = site.input / "model.safetensors"
    before = place.stat()
    place.chmod(0o644)
    place.write_bytes(safetensors(9))
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(Refusal, match=r"its input is not what the lock says: .*model.safetensors"):
        site.convert()
    assert site.ran() == 0


def test_input_that_rots_without_a_trace_is_found_too(site: Site) -> None:
    place = site.input / "model.safetensors"
    place.chmod(0o644)
    place.write_bytes(safetensors(9))
    # As on a disk that returns other bytes: the ledger is made to fit, so that only hashing helps.
    ledger = json.loads(site.store.ledger_file.read_text())
    status = place.stat()
    row = ledger["files"].pop(str(status.st_ino), None)
    assert row is not None, ledger
    ledger["files"][str(status.st_ino)] = [*row[:1], status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    site.store.ledger_file.write_text(json.dumps(ledger))
    with pytest.raises(Refusal, match="its input is not what the lock says"):
        site.convert()
    assert site.ran() == 0


def test_image_with_other_bytes_is_not_started(site: Site) -> None:
    document = site.docker()
    site.state_file.write_text(json.dumps({**document, "id": f"sha256:{'b' * 64}"}))
    with pytest.raises(Refusal, match=f"image example/stub:1: expected {DIGEST}, the engine has sha256:bbb"):
        site.convert()
    assert site.ran() == 0


def test_image_without_a_digest_is_refused(site: Site) -> None:
    image = {"key": "stub", "name": "example/stub", "tag": "1", "archive": "a.tar"}
    with pytest.raises(Refusal, match="conversion tiny-fp8: image stub: has a tag but no digest"):
        site.job(image=image)


def test_small_disk_is_told_before_the_job(site: Site) -> None:
    with pytest.raises(Refusal, match=r"needs \d+ more bytes: about 1000 while it works and \d+ to be left free"):
        convert_with(site, reserve_bytes=1 << 60)
    assert site.ran() == 0


def test_job_that_fills_the_disk_is_stopped(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.behave(runs=-1)
    # Enough before the job, too little once it works.
    free = iter([10_000, 10])
    monkeypatch.setattr("ansible.module_utils.conversion.transaction._free", lambda _: next(free))
    with pytest.raises(Refusal, match=r"has 10 bytes free, less than convert_reserve_bytes .*; it was stopped. Log: "):
        convert_with(site, reserve_bytes=100)
    assert site.docker()["containers"] == {}
    assert site.visible() == []


def test_job_without_an_end_is_stopped(site: Site) -> None:
    site.behave(runs=-1)
    with pytest.raises(Refusal, match=r"has not ended in 0 s \(convert_timeout\); it was stopped. Log: "):
        convert_with(site, timeout=0)
    assert site.docker()["containers"] == {}
    assert "Loading weights" in next((site.root / "logs").iterdir()).read_text()


def convert_with(site: Site, **changes: Any) -> None:
    site.place = replace(site.place, **changes)
    site.convert()


@pytest.mark.parametrize("verb", ["up", "container inspect", "rm --force"])
def test_killed_run_is_made_up_for(site: Site, verb: str) -> None:
    site.behave(kill_at=verb)
    child = os.fork()
    if not child:
        site.convert()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not (site.store.models / "tiny-fp8").exists()
    assert site.convert()["changed"]
    assert site.docker()["containers"] == {}
    assert [path for path in site.visible() if path.startswith(".")] == []


def test_check_mode_starts_nothing(site: Site) -> None:
    assert site.convert(check=True)["changed"]
    assert site.docker()["calls"] == []
    site.convert()
    assert not site.convert(check=True)["changed"]


def test_half_arrived_model_of_others_stays(site: Site) -> None:
    other = site.store.blobs.partial / ("c" * 64)
    other.write_bytes(b"half")
    site.convert()
    assert other.read_bytes() == b"half"


def test_served_revisions_of_the_result_stay(site: Site) -> None:
    made = [site.convert(site.job(program=f"print({number})\n"))["path"] for number in range(4)]
    assert all(Path(path).is_dir() for path in made)
