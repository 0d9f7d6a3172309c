"""The connected side: lock and bundle. The far side: one command makes a control host of a bare machine."""

from __future__ import annotations

import hashlib
import json

from tests.support.airgap import CONTROL_FOLDER, FAR_DEPOT, FAR_KEY, MEDIUM, NAME, PLATFORM, GapSite
from tests.support.bundles import key_pair


def test_the_lock_is_made(gap: GapSite) -> None:
    run = gap.near("play", "lock", "-i", str(gap.folder / "hosts.json"))
    assert run.status == 0, run.output[-6000:]
    assert (gap.lock / "platforms" / f"{PLATFORM}.yml").is_file()


def test_the_bundle_is_built_and_signed(gap: GapSite) -> None:
    gap.build(gap.medium)
    manifest = json.loads((gap.medium / "manifest.json").read_text())
    row = manifest["installer"]
    installer = (gap.medium / row["file"]).read_bytes()
    assert hashlib.sha256(installer).hexdigest() == row["sha256"]
    assert not list(gap.medium.rglob("*.key")), "a secret key is on the medium"


def test_another_key_imports_nothing(gap: GapSite) -> None:
    key_pair(gap.keys, "stranger")
    gap.bring_key("stranger")
    run = gap.far(f"python3 {MEDIUM}/install.pyz --key {FAR_KEY}")
    assert run.status == 1
    assert "install.pyz: " in run.output
    assert "Traceback" not in run.output
    assert gap.on(gap.control.name, f"ls {FAR_DEPOT}/locks {CONTROL_FOLDER} 2>/dev/null || true") == ""


def test_one_command_makes_a_control_host(gap: GapSite) -> None:
    gap.bring_key("redoubt")
    run = gap.far(f"python3 {MEDIUM}/install.pyz --key {FAR_KEY}")
    assert run.status == 0, run.output[-6000:]
    lock = json.loads(gap.on(gap.control.name, f"cat {FAR_DEPOT}/locks/{NAME}.json"))
    assert lock["digest"] == json.loads((gap.medium / "manifest.json").read_text())["lock_digest"]
    assert "ansible" in gap.on(gap.control.name, f"ls {CONTROL_FOLDER}/.venv/bin")
    assert gap.on(gap.control.name, "systemctl is-enabled nginx", check=False).strip() == "disabled"


def test_a_second_time_it_has_nothing_to_do(gap: GapSite) -> None:
    run = gap.far(f"python3 {MEDIUM}/install.pyz --key {FAR_KEY}")
    assert run.status == 0, run.output[-6000:]
    assert "packages: all there" in run.output


def test_nothing_wanted_out(gap: GapSite) -> None:
    assert gap.watch is not None
    assert gap.watch.count() == 0, gap.watch.report()
    assert gap.watch.attempts() == []
