"""The bill of materials: valid by the official schema, the same for the same plans, and nothing of the lock is lost."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.licenses import _spdx

from planner import plan
from provenance.bom import Known, bom, licences
from provenance.sign import sign
from tests.support.plan_documents import REVISION, digest, document, host, image, images, lock, model
from tests.support.preflight_runs import playbook, site, write_inventory
from tests.support.signing import key, public_pem

FILES = [
    {"path": path, "size": size, "sha256": digest(path)}
    for path, size in (("b/model.safetensors", 400), ("a.json", 100))
]
ENTRY = {"revision": REVISION, "license": "apache-2.0", "repo": "Org/Small-1B", "total_size": 500, "files": FILES}
REGISTRY = image("vllm") | {"name": "registry.example.org/vllm/vllm-openai", "digest": f"sha256:{digest('manifest')}"}


def plans(entry: dict[str, Any] = ENTRY, **more: dict[str, Any]) -> dict[str, Any]:
    """Return the plans of two hosts that serve the model, of which only h1 is also the gateway."""
    hosts = {
        "h2": host(model(), address="10.0.0.12"),
        "h1": host(model(), kinds=("gateway", "inference"), address="10.0.0.11", gateway={"server_name": "x.org"}),
    }
    locks = {"small": entry}
    return {
        name: plan(document(hosts, name, locks=locks, images=images() | {"vllm": REGISTRY}) | more) for name in hosts
    }


def made(entry: dict[str, Any] = ENTRY, known: Known | None = None) -> dict[str, Any]:
    """Return the document, which the official schema has accepted."""
    text = bom("site", plans(entry), known or Known())
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert found is None, found
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def of_type(text: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [component for component in text["components"] if component["type"] == kind]


def values(component: dict[str, Any], name: str) -> list[str]:
    return [item["value"] for item in component["properties"] if item["name"] == name]


def test_a_model_has_its_commit_licence_source_and_every_file() -> None:
    (found,) = of_type(made(), "machine-learning-model")
    assert found["version"] == REVISION
    assert found["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert found["publisher"] == "Org"
    purl = PackageURL.from_string(found["purl"])
    assert (purl.type, purl.namespace, purl.name.lower(), purl.version) == ("huggingface", "Org", "small-1b", REVISION)
    files = {item["name"]: item["hashes"] for item in found["components"]}
    assert files == {file["path"]: [{"alg": "SHA-256", "content": file["sha256"]}] for file in FILES}
    assert values(found, "redoubt:host") == ["h1", "h2"]
    assert values(found, "redoubt:oms:signature") == ["none"]
    assert values(found, "redoubt:source:repo") == ["Org/Small-1B"]


def test_images_are_named_by_their_digests() -> None:
    found = {component["name"]: component for component in of_type(made(), "container")}
    vllm = found["registry.example.org/vllm/vllm-openai"]
    assert vllm["hashes"] == [{"alg": "SHA-256", "content": digest("manifest")}]
    purl = PackageURL.from_string(vllm["purl"])
    assert (purl.type, purl.name, purl.version) == ("oci", "vllm-openai", f"sha256:{digest('manifest')}")
    assert isinstance(purl.qualifiers, dict)
    assert purl.qualifiers["repository_url"] == "registry.example.org/vllm/vllm-openai"
    only_archive = found["example/node_exporter"]
    assert "purl" not in only_archive
    assert values(only_archive, "redoubt:image:config-digest") == [f"sha256:{digest('node_exporter')}"]


def test_everything_is_reached_from_the_site() -> None:
    text = made()
    (top, *rest) = text["dependencies"]
    refs = [component["bom-ref"] for component in text["components"]]
    assert len(refs) == len(set(refs))
    assert top == {"ref": "site", "dependsOn": refs}
    assert [item["ref"] for item in rest] == refs


def test_the_same_plans_give_the_same_bytes_and_others_another_number() -> None:
    text = bom("site", plans(), Known())
    assert bom("site", dict(reversed(plans().items())), Known()) == text
    shuffled = ENTRY | {"files": FILES[::-1]}
    assert bom("site", plans(shuffled), Known()) == text
    changed = deepcopy(ENTRY)
    changed["files"] = [FILES[0] | {"sha256": digest("other")}, FILES[1]]
    assert made(changed)["serialNumber"] != json.loads(text)["serialNumber"]


def test_a_modelscope_model_has_no_address_of_another_hub() -> None:
    (found,) = of_type(made(known=Known({"small": "modelscope"})), "machine-learning-model")
    assert "purl" not in found
    assert values(found, "redoubt:source:hub") == ["modelscope"]


def test_a_model_from_a_folder_claims_no_source() -> None:
    entry = {name: value for name, value in ENTRY.items() if name != "repo"}
    (found,) = of_type(made(entry), "machine-learning-model")
    assert "purl" not in found
    assert not values(found, "redoubt:source:hub")


def test_hosts_that_mean_other_files_by_one_name_are_told() -> None:
    other = plans(ENTRY | {"files": [FILES[0] | {"sha256": digest("other")}, FILES[1]]})
    with pytest.raises(ValueError, match=f"h2 has other files or words for model:small@{REVISION}"):
        bom("site", {"h1": plans()["h1"], "h2": other["h2"]}, Known())


def test_placeholders_are_no_bill_of_materials() -> None:
    entry = ENTRY | {"files": [FILES[0] | {"sha256": "1" * 64}, FILES[1]]}
    shown = plan(document(locks={"small": entry}, plan_only=True))
    with pytest.raises(ValueError, match="model small holds placeholders"):
        bom("site", {"h1": shown}, Known())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("mit", {"license": {"id": "MIT"}}),
        ("Apache-2.0", {"license": {"id": "Apache-2.0"}}),
        ("mit or apache-2.0", {"expression": "MIT OR Apache-2.0"}),
        ("LicenseRef-house", {"expression": "LicenseRef-house"}),
        ("gpl-2.0+", {"expression": "GPL-2.0+"}),
        ("llama3.1", {"license": {"name": "llama3.1"}}),
        ("unknown", {"license": {"name": "unknown"}}),
    ],
)
def test_a_licence_is_an_spdx_id_where_it_is_one(text: str, wanted: dict[str, Any]) -> None:
    assert licences(text) == [wanted]
    made(ENTRY | {"license": text})


def test_the_schema_knows_every_id_that_can_be_written() -> None:
    ids = [row["id"] for row in _spdx.LICENSES.values()]
    assert len(ids) > 500
    known = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}
    components = [{"type": "file", "name": one, "licenses": licences(one)} for one in ids]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(known | {"components": components})) is None


def test_the_playbook_writes_it_once_with_who_signed(tmp_path: Path) -> None:
    private = key()
    signatures = tmp_path / "signatures"
    signatures.mkdir()
    files = {str(file["path"]): str(file["sha256"]) for file in lock("small")["files"]}
    (signatures / "small.sig").write_text(sign("small", files, private))
    variables = site() | {"redoubt_model_signatures": {"policy": "require", "keys": [public_pem(private)]}}
    inventory, dest = write_inventory(tmp_path, variables), tmp_path / "bom.json"
    arguments = ("-i", str(inventory), "playbooks/bom.yml")
    done = playbook(*arguments, preflight_plan_only=True, redoubt_bom_file=str(dest))
    assert done.returncode == 0
    text = dest.read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    (found,) = of_type(json.loads(text), "machine-learning-model")
    assert values(found, "redoubt:oms:signature") == ["verified"]
    assert values(found, "redoubt:oms:signer")[0].startswith("key ")
    before = dest.stat().st_mtime_ns
    assert playbook(*arguments, preflight_plan_only=True, redoubt_bom_file=str(dest)).returncode == 0
    assert dest.stat().st_mtime_ns == before


def test_a_run_for_some_hosts_leaves_it_as_it_is_and_says_so(tmp_path: Path) -> None:
    groups: dict[str, dict[str, dict[str, Any]]] = {
        group: {"h1": {}, "h2": {}} for group in ("gateways", "inference", "monitoring")
    }
    variables = site() | {"redoubt_private_address": "10.0.0.11"}
    inventory, dest = write_inventory(tmp_path, variables, groups), tmp_path / "bom.json"
    arguments = ("-i", str(inventory), "playbooks/bom.yml", "--limit", "h1,localhost")
    done = playbook(*arguments, preflight_plan_only=True, redoubt_bom_file=str(dest))
    assert done.returncode == 0
    assert "no plan of h2" in " ".join(done.stdout.split())
    assert not dest.exists()
