"""The hub's own client and our module fetch from one mirror, which is nothing but files behind Nginx: equal trees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.locking import Choice, HubLock
from ansible.module_utils.artifacts.manifest import Model, parse_models
from ansible.module_utils.artifacts.models import present
from ansible.module_utils.artifacts.settling import Outcome, Settings
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fetch.http import Network
from ansible.module_utils.fetch.sources import Source
from ansible.module_utils.fetch.web import BlobStore, Hub

from tests.support.image_archives import payload
from tests.support.peers import HubClient
from tests.support.static_nginx import StaticNginx, serving, write_hub
from tests.support.weight_trees import tensor_file

REPO, COMMIT = "org/Tiny-1B", "c" * 40
FILES = {
    "config.json": b'{"model_type": "llama", "hidden_size": 64}',
    "README.md": b"# Tiny\n",
    "tokenizer/special tokens.json": b"{}",
    "empty.txt": b"",
    "model-00001-of-00002.safetensors": tensor_file(40 << 20, 1),
    "model-00002-of-00002.safetensors": tensor_file((5 << 20) + 1, 2),
}
FLIPPED = "model-00001-of-00002.safetensors"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StaticNginx]:
    root = tmp_path_factory.mktemp("mirror")
    write_hub(root, REPO, COMMIT, FILES)
    with serving(root) as made:
        yield made


@pytest.fixture(scope="module")
def wanted(mirror: StaticNginx) -> Model:
    """The model as its lock entry says, made from the mirror itself."""
    entry: dict[str, Any] = HubLock(mirror.base, REPO, Network()).lock("main", Choice(exclude=()))
    assert entry["revision"] == COMMIT
    (model,) = parse_models([{"name": "tiny", **entry}])
    result: Model = model
    return result


def bring(place: Path, model: Model, *sources: Source) -> tuple[Path, Outcome]:
    """Publish the model; returns its tree."""
    store = Store(place / "models", place / "state")
    _, (outcome,) = present(store, [model], list(sources), Settings())
    return Path(store.published(model)), outcome


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but for the client's own notes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.relative_to(folder).parts
    }


def test_both_have_the_same_bytes_and_the_clients_own_proof_passes_on_both(
    tmp_path: Path, mirror: StaticNginx, wanted: Model
) -> None:
    tree, outcome = bring(tmp_path, wanted, Hub(mirror.base))
    assert outcome.bytes_copied == sum(map(len, FILES.values()))
    client = HubClient(mirror.base, tmp_path / "hf")
    done = client.download(REPO, COMMIT, tmp_path / "theirs")
    assert done.returncode == 0, done.stderr
    assert contents(tree) == contents(tmp_path / "theirs") == FILES
    for folder in (tree, tmp_path / "theirs"):
        done = client.verify(REPO, COMMIT, folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert str(len(FILES)) in done.stdout + done.stderr  # it did look at all of them


def test_both_proofs_see_the_same_flipped_bit_and_only_we_mend_it(
    tmp_path: Path, mirror: StaticNginx, wanted: Model
) -> None:
    tree, _ = bring(tmp_path, wanted, Hub(mirror.base))
    client = HubClient(mirror.base, tmp_path / "hf")
    (tree / FLIPPED).chmod(0o644)
    with (tree / FLIPPED).open("r+b") as stream:
        stream.seek(20 << 20)
        stream.write(bytes([FILES[FLIPPED][20 << 20] ^ 1]))
    done = client.verify(REPO, COMMIT, tree)
    assert done.returncode != 0
    assert FLIPPED in done.stdout + done.stderr
    _, outcome = bring(tmp_path, wanted, Hub(mirror.base))
    assert outcome.state == "mended"
    assert outcome.bytes_copied == 16 << 20  # one piece
    assert contents(tree) == FILES
    assert client.verify(REPO, COMMIT, tree).returncode == 0


def test_client_accepts_wrong_bytes_under_the_right_etag_and_we_do_not(tmp_path: Path, wanted: Model) -> None:
    (tmp_path / "www").mkdir()
    write_hub(tmp_path, REPO, COMMIT, FILES)
    wrong = payload(len(FILES[FLIPPED]), 9)
    (tmp_path / "www" / REPO / "resolve" / COMMIT / FLIPPED).write_bytes(wrong)
    with serving(tmp_path) as liar:
        done = HubClient(liar.base, tmp_path / "hf").download(REPO, COMMIT, tmp_path / "theirs")
        assert done.returncode == 0
        assert (tmp_path / "theirs" / FLIPPED).read_bytes() == wrong
        with pytest.raises(Refusal, match=f"{FLIPPED}: expected sha256 .*, found "):
            bring(tmp_path, wanted, Hub(liar.base))
    assert not (tmp_path / "models/tiny").exists()


def test_nginx_over_another_hosts_store_is_a_depot(tmp_path: Path, mirror: StaticNginx, wanted: Model) -> None:
    _, outcome = bring(tmp_path / "one", wanted, Hub(mirror.base))
    (tmp_path / "depot").mkdir()
    (tmp_path / "depot/www").symlink_to(tmp_path / "one/models/.blobs")
    with serving(tmp_path / "depot") as depot:
        before = len(mirror.sent())
        tree, outcome = bring(tmp_path / "two", wanted, BlobStore(depot.base))
        assert contents(tree) == FILES
        assert len(mirror.sent()) == before
        assert depot.total() == outcome.bytes_copied
