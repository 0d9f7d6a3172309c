"""The pure part of the release module: refusals, digests, environment files, what restarts and what does not."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.release_support import engine, render

from ansible.module_utils import release_spec as spec  # isort: skip - found by release_support

EVERYWHERE = str(ipaddress.IPv4Address(0))


def wanted(rows: list[dict[str, Any]], **variables: Any) -> Any:
    return spec.wanted_release(rows, render(rows, **variables))


def problems(rows: list[dict[str, Any]]) -> str:
    with pytest.raises(spec.SpecError) as caught:
        wanted(rows)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"address": EVERYWHERE}, [f"{EVERYWHERE!r}", "neither loopback nor private", "redoubt_private_address"]),
        ({"address": "0::0"}, ["neither loopback nor private"]),
        ({"address": "8.8.8.8"}, ["neither loopback nor private"]),
        ({"address": "localhost"}, ["neither loopback nor private"]),
        ({"port": 0}, ["port 0 does not exist"]),
        ({"container": "a b"}, ["'a b' is no name that Docker takes"]),
        ({"image": {"ref": "x:1"}}, ["image x:1 has no digest", "redoubt_images"]),
        ({"image": {"ref": "x:1", "config_digest": "latest"}}, ["has no digest"]),
        ({"environment": {"A B": "1"}}, ["'A B' is no name of an environment variable"]),
        ({"environment": {"A": "x\ny"}}, ["A holds a single quote or a line break"]),
    ],
)
def test_bad_engines_are_refused(change: dict[str, Any], words: list[str]) -> None:
    text = problems([engine(**change)])
    for word in words:
        assert word in text


def test_all_problems_are_reported_at_once() -> None:
    text = problems([engine(address=EVERYWHERE), engine("other", port=70000), engine("tiny", port=8103)])
    assert EVERYWHERE in text
    assert "70000" in text
    assert "name 'tiny' is used by both" in text


def test_duplicate_ports_are_refused() -> None:
    assert "port 8101 is used by both 'tiny' and 'other'" in problems([engine(), engine("other")])


def test_no_engine_is_refused() -> None:
    with pytest.raises(spec.SpecError, match="inference_engines is empty"):
        spec.parse_engines([])


def test_a_missing_key_is_named() -> None:
    row = engine()
    del row["port"]
    with pytest.raises(spec.SpecError, match=r"inference_engines\[0\] \(tiny\): port is missing"):
        spec.parse_engines([row])


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.1.2.3", "::1", "10.1.2.3", "172.31.0.1", "192.168.9.9", "fd00::1"]
)
def test_private_addresses_are_allowed(address: str) -> None:
    assert spec.address_allowed(address)


def test_same_wish_same_digest_whatever_the_time() -> None:
    assert wanted([engine()]).digest == wanted([engine()]).digest


@pytest.mark.parametrize(
    "change",
    [
        {"command": ["--other"]},
        {"environment": {"A": "1"}},
        {"port": 9},
        {"image": {"ref": "redoubt.lab/engine:1", "config_digest": "sha256:" + "c" * 64}},
        {"resources": {"cpus": 2.0, "memory": "1g", "shm_size": "64m"}},
    ],
)
def test_every_change_is_another_release(change: dict[str, Any]) -> None:
    assert wanted([engine()]).digest != wanted([engine(**change)]).digest


def test_only_the_engine_that_changed_gets_a_new_number() -> None:
    first = wanted([engine(), engine("other", 8102)])
    document = spec.manifest(first, 1, first.since({}, 1), {})
    second = wanted([engine(), engine("other", 8102, command=["--new"])])
    assert second.since(document, 2) == {"redoubt-tiny": 1, "redoubt-other": 2}
    text = second.files(second.since(document, 2))["compose.yml"]
    assert 'redoubt.release: "1"' in text
    assert 'redoubt.release: "2"' in text
    assert "@" not in text.split("services:")[1]


def test_another_engine_beside_it_restarts_nothing() -> None:
    alone = wanted([engine()])
    both = wanted([engine(), engine("other", 8102)])
    assert both.digests["redoubt-tiny"] == alone.digests["redoubt-tiny"]
    assert both.digest != alone.digest


def test_a_change_of_the_network_concerns_every_engine() -> None:
    first = wanted([engine(), engine("other", 8102)])
    document = spec.manifest(first, 1, first.since({}, 1), {})
    second = wanted([engine(), engine("other", 8102)], inference_bridge="other0")
    assert set(second.since(document, 2).values()) == {2}


def test_a_change_of_a_comment_restarts_nothing() -> None:
    row = engine()
    text = render([row])
    assert "# Kernels" in text
    first = spec.wanted_release([row], text)
    second = spec.wanted_release([row], text.replace("# Kernels", "# Compiled kernels"))
    assert first.digests == second.digests
    assert first.digest != second.digest


def test_a_secret_reaches_only_the_environment_file() -> None:
    row = engine()
    release = spec.wanted_release([row], render([row]), {"tiny": {"VLLM_API_KEY": "s3cret"}})
    files = release.files(release.since({}, 1))
    assert "s3cret" in files["env/redoubt-tiny.env"]
    assert "s3cret" not in files["compose.yml"]
    assert "s3cret" not in str(spec.manifest(release, 1, release.since({}, 1), {}))
    assert release.digest != wanted([row]).digest


def test_a_secret_for_nobody_is_refused() -> None:
    row = engine()
    with pytest.raises(spec.SpecError, match="no engine is called 'tinny'"):
        spec.wanted_release([row], render([row]), {"tinny": {"A": "1"}})


def test_a_manifest_gives_its_engines_back() -> None:
    release = wanted([engine()])
    document = spec.manifest(release, 3, release.since({}, 3), {"created": "now"})
    assert spec.engines_of(document) == release.engines
    assert document["engines"][0]["config_digest"].startswith("sha256:")
    assert document["engines"][0]["weights_revision"] == "b" * 40


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="'", exclude_categories=["Cc", "Cs", "Zl", "Zp"]))


@settings(deadline=None, max_examples=40)  # other work shares the machine
@given(values=st.dictionaries(NAMES, VALUES, max_size=5))
def test_environment_files_round_trip(values: dict[str, str]) -> None:
    assert spec.env_values(spec.env_text(values)) == values


@settings(deadline=None, max_examples=40)  # other work shares the machine
@given(names=st.lists(st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,12}", fullmatch=True), min_size=1, max_size=4, unique=True))
def test_services_are_told_apart_whatever_they_are_called(names: list[str]) -> None:
    rows = [engine(name, 8101 + index) for index, name in enumerate(names)]
    rest, blocks = spec.split_services(render(rows))
    assert sorted(blocks) == sorted(row["container"] for row in rows)
    assert all(f'redoubt.model: "{row["name"]}"' in blocks[row["container"]] for row in rows)
    assert "networks:" in rest
    assert "image:" not in rest
