"""The example inventories are complete: they pass preflight without asking a host, and site.yml with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.preflight_runs import REPOSITORY, SECRET, certificate, playbook, preflight

EXAMPLES = ("single", "fleet")
PLANNED = {
    "single": ("GPU 0,1,2,3 ", "GPU 4,5 ", "GPU 6 ", "gateway: qwen2.5-7b-instruct -> 127.0.0.1:8110"),
    "fleet": (
        "GPU 0,1,2,3,4,5,6,7",  # gpus: auto on gpu1 and gpu2
        "gateway: qwen2.5-72b-instruct -> 10.20.0.21:8101, 10.20.0.22:8101",
        "gateway: qwen2.5-7b-instruct -> 10.20.0.23:8110, 10.20.0.24:8110",
    ),
}


def vault(example: str) -> dict[str, Any]:
    """Return what an operator would put into the vault."""
    secrets: dict[str, Any] = {"vault_gateway_api_keys": [{"name": "demo", "key": SECRET}]}
    if example == "fleet":
        secrets["vault_gateway_tls_certificate"], secrets["vault_gateway_tls_key"] = certificate("llm.example.org")
    return secrets


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_example_passes_in_plan_only_mode(example: str) -> None:
    done = preflight(REPOSITORY / "inventories" / example, **vault(example))
    assert done.returncode == 0
    for line in PLANNED[example]:
        assert line in done.stdout
    assert "installing would be refused" in done.stdout
    assert SECRET not in done.stdout


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_example_installs_nothing_with_its_placeholders(example: str) -> None:
    done = preflight(REPOSITORY / "inventories" / example, preflight_plan_only=False, **vault(example))
    assert done.returncode != 0
    assert "- redoubt_images.vllm: vllm/vllm-openai:v0.33.0 is named by tag only" in done.stdout.replace(
        " [gpu1, gpu2, gpu3, gpu4]", ""
    )
    assert "UNREACHABLE" not in done.stdout


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_example_asks_for_its_vault(example: str) -> None:
    done = preflight(REPOSITORY / "inventories" / example)
    assert done.returncode != 0
    assert "'vault_gateway_api_keys' is undefined" in done.stdout


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_vault_example_names_every_secret_and_holds_none(example: str) -> None:
    folder = REPOSITORY / "inventories" / example / "group_vars/all"
    text = (folder / "vault.yml.example").read_text(encoding="utf-8")
    used = {
        word
        for path in folder.glob("*.yml")
        for line in path.read_text(encoding="utf-8").splitlines()
        if not line.lstrip().startswith("#")
        for word in line.replace("{{", " ").replace("}}", " ").split()
        if word.startswith("vault_")
    }
    assert used
    assert used <= set(yaml.safe_load(text))
    assert all(len(entry["key"]) < 32 for entry in yaml.safe_load(text)["vault_gateway_api_keys"])


@pytest.mark.parametrize("example", [*EXAMPLES, "demo"])
def test_the_whole_site_is_well_formed(example: str) -> None:
    done = playbook("-i", str(REPOSITORY / "inventories" / example), "site.yml", "--syntax-check")
    assert done.returncode == 0


def test_no_example_writes_a_secret_or_a_machine_path() -> None:
    for example in EXAMPLES:
        for path in Path(REPOSITORY / "inventories" / example).rglob("*"):
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                assert "BEGIN PRIVATE KEY-----\n  M" not in text
                assert str(REPOSITORY) not in text
