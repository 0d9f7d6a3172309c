# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What stands in the way of an installation, named with the command that clears it. Pure.

All texts come from apt-get, dpkg and dnf in the locale C.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any, Iterable, Mapping

NEED = re.compile(r"^ (\S+) : (?:Pre)?Depends: (.+)$", re.MULTILINE)
REMOVED = re.compile(r"^Remv (\S+)", re.MULTILINE)
UNFINISHED = re.compile(r"Errors were encountered while processing:\n((?: \S+\n?)+)")
BROKEN = "E: Unmet dependencies"
UNFETCHED = re.compile(r"^E: Failed to fetch (\S+)\s+(.*)$", re.MULTILINE)
# Of librepo, as DNF 4 ([MIRROR] FILE: WHY for URL) and DNF 5 (>>> WHY for URL) pass its words on.
UNGIVEN = re.compile(r"(Status code: \d+|Curl error \(\d+\): .*?) for (\S+\.rpm)\b")
# What both say in the end, with or without the reasons: NAME: Cannot download, … or Cannot download FOLDER/FILE: ….
UNDOWNLOADED = re.compile(
    r"^\s+(?:Librepo error: )?(?:(\S+): Cannot download, |Cannot download (\S+): )[Aa]ll mirrors", re.MULTILINE
)
EPOCH = re.compile(r"-\d+:")
NOWHERE = re.compile(r"^no repository has (.+)$")


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
    gone = {url.rpartition("/")[2] for url, why in rows if "404" in why}
    return _lacks(gone, source, platform) if gone else _barred(*rows[0])


def ungiven(output: str, locked: Mapping[str, Mapping[str, Any]], source: str, platform: str) -> str:
    """The same of what DNF says. `locked`: rows of the lock by name, whose versions are then told; may be empty."""
    whys = {url.rpartition("/")[2]: (url, why) for why, url in UNGIVEN.findall(output)}
    ended = {(name or path).rpartition("/")[2] for name, path in UNDOWNLOADED.findall(output)}
    # A NAME has its epoch, where there is one, and no suffix; a file's name is the other way round.
    ended = {name if name.endswith(".rpm") else f"{EPOCH.sub('-', name)}.rpm" for name in ended}
    # A file that one mirror lacked and the next one gave is none of these.
    wrong = [whys[file] for file in sorted(ended) if file in whys]
    known = {}
    for name, row in locked.items():
        file = f"{name}-{row['version'].rpartition(':')[2]}.{row['architecture']}.rpm"
        known[file] = f"{name} {row['version']} ({file})"
    gone = {url.rpartition("/")[2] for url, why in wrong if "404" in why}
    if gone:
        return _lacks((known.get(file, file) for file in gone), source, platform)
    if wrong:
        return _barred(*wrong[0])
    return _barred(sorted(ended)[0], "dnf tells no reason") if ended else ""


def unlisted(problem: str, source: str, platform: str) -> str:
    """What to do where the lists of a source do not have a locked package; the problem as it is, where it is another.

    `problem`: why DNF's library would not install.
    """
    match = NOWHERE.match(problem)
    return _lacks(match.group(1).split(", "), source, platform) if match else problem


def _lacks(names: Iterable[str], source: str, platform: str) -> str:
    listed = f"lock/platforms/{platform or 'PLATFORM'}.yml"
    return (
        f"the source in {source} lacks {', '.join(sorted(names))}, which {listed} lists: on a site with a network run"
        " './redoubt play gather', on one without './redoubt bundle import' with a medium that has it"
    )


def _barred(url: str, why: str) -> str:
    fix = "see that its server runs (./redoubt play depot) and that this host reaches it"
    if "403" in why:
        fix = "this host's address must be in depot_allowed_cidrs, or in what the mirror allows"
    return f"{url} cannot be had ({why.strip()}): {fix}"
