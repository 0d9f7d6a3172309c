# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The content of a file without what belongs to one host alone. Pure. Standard library only, Python 3.9+."""

from __future__ import annotations

import fnmatch
import hashlib
import re
from typing import Iterable, Pattern, Tuple

ADDRESS, HOST = "<address>", "<host>"
SECRET, SECRET_CHANGED, KEY_MATERIAL = "secret", "secret, not as recorded", "made for this host"
# Words that a run makes and that are different each time: the name by which Nginx shows that it loaded a configuration
# (a digest, also of its keys); the release and the digest (also of its environment) that a container is marked with.
MADE = (
    (re.compile(r"/generation/[0-9a-f]{24}\b"), "/generation/<made>"),
    (re.compile(r'(redoubt\.(?:release|digest)): "[0-9a-f]+"'), r"\1: <made>"),
)
# Where a host gets things from is no part of what it has: these are compared for one host only.
SOURCES = (
    "/etc/apt/*",
    "/etc/dnf/*",
    "/etc/yum.repos.d/*",
    "/etc/pki/*",
    "/usr/share/keyrings/*",
    "/etc/ssl/redoubt-depot-ca.crt",
    "/etc/redoubt/yum.repos.d/*",
    "/etc/docker/certs.d/*",
    "/etc/redoubt/packages.json",
    "/etc/redoubt/depot.*",
)
# Describes a release: its number, when and by whom it was made. What is in it is looked at itself.
DESCRIPTIONS = ("*/manifest.json",)
# Random by nature: keys and certificates that were made on the host.
MADE_HERE = ("/etc/redoubt/tls/*", "/etc/redoubt/depot/*", "/etc/cdi/*")


class Normal:
    """How one host's values are taken out of its files' contents."""

    def __init__(self, addresses: Iterable[str], names: Iterable[str]) -> None:
        self.patterns: Tuple[Tuple[Pattern[str], str], ...] = (
            *((_whole(name), HOST) for name in _longest_first(names) if telling(name)),
            *((_whole(address), ADDRESS) for address in _longest_first(addresses)),
            *MADE,
        )

    def text(self, text: str) -> str:
        """The text with placeholders for what belongs to this host."""
        for pattern, word in self.patterns:
            text = pattern.sub(word, text)
        return text

    def content(self, path: str, data: bytes) -> str:
        """The digest of a file's content, or what stands for that of a key or certificate made for this host."""
        if matches(path, MADE_HERE) or b"-----BEGIN " in data:
            return KEY_MATERIAL
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return sha256(data)
        return sha256(self.text(text).encode())


def sha256(data: bytes) -> str:
    """The digest of bytes in the `sha256:…` form."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path fits one of these globs, in which * stands for slashes too."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def is_secret(mode: int) -> bool:
    """Whether a file's mode says that its content is nobody's business: others may not read it."""
    return not mode & 0o004


def telling(name: str) -> bool:
    """Whether a host's name is no common word, which might stand in a file for something else."""
    return name != "localhost" and bool(re.search(r"[0-9.-]", name))


def _longest_first(values: Iterable[str]) -> Iterable[str]:
    return sorted({value for value in values if value}, key=lambda value: (-len(value), value))


def _whole(value: str) -> Pattern[str]:
    """Not as a part of a longer name or address; a port may follow, except after an address with colons of its own."""
    colon = ":" if ":" in value else ""
    return re.compile(rf"(?<![\w.{colon}-]){re.escape(value)}(?![\w{colon}-]|\.\w)")
