"""The pure parts of container_images: what a list may say, what an archive holds, which image is the wanted one."""

from __future__ import annotations

import io
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.image_archive import ArchiveWatcher, archive_problems
from ansible.module_utils.artifacts.image_list import (
    Found,
    Image,
    familiar,
    from_registry,
    is_wanted,
    parse_images,
    pulled_as,
    record,
)
from ansible.module_utils.run_lock import Busy, only_run
from hypothesis import given
from hypothesis import strategies as st

from tests.support.image_archives import build
from tests.unit.release_support import load_module

A, B, C = (f"sha256:{digit * 64}" for digit in "abc")
MEDIUM = "file:///media"


def listed(**change: Any) -> dict[str, Any]:
    good = {"key": "k", "name": "a/b", "tag": "1", "config_digest": A, "archive": "b.tar", "archive_sha256": "0" * 64}
    return {**good, **change}


def test_one_registry_for_all_has_each_image_below_its_own_name() -> None:
    (image,) = parse_images([listed(digest=B, archive=None)], "registry://10.0.0.5:8443/bank")
    assert pulled_as(image, "registry://10.0.0.5:8443/bank") == f"10.0.0.5:8443/bank/a/b@{B}"
    assert pulled_as(image, "registry") == f"a/b@{B}"
    assert not from_registry("file:///registry")
    with pytest.raises(Refusal, match="asked by digest only"):
        parse_images([listed()], "registry://10.0.0.5:8443/bank")


@pytest.mark.parametrize(
    ("change", "source", "said"),
    [
        ({"config_digest": None}, MEDIUM, "no digest and no config_digest"),
        ({"config_digest": "sha256:1"}, MEDIUM, "config_digest is 'sha256:1'"),
        ({"digest": "latest"}, MEDIUM, "digest is 'latest'"),
        ({"tag": None}, MEDIUM, "tag is None"),
        ({"tag": 1.2}, MEDIUM, "tag is 1.2"),
        ({"name": "-x"}, MEDIUM, "name is '-x'"),
        ({"name": "A"}, MEDIUM, "name is 'A'"),
        ({"ref": "a/b:2"}, MEDIUM, "ref is 'a/b:2', which is not a/b:1"),
        ({"archive": None}, MEDIUM, "has no archive"),
        ({"archive": "/etc/shadow"}, MEDIUM, "is absolute"),
        ({"archive": "../x.tar"}, MEDIUM, "leaves"),
        ({"archive_sha256": "0"}, MEDIUM, "archive_sha256 is '0'"),
        ({}, "registry", "is asked by digest only"),
    ],
)
def test_bad_image_is_refused_by_its_key(change: dict[str, Any], source: str, said: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_images([listed(**change)], source)
    assert said in str(caught.value)
    assert str(caught.value).startswith("image ")


def test_same_image_twice_is_one_and_two_contents_are_refused() -> None:
    assert len(parse_images([listed(), listed(key="other")], MEDIUM)) == 1
    with pytest.raises(Refusal, match="listed twice, with different bytes"):
        parse_images([listed(), listed(config_digest=B)], MEDIUM)


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("docker.io/library/nginx:1", "nginx:1"),
        ("docker.io/vllm/vllm-openai:v1", "vllm/vllm-openai:v1"),
        ("library/nginx:1", "nginx:1"),
        ("library/a/b:1", "library/a/b:1"),
        ("registry.lab:5000/a:1", "registry.lab:5000/a:1"),
    ],
)
def test_names_as_docker_shows_them(given_name: str, shown: str) -> None:
    assert familiar(given_name) == shown


CONFIG_ONLY = Image("a", "1", config_digest=A)
MANIFEST_ONLY = Image("a", "1", digest=B)
BOTH = Image("a", "1", digest=B, config_digest=A)


@pytest.mark.parametrize(
    ("image", "found", "wanted"),
    [
        (CONFIG_ONLY, None, False),
        (CONFIG_ONLY, Found(A), True),
        (CONFIG_ONLY, Found(C), False),
        (MANIFEST_ONLY, Found(B), True),  # containerd's store
        (MANIFEST_ONLY, Found(A, (f"a@{B}",)), True),  # classic store
        (MANIFEST_ONLY, Found(A, (f"a@{C}",)), False),
        (MANIFEST_ONLY, Found(A), False),
        (BOTH, Found(A), True),
        (BOTH, Found(B), True),
        (BOTH, Found(C, (f"a@{B}",)), False),  # a lock that contradicts itself
        (Image("a", "1"), Found(""), False),
    ],
)
def test_identity(image: Image, found: Found | None, wanted: bool) -> None:
    assert is_wanted(image, found) is wanted


