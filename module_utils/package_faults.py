# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What stands in the way of an installation with APT, named with the command that clears it. Pure.

All texts come from apt-get and dpkg in the locale C.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Iterable

NEED = re.compile(r"^ (\S+) : (?:Pre)?Depends: (.+)$", re.MULTILINE)
REMOVED = re.compile(r"^Remv (\S+)", re.MULTILINE)
UNFINISHED = re.compile(r"Errors were encountered while processing:\n((?: \S+\n?)+)")
BROKEN = "E: Unmet dependencies"
UNFETCHED = re.compile(r"^E: Failed to fetch (\S+)\s+(.*)$", re.MULTILINE)


def plain(name: str) -> str:
    """A package's name without its architecture."""
    return name.partition(":")[0]


def others(names: Iterable[str], ours: Iterable[str]) -> list[str]:
    """Those of `names` that fit none of the names and globs `ours`."""
    patterns = list(ours)
    return sorted({plain(name) for name in names if not any(fnmatchcase(plain(name), one) for one in patterns)})


def broken_before(check: str) -> str:
    """Why the host's packages were broken before this run, from `apt-get check`; empty where they are not."""
    needs = NEED.findall(check)
    if BROKEN not in check or not needs:
        return ""
    listed = "; ".join(f"{plain(name)} needs {need}" for name, need in needs)
    names = " ".join(sorted({plain(name) for name, _ in needs}))
    return (
        f"packages of this host were broken before: {listed}. No package was changed."
        f" Run 'apt-get --fix-broken install' (read what it would remove) or 'apt-get remove {names}';"
        " then run this again"
    )


def unfinished(configure: str, ours: Iterable[str]) -> str:
    """Which packages that are not ours cannot be configured, from `dpkg --configure --pending`; empty without any."""
    match = UNFINISHED.search(configure + "\n")
    names = others(match.group(1).split(), ours) if match else []
    if not names:
        return ""
    return (
        f"packages of this host are half installed, and dpkg cannot finish them: {', '.join(names)}"
        f" ({configure.strip()[-600:]}). No package was changed."
        f" Mend what they say and run 'dpkg --configure --pending', or run"
        f" 'dpkg --remove {' '.join(names)}'; then run this again"
    )


def impossible(rehearsal: str, held: Iterable[str]) -> str:
    """Which packages forbid the installation, from a rehearsal that failed; empty where the reason is another one."""
    kept = {plain(name) for name in held}
    needs = [(plain(name), need) for name, need in NEED.findall(rehearsal) if plain(name) in kept]
    if not needs:
        return ""
    listed = "; ".join(f"{name} is held and needs {need}" for name, need in needs)
    names = " ".join(sorted({name for name, _ in needs}))
    return (
        f"{listed}. No package was changed. Bring a version of it that takes the new one, or run"
        f" 'apt-mark unhold {names}' and 'apt-get remove {names}'; then run this again"
    )


def pushed_out(rehearsal: str, ours: Iterable[str]) -> str:
    """Which packages that are not ours would be removed, from a rehearsal; empty without any."""
    names = others(REMOVED.findall(rehearsal), ours)
    if not names:
        return ""
    return (
        f"apt would remove {', '.join(names)} for it. No package was changed. Bring versions that take the new ones, or"
        f" run 'apt-get remove {' '.join(names)}' yourself; then run this again"
    )


def unfetched(output: str, source: str, platform: str) -> str:
    """What to do about files that a depot or a mirror did not give, from the words of apt-get; empty without any.

    `source`: the file that names it; `platform`: the lock's name of this host, such as debian-13-amd64, or "".
    """
    rows = UNFETCHED.findall(output)
    if not rows:
        return ""
    gone = sorted({url.rpartition("/")[2] for url, why in rows if "404" in why})
    if gone:
        listed = f"lock/platforms/{platform or 'PLATFORM'}.yml"
        return (
            f"the source in {source} lacks {', '.join(gone)}, which {listed} lists: on a site with a network run"
            " './redoubt play gather', on one without './redoubt bundle import' with a medium that has it"
        )
    url, why = rows[0]
    fix = "see that its server runs (./redoubt play depot) and that this host reaches it"
    if "403" in why:
        fix = "this host's address must be in depot_allowed_cidrs, or in what the mirror allows"
    return f"{url} cannot be had ({why.strip()}): {fix}"
