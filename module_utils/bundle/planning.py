# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What a bundle would carry, and what the far side has: the forecast, before anything is brought. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.manifest import SHA256
from ansible.module_utils.lock.document import canonical
from ansible.module_utils.lock.parts import KINDS, Part, parts

from .document import contents, parse_manifest

NAME_WIDTH = 58


@dataclass(frozen=True)
class Against:
    """What a delta leaves out: `digest` says what that was read from, `blobs` is {sha256: bytes}."""

    digest: str
    blobs: Mapping[str, int]

    def blobs_of(self, lock: Mapping[str, Any]) -> frozenset[str]:
        """Return which parts of a lock the far side has."""
        return frozenset(sha256 for sha256, size in contents(lock).items() if self.blobs.get(sha256) == size)


def against(data: bytes, where: str) -> Against:
    """Return what a far side has: its depot's inventory.json, or the manifest of a bundle that it imported.

    Raises Refusal.
    """
    try:
        document = json.loads(data)
    except ValueError as error:
        raise Refusal(f"{where}: is not JSON ({error}); give a depot's inventory.json or a bundle's manifest") from None
    if isinstance(document, dict) and "lock" in document:
        manifest = parse_manifest(data, where)
        return Against(manifest.digest, contents(manifest.lock))
    blobs = document.get("blobs") if isinstance(document, dict) else None
    if not isinstance(blobs, dict) or document.get("schema") != 1:
        raise Refusal(f"{where}: is neither a depot's inventory.json nor a bundle's manifest.json")
    if not all(SHA256.fullmatch(name) and isinstance(size, int) for name, size in blobs.items()):
        raise Refusal(f"{where}: its blobs are not SHA-256 with sizes")
    return Against(f"sha256:{hashlib.sha256(canonical(document)).hexdigest()}", blobs)


def carried(lock: Mapping[str, Any], delta: Against | None) -> dict[str, int]:
    """Return {sha256: bytes} of what a bundle of this lock carries, in the lock's order."""
    there = delta.blobs_of(lock) if delta else frozenset()
    return {sha256: size for sha256, size in contents(lock).items() if sha256 not in there}


def plan(lock: Mapping[str, Any], here: Collection[str] = (), delta: Against | None = None) -> dict[str, Any]:
    """Return the forecast of a bundle: each part with what it needs, and the totals by kind.

    ``parts``: {kind, name, version, platform, path, sha256, size, origin, new (not on the far side), gathered (in the
    depot here)}. ``totals``: {KIND or ``all``: {parts, bytes, carried_bytes, missing_bytes}}; a content counts once.
    """
    there = delta.blobs_of(lock) if delta else frozenset()
    rows, seen = [], set()
    totals = {kind: dict.fromkeys(("parts", "bytes", "carried_bytes", "missing_bytes"), 0) for kind in (*KINDS, "all")}
    for part in parts(lock):
        row = {**asdict(part), "new": part.sha256 not in there, "gathered": part.sha256 in here}
        rows.append(row)
        for total in (totals[part.kind], totals["all"]):
            total["parts"] += 1
            if part.sha256 not in seen:
                total["bytes"] += part.size
                total["carried_bytes"] += part.size if row["new"] else 0
                total["missing_bytes"] += 0 if row["gathered"] or not row["new"] else part.size
        seen.add(part.sha256)
    return {
        "schema": 1,
        "kind": "delta" if delta else "full",
        "site": lock["site"],
        "serial": lock["serial"],
        "lock_digest": lock["digest"],
        "against": delta.digest if delta else "",
        "totals": totals,
        "parts": rows,
    }


def table(document: Mapping[str, Any], new_only: bool = False) -> list[str]:
    """Return a forecast as lines of text, widest part last."""
    lines = [f"{'kind':8} {'name and version':{NAME_WIDTH}} {'bytes':>15}  {'':4} {'sha256':12}  origin"]
    for row in document["parts"]:
        if new_only and not row["new"]:
            continue
        mark = "" if row["gathered"] else "lack"
        label = _label(Part(**{key: row[key] for key in Part.__dataclass_fields__}))
        lines.append(
            f"{row['kind']:8} {label:{NAME_WIDTH}} {row['size']:>15,}  {mark if row['new'] else 'has':4} "
            f"{row['sha256'][:12]}  {row['origin']}"
        )
    lines.append("")
    for kind, total in document["totals"].items():
        if total["parts"]:
            lines.append(
                f"{kind:8} {total['parts']:>6} files  {human(total['bytes']):>10}"
                f"  to carry {human(total['carried_bytes']):>10}  still to gather {human(total['missing_bytes']):>10}"
            )
    return lines


def _label(part: Part) -> str:
    words = {"image": f"{part.name} {part.version} {part.path.rpartition('/')[0].rpartition('/')[2]}"}
    words["model"] = f"{part.name} {part.path.split('/', 3)[-1]}"
    text = words.get(part.kind, f"{part.name} {part.version}")
    if part.platform:
        text += f" [{part.platform}]"
    return text if len(text) <= NAME_WIDTH else text[: NAME_WIDTH - 1] + "…"


def human(size: float) -> str:
    """Return a size in decimal units, as a medium's label has them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:  # the step of decimal units
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
