"""Each kind of tampering with the audit log or its seals is named, with its place."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.module_utils.audit.sealing import Broken
from ansible.module_utils.audit.verifying import verify

from tests.support.audit_site import DAY, Site, edit, exchanged, lines_but, with_six_seals


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return with_six_seals(tmp_path)


def test_sound_log_is_proved(site: Site) -> None:
    report = site.verify()
    assert (report.problems, report.notes) == ([], [])
    assert (report.seals, report.files, report.lines) == (6, 3, 18)
    assert report.head == {"seal": 6, "chain": site.rows()[-1]["chain"], "time": site.rows()[-1]["time"]}
    assert site.seal() == []
    assert len(site.rows()) == 6  # nothing new, nothing sealed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda data: data.replace(b"000014", b"900014"),
            "bytes 177 to 354 are not what seal 5 of {5} says: some of its 3",
        ),
        (lines_but(4), "bytes 177 to 354 are not what seal 5 of {5} says"),
        (lambda data: data.replace(b'"000014"}\n', b'"000014"}\n{}\n'), "inserted"),
        (exchanged, "bytes 0 to 177 are not what seal 4 of {4} says: some of its 3 lines were altered, or exchanged"),
        (lambda data: data[:-1], "the file ends at byte 530: lines were removed"),
        (lambda data: data.replace(b"000010", b"900010"), "bytes 0 to 177 are not what seal 4 of {4} says"),
    ],
)
def test_altered_log_is_named(site: Site, change: Callable[[bytes], bytes], said: str) -> None:
    edit(site.log, change)
    times = {row["seq"]: row["time"] for row in site.rows()}
    problems = site.verify().problems
    assert len(problems) == 1
    for seq in (4, 5):
        said = said.replace(f"{{{seq}}}", times[seq])
    assert str(site.log) in problems[0]
    assert said in problems[0]


def test_removed_line_moves_what_follows_and_is_told_once(site: Site) -> None:
    edit(site.log, lines_but(4))
    problems = site.verify().problems
    assert len(problems) == 1
    assert "what follows has moved" in problems[0]


def test_first_line_altered_under_another_inode_is_found_by_what_follows(site: Site) -> None:
    data = site.log.read_bytes().replace(b"000010", b"900010")
    site.log.unlink()
    (site.root / "other").write_bytes(b"x")
    site.log.write_bytes(data)
    assert "bytes 0 to 177" in site.verify().problems[0]


def test_altered_or_damaged_compressed_file_is_named(site: Site) -> None:
    packed = next(site.root.glob("*.gz"))
    whole = packed.read_bytes()
    packed.write_bytes(gzip.compress(gzip.decompress(whole).replace(b"000005", b"900005")))
    assert f"{packed}: bytes 177 to 354" in site.verify().problems[0]
    packed.write_bytes(whole[:-30])
    assert "cannot be read" in site.verify().problems[0]


def test_missing_file_is_named_within_the_retention_only(site: Site) -> None:
    packed = next(site.root.glob("*.gz"))
    packed.unlink()
    name = site.rows()[1]["name"]
    assert f"{site.root}/{name}: this file is missing" in site.verify().problems[0]
    assert "is gone" in site.seal()[0]
    site.now += 91 * DAY
    report = verify(site.log, site.root, 90, site.now)
    assert report.problems == []
    assert report.gone == 1
    assert "1 files are gone, older than 90 days" in report.notes[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lines_but(2), "line 3: seal 4 stands where seal 3 belongs: removed or reordered"),
        (exchanged, "line 2: seal 3 stands where seal 2 belongs: removed or reordered"),
        (lambda data: data.replace(b'"lines":3', b'"lines":2', 1), "line 1: seal 1 of"),
        (lambda data: data.replace(b'"seq":1', b'"seq": 1', 1), "line 1: seal 1 was altered"),
        (lambda data: b"nonsense\n" + data, "line 1: seal 1 was altered"),
        (lambda data: b"[]\n" + data, "line 1: seal 1 was altered"),
    ],
)
def test_altered_seal_is_named_and_not_continued(site: Site, change: Callable[[bytes], bytes], said: str) -> None:
    edit(site.seals, change)
    assert any(said in problem for problem in site.verify().problems)
    site.write()
    before = site.seals.read_bytes()
    with pytest.raises(Broken, match=r"this seal was altered.*a new chain begins"):
        site.seal()
    assert site.seals.read_bytes() == before


def test_chain_that_was_cut_off_or_written_anew_is_seen_by_its_witness(site: Site) -> None:
    head = site.verify().head
    edit(site.seals, lines_but(5))
    assert any(
        "seal 6 was witnessed, and the chain ends with seal 5: its end was cut off" in p
        for p in site.verify(head).problems
    )
    site.seals.unlink()
    edit(site.log, lines_but(8))
    for _ in range(4):  # a chain as good as the first one, and as long
        site.write()
        assert site.seal() == []
    assert site.verify().problems == []
    assert "seal 6 is not the one that was witnessed" in site.verify(head).problems[0]
    site.seals.unlink()
    assert "has no seal" in site.verify(head).problems[0]
    site.log.unlink()
    assert "there is no seal" in site.verify().problems[0]


def test_lines_wait_for_their_seal_for_a_while_only(site: Site) -> None:
    site.write()
    assert site.verify().problems == []
    site.now += 3600
    assert "from byte 531 on nothing is sealed" in site.verify().problems[0]
    assert site.seal() == []
    (site.root / "gateway.jsonl-000000").write_bytes(b"an inserted file\n")
    os.utime(site.root / "gateway.jsonl-000000", (0, 0))
    assert "gateway.jsonl-000000: from byte 0 on nothing is sealed" in site.verify().problems[0]
