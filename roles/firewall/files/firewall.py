"""The host's own part of the firewall: load the rules, and put the former ones back unless somebody confirms the new.

    firewall admit SETTINGS   refuse rules under which the present SSH connection could not come again
    firewall apply            load the rules, and start the timer that takes them back
    firewall confirm          a new connection came in: stop the timer
    firewall restore          what the timer does
    firewall load             at boot; rules that were never confirmed are not loaded
    firewall check            do the loaded rules equal the file, and were they confirmed?
    firewall outcome          wait until nothing is pending; say whether the former rules were put back

Standard library only, Python 3.9+: it runs on the host, at boot and without Ansible.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import shutil
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

TABLE = ["table", "inet", "redoubt"]
TIMER = "redoubt-firewall-restore"
UNIT = "redoubt-firewall.service"
FOLDER = Path("/etc/redoubt/firewall")
RULES = FOLDER / "rules.nft"
STATE = Path("/var/lib/redoubt/firewall")
# The rules that were confirmed last, and what a dead man's timer needs, which outlives a boot.
CONFIRMED = STATE / "confirmed.nft"
PENDING = STATE / "pending"
LOADED = STATE / "loaded.json"
RESTORED = STATE / "restored"
# What config_set knows of these files; it must believe neither in rules that were taken back nor in their proof.
STAMP = Path("/var/lib/redoubt/config_sets/firewall.json")
GOOD = Path("/var/lib/redoubt/config_sets/firewall.good.json")
NETWORK_DEVICES = Path("/sys/class/net")


class Wrong(Exception):
    """What the operator must know; the program ends with it."""


def run(*words: str, text: str | None = None) -> tuple[int, str]:
    """Exit status and output of a command."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, (done.stdout + done.stderr).strip()


def listing() -> str | None:
    """The loaded table without its counters; None when there is none."""
    status, output = run("nft", "--stateless", "list", *TABLE)
    return None if status else output


def load_text(text: str) -> None:
    """Replace the table in one transaction; other tables stay as they are."""
    status, output = run("nft", "-f", "-", text=text)
    if status:
        raise Wrong(f"nft refuses the rules, and nothing was changed: {output}")


def replacing(table: str | None) -> str:
    """The commands that make the table so; None takes it away."""
    words = " ".join(TABLE)
    return f"{words}\ndelete {words}\n{table or ''}\n"


def digest(text: str) -> str:
    """What identifies a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def load_rules() -> None:
    """Load the file, and note how the kernel shows it."""
    text = RULES.read_text()
    load_text(text)
    LOADED.write_text(json.dumps({"rules": digest(text), "table": digest(listing() or "")}))


# Before anything is changed


def connection_source() -> tuple[str, int] | None:
    """Where this SSH connection comes from and its port here: the environment of the nearest ancestor that knows."""
    process = os.getpid()
    while process > 1:
        place = Path("/proc", str(process))
        try:
            environment = (place / "environ").read_bytes()
            process = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return None
        for entry in environment.split(b"\0"):
            name, _, value = entry.partition(b"=")
            words = value.decode(errors="replace").split()
            if name == b"SSH_CONNECTION" and len(words) == 4:
                return words[0].partition("%")[0], int(words[3])
    return None


def source_problem(settings: dict[str, Any], source: tuple[str, int] | None) -> str:
    """Why the present connection could not come again; empty when it could, or when nobody came by SSH."""
    if source is None or not settings["check_source"]:
        return ""
    address = ipaddress.ip_address(source[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    networks = [ipaddress.ip_network(text, strict=False) for text in settings["ssh_cidrs"]]
    if source[1] != settings["ssh_port"]:
        return (
            f"this connection came in at port {source[1]}, but firewall_ssh_port is {settings['ssh_port']}, so the next"
            f" one would not. Fix: firewall_ssh_port: {source[1]}"
        )
    if not any(address in network for network in networks):
        return (
            f"this connection comes from {address}, which is in none of firewall_ssh_cidrs"
            f" ({', '.join(settings['ssh_cidrs'])}), so the next one would not come in. Fix: add {address} or its"
            " network to firewall_ssh_cidrs; where new connections come from another address, set"
            " firewall_check_source: false (the timer still guards)"
        )
    return ""


def bridges_to_outside(patterns: list[str]) -> list[str]:
    """Bridges named like those of containers that a network card, bond or VLAN is in: outsiders come through them."""
    found = []
    for member in sorted(NETWORK_DEVICES.glob("*/brif/*")):
        bridge = member.parents[1].name
        device = NETWORK_DEVICES / member.name
        real = (device / "device").exists() or any(device.glob("lower_*"))
        if real and any(fnmatch(bridge, pattern) for pattern in patterns):
            found.append(f"{bridge} (with {member.name})")
    return found


def admit(settings: dict[str, Any]) -> None:
    """Raise Wrong when the rules must not be tried."""
    problem = source_problem(settings, connection_source())
    bridges = bridges_to_outside(settings["container_interfaces"])
    if bridges:
        problem = (
            f"{', '.join(bridges)} would be taken for a network of containers, and whoever comes through it for a"
            " container. Fix: firewall_container_interfaces must name Docker's bridges only"
        )
    if run("systemctl", "is-active", "--quiet", "firewalld.service")[0] == 0:
        problem = (
            "firewalld runs, and a packet would need the leave of both. Fix: systemctl disable --now firewalld,"
            " or leave firewall_enabled unset here"
        )
    if problem:
        raise Wrong(problem)


# Trying rules


def arm(seconds: int) -> None:
    """Keep what is needed to go back, and start the timer that does. A try that nobody confirmed keeps its way back."""
    if not PENDING.exists():
        new = STATE / "pending.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        before = listing()
        if before is not None:
            (new / "table.nft").write_text(before)
        for kept, name in ((CONFIRMED, "rules.nft"), (GOOD, "good.json")):
            if kept.exists():
                shutil.copyfile(kept, new / name)
        # The program as it is now: the way back needs nothing that a later run may replace or remove.
        shutil.copyfile(__file__, new / "program")
        new.rename(PENDING)
    # Who tries: its own proof is good before the rules are confirmed, everybody else's is not.
    (PENDING / "owner").write_text(str(os.getppid()))
    RESTORED.unlink(missing_ok=True)
    run("systemctl", "stop", f"{TIMER}.timer")
    start = ["systemd-run", "--quiet", "--collect", f"--unit={TIMER}", f"--on-active={seconds}"]
    status, output = run(
        *start, "--timer-property=AccuracySec=500ms", "/usr/bin/python3", str(PENDING / "program"), "restore"
    )
    if status:
        shutil.rmtree(PENDING)
        raise Wrong(f"the timer that would take the rules back cannot be started, so they were not loaded: {output}")


def apply() -> None:
    """Load the rules under guard of the timer."""
    arm(json.loads((FOLDER / "settings.json").read_text())["confirm_seconds"])
    load_rules()


def confirm() -> None:
    """A new connection came in: these rules stay."""
    if not PENDING.exists():
        raise Wrong("too late: the former rules were put back already")
    shutil.copyfile(RULES, STATE / "confirmed.new")
    (STATE / "confirmed.new").rename(CONFIRMED)
    PENDING.rename(STATE / "pending.done")
    shutil.rmtree(STATE / "pending.done")
    run("systemctl", "stop", f"{TIMER}.timer")


def put_back_files() -> None:
    """The file and config_set's knowledge of it, as they were before the try."""
    STAMP.unlink(missing_ok=True)
    for name, path in (("rules.nft", RULES), ("good.json", GOOD)):
        if (PENDING / name).exists():
            shutil.copyfile(PENDING / name, path)
        else:
            path.unlink(missing_ok=True)