def test_recorded_id_counts_for_the_same_digests_only() -> None:
    found = Found(C)
    known = record(CONFIG_ONLY, found)
    assert is_wanted(CONFIG_ONLY, found, known)
    assert not is_wanted(CONFIG_ONLY, Found(B), known)
    assert not is_wanted(Image("a", "1", config_digest=B), found, known)


def watch(data: bytes, cuts: list[int]) -> ArchiveWatcher:
    watcher = ArchiveWatcher()
    edges = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    for start, end in pairwise(edges):
        watcher.feed(memoryview(data)[start:end])
    return watcher


@given(st.lists(st.integers(0, 20000), max_size=8), st.integers(0, 3000))
def test_archive_is_understood_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], size: int
) -> None:
    built = build(tmp_path_factory.mktemp("a") / "a.tar", ["a/b:1"], b"x" * size)
    contents = watch(built.path.read_bytes(), cuts).contents()
    assert contents is not None
    assert [(item.tags, item.config_digest) for item in contents] == [(("a/b:1",), built.config_digest)]
    image = Image("docker.io/a/b", "1", config_digest=built.config_digest)
    assert archive_problems([image], contents) == []
    assert "expected config digest" in archive_problems([Image("a/b", "1", config_digest=A)], contents)[0]
    assert "does not hold a/c:1; it holds a/b:1" in archive_problems([Image("a/c", "1", digest=A)], contents)[0]


@given(st.binary(max_size=3000))
def test_anything_else_is_not_understood_and_never_an_exception(data: bytes) -> None:
    assert watch(data, [512]).contents() is None
    assert archive_problems([CONFIG_ONLY], None) == []


def test_names_that_nobody_asked_for(tmp_path: Path) -> None:
    built = build(tmp_path / "a.tar", ["a:1", "b:1"])
    contents = watch(built.path.read_bytes(), []).contents()
    assert archive_problems([Image("a", "1", digest=A)], contents) == ["would also bring b:1, which nobody asked for"]


def test_compressed_archive_is_left_to_the_engine(tmp_path: Path) -> None:
    built = build(tmp_path / "a.tar.gz", ["a:1"], compress=True)
    assert watch(built.path.read_bytes(), []).contents() is None


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_after_long_names_and_huge_sizes(tmp_path: Path, form: Literal[0, 1, 2]) -> None:
    """A layer of more than 8 GiB needs an extended size; its data is not really fed, only counted."""
    built = build(tmp_path / "a.tar", ["a:1"])
    huge = 9 << 30 if form != tarfile.USTAR_FORMAT else 1 << 20
    big = tarfile.TarInfo("layers/" + ("n" * 140 if form != tarfile.USTAR_FORMAT else "n"))
    big.size = huge
    watcher = ArchiveWatcher()
    watcher.feed(big.tobuf(format=form))
    zeros = bytes(1 << 26)
    left = huge
    while left:
        watcher.feed(memoryview(zeros)[: min(left, len(zeros))])
        left -= min(left, len(zeros))
    watcher.feed(built.path.read_bytes())
    contents = watcher.contents()
    assert contents is not None
    assert contents[0].config_digest == built.config_digest


def test_archive_without_its_config_is_not_understood() -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        member = tarfile.TarInfo("manifest.json")
        data = b'[{"Config": "gone.json", "RepoTags": ["a:1"]}]'
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    assert watch(sink.getvalue(), []).contents() is None


def test_a_second_run_does_not_bring_images_beside_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_module("container_images")
    monkeypatch.setattr(module, "missing", lambda *_: [])
    parameters = {
        "images": [listed()],
        "source": MEDIUM,
        "state": "present",
        "strict": True,
        "transfer_dir": str(tmp_path / "incoming"),
        "ca_file": "",
        "timeout": 5,
        "lock_timeout": 0,
        "state_file": str(tmp_path / "state/images.json"),
        "progress_file": str(tmp_path / "state/progress.json"),
    }
    assert module.run(parameters, False)["changed"] is False
    with (
        only_run(tmp_path / "state/.images.lock", "it", 0),
        pytest.raises(Busy, match=r"another run .* is working on the container images"),
    ):
        module.run(parameters, False)
