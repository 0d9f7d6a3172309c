# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What a host has that a lock states otherwise, or does not list at all. Pure. Standard library only, Python 3.9+."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

from .compare import ABSENT, WHOLE, Difference, drift
from .document import Row
from .packages import against_lock

SHORT = 12


class NotLocked(ValueError):
    """The lock cannot be compared with this host; the text is for the operator."""


def lock_differences(document: Mapping[str, Any], lock: Mapping[str, Any]) -> List[Difference]:
    """Packages, images and weights of a host that are not as a lock allows: `left` is the lock, `right` the host.

    What the lock lists and the host lacks is no difference, but for files of a model that is there in part.
    Raises NotLocked.
    """
    platform = document["local"].get("system", {}).get("platform", {}).get("value", "")
    locked = lock.get("platforms", {}).get(platform)
    if locked is None:
        known = ", ".join(sorted(lock.get("platforms", {}))) or "none"
        raise NotLocked(
            f"the lock lacks the platform of {document['host']}, {platform or 'which is not known'} (it has: {known});"
            f' add it with: ./redoubt play lock -e \'{{"redoubt_platforms": ["{platform}"]}}\''
        )
    sections = document["sections"]
    weights = {**sections.get("weights", {}), **document["local"].get("weights", {})}
    recorded: Dict[str, Dict[str, Optional[Row]]] = {
        "packages": against_lock(sections.get("packages", {}), {row["name"]: row for row in locked["packages"]}),
        "images": _images(sections.get("images", {}), lock.get("images", {})),
        "weights": _weights(weights, lock.get("models", {})),
    }
    found = {**sections, "weights": weights}
    rows = drift({"sections": found, "local": {}, "recorded": {"sections": recorded, "local": {}}})
    return [Difference(row.section, row.name, row.field or WHOLE, _left(row.left), row.right) for row in rows]


def _left(value: str) -> str:
    return "not listed" if value == ABSENT else value


def _images(found: Mapping[str, Row], locked: Mapping[str, Any]) -> Dict[str, Optional[Row]]:
    """Either of an image's two digests will do: which one is known depends on where the image came from."""
    by_ref = {f"{row['name']}:{row['tag']}": row for row in locked.values()}
    rows: Dict[str, Optional[Row]] = {}
    for ref, row in found.items():
        allowed = by_ref.get(ref)
        if allowed is None:
            rows[ref] = None
            continue
        digests = [allowed[key] for key in ("config_digest", "digest") if allowed.get(key)]
        rows[ref] = {"digest": row["digest"] if row["digest"] in digests else digests[0]}
    return rows


def _weights(found: Mapping[str, Row], locked: Mapping[str, Any]) -> Dict[str, Optional[Row]]:
    rows: Dict[str, Optional[Row]] = dict.fromkeys(found)
    trees = {"/".join(name.split("/")[:2]) for name in found}
    for name, model in locked.items():
        tree = f"{name}/{model['revision'][:SHORT]}"
        if tree in trees:
            rows.update({f"{tree}/{item['path']}": {"sha256": item["sha256"]} for item in model["files"]})
    return rows
