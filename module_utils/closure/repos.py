# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Package sources of a DNF platform, as the text of a .repo file: read, and refused where nobody signs. Pure.

Standard library only, Python 3.9+.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ansible.module_utils.artifacts.errors import Refusal

ADDRESSES = ("baseurl", "mirrorlist", "metalink")
TRUE = {"1", "yes", "true", "on", "enabled"}
FALSE = {"0", "no", "false", "off", "disabled"}
SCHEME = "file://"
FIX = "Set gpgcheck=1 (packages are signed) or repo_gpgcheck=1 (the lists are), and gpgkey=file://… to the key"


@dataclass(frozen=True)
class Source:
    """One repository: its options as they are written, which signatures are checked, and the paths of the keys."""

    name: str
    options: Mapping[str, str]
    lists_signed: bool
    packages_signed: bool
    keys: tuple[str, ...]


def checked(text: str) -> list[Source]:
    """The enabled repositories of a .repo file. Raises Refusal with every problem."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise Refusal(f"the package sources are not a .repo file: {' '.join(str(error).split())}") from error
    problems: list[str] = []
    found = []
    for name in parser.sections():
        options = {key: " ".join(value.split()) for key, value in parser[name].items()}
        if name == "main":
            problems.append("the package sources have a section [main], which belongs into dnf.conf: take it out")
        elif _flag(options, "enabled", True):
            source, wrong = _source(name, options)
            found.append(source)
            problems += [f"package source [{name}] {problem}" for problem in wrong]
    if not found and not problems:
        problems.append("the package sources are empty: give at least one repository as the text of a .repo file")
    if problems:
        raise Refusal(problems)
    return found


def written(sources: list[Source]) -> str:
    """The same as the text that DNF gets: a repository that cannot be had is a failure, whatever was written."""
    lines = []
    for source in sources:
        options = {**source.options, "enabled": "1", "skip_if_unavailable": "0"}
        lines += [f"[{source.name}]", *(f"{key}={value}" for key, value in options.items()), ""]
    return "\n".join(lines)


def _source(name: str, options: Mapping[str, str]) -> tuple[Source, list[str]]:
    problems = []
    if not any(options.get(key) for key in ADDRESSES):
        problems.append("has none of baseurl, mirrorlist and metalink")
    keys = re.split(r"[\s,]+", options.get("gpgkey", ""))
    paths = tuple(key[len(SCHEME) :] for key in keys if key.startswith(f"{SCHEME}/"))
    lists, packages = _flag(options, "repo_gpgcheck", False), _flag(options, "gpgcheck", False)
    if not lists and not packages:
        problems.append(f"lets DNF take packages that nobody signed. {FIX}")
    elif not paths:
        problems.append(f"names no key. {FIX}")
    elsewhere = [key for key in keys if key and not key.startswith(f"{SCHEME}/")]
    if elsewhere:
        problems.append(
            f"names the key {elsewhere[0]}, which anybody on the way could exchange: put it into a file, and name that"
            " as gpgkey=file://…"
        )
    if not _flag(options, "sslverify", True):
        problems.append("says sslverify=0: name the server's authority with sslcacert instead")
    return Source(name, options, lists, packages, paths), problems


def _flag(options: Mapping[str, str], name: str, default: bool) -> bool:
    value = options.get(name, "").lower()
    if value and value not in TRUE | FALSE:
        raise Refusal(f"package source option {name}={value}: write 0 or 1")
    return value in TRUE if value else default
