# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What a bundle carries as a bill of materials (CycloneDX 1.6 with ML-BOM parts). Pure; no time and no chance in it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from ansible.module_utils.lock.document import canonical
from ansible.module_utils.lock.parts import Part, parts

TYPES = {
    "package": "library",
    "image": "container",
    "model": "machine-learning-model",
    "python": "library",
    "project": "application",
}

Component = dict[str, Any]


def sbom(lock: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document for all that a lock lists: a component an artefact, with its files where it has more."""
    groups: dict[tuple[str, str, str, str], list[Part]] = {}
    for part in parts(lock):
        platform = part.platform if part.kind == "package" else ""
        if part.name != "index" or part.kind != "package":
            groups.setdefault((part.kind, platform, part.name, part.version), []).append(part)
    components: list[Component] = []
    for (kind, platform, name, version), rows in sorted(groups.items()):
        components.append(_component(kind, platform, name, version, rows, lock))
    site = f"site:{lock['site']}"
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "platform",
                "bom-ref": site,
                "name": lock["site"],
                "version": str(lock["serial"]),
                "properties": _properties({"redoubt:lock:digest": lock["digest"]}),
            }
        },
        "components": components,
        "dependencies": [
            {"ref": site, "dependsOn": [item["bom-ref"] for item in components]},
            *({"ref": item["bom-ref"]} for item in components),
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, canonical(document).decode())
    return {**document, "serialNumber": f"urn:uuid:{serial}"}


def _component(
    kind: str, platform: str, name: str, version: str, rows: list[Part], lock: Mapping[str, Any]
) -> Component:
    ref = ":".join(word for word in (kind, platform, f"{name}@{version}") if word)
    made: Component = {"type": TYPES[kind], "bom-ref": ref, "name": name, "version": version}
    purl = _purl(kind, platform, name, version, rows, lock)
    if purl:
        made["purl"] = purl
    if kind == "model":
        made["licenses"] = [{"license": {"name": lock["models"][name]["license"]}}]
    if kind == "image":
        made["name"] = lock["images"][name]["name"]
    if kind in ("package", "project"):
        made["hashes"] = _hashes(rows[0])
    else:
        made["components"] = [
            {
                "type": "file",
                "bom-ref": f"{ref}#{part.path}",
                "name": part.path,
                "hashes": _hashes(part),
                "properties": _properties({"redoubt:size": part.size}),
            }
            for part in rows
        ]
    made["properties"] = _properties(
        {
            "redoubt:origin": rows[0].origin,
            "redoubt:platform": platform,
            "redoubt:size": sum(part.size for part in rows),
        }
    )
    return made


def _purl(kind: str, platform: str, name: str, version: str, rows: Iterable[Part], lock: Mapping[str, Any]) -> str:
    if kind == "python":
        return f"pkg:pypi/{quote(name.lower())}@{quote(version)}"
    if kind == "package":
        form = "rpm" if next(iter(rows)).path.endswith(".rpm") else "deb"
        distribution = platform.split("-", maxsplit=1)[0]
        return f"pkg:{form}/{distribution}/{quote(name)}@{quote(version)}?arch={platform.rpartition('-')[2]}"
    if kind == "image":
        row = lock["images"][name]
        return f"pkg:oci/{quote(row['name'].rpartition('/')[2])}@{quote(row['digest'])}?tag={quote(row['tag'])}"
    return ""


def _hashes(part: Part) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": part.sha256}]


def _properties(values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"name": name, "value": str(value)} for name, value in sorted(values.items()) if value != ""]
