"""The care of the store on a real host: timer, figures, damage that nothing shows, protection, what is kept."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.plays import Play
from tests.support.weight_trees import REVISIONS

FIRST, SECOND = (f"/srv/redoubt/models/tiny/{revision[:12]}" for revision in REVISIONS)
SHARD = f"{FIRST}/shards/2.dat"
STATE = "/var/lib/redoubt/weights"
FIGURES = "/var/lib/redoubt/textfile/redoubt_weights_care.prom"
TIMER, SERVICE = "redoubt-weights-reproof.timer", "redoubt-weights-reproof.service"
LIBRARY = "/usr/local/lib/redoubt/weights"

# Flips bits as a disk does: size, times and inode stay as the ledger says, which is told the new ctime for that.
ROT = """
import json, os, sys
path, ledger = sys.argv[1:]
before = os.stat(path)
os.chmod(path, 0o644)
with open(path, "r+b") as stream:
    stream.seek(5000)
    stream.write(b"rotten")
os.chmod(path, 0o444)
os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
document = json.load(open(ledger))
document["files"][str(before.st_ino)][3] = os.stat(path).st_ctime_ns
json.dump(document, open(ledger, "w"))
"""


@pytest.fixture(scope="module")
def listed() -> list[dict[str, Any]]:
    trees = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "trees"
    document: list[dict[str, Any]] = json.loads((trees / "list.json").read_text())
    return document


def figures(host: Host) -> dict[str, float]:
    lines = host.file(FIGURES).content_string.splitlines()
    return {name: float(value) for name, value in (line.split(" ") for line in lines if line[0] != "#")}


def inventory(host: Host) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(host.file(f"{STATE}/inventory.json").content_string)
    return document


def test_timer_is_there_and_reads_everything_at_idle_priority(host: Host, play: Play) -> None:
    host.check_output("mkdir -p /var/lib/redoubt/textfile")
    assert play().status == 0  # whatever the other tests left
    timer = host.check_output("systemctl show %s -p ActiveState -p UnitFileState -p RandomizedDelayUSec", TIMER)
    assert set(timer.splitlines()) == {"ActiveState=active", "UnitFileState=enabled", "RandomizedDelayUSec=6h"}
    service = host.check_output("systemctl show %s -p Nice -p IOSchedulingClass", SERVICE)
    assert set(service.splitlines()) == {"Nice=19", "IOSchedulingClass=3"}
    host.check_output("systemctl start %s", SERVICE)
    read, held = figures(host)["redoubt_weights_reproof_bytes"], inventory(host)
    assert read == held["bytes"] == figures(host)["redoubt_weights_stored_bytes"]
    assert held["oldest_proof"] >= held["reproof"]["started"]
    assert play().changed == 0


def test_program_can_write_its_proofs_and_nothing_else(host: Host) -> None:
    unit = host.file(f"/etc/systemd/system/{SERVICE}").content_string

    def sandboxed(command: str) -> bool:
        other = "\n".join(
            f"ExecStart={command}" if line.startswith("ExecStart=") else line for line in unit.splitlines()
        )
        host.check_output("printf '%%s\n' %s > /run/systemd/system/probe.service", other)
        host.check_output("systemctl daemon-reload")
        return bool(host.run("systemctl start probe.service").rc == 0)

    try:
        assert sandboxed(f"/usr/bin/touch {STATE}/.x")
        assert not sandboxed(f"/usr/bin/touch {FIRST}/x")
        assert not sandboxed("/usr/bin/touch /var/lib/redoubt/x")
        assert not sandboxed("/usr/bin/ls /etc/redoubt")
        assert not sandboxed(f"/usr/bin/chmod 0644 {SHARD}")
    finally:
        host.check_output("rm -f %s/.x /run/systemd/system/probe.service", STATE)
        host.check_output("systemctl daemon-reload; systemctl reset-failed")


def test_rot_is_named_in_journal_and_figures_and_mended_by_the_next_run(host: Host, play: Play) -> None:
    host.check_output("python3 -c %s %s %s", ROT, SHARD, f"{STATE}/.ledger.json")
    assert play().changed == 0  # nothing shows it but its bytes
    assert host.run("systemctl start %s", SERVICE).rc != 0
    said = host.check_output("journalctl -u %s -p err -o cat", SERVICE)
    assert f"{SHARD}: expected sha256 " in said
    assert "(damaged within bytes 0-" in said
    assert figures(host)['redoubt_weights_damaged_files{model="tiny"}'] == 1
    assert inventory(host)["models"]["tiny"][REVISIONS[0][:12]]["damaged"] == ["shards/2.dat"]
    mended = play()
    assert (mended.status, mended.changed) == (0, 1)
    assert figures(host)['redoubt_weights_damaged_files{model="tiny"}'] == 0
    host.check_output("systemctl start %s", SERVICE)
    assert play().changed == 0


def test_immutable_files(host: Host, play: Play, listed: list[dict[str, Any]]) -> None:
    run = play(weights_protect="immutable")
    if "CAP_LINUX_IMMUTABLE" in run.words or "has no immutable flag" in run.words:
        assert run.status != 0
        pytest.skip("this lab host may not set the flag; the refusal was seen")
    assert (run.status, run.changed) == (0, 1)
    assert host.run("printf '' >> %s", SHARD).rc != 0
    assert host.run("rm -f %s", SHARD).rc != 0
    assert play(weights_protect="immutable").changed == 0
    host.check_output("systemctl start %s", SERVICE)
    # Another revision has links to immutable files, and the first one can be removed.
    second: dict[str, Any] = {"weights_models": [listed[1]], "weights_source": "file:///media/trees/second"}
    assert play(weights_protect="immutable", weights_keep_revisions=1, **second).status == 0
    assert not host.file(FIRST).exists
    assert host.run("rm -f %s", f"{SECOND}/config.json").rc != 0
    assert play().changed == 1
    host.check_output("printf '' >> %s", SHARD)  # opened for writing: the flag is gone


def test_revision_of_a_release_is_kept_and_goes_with_it(host: Host, play: Play, listed: list[dict[str, Any]]) -> None:
    second: dict[str, Any] = {
        "weights_models": [listed[1]],
        "weights_source": "file:///media/trees/second",
        "weights_keep_revisions": 1,
    }
    folder = "/opt/redoubt/releases/1"
    manifest = json.dumps({"engines": [{"weights_path": FIRST}]})
    host.check_output("mkdir -p %s && printf %%s %s > %s/manifest.json", folder, manifest, folder)
    assert play(**second).status == 0
    assert host.file(FIRST).is_directory
    assert inventory(host)["models"]["tiny"][REVISIONS[0][:12]]["releases"] == [1]
    # Back to it without any source.
    assert play(weights_source="file:///media/nothing").changed == 0
    host.check_output("rm -r %s", folder)
    assert play(**second).changed == 1
    assert not host.file(FIRST).exists
    assert play(**second).changed == 0


def test_wrong_calendar_is_refused_and_an_empty_one_leaves_nothing(host: Host, play: Play) -> None:
    wrong = play(weights_reproof_calendar="every blue moon")
    assert wrong.status != 0
    assert "systemd-analyze calendar every blue moon" in wrong.words
    assert host.service(TIMER).is_running
    assert play(weights_reproof_calendar="").changed >= 1
    for path in (f"/etc/systemd/system/{TIMER}", f"/etc/systemd/system/{SERVICE}", LIBRARY, FIGURES):
        assert not host.file(path).exists, path
    assert TIMER not in host.check_output("systemctl list-units --all --no-legend 'redoubt-weights*'")
    assert play(weights_reproof_calendar="").changed == 0
