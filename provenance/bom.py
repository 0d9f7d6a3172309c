"""The bill of materials of a site (CycloneDX 1.6, ML-BOM): which models and images its hosts run, byte for byte. Pure.

The same plans always give the same bytes: nothing of it is a time or chance, and the serial number comes from it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from planner.artifacts import is_placeholder
from provenance.oms import root_digest

Component = dict[str, Any]


@dataclass
class Known:
    """What plans do not say of a model: the hub it comes from, and who signed it."""

    hubs: Mapping[str, str] = field(default_factory=dict)
    signers: Mapping[str, str] = field(default_factory=dict)


def bom(site: str, plans: Mapping[str, Mapping[str, Any]], known: Known) -> str:
    """Return the document for these hosts' plans. Raises ValueError for digests that only stand for real ones, and for
    hosts that mean different things by one name."""
    models: dict[str, Component] = {}
    images: dict[str, Component] = {}
    users: dict[str, set[str]] = {}
    for host, plan in plans.items():
        for entry in plan["weights"]:
            _add(models, users, host, _model(entry, known))
        for entry in plan["images"]:
            _add(images, users, host, _image(entry))
    components = [one for found in (models, images) for _, one in sorted(found.items())]
    for component in components:
        hosts = [{"name": "redoubt:host", "value": host} for host in sorted(users[component["bom-ref"]])]
        component["properties"] = [*component.get("properties", []), *hosts]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "platform", "bom-ref": "site", "name": site}},
        "components": components,
        "dependencies": [
            {"ref": "site", "dependsOn": [component["bom-ref"] for component in components]},
            *({"ref": component["bom-ref"]} for component in components),
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(document, sort_keys=True))
    return json.dumps(document | {"serialNumber": f"urn:uuid:{serial}"}, indent=2, ensure_ascii=False) + "\n"


def _add(found: dict[str, Component], users: dict[str, set[str]], host: str, component: Component) -> None:
    ref = component["bom-ref"]
    if found.setdefault(ref, component) != component:
        raise ValueError(f"{host} has other files or words for {ref} than another host; give all hosts the same lock")
    users.setdefault(ref, set()).add(host)


def _model(entry: Mapping[str, Any], known: Known) -> Component:
    name, revision, repo = entry["name"], entry["revision"], entry["repo"]
    files = {file["path"]: file["sha256"] for file in entry["files"]}
    _real(f"model {name}", [revision, *files.values()])
    ref = f"model:{name}@{revision}"
    hub = known.hubs.get(name, "huggingface")
    signer = known.signers.get(name)
    component: Component = {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": name,
        "version": revision,
        "licenses": licences(entry["license"]),
    }
    if "/" in repo:
        component["publisher"] = repo.partition("/")[0]
    if repo and hub == "huggingface":
        component["purl"] = f"pkg:huggingface/{quote(repo)}@{revision}"
    properties = {
        "redoubt:source:hub": hub if repo else None,
        "redoubt:source:repo": repo,
        "redoubt:source:commit": revision,
        "redoubt:oms:digest": f"sha256:{root_digest(files)}",
        "redoubt:oms:signature": "verified" if signer else "none",
        "redoubt:oms:signer": signer,
        "redoubt:size": str(entry["total_size"]),
    }
    return component | {
        "properties": _properties(properties),
        "components": [
            {
                "type": "file",
                "bom-ref": f"{ref}#{file['path']}",
                "name": file["path"],
                "hashes": [{"alg": "SHA-256", "content": file["sha256"]}],
                "properties": _properties({"redoubt:size": str(file["size"])}),
            }
            for file in sorted(entry["files"], key=lambda file: str(file["path"]))
        ],
    }


def _image(entry: Mapping[str, Any]) -> Component:
    name, tag, digest, config = entry["name"], entry["tag"], entry["digest"], entry["config_digest"]
    _real(f"image {entry['key']}", [digest, config, entry["archive_sha256"]])
    component: Component = {
        "type": "container",
        "bom-ref": f"image:{name}:{tag}@{digest or config}",
        "name": name,
        "version": tag,
    }
    if digest:
        registry, _, _ = name.rpartition("/")
        where = f"repository_url={quote(name, safe='')}&" if registry else ""
        last = quote(name.rpartition("/")[2].lower())
        component["purl"] = f"pkg:oci/{last}@{quote(digest, safe='')}?{where}tag={quote(tag, safe='')}"
        component["hashes"] = [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}]
    properties = {
        "redoubt:image:manifest-digest": digest,
        "redoubt:image:config-digest": config,
        "redoubt:image:archive-sha256": entry["archive_sha256"],
    }
    return component | {"properties": _properties(properties)}


def licences(text: str) -> list[dict[str, Any]]:
    """Return CycloneDX's licences: by SPDX id or expression where it is one, else by the name that the source gives."""
    try:
        expression = canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        return [{"license": {"name": text}}]
    plain = expression.replace("-", "").replace(".", "").isalnum() and not expression.startswith("LicenseRef-")
    return [{"license": {"id": expression}}] if plain else [{"expression": expression}]


def _properties(values: Mapping[str, str | None]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items() if value]


def _real(what: str, digests: Iterable[str | None]) -> None:
    if any(digest and is_placeholder(digest) for digest in digests):
        raise ValueError(f"{what} holds placeholders instead of real digests; make the lock for this site")
