"""The audit log is sealed once and whole, whenever it is rotated and wherever a run dies."""

from __future__ import annotations

import errno
import gzip
import json
import os
from multiprocessing import get_context
from pathlib import Path

import pytest
from ansible.module_utils.audit import logs, sealing
from ansible.module_utils.audit.chain import NOTHING, Seal, parse, stamp
from ansible.module_utils.audit.checks import AUDIT_KINDS
from ansible.module_utils.audit.sealing import Broken, main
from ansible.module_utils.run_lock import only_run

from filter_plugins.doctor import doctor_inside_checks
from filter_plugins.gateway_inputs import gateway_problems
from tests.support.audit_site import Site, edit, with_six_seals


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return with_six_seals(tmp_path)


def test_only_whole_lines_are_sealed(site: Site) -> None:
    with site.log.open("a") as stream:
        stream.write("half a li")
    assert site.seal() == []
    assert len(site.rows()) == 6
    with site.log.open("a") as stream:
        stream.write("ne\n")
    assert site.seal() == []
    assert (site.rows()[-1]["start"], site.rows()[-1]["lines"]) == (531, 1)
    assert site.verify().problems == []


def test_what_was_compressed_before_it_was_sealed_is_sealed(site: Site) -> None:
    site.write()
    packed = site.pack(site.rotate())
    site.write()
    assert site.seal() == []
    assert [row["name"] for row in site.rows()[6:]] == [packed.name, site.log.name]
    assert site.verify().problems == []


def test_compression_that_was_killed_counts_as_not_done(site: Site) -> None:
    rotated = site.rotate()
    rotated.with_name(rotated.name + ".gz").write_bytes(gzip.compress(rotated.read_bytes())[:40])
    site.write()
    assert site.seal() == []
    assert site.verify().problems == []


