"""Damaged files: what is found, said and fetched again, counted on a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import present, verified
from ansible.module_utils.artifacts.settling import Outcome, Settings
from ansible.module_utils.artifacts.staging import How
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fetch.http import Network
from ansible.module_utils.fetch.line import Limits
from ansible.module_utils.fetch.web import Web

from tests.support.fault_server import Fault, FaultServer, always, serving
from tests.support.image_archives import payload
from tests.support.weight_trees import digest, model

PIECE = 64 << 10
BIG = payload(10 * PIECE + 777, 8)


class Fetched:
    """A model of one large file, from a web server that counts."""

    def __init__(self, root: Path, server: FaultServer) -> None:
        self.store = Store(root / "models", root / "state")
        self.model = parse_models([model({"big.dat": BIG}, name="big")])
        self.server = server

    def bring(self) -> Outcome:
        how = How(Limits(retries=2, first_pause=0.01), piece=PIECE)
        sources = [Web(self.server.base, Network(timeout=1))]
        _, (outcome,) = present(self.store, self.model, sources, Settings(how=how))
        return outcome

    @property
    def path(self) -> Path:
        return Path(self.store.published(self.model[0])) / "big.dat"

    def damage(self, change: Callable[[bytearray], bytearray]) -> None:
        self.path.chmod(0o644)
        self.path.write_bytes(change(bytearray(self.path.read_bytes())))


@pytest.fixture
def fetched(tmp_path: Path) -> Iterator[Fetched]:
    with serving({"/big/big.dat": BIG}) as server:
        yield Fetched(tmp_path, server)


def flip(data: bytearray, at: int) -> bytearray:
    data[at] ^= 4
    return data


@pytest.mark.parametrize(
    ("change", "cost"),
    [
        (lambda data: flip(data, 5 * PIECE + 3), PIECE),
        (lambda data: flip(flip(data, 0), len(BIG) - 1), PIECE + len(BIG) % PIECE),
        (lambda data: data[: 7 * PIECE], len(BIG) - 7 * PIECE),
        (lambda data: data[:100], len(BIG)),
        (lambda data: data + b"more", 0),
    ],
    ids=["one bit", "first and last byte", "cut short", "almost nothing left", "longer"],
)
def test_damaged_file_gets_its_damaged_pieces_only(
    fetched: Fetched, change: Callable[[bytearray], bytearray], cost: int
) -> None:
    fetched.bring()
    before = fetched.server.total()
    inode = fetched.path.stat().st_ino
    fetched.damage(change)
    outcome = fetched.bring()
    assert (outcome.state, outcome.fetched) == ("mended", ["big.dat"])
    assert fetched.path.read_bytes() == BIG
    assert fetched.server.total() - before == cost
    assert fetched.path.stat().st_ino != inode  # an engine that has the old file open sees no half-mended one
    assert fetched.bring().state == "present"
    assert list(fetched.store.blobs.partial.iterdir()) == []


def test_file_that_is_gone_from_tree_and_store_is_fetched_alone(fetched: Fetched) -> None:
    fetched.bring()
    fetched.path.unlink()
    assert fetched.bring().bytes_copied == 0  # its blob is still there
    fetched.path.unlink()
    fetched.store.blobs.path(digest(BIG)).unlink()
    assert fetched.bring().bytes_copied == len(BIG)


def test_repair_that_fails_keeps_the_damaged_copy_for_the_next_try(fetched: Fetched) -> None:
    fetched.bring()
    fetched.damage(lambda data: flip(data, 5 * PIECE + 3))
    fetched.server.rule = always(Fault(status=500))
    with pytest.raises(Refusal, match="500"):
        fetched.bring()
    fetched.server.rule = lambda asked: None
    before = fetched.server.total()
    assert fetched.bring().state == "mended"
    assert fetched.server.total() - before == PIECE
    assert list(fetched.store.blobs.partial.iterdir()) == []


def test_damaged_blob_is_mended_by_its_pieces_for_another_model_too(fetched: Fetched) -> None:
    fetched.bring()
    fetched.damage(lambda data: flip(data, 5 * PIECE + 3))
    other = parse_models([model({"big.dat": BIG}, name="other")])
    fetched.server.files["/other/big.dat"] = BIG
    before = fetched.server.total()
    sources = [Web(fetched.server.base, Network(timeout=1))]
    present(fetched.store, other, sources, Settings(how=How(Limits(), piece=PIECE)))
    assert fetched.server.total() - before == PIECE
    assert (fetched.store.published(other[0]) / "big.dat").read_bytes() == BIG
    assert fetched.bring().bytes_copied == 0  # and the first model gets the mended one


def test_deep_look_says_which_part_of_a_file_is_damaged(fetched: Fetched) -> None:
    fetched.bring()
    fetched.damage(lambda data: flip(flip(flip(data, 5 * PIECE + 3), 6 * PIECE), 9 * PIECE))
    (verdict,) = verified(fetched.store, fetched.model, Settings(), True)
    assert (
        f"(damaged within bytes {5 * PIECE}-{7 * PIECE - 1}, {9 * PIECE}-{10 * PIECE - 1})"
        in verdict["faults"][0]["text"]
    )


def test_repair_knows_the_pieces_that_another_version_cut(fetched: Fetched, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched.bring()
    fetched.damage(lambda data: flip(data, 5 * PIECE + 3))
    monkeypatch.setattr(f"{__name__}.PIECE", 2 * PIECE)
    before = fetched.server.total()
    assert fetched.bring().state == "mended"
    assert fetched.server.total() - before == PIECE // 2
