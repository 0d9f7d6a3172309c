"""Images for the lock, from archives and from registries: every byte is hashed, and what is stated must be right."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.gather import oci
from ansible.module_utils.gather.archives import lock_archive, opened, parts_of
from ansible.module_utils.gather.registry import Registry, docker_logins, lock_reference, place_of
from ansible.module_utils.lock.rows import section_problems

from tests.support import image_archives, stub_registry

NAME = "redoubt.test/small"


@pytest.fixture
def built(tmp_path: Path) -> image_archives.Built:
    return image_archives.build(tmp_path / "small.tar", [f"{NAME}:1"], image_archives.payload(3 << 20, 1))


def taken(folder: Path, row: dict[str, Any]) -> dict[str, bytes]:
    """The parts of a locked image as gather takes them, by the digest that they shall have."""
    with opened(folder, row["archive"]) as archive:
        wanted = {item["sha256"] for item in row["blobs"]}
        return {sha256: stream().read() for sha256, _, stream in parts_of(archive, row, wanted)}


@pytest.mark.parametrize("compress", [False, True])
def test_an_archive_gives_the_same_row_each_time_and_all_its_parts(tmp_path: Path, compress: bool) -> None:
    built = image_archives.build(tmp_path / "a.tar", [f"{NAME}:1"], image_archives.payload(1 << 20, 2), compress)
    row = lock_archive(tmp_path, built.entry(NAME))
    assert row == lock_archive(tmp_path, {"name": NAME, "tag": "1", "archive": "a.tar", "size": row["size"]})
    assert list(section_problems("images", {"small": row})) == []
    assert (row["config_digest"], row["archive_sha256"]) == (built.config_digest, built.sha256)
    assert row["platforms"] == ["linux/amd64"]
    parts = taken(tmp_path, row)
    assert {hashlib.sha256(data).hexdigest() for data in parts.values()} == {item["sha256"] for item in row["blobs"]}
    assert all(hashlib.sha256(data).hexdigest() == sha256 for sha256, data in parts.items())
    manifest = json.loads(parts[row["digest"][7:]])
    assert manifest["config"]["digest"] == built.config_digest
    assert manifest["mediaType"] == oci.MANIFEST


def test_a_layout_of_a_newer_docker_keeps_its_own_manifest(tmp_path: Path) -> None:
    """`docker save` of an engine with containerd's store: blobs by digest, layers packed."""
    layer = gzip.compress(b"x" * 5000, mtime=0)
    diff_id = "sha256:" + hashlib.sha256(b"x" * 5000).hexdigest()
    rootfs = {"type": "layers", "diff_ids": [diff_id]}
    config = json.dumps({"architecture": "arm64", "variant": "v8", "os": "linux", "rootfs": rootfs}).encode()
    name = {key: f"blobs/sha256/{hashlib.sha256(data).hexdigest()}" for key, data in (("l", layer), ("c", config))}
    own = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": oci.DOCKER_MANIFEST,
            "config": {"mediaType": "x", "digest": f"sha256:{name['c'][13:]}", "size": len(config)},
            "layers": [{"mediaType": "x", "digest": f"sha256:{name['l'][13:]}", "size": len(layer)}],
        },
        indent=3,
    ).encode()
    digest = hashlib.sha256(own).hexdigest()
    listed = [{"Config": name["c"], "RepoTags": [f"{NAME}:1"], "Layers": [name["l"]]}]
    files = {name["l"]: layer, name["c"]: config, f"blobs/sha256/{digest}": own}
    files["manifest.json"] = json.dumps(listed).encode()
    with tarfile.open(tmp_path / "new.tar", "w") as tar:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    wish = {"name": NAME, "tag": "1", "archive": "new.tar"}
    row = lock_archive(tmp_path, wish)
    assert row["platforms"] == ["linux/arm64/v8"]
    assert {item["media_type"] for item in row["blobs"]} == {oci.MANIFEST, oci.CONFIG, f"{oci.LAYER}+gzip"}
    assert set(taken(tmp_path, row)) == {item["sha256"] for item in row["blobs"]}
    pinned = lock_archive(tmp_path, {**wish, "digest": f"sha256:{digest}"})
    assert pinned["digest"] == f"sha256:{digest}"
    assert taken(tmp_path, pinned)[digest] == own
    with pytest.raises(Refusal, match="has no manifest sha256:0000"):
        lock_archive(tmp_path, {**wish, "digest": "sha256:" + "0" * 64})


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"config_digest": "sha256:" + "0" * 64}, "expected config digest"),
        ({"archive_sha256": "0" * 64}, "expected archive_sha256"),
        ({"digest": "sha256:" + "0" * 64}, "has no manifest"),
        ({"tag": "2"}, r"does not hold redoubt.test/small:2; it holds redoubt.test/small:1"),
        ({"archive": "none.tar"}, "is missing there"),
        ({"archive": "../small.tar"}, "leaves its folder"),
        ({"archive": "link.tar"}, "is a symbolic link"),
    ],
)
def test_an_archive_that_is_not_what_is_stated_is_refused(
    tmp_path: Path, built: image_archives.Built, stated: dict[str, str], said: str
) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    shutil.copy(built.path, folder / "small.tar")
    (folder / "link.tar").symlink_to("small.tar")
    with pytest.raises(Refusal, match=said):
        lock_archive(folder, {**built.entry(NAME), **stated})