def test_rotation_and_compression_at_any_moment_lose_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is renamed, and another one takes its name, between the look and the reading."""
    site.write()
    found = logs.find(site.log)
    monkeypatch.setattr(sealing, "find_all", lambda *_: found)
    rotated = site.rotate()
    site.write()
    assert site.seal() == []
    assert len(site.rows()) == 6
    monkeypatch.undo()
    site.pack(rotated)
    assert site.seal() == []
    assert site.verify().problems == []
    assert sum(row["lines"] for row in site.rows()) == site.count


def test_log_that_was_cut_is_told_by_the_sealer(site: Site) -> None:
    edit(site.log, lambda data: data[:200])
    assert "has fewer bytes than the 531 that were sealed" in site.seal()[0]


def test_long_stretches_are_divided_at_lines(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing.stretches, "__defaults__", (100,))
    site.write(10)
    assert site.seal() == []
    assert len(site.rows()) == 16
    assert site.verify().problems == []


@pytest.mark.parametrize("torn", [1, 50, 200])
def test_torn_seal_is_done_again(site: Site, torn: int) -> None:
    whole = site.seals.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    site.seals.write_bytes(whole[:-torn])
    assert site.verify().seals == 5
    assert site.seal() == []
    rows = site.rows()
    assert len(rows) == 6
    assert rows[-1]["sha256"] == parse(last).sha256
    assert site.verify().problems == []


def test_killed_at_any_step_the_next_run_goes_on(site: Site) -> None:
    """The process dies before, in the middle of and after each write and each sync."""
    fork = get_context("fork")
    for step in range(1, 13):
        for _ in range(2):
            site.write()
            site.rotate()
        site.write()

        def die(step: int = step) -> None:
            calls = 0
            write, sync = os.write, os.fsync

            def dying_write(descriptor: int, data: bytes) -> int:
                nonlocal calls
                calls += 1
                if calls == step:
                    write(descriptor, bytes(data)[: len(data) // 2])
                    os._exit(9)
                return write(descriptor, data)

            def dying_sync(descriptor: int) -> None:
                nonlocal calls
                calls += 1
                if calls == step:
                    os._exit(9)
                sync(descriptor)

            # The child's own; a patch of pytest's would be undone by nobody there.
            setattr(os, "write", dying_write)  # noqa: B010 - mypy takes no other signature
            setattr(os, "fsync", dying_sync)  # noqa: B010 - as above
            site.seal()

        child = fork.Process(target=die)
        child.start()
        child.join()
        assert child.exitcode == (9 if step <= 6 else 0)
        assert site.seal() == []
        report = site.verify()
        assert report.problems == []
        assert report.lines == site.count


def test_full_disk_is_told_and_leaves_no_half_seal(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write()
    before = site.seals.read_bytes()
    write, rooms = os.write, iter([40])

    def full(descriptor: int, data: bytes) -> int:
        room = next(rooms, 0)
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:room])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Broken, match=r"No space left on device.*make room"):
        site.seal()
    monkeypatch.undo()
    assert site.seals.read_bytes() == before
    assert site.seal() == []
    assert site.verify().problems == []


def test_program_writes_status_and_figures_and_runs_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--log={site.log}", f"--state-dir={site.root}", "--days=90", f"--metrics={site.root}/m.prom"]
    site.write()
    assert main(words) == 0
    assert "redoubt_gateway_audit_seals 7" in (site.root / "m.prom").read_text()
    check = {"state_dir": str(site.root), "max_minutes": 30}
    assert AUDIT_KINDS["audit"](check) == (True, "sealed 0 minutes ago, seal 7")
    next(site.root.glob("*.gz")).unlink()
    assert main(words) == 1
    assert "redoubt_gateway_audit_problems 1" in (site.root / "m.prom").read_text()
    assert AUDIT_KINDS["audit"](check)[0] is False
    monkeypatch.setattr(sealing, "PATIENCE", 0.1)
    with only_run(site.root / "lock", "a test", 1):
        assert main(words) == 1
    assert "another run" in capsys.readouterr().out
    assert AUDIT_KINDS["audit"]({**check, "state_dir": "/none"})[0] is False


def test_answers_that_were_cut_are_counted_once_and_over_all_runs(site: Site) -> None:
    """Also when a run left no status; what a client wrote into its path does not count."""
    words = [f"--log={site.log}", f"--state-dir={site.root}", "--days=90", f"--metrics={site.root}/m.prom"]
    counts = []
    for ended in ("whole", "cut", "left", "cut"):
        path = '/v1/"ended":"cut"'
        with site.log.open("a") as stream:
            stream.write(json.dumps({"path": path, "ended": ended}, separators=(",", ":")) + "\n")
        assert main(words) == 0
        counts.append((site.root / "m.prom").read_text().splitlines()[-1])
    assert counts == [f"redoubt_gateway_answers_cut_total {number}" for number in (0, 1, 1, 2)]
    (site.root / "status.json").write_text("{")
    assert main(words) == 0
    assert "redoubt_gateway_answers_cut_total 0" in (site.root / "m.prom").read_text()


def test_files_time_cannot_make_new_lines_old(site: Site) -> None:
    """Or a file with a forged time could be removed as one that is older than the retention."""
    site.write()
    os.utime(site.log, (0, 0))
    site.seal()
    assert site.rows()[-1]["newest"] == site.rows()[-2]["time"]


def test_seal_reads_as_it_was_written() -> None:
    seal = Seal(1, stamp(5), "f", "n", 7, 0, 9, 1, "s", stamp(4)).after(NOTHING)
    assert parse(seal.line()) == seal
    assert seal.link(NOTHING) == seal.chain != seal.link("1" * 64)


def test_doctor_looks_at_every_gateway() -> None:
    settings = {"min_free_percent": 5, "certificate": "/c", "secret_patterns": []}
    plan = {"weights": [], "engines": [], "gateway": {"models": []}}
    kinds = {check["id"]: check for check in doctor_inside_checks(plan, settings)}
    assert kinds["gateway.audit"]["kind"] in AUDIT_KINDS
    assert kinds["unit.audit_seal"]["unit"] == "redoubt-audit-seal.timer"


@pytest.mark.parametrize("minutes", [0, 16, "5"])
def test_seals_that_are_too_rare_are_refused(minutes: object) -> None:
    problems = gateway_problems({"gateway_audit_minutes": minutes})
    assert sum(problem.startswith("gateway_audit_minutes:") for problem in problems) == 1
