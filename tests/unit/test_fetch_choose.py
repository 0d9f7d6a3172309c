"""From what an operator writes to sources, and what is refused with its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.fetch.choose import make_sources
from ansible.module_utils.fetch.http import Network
from ansible.module_utils.fetch.sources import Folder
from ansible.module_utils.fetch.web import Addresses, BlobStore, Hub, ModelScope, Web

from tests.support.fault_server import serving
from tests.unit.test_fetch_faults import assert_right, bring, item

HUB = {"url": "https://hub.example.org/", "kind": "hub", "token": "t"}


def test_every_kind_is_made() -> None:
    listed: list[Any] = [
        "file:///media/a%20b",
        "https://depot.example.org/models",
        HUB,
        {"url": "https://scope.example.org", "kind": "modelscope"},
        {"url": "http://127.0.0.1/blobs", "kind": "blobs"},
        {"kind": "addresses", "urls": {"m/a": "https://s3.example.org/a?b=c"}},
    ]
    made = make_sources(listed, "weights_sources", Network())
    assert [type(source) for source in made] == [Folder, Web, Hub, ModelScope, BlobStore, Addresses]
    assert made[0].root == Path("/media/a b")
    assert made[2].base == "https://hub.example.org"
    assert made[3].revision == "master"


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"url": "ftp://x/y"}, "weights_sources[1] is 'ftp://x/y'; write file:///folder"),
        ({"url": "https://x/?token=secret"}, "weights_sources[1] is 'https://x/…'; write the address of a folder"),
        ({"url": "https://user:secret@x/y"}, "weights_sources[1]: https://x/y holds a name or password"),
        ({"url": "file:///x", "kind": "hub"}, "a folder can only be of kind tree"),
        ({"kind": "addresses"}, "weights_sources[1].urls: give each file's http(s) address"),
        ({"kind": "addresses", "urls": {"m/a": "s3://b"}}, "['m/a']"),
    ],
)
def test_odd_source_is_refused_with_its_place_and_without_secrets(item: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal) as caught:
        make_sources([HUB, item], "weights_sources", Network())
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_authority_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refusal, match="the certificate authority /no/ca for weights_source is not on the host"):
        make_sources(["https://x/y"], "weights_source", Network(ca_file="/no/ca"))


def test_two_sources_at_one_address_are_two_sources(tmp_path: Path) -> None:
    """What the first one lacks, the second one has: it must not be left for what the first one did."""
    expired = {"tiny/big": "http://127.0.0.1:9/gone"}
    with serving({"/tiny/big": b"b", f"/org/tiny/resolve/{'a' * 40}/hub": b"h", "/by/address": b"a"}) as server:
        listed: list[Any] = [
            {"kind": "addresses", "urls": {**expired, "tiny/one": f"{server.base}/nothing"}},
            {"kind": "addresses", "urls": {"tiny/one": f"{server.base}/by/address"}},
            server.base,
            {"url": server.base, "kind": "hub"},
        ]
        sources = make_sources(listed, "weights_sources", Network())
        items = [item("one", b"a"), item("big", b"b"), replace(item("hub", b"h"), repo="org/tiny")]
        assert_right(tmp_path, bring(tmp_path, items, *sources))