def test_a_flipped_bit_in_a_layer_is_found_without_any_digest_in_the_inventory(
    tmp_path: Path, built: image_archives.Built
) -> None:
    data = bytearray(built.path.read_bytes())
    data[1 << 20] ^= 1
    built.path.write_bytes(data)
    with pytest.raises(Refusal, match="expected layer sha256:"):
        lock_archive(tmp_path, {"name": NAME, "tag": "1", "archive": "small.tar"})


@pytest.mark.parametrize("size", [0, 700, 1 << 20])
def test_a_cut_archive_is_refused(tmp_path: Path, built: image_archives.Built, size: int) -> None:
    built.path.write_bytes(built.path.read_bytes()[:size])
    with pytest.raises(Refusal, match=r"small\.tar"):
        lock_archive(tmp_path, {"name": NAME, "tag": "1", "archive": "small.tar"})


@pytest.mark.parametrize(
    ("name", "mirror", "manifest"),
    [
        ("nginx", "", "https://registry-1.docker.io/v2/library/nginx/manifests/1"),
        ("prom/prometheus", "", "https://registry-1.docker.io/v2/prom/prometheus/manifests/1"),
        ("docker.io/prom/prometheus", "", "https://registry-1.docker.io/v2/prom/prometheus/manifests/1"),
        ("ghcr.example/a/b", "", "https://ghcr.example/v2/a/b/manifests/1"),
        ("127.0.0.1:5000/a", "", "http://127.0.0.1:5000/v2/a/manifests/1"),
        ("10.0.0.1:5000/a", "", "https://10.0.0.1:5000/v2/a/manifests/1"),
        (
            "prom/prometheus",
            "mirror.example:8443/site",
            "https://mirror.example:8443/v2/site/prom/prometheus/manifests/1",
        ),
    ],
)
def test_an_images_place(name: str, mirror: str, manifest: str) -> None:
    assert place_of(name, mirror).manifest("1") == manifest


def test_a_registrys_image_has_all_its_platforms_and_a_token_is_asked_for() -> None:
    with stub_registry.running() as stub:
        digest = stub.push("team/app", "1", ("amd64", "arm64", "s390x"))
        wish = {"name": f"{stub.host}/team/app", "tag": "1"}
        row = lock_reference(Registry(), wish, ["linux/amd64", "linux/arm64"])
        assert (row["digest"], row["platforms"]) == (digest, ["linux/amd64", "linux/arm64"])
        assert list(section_problems("images", {"app": row})) == []
        assert len([item for item in row["blobs"] if item["role"] == "manifests"]) == 3
        assert len([item for item in row["blobs"] if item["role"] == "blobs"]) == 4
        assert any("scope=repository%3Ateam%2Fapp%3Apull" in path for path in stub.asked)
        with pytest.raises(Refusal, match="other platforms than linux/riscv64"):
            lock_reference(Registry(), wish, ["linux/riscv64"])


def test_a_digest_holds_when_its_tag_moves_and_wrong_bytes_are_refused() -> None:
    with stub_registry.running() as stub:
        digest = stub.push("app", "1", ("amd64",))
        wish = {"name": f"{stub.host}/app", "tag": "1", "digest": digest}
        stub.push("app", "1", ("amd64",), b"another")
        assert lock_reference(Registry(), wish, ["linux/amd64"])["digest"] == digest
        kind, data = stub.manifests[f"app@{digest}"]
        stub.manifests[f"app@{digest}"] = (kind, data + b" ")
        with pytest.raises(Refusal, match=f"expected {digest}"):
            lock_reference(Registry(), wish, ["linux/amd64"])


def test_a_private_registry_gets_the_login_of_the_docker_configuration(tmp_path: Path) -> None:
    with stub_registry.running(private=True) as stub:
        stub.push("app", "1", ("amd64",))
        wish = {"name": f"{stub.host}/app", "tag": "1"}
        with pytest.raises(Refusal, match="gives no token for app") as refusal:
            lock_reference(Registry(), wish, ["linux/amd64"])
        assert "secret" not in str(refusal.value)
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"auths": {stub.host: {"auth": stub_registry.LOGIN}, "x": {"auth": "??"}}}))
        logins = docker_logins(config)
        assert set(logins) == {stub.host}
        assert lock_reference(Registry(logins=logins), wish, ["linux/amd64"])["platforms"] == ["linux/amd64"]


def test_an_image_that_is_not_there_says_what_to_look_at() -> None:
    with stub_registry.running() as stub, pytest.raises(Refusal, match=r"404 .*are name and tag or digest right"):
        lock_reference(Registry(), {"name": f"{stub.host}/none", "tag": "1"}, ["linux/amd64"])
