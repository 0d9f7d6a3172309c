"""What an operator of eight H100 writes, for a lab host whose GPUs, driver and engine are stubs.

All that is not here comes from inventories/single.
"""

from __future__ import annotations

from typing import Any

import yaml

from lab import gpus, paths, recipe_stub_nvidia
from module_utils.openpgp import fingerprints
from tests.support.site import MODEL, SERVER_NAME

HARDWARE = "8xH100-SXM"
GPUS = 8
DRIVER = "580.126.20"


def variables(address: str, key: str, ca_file: str) -> dict[str, Any]:
    """The host's variables; `address` is its own, `key` the one client's."""
    lock = yaml.safe_load(paths.LOCK_FILE.read_text(encoding="utf-8"))
    built = lock["redoubt_images"]
    control = f"{address.rpartition('.')[0]}.1/32"
    used = ("prometheus", "alertmanager", "node_exporter", "blackbox_exporter")
    images = {
        **{name: built[name] for name in used},
        "vllm": built["stub_engine"],
        "dcgm_exporter": built["stub_dcgm_exporter"],
    }
    return {
        "redoubt_lock_mode": "open",
        "redoubt_sources": {"images": "file:///media/redoubt/images", "models": "file:///media/redoubt/models"},
        "redoubt_images": images,
        "redoubt_model_locks": {MODEL: lock["redoubt_model_locks"][MODEL]},
        "redoubt_models": [{"name": MODEL, "engine": "vllm", "gpus": "auto", "context": 2048, "concurrency": 4}],
        "docker_source": "distribution",
        "gateway_server_names": [SERVER_NAME],
        "gateway_allowed_cidrs": ["127.0.0.0/8", control],
        "gateway_fetch_ca_to": ca_file,
        "firewall_enabled": True,
        "firewall_ssh_cidrs": [control],
        "vault_gateway_api_keys": [{"name": "demo", "key": key}],
        "nvidia_driver_version": DRIVER,
        **_repositories(),
    }


def _repositories() -> dict[str, Any]:
    """A mirror of NVIDIA's two repositories, as one would have it on a site without a network."""
    medium = paths.MEDIA / recipe_stub_nvidia.FOLDER
    found: dict[str, Any] = {}
    for name, role in (("cuda", "nvidia_driver"), ("toolkit", "nvidia_container_toolkit")):
        known = gpus.repositories()[name]
        url = known.uri.replace("file:", "file://").removesuffix("/debian13/x86_64").removesuffix("/deb/amd64")
        key = (medium / known.key.removeprefix(f"{gpus.ROOT}/")).read_bytes()
        found |= {
            f"{role}_repository_url": url,
            f"{role}_repository_key_url": f"file://{known.key}",
            f"{role}_repository_key_fingerprints": fingerprints(key),
        }
    return found