def restore(*, table: bool) -> None:
    """Put back what was before the try; at boot no table is loaded, so the file alone."""
    if not PENDING.exists():
        return
    if table:
        kept = PENDING / "table.nft"
        load_text(replacing(kept.read_text() if kept.exists() else None))
    put_back_files()
    if RULES.exists():
        LOADED.write_text(json.dumps({"rules": digest(RULES.read_text()), "table": digest(listing() or "")}))
    shutil.rmtree(PENDING)
    RESTORED.write_text(time.strftime("%Y-%m-%dT%H:%M:%SZ\n", time.gmtime()))
    print("nobody confirmed the new rules, so the former ones are back")


def load() -> None:
    """What the service does."""
    restore(table=False)
    if RULES.exists():
        load_rules()


# Looking


def fault() -> str:
    """What is wrong with the loaded rules; empty when nothing is."""
    table = listing()
    if not RULES.exists():
        return f"{RULES} does not exist"
    if table is None:
        return "the table inet redoubt is not loaded: every port is open"
    known = json.loads(LOADED.read_text()) if LOADED.exists() else {}
    if known.get("rules") != digest(RULES.read_text()):
        return f"{RULES} is not what was loaded"
    if known.get("table") != digest(table):
        return f"the table inet redoubt was changed after {RULES} was loaded"
    with contextlib.suppress(FileNotFoundError):
        if int((PENDING / "owner").read_text()) != os.getppid():
            return "a run loaded these rules and never confirmed them"
    return ""


def check() -> None:
    """Raise Wrong when the loaded rules are not those of the file."""
    problem = fault()
    if problem:
        raise Wrong(problem)
    print(f"the table inet redoubt is as in {RULES}")


def outcome() -> None:
    """Wait until the try is over."""
    for _ in range(600):
        if not PENDING.exists():
            break
        time.sleep(1)
    print(f"restored {RESTORED.read_text().strip()}" if RESTORED.exists() else "not restored")


def main(words: list[str]) -> None:
    """Entry point."""
    verb = words[0] if words else ""
    if verb == "admit":
        admit(json.loads(Path(words[1]).read_text()))
        return
    if verb in ("check", "outcome"):
        {"check": check, "outcome": outcome}[verb]()
        return
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if verb == "restore":
            restore(table=True)
        else:
            {"apply": apply, "confirm": confirm, "load": load}[verb]()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Wrong as wrong:
        sys.exit(f"firewall: {wrong}")
