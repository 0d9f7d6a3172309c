"""Fitting a host: what the host sees of the repositories, and when they are built anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab import gpus, images, paths, recipe_stub_nvidia
from lab.__main__ import parser
from lab.errors import LabError


def test_hosts_see_the_repositories_and_their_keys() -> None:
    found = gpus.repositories()
    assert set(found) == {"cuda", "toolkit"}
    assert found["cuda"].uri == "file:/opt/stub-nvidia/compute/cuda/repos/debian13/x86_64"
    assert found["cuda"].key == "/opt/stub-nvidia/compute/cuda/repos/debian13/x86_64/stub.pub"


def test_an_unknown_description_is_refused_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "build", lambda *_: pytest.fail("something was built"))
    with pytest.raises(LabError, match="there is no hardware description '9xH900'"):
        gpus.fit("anyhost", "9xH900")


def test_the_verb_offers_the_descriptions(capsys: pytest.CaptureFixture[str]) -> None:
    assert parser().parse_args(["gpus", "one", "8xH100-SXM"]).description == "8xH100-SXM"
    with pytest.raises(SystemExit):
        parser().parse_args(["gpus", "one", "9xH900"])
    assert "8xH100-SXM" in capsys.readouterr().err


def _state() -> str:
    return {unit: state for unit, state, _ in images.listing()}["stub-nvidia"]


def test_the_repositories_are_built_where_a_file_is_missing_or_a_payload_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("STATE", "MEDIA"):
        monkeypatch.setattr(paths, name, tmp_path / name)
    folder = paths.MEDIA / recipe_stub_nvidia.FOLDER
    folder.mkdir(parents=True)
    (folder / "a.deb").write_text("1234")
    record = {"key": images.key("stub-nvidia"), "files": {"a.deb": 4}}
    (paths.STATE / "built").mkdir(parents=True)
    (paths.STATE / "built/stub-nvidia.json").write_text(json.dumps(record))
    assert _state() == "built"
    (folder / "a.deb").write_text("12")
    assert _state() == "missing"
    (folder / "a.deb").write_text("1234")
    monkeypatch.setattr(recipe_stub_nvidia, "inputs", lambda: ["changed"])
    assert _state() == "missing"
