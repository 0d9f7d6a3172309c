"""Kernel parameters on a folder that stands for /proc/sys."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from library import kernel_parameters
from library.kernel_parameters import apply, proc_file


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "sys"
    for name, value in (("net/core/somaxconn", "128"), ("vm/swappiness", "60"), ("net/ipv4/range", "1\t2")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(value + "\n")
    monkeypatch.setattr(
        kernel_parameters, "write_atomically", lambda path, data, mode, uid, gid: Path(path).write_bytes(data)
    )
    return root


def run(proc: Path, parameters: dict[str, Any], check: bool = False, container: bool = False) -> dict[str, Any]:
    arguments = {"path": str(proc / "drop.conf"), "header": "# x", "parameters": parameters, "container": container}
    os.umask(0o022)
    return apply(arguments, check, str(proc))


def test_sets_writes_and_is_done(proc: Path) -> None:
    first = run(proc, {"net.core.somaxconn": 4096})
    assert first["updated"] == [{"name": "net.core.somaxconn", "wanted": "4096", "was": "128"}]
    assert (proc / "net/core/somaxconn").read_text() == "4096"
    assert (proc / "drop.conf").read_text() == "# x\nnet.core.somaxconn = 4096\n"
    assert run(proc, {"net.core.somaxconn": 4096})["changed"] is False


def test_check_mode_changes_nothing(proc: Path) -> None:
    assert run(proc, {"net.core.somaxconn": 4096}, check=True)["changed"] is True
    assert (proc / "net/core/somaxconn").read_text() == "128\n"
    assert not (proc / "drop.conf").exists()


def test_blanks_and_tabs_are_the_same(proc: Path) -> None:
    assert run(proc, {"net.ipv4.range": "1 2"})["updated"] == []


def test_container_leaves_the_machine_alone(proc: Path) -> None:
    result = run(proc, {"vm.swappiness": 1, "net.core.somaxconn": 4096}, container=True)
    assert result["foreign"] == ["vm.swappiness"]
    assert (proc / "vm/swappiness").read_text() == "60\n"
    assert "vm." not in (proc / "drop.conf").read_text()


def test_unknown_parameter_is_reported_each_time(proc: Path) -> None:
    for _ in range(2):
        refused = run(proc, {"net.no.such": 1})["refused"]
        assert [(row["name"], row["why"]) for row in refused] == [("net.no.such", "this kernel has no such parameter")]


def test_null_leaves_a_parameter_alone(proc: Path) -> None:
    result = run(proc, {"net.core.somaxconn": None})
    assert (result["updated"], (proc / "drop.conf").read_text()) == ([], "# x\n")


def test_dots_inside_a_name() -> None:
    assert proc_file("net.ipv4.conf.eth0/100.rp_filter", "/p") == "/p/net/ipv4/conf/eth0.100/rp_filter"
