"""What a host's store holds, as one JSON file for people and programs, and as figures for Prometheus."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .holdings import Held, References, holdings, references, trees
from .ledger import Ledger
from .progress import write_json, write_text
from .store import Store
from .survey import Stamp

INVENTORY = "inventory.json"
SCHEMA = 1
METRICS = "redoubt_weights_care.prom"
HELP = {
    "stored_bytes": "Bytes of the store, each file once",
    "oldest_proof_timestamp_seconds": "When the file was read whose proof is the oldest",
    "damaged_files": "Files of a model that were read and are not as they should be",
    "reproof_bytes": "Bytes that the last re-proof has read",
    "reproof_end_timestamp_seconds": "When a re-proof last came to its end",
}


def read_inventory(state: Path) -> dict[str, Any]:
    """Return the inventory as it was last written; {} when there is none of this version."""
    try:
        found = json.loads((state / INVENTORY).read_text())
    except (OSError, ValueError):
        return {}
    ours = isinstance(found, dict) and found.get("schema") == SCHEMA and isinstance(found.get("models"), dict)
    return found if ours else {}


def refresh(
    store: Store,
    ledger: Ledger,
    releases: Path | None,
    metrics: Path | None = None,
    reproof: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the inventory if it is not so already, and the metrics where `metrics` is given; return it.

    Without ``reproof`` what is known of the last one stays. Raises OSError.
    """
    before = read_inventory(store.state)
    last = before.get("reproof")
    known = reproof if reproof is not None else last if isinstance(last, dict) else None
    document = inventory(store, ledger, references(store, releases), known)
    if {**before, "updated": 0} != {**document, "updated": 0}:
        write_json(store.state / INVENTORY, {**document, "updated": int(time.time())}, mode=0o644)
    if metrics is not None and metrics.parent.is_dir():
        write_text(metrics, metrics_text(document), 0o644)
    return document


def inventory(store: Store, ledger: Ledger, used: References, reproof: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the document; docs/weights.md says what is in it. Raises OSError."""
    held = holdings(store, ledger)
    models: dict[str, dict[str, Any]] = {}
    for tree in trees(store):
        name, _, short = tree.partition("/")
        models.setdefault(name, {})[short] = _revision(store, ledger, used, tree, [x for x in held if tree in x.trees])
    proofs = [row["oldest_proof"] for rows in models.values() for row in rows.values() if row["oldest_proof"]]
    return {
        "schema": SCHEMA,
        "updated": 0,
        "directory": str(store.models),
        "files": len(held),
        "bytes": sum(item.status.st_size for item in held),
        "oldest_proof": min(proofs, default=None),
        "current_release": used.current or None,
        "reproof": dict(reproof) if reproof else None,
        "models": models,
    }


def _revision(store: Store, ledger: Ledger, used: References, tree: str, files: list[Held]) -> dict[str, Any]:
    root = store.models / tree
    stamp = Stamp.read(store.state / f"{tree}.json")
    proofs = [proof for item in files if (proof := ledger.proof(item.status)) is not None]
    below = f"{root}/"
    places = [(item, place) for item in files for place in item.places if str(place).startswith(below)]
    return {
        "path": str(root),
        "revision": stamp.revision or None,
        "files": len(places),
        "bytes": sum(item.status.st_size for item, _ in places),
        "shared_bytes": sum(item.status.st_size for item in files if len(item.trees) > 1),
        "since": int(stamp.chosen) or None,
        "oldest_proof": int(min((proof.since for proof in proofs), default=0)) or None,
        "unproved": len(files) - len(proofs),
        "damaged": sorted(str(place.relative_to(root)) for item, place in places if ledger.damage(item.status)),
        "releases": used.by_tree.get(tree, []),
        "facts": stamp.facts,
    }


def metrics_text(document: Mapping[str, Any]) -> str:
    """Return an inventory's figures in Prometheus' text format; one that nobody knows is left out."""
    reproof = document["reproof"] or {}
    rows: dict[str, list[tuple[str, Any]]] = {
        "stored_bytes": [("", document["bytes"])],
        "oldest_proof_timestamp_seconds": [("", document["oldest_proof"])],
        "damaged_files": [
            (f'{{model="{name}"}}', sum(len(row["damaged"]) for row in revisions.values()))
            for name, revisions in document["models"].items()
        ],
        "reproof_bytes": [("", reproof.get("bytes"))],
        "reproof_end_timestamp_seconds": [("", reproof.get("ended"))],
    }
    lines = []
    for name, values in rows.items():
        metric = f"redoubt_weights_{name}"
        told = [f"{metric}{labels} {value}" for labels, value in values if value is not None]
        lines += [f"# HELP {metric} {HELP[name]}", f"# TYPE {metric} gauge", *told] if told else []
    return "\n".join(lines) + "\n"
