"""What hosts get: rights, keys, connection variables, and what of this machine they must know."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import docker
import pytest

from lab import container, debian, engine, hosts, inventory, paths, record, tools
from lab.errors import LabError
from lab.record import Host
from lab.report import PlainReport, QuietReport

REPOSITORY = Path(__file__).resolve().parents[2]
HOST = Host("one", "debian13", "10.91.0.10", 22, "operator", Path("/k/id"), Path("/k/known hosts"), "abc", running=True)


def test_capabilities_are_listed_only_where_privileged_does_not_work() -> None:
    listed = container.rights(privileged=False, cgroup_version="1")
    assert "SYS_ADMIN" in listed["CapAdd"]
    assert "SYS_RESOURCE" not in listed["CapAdd"]
    assert listed["MaskedPaths"] == [] == listed["ReadonlyPaths"]
    assert listed["Privileged"] is False
    full = container.rights(privileged=True, cgroup_version="1")
    assert full["Privileged"] is True
    assert "CapAdd" not in full


def test_control_groups_of_the_machine_are_shared_only_in_version_1() -> None:
    first, second = (container.rights(privileged=False, cgroup_version=version) for version in "12")
    assert first["CgroupnsMode"] == "host"
    assert first["Binds"] == ["/sys/fs/cgroup:/sys/fs/cgroup:rw"]
    assert second["CgroupnsMode"] == "private"
    assert "Binds" not in second
    init = ["/lib/systemd/systemd"]
    assert container.command(init, privileged=False, cgroup_version="1") == init
    assert container.command(init, privileged=False, cgroup_version="2")[-1] == init[0]
    assert "remount,rw" in container.command(init, privileged=False, cgroup_version="2")[2]


def test_each_user_gets_the_key_and_owns_it(tmp_path: Path) -> None:
    for name in ("host", "client"):
        (tmp_path / name).write_text(f"private {name}")
        (tmp_path / f"{name}.pub").write_text(f"public {name}")
    raw = container.key_files(tmp_path / "host", tmp_path / "client")
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        found = {member.name: (member.uid, member.mode) for member in tar.getmembers()}
        texts = {}
        for name in found:
            handle = tar.extractfile(name)
            assert handle is not None
            texts[name] = handle.read().decode()
    assert found["home/operator/.ssh/authorized_keys"] == (1000, 0o600)
    assert found["home/guest/.ssh/authorized_keys"] == (1001, 0o600)
    assert found["etc/ssh/ssh_host_ed25519_key"] == (0, 0o600)
    assert "private client" not in texts.values()
    assert texts["root/.ssh/authorized_keys"] == "public client"


def test_the_inventory_checks_host_keys() -> None:
    document = inventory.document([HOST])
    variables = document["_meta"]["hostvars"]["one"]
    assert variables["ansible_host"] == "10.91.0.10"
    assert variables["ansible_user"] == "operator"
    assert variables["ansible_ssh_private_key_file"] == "/k/id"
    assert "StrictHostKeyChecking=yes" in variables["ansible_ssh_common_args"]
    assert "'UserKnownHostsFile=/k/known hosts'" in variables["ansible_ssh_common_args"]
    assert document["ungrouped"]["hosts"] == ["one"]
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Bad_Name", "debian13", "operator"), "lower-case letters"),
        (("-x", "debian13", "operator"), "lower-case letters"),
        (("one", "debian11", "operator"), "there is debian13, debian12"),
        (("one", "debian13", "nobody"), "there is root, operator, guest"),
    ],
)
def test_bad_wishes_are_refused_before_anything_starts(
    arguments: tuple[str, str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(_report: object) -> None:
        raise AssertionError("the engine was touched")

    monkeypatch.setattr(engine, "ensure", started)
    name, platform, user = arguments
    with pytest.raises(LabError, match=message):
        hosts.up(name, platform=platform, user=user, report=QuietReport())


def test_a_record_survives_and_a_broken_one_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path)
    assert record.load("one") is None
    record.save(HOST)
    loaded = record.load("one")
    assert loaded is not None
    assert loaded.as_dict() == {**HOST.as_dict(), "running": False}
    (record.folder("one") / "record.json").write_text('{"name": "one"}')
    assert record.load("one") is None


def test_only_what_reaches_the_sources_is_taken_from_apt() -> None:
    dump = "\n".join(
        [
            'Acquire "";',
            'Acquire::http::Proxy "http://proxy.example:3128";',
            'Acquire::Check-Valid-Until "false";',
            'Acquire::Languages:: "none";',
            'APT::Architecture "amd64";',
            'Acquire::https "";',
        ]
    )
    assert debian.apt_options(dump) == [
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::Check-Valid-Until "false";',
    ]


def test_hosts_learn_this_machines_addresses_of_others() -> None:
    text = (
        "127.0.0.1 localhost\n::1 ip6-localhost\n192.0.2.7 me me.example\n203.0.113.9 mirror.example  # it\nfe80::1 x\n"
    )
    assert debian.site_addresses(text, ["me", "me.example"]) == {"mirror.example": "203.0.113.9"}


def test_stale_files_of_a_killed_engine_go_and_live_ones_stay(tmp_path: Path) -> None:
    inner = tmp_path / "docker" / "containerd"
    inner.mkdir(parents=True)
    (tmp_path / "docker.pid").write_text(str(os.getpid()))  # a process, but no engine
    (inner / "containerd.pid").write_text("999999999")
    (tmp_path / "docker.sock").touch()
    removed = {path.name for path in engine.clear_stale(tmp_path)}
    assert removed == {"docker.pid", "containerd.pid", "docker.sock"}
    assert engine.clear_stale(tmp_path) == []


def test_only_an_engine_that_the_lab_started_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine, "PID_FILE", tmp_path / "engine.pid")
    assert engine.stop(QuietReport()) is False
    for name, stopped in (("dockerd", True), ("other", False)):
        # A real process under that name, as an engine started by an earlier run and a number used again would be.
        program = tmp_path / name
        shutil.copy(shutil.which("sleep") or "sleep", program)
        process = subprocess.Popen([program, "60"])
        try:
            while Path(f"/proc/{process.pid}/comm").read_text().strip() != name:
                time.sleep(0.01)
            engine.PID_FILE.write_text(f"{process.pid}\n")
            assert engine.stop(QuietReport()) is stopped
            assert (process.poll() is not None) is stopped
            assert not engine.PID_FILE.exists()
        finally:
            process.kill()
            process.wait()


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(LabError, match=r"the thing: sh ended with 3:\nreason"):
        tools.run(["sh", "-c", "echo reason >&2; exit 3"], what="the thing", timeout=10)
    with pytest.raises(LabError, match="no-such-program is not installed"):
        tools.run(["no-such-program"], what="the thing", timeout=10)


@pytest.mark.parametrize("how", ["timeout", "stop"])
def test_a_command_is_ended_with_its_children(how: str, tmp_path: Path) -> None:
    stop = threading.Event()
    script = f"sleep 60 & echo $! >{tmp_path}/child; wait"
    if how == "stop":
        threading.Timer(0.6, stop.set).start()
    with pytest.raises(LabError, match=r"still not done|stopped"):
        tools.run(["sh", "-c", script], what="x", timeout=0.6 if how == "timeout" else 30, stop=stop)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and Path(f"/proc/{child}/stat").exists():
        if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{child}").exists()


def test_lines_are_told_as_they_come() -> None:
    lines: list[str] = []
    tools.run(["sh", "-c", "echo one; sleep 0.5; echo two; sleep 0.5"], what="x", timeout=10, on_line=lines.append)
    assert lines == ["one", "two"]


def test_a_lock_keeps_others_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path)
    with tools.file_lock("x"), pytest.raises(LabError, match="another lab process holds"), tools.file_lock("x", 0.1):
        pass
    with tools.file_lock("x", 0.1), tools.file_lock("y", 0.1):
        pass


def test_a_polite_kill_runs_the_clean_up() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, tools.terminable():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_plain_reports_say_how_a_phase_ended() -> None:
    out = io.StringIO()
    report = PlainReport(out, interval=0.0)
    with pytest.raises(ValueError, match="x"), report.phase("Build"):
        report.progress(1, 4, "MB")
        raise ValueError("x")
    with report.phase("Load"):
        report.progress(7, 0, "files")
    text = out.getvalue()
    assert "Build: 25 % (1/4 MB)" in text
    assert "Build: failed after" in text
    assert "Load: 7 files" in text
    assert "Load: done in" in text


class _Item:
    """A container as the engine tells of it; `gone`: whether it was removed."""

    def __init__(self, name: str, cache: str) -> None:
        self.name, self.gone = f"redoubt-lab-x-{name}", False
        self.labels = {"redoubt.lab.name": name, "redoubt.lab.cache": cache}

    def remove(self, **_: object) -> None:
        self.gone = True


def test_only_hosts_of_checkouts_that_are_gone_are_removed_by_others(tmp_path: Path) -> None:
    items = [_Item("orphan", str(tmp_path / "gone")), _Item("neighbour", str(tmp_path))]
    items.append(_Item("probe", ""))
    volumes: list[str] = []

    def listed(**_: object) -> list[_Item]:
        return items

    def volume(name: str) -> SimpleNamespace:
        return SimpleNamespace(remove=lambda **_: volumes.append(name))

    client = SimpleNamespace(containers=SimpleNamespace(list=listed), volumes=SimpleNamespace(get=volume))
    assert container.remove_orphans(cast("docker.DockerClient", client)) == ["orphan"]
    assert [item.gone for item in items] == [True, False, False]
    assert volumes == ["redoubt-lab-x-orphan-docker"]


def test_another_checkout_has_another_container_for_the_same_name(tmp_path: Path) -> None:
    script = "from lab import container, gap, net; print(container.container_name('e2e1'), net.GAP, gap.CHAIN)"
    told = [
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=REPOSITORY,
            env=os.environ | {"REDOUBT_CACHE": str(tmp_path / name)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for name in ("one", "one", "two")
    ]
    assert told[0] == told[1]
    assert all(one != two for one, two in zip(told[0], told[2], strict=True))
    assert all(len(chain) <= 28 for *_, chain in told), "the packet filter takes no longer name"
