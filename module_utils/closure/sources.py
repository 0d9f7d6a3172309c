# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Package sources of a platform, as deb822 text: this machine's own with another suite, or as given.

Standard library only, Python 3.9+.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.closure.platforms import Platform
from ansible.module_utils.closure.stanzas import fields, split

PLACES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources")
OS_RELEASE = "/etc/os-release"
# Words with which APT takes packages that nobody signed.
UNSIGNED = re.compile(r"^(trusted|allow-insecure|allow-weak)$", re.IGNORECASE)
ONE_LINE = re.compile(
    r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>(?:\s+\S+)*)$"
)
OPTIONS = {
    "signed-by": "Signed-By",
    "trusted": "Trusted",
    "allow-insecure": "Allow-Insecure",
    "allow-weak": "Allow-Weak",
}


def os_release(text: str) -> dict[str, str]:
    """The values of an os-release file."""
    rows = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip().strip("\"'") for name, _, value in rows}


def from_lines(text: str) -> str:
    """One-line sources as deb822 stanzas; source packages and comments are left out."""
    stanzas = []
    for line in text.splitlines():
        match = ONE_LINE.match(line.partition("#")[0].strip())
        if not match:
            continue
        stanza = ["Types: deb", f"URIs: {match['uri']}", f"Suites: {match['suite']}"]
        components = " ".join(match["components"].split())
        stanza += [f"Components: {components}"] if components else []
        for option in (match["options"] or "").split():
            name, _, value = option.partition("=")
            if name.lower() in OPTIONS:
                stanza.append(f"{OPTIONS[name.lower()]}: {value}")
        stanzas.append("\n".join(stanza))
    return "\n\n".join(stanzas)


def without_comments(text: str) -> str:
    """deb822 text without its comment lines."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def for_suite(text: str, old: str, new: str) -> str:
    """deb822 sources with the code name of another release in every suite (trixie-updates, trixie-security)."""
    found = []
    for line in without_comments(text).splitlines():
        is_suite = line.lower().startswith("suites:")
        found.append(re.sub(rf"(?<![\w.]){re.escape(old)}(?![\w.])", new, line) if is_suite else line)
    return "\n".join(found)


def of_machine(platform: Platform, places: Sequence[str] = PLACES, release: str = OS_RELEASE) -> str:
    """This machine's own sources, with the platform's code name. Raises Refusal, and OSError."""
    own = os_release(Path(release).read_text(encoding="utf-8"))
    if own.get("ID") != platform.word or not own.get("VERSION_CODENAME"):
        raise Refusal(
            f"{platform.name} cannot be resolved from this machine's own package sources: it runs"
            f" {own.get('PRETTY_NAME', 'an unknown system')}, no release of {platform.distribution} with a code name."
            " Give the platform's own sources (deb822 text) and their keys"
        )
    texts = []
    for path in sorted(path for place in places for path in glob.glob(place)):
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        texts.append(text if path.endswith(".sources") else from_lines(text))
    joined = "\n\n".join(text for text in map(without_comments, texts) if text.strip())
    if not joined:
        raise Refusal(f"this machine has no package sources ({', '.join(places)}): give the platform's own")
    return for_suite(joined, own["VERSION_CODENAME"], platform.code_name)


def checked(text: str) -> list[dict[str, str]]:
    """The fields of each source. Raises Refusal where one is disabled from being signed, or is no source."""
    found = []
    for stanza in split(without_comments(text)):
        known = fields(stanza)
        unsigned = [name for name, value in known.items() if UNSIGNED.match(name) and value.lower() not in ("no", "")]
        if unsigned:
            raise Refusal(
                f"package source {known.get('uris', '?')} says '{unsigned[0]}: {known[unsigned[0]]}', which lets APT"
                " take packages that nobody signed. Remove the word, and name the repository's key under Signed-By"
            )
        if not known.get("uris") or not known.get("suites"):
            raise Refusal(f"package source without URIs or Suites: {stanza.splitlines()[0]!r}")
        if known.get("enabled", "yes").lower() != "no":
            found.append(known)
    if not found:
        raise Refusal("the package sources are empty: give at least one repository as deb822 text")
    return found


def key_files(sources: Sequence[Mapping[str, str]]) -> list[str]:
    """Paths that the sources' Signed-By name; keys that stand in the source itself are none."""
    words = [word for source in sources for word in source.get("signed-by", "").split() if word.startswith("/")]
    return list(dict.fromkeys(words))
