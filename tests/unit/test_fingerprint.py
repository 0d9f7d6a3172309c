"""Fingerprints as documents: the digest, what differs, what belongs to one host alone. Pure."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.fingerprint.against_lock import NotLocked, lock_differences
from ansible.module_utils.fingerprint.compare import differences, drift, report
from ansible.module_utils.fingerprint.document import Gathered, Unreadable, parse
from ansible.module_utils.fingerprint.normal import KEY_MATERIAL, Normal
from ansible.module_utils.fingerprint.packages import against_lock
from ansible.module_utils.fingerprint.packages import parse as parse_packages
from ansible.module_utils.fingerprint.system import parse_addresses, parse_units, platform_name, unit_row
from hypothesis import given
from hypothesis import strategies as st

from filter_plugins.fingerprints import fingerprint_findings
from tests.support.fingerprints import CURL, IMAGE, NGINX_CONF, PLATFORM, WEIGHT, fingerprint, gathered, lock

Change = Callable[[Gathered], None]


def _set(section: str, name: str, field: str, value: str) -> Change:
    return lambda made: made.sections[section][name].update({field: value})


# What somebody may do to a host, and the words by which the difference is named.
DRIFTS: dict[str, tuple[Change, str]] = {
    "edited file": (_set("files", NGINX_CONF, "content", "sha256:" + "0" * 64), f"files {NGINX_CONF}: content"),
    "file mode": (_set("files", NGINX_CONF, "mode", "0666"), f"files {NGINX_CONF}: mode 0644 recorded, 0666 found"),
    "file gone": (lambda made: made.sections["files"].pop(NGINX_CONF) and None, "there recorded, absent found"),
    "unit masked": (
        _set("units", "nginx.service", "load", "masked"),
        "units nginx.service: load loaded recorded, masked",
    ),
    "unit disabled": (_set("units", "nginx.service", "boot", "disabled"), "units nginx.service: boot enabled recorded"),
    "kernel": (
        _set("kernel", "net.core.somaxconn", "value", "128"),
        "net.core.somaxconn: value 4096 recorded, 128 found",
    ),
    "shell": (_set("users", "redoubt", "shell", "/bin/bash"), "users redoubt: shell none recorded, /bin/bash found"),
    "image": (
        _set("images", IMAGE, "digest", "sha256:" + "9" * 64),
        f"images {IMAGE}: digest sha256:cccccccccccc… rec",
    ),
    "weight": (_set("weights", WEIGHT, "sha256", "0" * 64), f"weights {WEIGHT}: sha256 {'e' * 12}… recorded"),
}


def test_a_host_as_recorded_has_no_drift() -> None:
    assert drift(fingerprint()) == []


@pytest.mark.parametrize("name", DRIFTS)
def test_each_drift_is_named_and_moves_the_digest(name: str) -> None:
    change, words = DRIFTS[name]
    made = gathered()
    change(made)
    found = fingerprint(made=made)
    (row,) = drift(found)
    assert words in row.text("recorded", "found")
    assert found["content"] != fingerprint()["content"]
    assert [item.name for item in differences(fingerprint(), found)] == [row.name]


def test_hosts_are_compared_without_what_is_their_own_and_one_host_with_it() -> None:
    other = gathered()
    other.local["system"]["addresses"] = {"value": "10.0.0.6"}
    other.local["files"][NGINX_CONF] = {"bytes": "sha256:" + "7" * 64}
    assert differences(fingerprint("h1"), fingerprint("h2", other)) == []
    assert fingerprint("h1")["content"] == fingerprint("h2", other)["content"]
    rows = differences(fingerprint("h1"), fingerprint("h1", other))
    assert [(row.section, row.name) for row in rows] == [("local files", NGINX_CONF), ("local system", "addresses")]


def test_a_file_that_was_edited_is_told_once() -> None:
    other = gathered()
    other.sections["files"][NGINX_CONF]["content"] = "sha256:" + "0" * 64
    other.local["files"][NGINX_CONF] = {"bytes": "sha256:" + "0" * 64}
    assert len(differences(fingerprint(), fingerprint(made=other))) == 1
    assert len(drift(fingerprint(made=other))) == 1


def test_package_versions_and_packages_of_one_side_are_shown() -> None:
    other = gathered()
    other.sections["packages"] = {"curl": {**CURL, "version": "9"}, "netcat": {"version": "1", "architecture": "all"}}
    assert report(differences(fingerprint("a"), fingerprint("b", other)), "on a", "on b") == [
        "2 differences:",
        "  packages curl: version 8.14.1-2 on a, 9 on b",
        "  packages netcat: absent on a, 1 on b",
    ]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda document: document.update(schema=2), "no fingerprint of schema 1"),
        (lambda document: document.pop("host"), "does not say of which host"),
        (lambda document: document.pop("recorded"), "lacks sections"),
        (lambda document: document["sections"].update(files=[]), "lacks sections"),
        (lambda document: document["sections"]["packages"]["curl"].update(version="7"), "was edited or damaged"),
    ],
)
def test_what_is_no_fingerprint_is_refused(edit: Callable[[dict[str, Any]], None], words: str) -> None:
    document = json.loads(json.dumps(fingerprint()))
    assert parse(copy.deepcopy(document), "x.json") == document
    edit(document)
    with pytest.raises(Unreadable, match=words):
        parse(document, "x.json")


# -- what is left out of a file's content


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("listen 10.0.0.5:443;", "listen 10.0.0.17:443;"),
        ("server [fd00::5]:80;", "server [fd00::17]:80;"),
        ("host: gpu-1.lab, gpu-1", "host: gpu-2.lab, gpu-2"),
        ("location = /generation/" + "a" * 24 + " {", "location = /generation/" + "b" * 24 + " {"),
        ('redoubt.release: "3"\nredoubt.digest: "00ff"', 'redoubt.release: "4"\nredoubt.digest: "11ff"'),
    ],
)
def test_values_of_the_host_are_no_difference(first: str, second: str) -> None:
    one = Normal(["10.0.0.5", "fd00::5"], ["gpu-1", "gpu-1.lab"])
    two = Normal(["10.0.0.17", "fd00::17"], ["gpu-2", "gpu-2.lab"])
    assert one.text(first) == two.text(second) != first


@pytest.mark.parametrize("text", ["10.0.0.50", "110.0.0.5", "10.0.0.5.example.org", "fd00::5:1", "xgpu-1", "gpu-1-b"])
def test_parts_of_longer_words_stay(text: str) -> None:
    assert Normal(["10.0.0.5", "fd00::5"], ["gpu-1"]).text(text) == text


def test_a_common_word_that_is_a_hosts_name_stays() -> None:
    assert (
        Normal([], ["monitoring", "localhost"]).text("job: monitoring on localhost") == "job: monitoring on localhost"
    )


@given(st.binary(max_size=200))
def test_any_bytes_have_a_content_and_the_same_bytes_the_same(data: bytes) -> None:
    normal = Normal(["10.0.0.5"], ["gpu-1"])
    assert normal.content("/etc/x", data) == normal.content("/etc/x", data) != ""


def test_keys_and_certificates_are_there_and_nothing_more() -> None:
    normal = Normal([], [])
    for path, data in (("/etc/redoubt/tls/server.crt", b"x"), ("/etc/x", b"-----BEGIN CERTIFICATE-----\nMII")):
        assert normal.content(path, data) == KEY_MATERIAL
    assert normal.content("/etc/x", b"BEGIN") != normal.content("/etc/x", b"BEGUN")


# -- what programs say


def test_packages_are_read_with_their_state() -> None:
    text = "a\tamd64\t1\tii \nb\tall\t2\thi \nc\tamd64\t3\trc \nd\tamd64\t4\tiF \na\ti386\t1\tii \n"
    text += "k\tx\t1\tii\nk\tx\t2\tii\nz\tnoarch\t0:5-1\tii\ny\tnoarch\t1:5-1\tii\n"
    assert parse_packages(text) == {
        "a": {"version": "1", "architecture": "amd64 i386"},
        "b": {"version": "2", "architecture": "all", "held": "yes"},
        "d": {"version": "4", "architecture": "amd64", "state": "not wholly installed (iF)"},
        "k": {"version": "1 2", "architecture": "x"},
        "z": {"version": "5-1", "architecture": "noarch"},
        "y": {"version": "1:5-1", "architecture": "noarch"},
    }
    assert against_lock({"a": {}, "z": {}}, {"a": {"version": "1", "sha256": "0"}}) == {
        "a": {"version": "1"},
        "z": None,
    }


def test_units_are_read_and_those_on_their_way_are_there() -> None:
    text = "Id=a.service\nLoadState=loaded\nUnitFileState=enabled\nActiveState=reloading\nDropInPaths=/b /a\n\n"
    text += "Id=b.timer\n"
    one, two = parse_units(text)
    assert unit_row(one, True) == {"load": "loaded", "boot": "enabled", "drop_ins": "/a /b", "runs": "active"}
    assert "runs" not in unit_row(two, False)


def test_bridges_are_no_address_of_the_host() -> None:
    text = (
        "2: eth0    inet 10.0.0.5/24 brd 10.0.0.255 scope global eth0\\ x\n"
        "3: docker0    inet 172.17.0.1/16 scope global docker0\n"
        "2: eth0    inet6 fd00::5/64 scope global\n"
    )
    assert parse_addresses(text) == ["10.0.0.5", "fd00::5"]


@pytest.mark.parametrize(
    ("release", "machine", "name"),
    [
        ('ID=debian\nVERSION_ID="13"\n', "x86_64", "debian-13-amd64"),
        ('ID=ubuntu\nVERSION_ID="24.04"\n', "aarch64", "ubuntu-24.04-arm64"),
        ('ID="rocky"\nVERSION_ID="9.4"\n', "x86_64", "rocky-9-amd64"),
        ("ID=debian\n", "x86_64", ""),
    ],
)
def test_platforms_are_named_as_locks_do(release: str, machine: str, name: str) -> None:
    assert platform_name(release, machine) == name


# -- a host and its lock


def test_a_host_that_has_what_the_lock_allows() -> None:
    assert lock_differences(fingerprint(), lock()) == []
    by_manifest = gathered()
    by_manifest.sections["images"][IMAGE]["digest"] = "sha256:" + "d" * 64
    assert lock_differences(fingerprint(made=by_manifest), lock()) == []


def test_everything_beside_the_lock_is_named() -> None:
    made = gathered()
    made.sections["packages"] = {"curl": {**CURL, "version": "9"}, "netcat": dict(CURL)}
    made.sections["images"] = {IMAGE: {"digest": "sha256:" + "9" * 64}, "other:1": {"digest": "sha256:" + "9" * 64}}
    made.sections["weights"] = {
        "tiny/aaaaaaaaaaaa/added": {"sha256": "0" * 64},
        "own/bbbbbbbbbbbb/x": {"sha256": "0" * 64},
    }
    found = {(row.section, row.name, row.left, row.right) for row in lock_differences(fingerprint(made=made), lock())}
    assert found == {
        ("packages", "curl", "8.14.1-2", "9"),
        ("packages", "netcat", "not listed", "8.14.1-2"),
        ("images", IMAGE, "sha256:" + "c" * 64, "sha256:" + "9" * 64),
        ("images", "other:1", "not listed", "there"),
        ("weights", WEIGHT, "there", "absent"),
        ("weights", "tiny/aaaaaaaaaaaa/added", "not listed", "there"),
        ("weights", "own/bbbbbbbbbbbb/x", "not listed", "there"),
    }


def test_a_lock_without_the_platform_is_refused_with_the_command() -> None:
    with pytest.raises(NotLocked, match=rf"lacks the platform of h1, {PLATFORM} \(it has: none\).*play lock"):
        lock_differences(fingerprint(), {**lock(), "platforms": {}})


# -- what the playbook says


def test_findings_name_the_host_and_the_time() -> None:
    made = gathered()
    made.sections["kernel"]["net.core.somaxconn"]["value"] = "128"
    before, now = json.dumps(fingerprint("h2")), fingerprint("h2", made, "2026-02-02T00:00:00Z")
    assert fingerprint_findings({"h1": fingerprint(), "h2": now}, {"h1": None, "h2": before}, []) == [
        "h2: 1 difference:",
        "h2:   kernel net.core.somaxconn: value 4096 recorded, 128 found",
        "h2: 1 difference:",
        "h2:   kernel net.core.somaxconn: value 4096 2026-01-01T00:00:00Z, 128 now",
    ]
    assert fingerprint_findings({"h1": fingerprint()}, {"h1": "{"}, [])[0].startswith("h1: ")


def test_pairs_that_cannot_be_compared_are_refused() -> None:
    now = {"h1": fingerprint(), "h2": fingerprint("h2")}
    assert fingerprint_findings(now, {}, ["h1", "h2"]) == []
    assert "no fingerprint of h3" in fingerprint_findings(now, {}, ["h1", "h3"])[0]
    assert "3 names are given" in fingerprint_findings(now, {}, ["h1", "h2", "h1"])[0]
