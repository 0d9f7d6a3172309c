"""Preflight and the lock: strict is the default, and what cannot be installed is refused before a host is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from locks.folder import write
from locks.in_force import Locks
from tests.support import lock_documents
from tests.support.preflight_runs import preflight, site, write_inventory

DEBIAN = {
    "distribution": "Debian",
    "distribution_version": "13.1",
    "distribution_major_version": "13",
    "architecture": "x86_64",
}


@dataclass
class Host:
    """A host as far as its variables go."""

    values: dict[str, Any]
    unknown: set[str] = field(default_factory=set)
    names: frozenset[str] = frozenset()
    drained: Mapping[str, Any] = field(default_factory=dict)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write(tmp_path / "lock", lock_documents.make()[0], {})
    return tmp_path


def row(project: Path, facts: dict[str, Any] | None = None, plan_only: bool = False, **values: Any) -> Any:
    """Return (lock, texts of the problems, warnings)."""
    lock, problems, warnings = Locks(project).row(Host(values), facts, plan_only=plan_only)
    return lock, [problem.text() for problem in problems], warnings


def test_strict_is_the_default_and_the_plan_gets_the_platforms_packages(project: Path) -> None:
    lock, problems, warnings = row(project, DEBIAN)
    assert (problems, warnings) == ([], [])
    made = lock_documents.make()[0]
    assert (lock["mode"], lock["platform"], lock["digest"]) == ("strict", "debian-13-amd64", made["digest"])
    assert lock["packages"] == made["platforms"]["debian-13-amd64"]
    assert (lock["site"], lock["serial"], lock["images"]) == ("bank-north", 1, made["images"])


def test_a_platform_that_the_lock_lacks_is_refused_with_the_command_that_adds_it(project: Path) -> None:
    ubuntu = {**DEBIAN, "distribution": "Ubuntu", "distribution_version": "24.04", "distribution_major_version": "24"}
    lock, problems, _ = row(project, ubuntu)
    assert lock["packages"] is None
    assert len(problems) == 1
    assert "the host is ubuntu-24.04-amd64" in problems[0]
    listed = '["debian-13-amd64", "debian-13-arm64", "ubuntu-24.04-amd64"]'
    assert f"""./redoubt play lock -e '{{"redoubt_platforms": {listed}}}'""" in problems[0]
    assert row(project, ubuntu, redoubt_lock_mode="open")[1] == []


def test_a_system_that_no_lock_can_have_is_named(project: Path) -> None:
    problems = row(project, {**DEBIAN, "distribution": "Slackware", "distribution_version": "15"})[1]
    assert "Slackware 15 on x86_64" in problems[0]


def test_without_facts_the_platform_is_not_judged(project: Path) -> None:
    assert row(project)[1] == []


def test_no_lock_is_refused_in_strict_mode_alone(tmp_path: Path) -> None:
    lock, problems, _ = row(tmp_path)
    assert lock is None
    assert "there is no lock" in problems[0]
    assert "./redoubt play lock" in problems[0]
    assert row(tmp_path, redoubt_lock_mode="open") == (None, [], [])


def test_a_plan_only_run_warns_of_a_lock_that_is_not_there_yet(tmp_path: Path) -> None:
    lock, problems, warnings = row(tmp_path, plan_only=True)
    assert (lock, problems) == (None, [])
    assert "./redoubt play lock" in warnings[0]


@pytest.mark.parametrize("mode", ["strict", "open"])
def test_a_broken_lock_is_refused_in_every_mode(project: Path, mode: str) -> None:
    path = project / "lock/images.yml"
    path.write_text(path.read_text().replace("v0.33.0", "v0.33.1"))
    lock, problems, _ = row(project, redoubt_lock_mode=mode)
    assert lock is None
    assert "somebody edited it by hand" in problems[0]


def test_a_folder_that_is_named_must_be_there_in_open_mode_too(project: Path) -> None:
    assert row(project, redoubt_lock="elsewhere", redoubt_lock_mode="open")[1]


def test_the_lock_of_another_site_is_refused(project: Path) -> None:
    assert "that of the site bank-north" in row(project, redoubt_site="bank-south")[1][0]
    assert row(project, redoubt_site="bank-north")[1] == []
    assert "is no site's name" in row(project, redoubt_site="Bank North")[1][0]


def test_an_unknown_mode_is_refused(project: Path) -> None:
    assert "write strict or open" in row(project, redoubt_lock_mode="loose")[1][0]


def test_it_is_ignored_while_it_is_made(tmp_path: Path) -> None:
    assert Locks(tmp_path, ignored=True).row(Host({}), DEBIAN, plan_only=False) == (None, [], [])


def test_preflight_refuses_before_a_host_is_asked(tmp_path: Path) -> None:
    variables = {**site(), "redoubt_lock": str(tmp_path / "none"), "redoubt_lock_mode": "strict"}
    done = preflight(write_inventory(tmp_path, variables), preflight_plan_only=False)
    assert done.returncode != 0
    assert "there is no lock" in done.stdout
    assert "no host was changed" in done.stdout
    assert "UNREACHABLE" not in done.stdout


def test_preflight_takes_a_good_lock(tmp_path: Path) -> None:
    write(tmp_path / "lock", lock_documents.changed(lock_documents.make()[0], lambda body: body.update(images={})), {})
    variables = {**site(), "redoubt_lock": str(tmp_path / "lock"), "redoubt_site": "bank-north"}
    variables["redoubt_lock_mode"] = "strict"
    done = preflight(write_inventory(tmp_path, variables))
    assert done.returncode == 0
