"""The writer of docker-archives: what it writes can be read back, is the same each time, and has a true digest."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.archive import EPOCH, Image, TarLayer, TreeLayer, file_sha256, read_config, write_image


def tree(root: Path) -> Path:
    """A folder with a file, a program, a link, an empty folder and something to leave out."""
    (root / "etc" / "empty").mkdir(parents=True)
    (root / "etc" / "name").write_text("redoubt\n")
    (root / "etc" / "name").chmod(0o640)
    (root / "bin").mkdir()
    (root / "bin" / "tool").write_bytes(b"#!/bin/sh\n" * 1000)
    (root / "bin" / "tool").chmod(0o755)
    (root / "bin" / "alias").symlink_to("tool")
    (root / "secret").mkdir()
    (root / "secret" / "key").write_text("never in the image")
    (root / ("long-" * 30)).write_text("a name that does not fit one header")
    return root


def write(path: Path, root: Path, **config: Any) -> Image:
    layers = [TreeLayer(root, keep=lambda name: name != "secret", owners={"etc/empty": 65534})]
    return write_image(path, name="lab/test", tag="1", layers=layers, config=config)


def entries(path: Path) -> dict[str, tarfile.TarInfo]:
    """The entries of the only layer of an archive."""
    with tarfile.open(path) as outer:
        manifest = json.loads(content(outer, "manifest.json"))
        with tarfile.open(fileobj=io.BytesIO(content(outer, manifest[0]["Layers"][0]))) as layer:
            return {member.name: member for member in layer.getmembers()}


def content(tar: tarfile.TarFile, name: str) -> bytes:
    handle = tar.extractfile(name)
    assert handle is not None
    return handle.read()


def test_round_trip(tmp_path: Path) -> None:
    image = write(tmp_path / "image.tar", tree(tmp_path / "root"), Entrypoint=["/bin/tool"])
    found = entries(tmp_path / "image.tar")
    assert sorted(found) == ["bin", "bin/alias", "bin/tool", "etc", "etc/empty", "etc/name", "long-" * 30]
    assert found["bin/alias"].linkname == "tool"
    assert (found["bin/tool"].mode, found["bin/tool"].size) == (0o755, 10_000)
    assert found["etc/name"].mode == 0o640
    assert found["etc/empty"].isdir()
    assert {member.mtime for member in found.values()} == {EPOCH}
    owners = {name: (member.uid, member.gid, member.uname) for name, member in found.items()}
    assert owners.pop("etc/empty") == (65534, 65534, "")
    assert set(owners.values()) == {(0, 0, "")}
    assert image.archive == "image.tar"
    assert image.size == (tmp_path / "image.tar").stat().st_size


def test_digests_are_those_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    image = write(path, tree(tmp_path / "root"))
    assert image.archive_sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == file_sha256(path)
    with tarfile.open(path) as outer:
        manifest = json.loads(content(outer, "manifest.json"))
        config = content(outer, manifest[0]["Config"])
        layers = [content(outer, name) for name in manifest[0]["Layers"]]
    assert image.config_digest == f"sha256:{hashlib.sha256(config).hexdigest()}"
    assert json.loads(config)["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers]
    assert manifest[0]["RepoTags"] == ["lab/test:1"]
    assert read_config(path) == (image.config_digest, json.loads(config))


def test_same_input_same_bytes(tmp_path: Path) -> None:
    first = write(tmp_path / "a.tar", tree(tmp_path / "one"))
    root = tree(tmp_path / "two")
    for path in root.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    second = write(tmp_path / "b.tar", root)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert first.config_digest == second.config_digest


@pytest.mark.parametrize("change", ["content", "mode", "name", "config"])
def test_other_input_other_digest(tmp_path: Path, change: str) -> None:
    first = write(tmp_path / "a.tar", tree(tmp_path / "root"))
    file = tmp_path / "root" / "etc" / "name"
    if change == "content":
        file.write_text("Redoubt\n")
    elif change == "mode":
        file.chmod(0o600)
    elif change == "name":
        file.rename(file.with_name("title"))
    second = write(tmp_path / "b.tar", tmp_path / "root", **({"User": "1"} if change == "config" else {}))
    assert first.config_digest != second.config_digest


def test_prefix_makes_its_folders(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_text("x")
    write_image(
        tmp_path / "image.tar", name="a", tag="b", layers=[TreeLayer(tmp_path / "root", prefix="usr/lib")], config={}
    )
    assert list(entries(tmp_path / "image.tar")) == ["usr", "usr/lib", "usr/lib/file"]


def test_layers_keep_their_order_and_tars_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "base.tar").write_bytes(b"not a tar, but taken as it is")
    root = tree(tmp_path / "root")
    write_image(
        tmp_path / "image.tar", name="a", tag="b", layers=[TarLayer(tmp_path / "base.tar"), TreeLayer(root)], config={}
    )
    with tarfile.open(tmp_path / "image.tar") as outer:
        manifest = json.loads(content(outer, "manifest.json"))
        assert content(outer, manifest[0]["Layers"][0]) == b"not a tar, but taken as it is"
        assert len(manifest[0]["Layers"]) == 2


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_image(tmp_path / "image.tar", name="a", tag="b", layers=[TarLayer(tmp_path / "missing.tar")], config={})
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "other.tar", "w"):
        pass
    with pytest.raises(ValueError, match=r"other\.tar is no docker-archive"):
        read_config(tmp_path / "other.tar")


@given(st.binary(max_size=3000))
def test_any_layer_content_survives(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "layer").write_bytes(data)
    write_image(folder / "image.tar", name="a", tag="b", layers=[TarLayer(folder / "layer")], config={})
    with tarfile.open(folder / "image.tar") as outer:
        manifest = json.loads(content(outer, "manifest.json"))
        assert content(outer, manifest[0]["Layers"][0]) == data
