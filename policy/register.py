# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The register of issued API keys (`gateway_issued_keys`): who has one, its digest, and what it may.

Each function takes the register and returns a new one, sorted by name. A secret is never part of it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from policy.keys import LIMITS, moment

Register = list[dict[str, Any]]


class KeyRefused(ValueError):
    """What was asked of the register cannot be done; the text says why and what to do instead."""


def _found(register: Register, name: str) -> dict[str, Any]:
    for entry in register:
        if str(entry.get("name")) == name:
            return entry
    known = ", ".join(sorted(str(entry.get("name")) for entry in register)) or "none"
    raise KeyRefused(f"no key of {name!r} was issued - there are: {known}")


def _sorted(register: Register) -> Register:
    return sorted(register, key=lambda entry: str(entry["name"]).lower())


def issue(register: Register, name: str, digest: str, limits: dict[str, Any]) -> Register:
    """With a new client. `digest` is `sha256:` and 64 hex digits; `limits` are the fields that a key may have.

    Raises KeyRefused when the client has a key already, or when a limit would be the key itself.
    """
    if any(str(entry.get("name")).lower() == name.lower() for entry in register):
        raise KeyRefused(f"{name!r} has a key already - use keys_rotate={name} for a new one, or another name")
    if set(limits) & {"name", "key", "digest", "previous"}:
        raise KeyRefused(
            "keys_limits holds the key or its name - it takes models, routes, addresses, expires and limits"
        )
    return _sorted([*register, {"name": name, "digest": digest, **limits}])


def rotate(register: Register, name: str, digest: str, now: datetime, overlap: timedelta) -> Register:
    """With a new secret for a client; the one before stays valid for `overlap` after `now`.

    Raises KeyRefused when the client has no key here.
    """
    entry = _found(register, name)
    changed = {**entry, "digest": digest}
    changed.pop("previous", None)
    if overlap > timedelta():
        until = (now + overlap).astimezone(UTC).replace(microsecond=0)
        changed["previous"] = {"digest": entry["digest"], "expires": until.isoformat()}
    return _sorted([changed if other is entry else other for other in register])


def revoke(register: Register, name: str) -> Register:
    """Without a client. Raises KeyRefused when it has no key here."""
    entry = _found(register, name)
    return _sorted([other for other in register if other is not entry])


def rows(register: Register, now: datetime) -> list[str]:
    """One line for each key: name, state, what it is limited to. No digest beyond its first 8 digits."""
    lines = []
    for entry in _sorted(register):
        ends = moment(entry["expires"]) if "expires" in entry else None
        state = "expired" if ends is not None and ends <= now.timestamp() else "valid"
        told = [f"{entry['name']}: {state}", f"digest {str(entry['digest']).removeprefix('sha256:')[:8]}…"]
        if "expires" in entry:
            told.append(f"expires {entry['expires']}")
        previous = entry.get("previous")
        if previous and moment(previous["expires"]) > now.timestamp():
            told.append(f"the key before valid until {previous['expires']}")
        for field in ("models", "routes", "addresses"):
            if field in entry:
                told.append(f"{field} {', '.join(str(item) for item in entry[field])}")
        told += [f"{entry[field]} {field.replace('_', ' ')}" for field in LIMITS if field in entry]
        lines.append("; ".join(told))
    return lines
