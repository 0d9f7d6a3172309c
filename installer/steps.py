"""The steps of install.pyz: bundle -> depot -> project, packages, Python environment. Each can be repeated."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.bundle import importing
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.run_lock import Busy

from installer import machine

DEPOT = Path("/srv/redoubt/depot")
PROJECT = Path("/opt/redoubt/control")
WHEELS = ".redoubt-wheels"  # the launcher reads it: where wheels come from
OLDEST = (3, 11)

TEXT = """
Makes a control host of this machine from a bundle, without any network: checks who signed it and every byte, brings it
into the depot, installs the few packages that a control host begins with, puts the project's tree in place and makes
its Python environment. Run it again at any time: it goes on where it was stopped.
"""
AFTER = """
exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="install.pyz",
        description=TEXT,
        epilog=AFTER,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--bundle", type=Path, help="folder of the bundle (where this file is)")
    top.add_argument(
        "--key", action="append", default=[], metavar="PUB", help="public key that may sign; may be repeated"
    )
    top.add_argument("--keys", type=Path, metavar="FOLDER", help="folder of public keys that may sign")
    top.add_argument("--signatures", type=int, default=1, metavar="N", help="signers that must have signed (1)")
    top.add_argument("--site", help="name of the site that this must be a bundle of")
    top.add_argument(
        "--previous", action="store_true", help="no bundle: put the lock of before in force again, from the depot alone"
    )
    top.add_argument("--allow-older", action="store_true", help="also import a lock that is older than the present one")
    top.add_argument("--depot", type=Path, default=DEPOT, help=f"where the depot is ({DEPOT})")
    top.add_argument("--into", type=Path, default=PROJECT, help=f"where the project goes ({PROJECT})")
    return top


class Steps:
    """Says what goes on, and how long it took."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def say(self, text: str) -> None:
        """One line, with the seconds since the start."""
        print(f"[{time.monotonic() - self.start:7.1f} s] {text}", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Do it all; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        _install(options, Steps())
    except (Refusal, Busy, OSError) as error:
        print(f"install.pyz: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("install.pyz: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


def _install(options: argparse.Namespace, steps: Steps) -> None:
    if sys.version_info[:2] < OLDEST:
        raise Refusal(f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed, this is {sys.version.split()[0]}")
    if os.geteuid() != 0:
        raise Refusal("packages are installed and a depot is made: run this as root (sudo)")
    depot = Depot(options.depot)
    lock = back(depot, options.site, steps.say) if options.previous else bring(depot, options, steps.say)
    view = depot.link(lock["site"])
    steps.say(f"site {lock['site']}, lock {lock['serial']} is in the depot {options.depot}")
    name = machine.platform()
    row = lock["platforms"].get(name)
    if row is None:
        known = ", ".join(sorted(lock["platforms"])) or "none"
        raise Refusal(
            f"this machine is {name or 'of no known platform'}, and the lock has packages for {known} only: make the "
            "lock with this platform too (redoubt_platforms), or take another machine as control host"
        )
    came = machine.install(view, name, row)
    steps.say(f"packages: {len(came)} installed" if came else "packages: all there")
    project = _project(options.into, view, lock, steps.say)
    _environment(project, options.depot, lock["site"], steps.say)
    print(
        f"\nThis machine is a control host. Next, with the inventory of the site:\n"
        f"  cd {options.into} && ./redoubt play site -i INVENTORY -e redoubt_sources=depot"
    )


def back(depot: Depot, wanted: str | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Put the lock in force that was before the present one; return it. Raises Refusal, OSError."""
    sites = [wanted] if wanted else depot.records.sites()
    if len(sites) != 1:
        raise Refusal(f"{depot.root} keeps {', '.join(sites) or 'no site'}: name the one that goes back, with --site")
    lock: dict[str, Any] | None = depot.records.previous(sites[0])
    if lock is None:
        raise Refusal(f"{depot.root} has no lock of site {sites[0]} from before; import the bundle of the one you want")
    say(f"lock {lock['serial']} of site {sites[0]} is put in force again")
    depot.publish(lock)
    return lock


def bring(depot: Depot, options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Bring the bundle into the depot; return the lock that is in force then. Raises Refusal, OSError."""
    bundle = options.bundle or Path(sys.argv[0]).resolve().parent
    keys = [*options.key, *([options.keys] if options.keys else [])]
    say(f"{bundle}: checking and importing")
    site = importing.bring(
        bundle, depot, keys, site=options.site, need=options.signatures, allow_older=options.allow_older
    ).site
    lock: dict[str, Any] | None = depot.lock(site)
    if lock is None:
        raise Refusal(f"{bundle}: imported, but the depot has no lock of site {site}")
    return lock


def _project(into: Path, view: Path, lock: dict[str, Any], say: Callable[[str], None]) -> Path:
    """Put the project's tree in its place; returns it."""
    row = lock["project"]
    if not row:
        raise Refusal(
            f"lock {lock['serial']} of site {lock['site']} has no tree of the project, as one that was made outside a "
            "git checkout: make the lock in one (./redoubt play lock), then bring its bundle"
        )
    target = into.with_name(f"{into.name}-{row['sha256'][:12]}")
    came = machine.unpack(view / "project" / row["file"], target)
    # What runs leave behind, such as fingerprints to compare with, outlives the tree that made it.
    machine.share(target / ".runs", into.with_name(f"{into.name}-runs"))
    machine.link(into, target)
    say(f"project {row['version']}: {'unpacked to' if came else 'is in'} {target}")
    return target


def _environment(project: Path, depot: Path, site: str, say: Callable[[str], None]) -> None:
    """Make the Python environment from the depot's wheels, and write the lock where playbooks read it."""
    (project / WHEELS).write_text(f"{depot}/sites/{site}/python\n", encoding="utf-8")
    _do([str(project / "redoubt"), "setup"], project)
    _do([str(project / ".venv/bin/python"), "-m", "installer.lock_folder", str(depot), site, "lock"], project)
    say("Python environment and lock folder are there")


def _do(command: list[str], folder: Path) -> None:
    if subprocess.run(command, cwd=folder, check=False).returncode:
        raise Refusal(f"{' '.join(command)} failed, see above; mend it and run this again")
