# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The fingerprint of a host as a document. Pure. Standard library only, Python 3.9+.

    {schema: 1, host, taken, content: sha256:…,
     sections: {packages, sets, files, images, containers, weights, units, kernel, users, groups},
     local:    {system, sources, files, weights},
     recorded: {sections: {…}, local: {…}}}

Every section maps a name to a row, a row a field to a text. `content` is the digest of `sections`: two hosts that were
given the same have the same one, whatever their addresses, their names and the sources that they were installed from;
those are in `local`. Of a secret a row says that it is there, and its mode. `recorded` holds what the host's records
say of the same rows (a config set's last proved files, a release's manifest, the store of weights, the lock), as far as
there is a record; null stands for a row that should not be there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional

SCHEMA = 1
Row = Dict[str, str]
Section = Dict[str, Row]
SECTIONS = (
    "packages",
    "sets",
    "files",
    "images",
    "containers",
    "weights",
    "units",
    "kernel",
    "users",
    "groups",
)
LOCAL = ("system", "sources", "files", "weights")


class Unreadable(ValueError):
    """This is no fingerprint; the text is for the operator."""


@dataclass
class Gathered:
    """What a look at the host found, section by section, and what its records say of it."""

    sections: Dict[str, Section] = field(default_factory=lambda: {name: {} for name in SECTIONS})
    local: Dict[str, Section] = field(default_factory=lambda: {name: {} for name in LOCAL})
    recorded: Dict[str, Dict[str, Optional[Row]]] = field(default_factory=lambda: {name: {} for name in SECTIONS})
    recorded_local: Dict[str, Dict[str, Optional[Row]]] = field(default_factory=lambda: {name: {} for name in LOCAL})

    def document(self, host: str, taken: str) -> Dict[str, Any]:
        """The fingerprint; `taken` is when, in UTC."""
        return {
            "schema": SCHEMA,
            "host": host,
            "taken": taken,
            "content": digest(self.sections),
            "sections": self.sections,
            "local": self.local,
            "recorded": {"sections": self.recorded, "local": self.recorded_local},
        }


def canonical(value: Any) -> bytes:
    """One spelling for one value: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(value: Any) -> str:
    """The digest of a value in the `sha256:…` form."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


def parse(document: Any, where: str) -> Dict[str, Any]:
    """A fingerprint that came from a file or another host, as it is. Raises Unreadable, also when it was edited."""
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise Unreadable(f"{where} is no fingerprint of schema {SCHEMA}; make one with: ./redoubt play verify")
    if not isinstance(document.get("host"), str) or not document["host"]:
        raise Unreadable(f"{where} does not say of which host it is; make it anew with: ./redoubt play verify")
    recorded = document.get("recorded")
    parts = [document.get("sections"), document.get("local")]
    parts += [recorded.get("sections"), recorded.get("local")] if isinstance(recorded, dict) else [None]
    if not all(_is_table(part) for part in parts):
        raise Unreadable(f"{where} lacks sections, or they are damaged; make it anew with: ./redoubt play verify")
    if document.get("content") != digest(document["sections"]):
        raise Unreadable(
            f"{where} was edited or damaged: its content does not have the digest that it states; make it anew with:"
            " ./redoubt play verify"
        )
    return document


def _is_table(value: Any) -> bool:
    """Whether a value maps names of sections to names to rows (null is no row)."""
    if not isinstance(value, Mapping):
        return False
    rows = [row for section in value.values() if isinstance(section, Mapping) for row in section.values()]
    return all(isinstance(section, Mapping) for section in value.values()) and all(
        row is None or isinstance(row, Mapping) for row in rows
    )
