"""Packages that stand in the way are named, with the command that clears them; ours never are.

Texts of apt 3.0 and dpkg 1.22.
"""

from __future__ import annotations

import pytest
from ansible.module_utils.package_faults import broken_before, impossible, pushed_out, unfetched, unfinished

HELD = """\
The following packages have unmet dependencies:
 site-agent : Depends: libnvidia-ml1 (= 580.95.05-1) but 580.126.20-1 is to be installed
E: Error, pkgProblemResolver::Resolve generated breaks, this may be caused by held packages.
"""
BROKEN = """\
You might want to run 'apt --fix-broken install' to correct these.
The following packages have unmet dependencies:
 other-agent : Depends: no-such-package (>= 2) but it is not installable
E: Unmet dependencies. Try 'apt --fix-broken install' with no packages (or specify a solution).
"""
SICK = """\
Setting up sick-agent (1.0) ...
dpkg: error processing package sick-agent (--configure):
 installed sick-agent package post-installation script subprocess returned error exit status 1
Errors were encountered while processing:
 sick-agent
"""
REMOVES = "Remv site-agent [1.0]\nRemv nvidia-kernel-dkms:amd64 [580]\nInst libnvidia-ml1 [580.95.05-1]\n"
OURS = ["libnvidia-ml1", "nvidia-*"]


def test_a_held_package_that_forbids_it_is_named() -> None:
    said = impossible(HELD, ["site-agent", "other"])
    assert "site-agent is held and needs libnvidia-ml1 (= 580.95.05-1) but 580.126.20-1 is to be installed" in said
    assert "'apt-mark unhold site-agent' and 'apt-get remove site-agent'" in said
    assert impossible(HELD, ["other"]) == ""
    assert impossible("E: Unable to locate package x\n", ["site-agent"]) == ""


def test_what_was_broken_before_is_named() -> None:
    said = broken_before(BROKEN)
    assert "other-agent needs no-such-package (>= 2) but it is not installable" in said
    assert "'apt-get --fix-broken install'" in said
    assert "'apt-get remove other-agent'" in said
    assert broken_before("Reading state information...\n") == ""


def test_what_dpkg_cannot_finish_is_named_unless_it_is_ours() -> None:
    said = unfinished(SICK, OURS)
    assert "dpkg cannot finish them: sick-agent (" in said
    assert "post-installation script subprocess returned error" in said
    assert "'dpkg --remove sick-agent'" in said
    assert unfinished(SICK.replace("sick-agent", "nvidia-kernel-open-dkms"), OURS) == ""
    assert unfinished(SICK.strip(), OURS) == said
    assert unfinished("", OURS) == ""


@pytest.mark.parametrize(("ours", "named"), [(OURS, "site-agent"), ([], "nvidia-kernel-dkms, site-agent")])
def test_what_would_be_removed_is_named_unless_it_is_ours(ours: list[str], named: str) -> None:
    assert f"apt would remove {named} for it" in pushed_out(REMOVES, ours)
    assert pushed_out(REMOVES, ["*"]) == ""
    assert pushed_out("Inst a\n", ours) == ""


LACKING = (
    "E: Failed to fetch https://10.0.0.5:8443/north/packages/debian-13-amd64/./pool/jq_1.7.1-6_amd64.deb"
    "  404  Not Found\n"
    "E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?\n"
)


def test_a_file_that_the_depot_lacks_is_named_with_its_lock_and_the_command() -> None:
    said = unfetched(LACKING, "/etc/apt/redoubt/depot.sources", "debian-13-amd64")
    for words in ("jq_1.7.1-6_amd64.deb", "lock/platforms/debian-13-amd64.yml", "play gather", "bundle import"):
        assert words in said


@pytest.mark.parametrize(
    ("why", "fix"),
    [
        ("403  Forbidden [IP: 10.0.0.5 8443]", "depot_allowed_cidrs"),
        ("Could not connect to 10.0.0.5:8443 (10.0.0.5). - connect (111: Connection refused)", "play depot"),
    ],
)
def test_a_depot_that_gives_nothing_is_no_lack(why: str, fix: str) -> None:
    said = unfetched(f"E: Failed to fetch https://10.0.0.5:8443/x.deb  {why}\n", "depot.sources", "debian-13-amd64")
    assert fix in said
    assert "lacks" not in said
    assert unfetched("E: Unable to locate package x\n", "depot.sources", "") == ""
