"""Models in S3 buckets: anybody's, and by presigned addresses, also one whose time is over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.manifest import Model, parse_models
from ansible.module_utils.artifacts.models import present
from ansible.module_utils.artifacts.settling import Outcome, Settings
from ansible.module_utils.artifacts.staging import How
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fetch.board import Limits
from ansible.module_utils.fetch.choose import make_sources
from ansible.module_utils.fetch.http import Network
from ansible.module_utils.fetch.sources import Source

from tests.support.image_archives import payload
from tests.support.s3 import Bucket, bucket
from tests.support.weight_trees import model

PIECE = 256 << 10
FILES = {"config.json": b"{}", "shards/part 1.dat": payload(8 * PIECE + 5, 1)}
KEYS = {f"tiny/{path}": data for path, data in FILES.items()}


@pytest.fixture
def s3() -> Iterator[Bucket]:
    with bucket() as made:
        yield made


@pytest.fixture(scope="module")
def wanted() -> Model:
    (made,) = parse_models([model(FILES)])
    result: Model = made
    return result


def bring(place: Path, wanted: Model, *sources: Source) -> tuple[Store, Outcome]:
    store = Store(place / "models", place / "state")
    how = How(Limits(retries=3, first_pause=0.01), PIECE)
    _, (outcome,) = present(store, [wanted], list(sources), Settings(how=how))
    return store, outcome


def assert_published(store: Store, wanted: Model) -> None:
    assert {path: (store.published(wanted) / path).read_bytes() for path in FILES} == FILES


def test_bucket_of_anybodys_is_a_tree_like_any_other(tmp_path: Path, s3: Bucket, wanted: Model) -> None:
    s3.put(KEYS, public=True)
    sources = make_sources([f"{s3.base}/{s3.name}"], "weights_source", Network())
    store, outcome = bring(tmp_path, wanted, *sources)
    assert_published(store, wanted)
    assert outcome.bytes_copied == sum(map(len, FILES.values()))
    assert [status for status, target in s3.answers if "part" in target and "tiny" in target].count(206) == 9


def test_private_bucket_is_told_and_its_presigned_addresses_work(tmp_path: Path, s3: Bucket, wanted: Model) -> None:
    s3.put(KEYS)
    with pytest.raises(Refusal, match=r"(?i)tiny/config\.json: the server answers 403 Forbidden; is a token needed"):
        bring(tmp_path, wanted, *make_sources([f"{s3.base}/{s3.name}"], "weights_source", Network()))
    signed = {"kind": "addresses", "urls": {key: s3.presigned(key, 600) for key in KEYS}}
    store, _ = bring(tmp_path, wanted, *make_sources([signed], "weights_sources", Network()))
    assert_published(store, wanted)


def test_address_whose_time_is_over_is_told_without_its_signature_and_the_next_source_goes_on(
    tmp_path: Path, s3: Bucket, wanted: Model
) -> None:
    s3.put(KEYS)
    short = {key: s3.presigned(key, 1) for key in KEYS}
    time.sleep(2.1)  # whole seconds: until the server's clock is past it
    expired = make_sources([{"kind": "addresses", "urls": short}], "weights_sources", Network())
    with pytest.raises(Refusal, match="the server answers 403") as caught:
        bring(tmp_path, wanted, *expired)
    assert "X-Amz-Signature" not in str(caught.value)
    assert "key" not in str(caught.value).replace("token", "")
    assert not (tmp_path / "models/tiny").exists()
    fresh = {"kind": "addresses", "urls": {key: s3.presigned(key, 600) for key in KEYS}}
    listed = [{"kind": "addresses", "urls": short}, fresh]
    store, _ = bring(tmp_path, wanted, *make_sources(listed, "weights_sources", Network()))
    assert_published(store, wanted)
    assert 403 in [status for status, _ in s3.answers]


def test_address_that_expires_midway_keeps_what_had_arrived(tmp_path: Path, s3: Bucket, wanted: Model) -> None:
    s3.put(KEYS)
    store = Store(tmp_path / "models", tmp_path / "state")
    short = {"kind": "addresses", "urls": {key: s3.presigned(key, 2) for key in KEYS}}
    how = How(Limits(connections=1, bandwidth=PIECE, retries=2, first_pause=0.01), PIECE)
    with pytest.raises(Refusal, match="403"):
        sources = make_sources([short], "weights_sources", Network())
        present(store, [wanted], sources, Settings(how=how))
    had = len([status for status, target in s3.answers if status == 206])
    assert 0 < had < 9
    fresh = {"kind": "addresses", "urls": {key: s3.presigned(key, 600) for key in KEYS}}
    store, outcome = bring(tmp_path, wanted, *make_sources([fresh], "weights_sources", Network()))
    assert_published(store, wanted)
    assert outcome.bytes_copied <= sum(map(len, FILES.values())) - had * PIECE
