"""Whole runs of playbooks/preflight.yml on bad and good inventories; no host is ever asked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.support.plan_documents import images, model
from tests.support.preflight_runs import SECRET, certificate, playbook, preflight, site, write_inventory


def refusals(text: str) -> dict[str, str]:
    """Return the lines of the refusal by the variable that they name."""
    lines = [line.strip()[2:] for line in text.splitlines() if line.strip().startswith("- ") and " Fix: " in line]
    return {line.split(" = ")[0].split(" [")[0].split(": ")[0]: line for line in lines}


def assert_refused(text: str, expected: dict[str, tuple[str, ...]]) -> None:
    """Assert that exactly these places are refused, each with these words."""
    found = refusals(text)
    assert set(found) == set(expected)
    for where, words in expected.items():
        for word in words:
            assert word in found[where], found[where]


def test_every_mistake_is_reported_in_one_refusal(tmp_path: Path) -> None:
    bad = site() | {
        "gateway_allowed_cidr": ["10.0.0.0/8"],
        "gateway_allowed_cidrs": ["10.0.0.1/8"],
        "gateway_https_port": "8443",
        "gateway_max_body_size": "{{ nobody_set_this }}",
        "gateway_api_keys": [{"name": "demo", "key": "sk-short"}],
        "redoubt_models": [
            model(),
            model(),
            model("other", port=8101),
            model("third", engine="sglang"),
            model("fourth", engine_args={"swap-space": 4}),
        ],
        "redoubt_images": images() | {"prometheus": {"name": "p", "tag": "latest", "archive": "p.tar", "size": 1}},
    }
    done = preflight(write_inventory(tmp_path, bad))
    assert done.returncode != 0
    assert_refused(
        done.stdout,
        {
            "gateway_allowed_cidr": ("no role knows", "did you mean gateway_allowed_cidrs?"),
            "gateway_allowed_cidrs[0]": ('"10.0.0.1/8"', "has host bits set", "write 10.0.0.0/8"),
            "gateway_https_port": ('"8443"', "must be a whole number, not text", "without quotes"),
            "gateway_max_body_size": ("'nobody_set_this' is undefined", "correct the expression"),
            "gateway_api_keys[0] (demo)": ("8 characters", "openssl rand"),
            "redoubt_models[1].name": ('"small"', "already used", "own name"),
            "redoubt_models[2].port": ("8101", "already used", "own port"),
            "redoubt_models[3].engine": ('"sglang"', "not yet in this release", "vllm"),
            "redoubt_models[4].engine_args.swap-space": ("= 4", "any more", "remove it"),
            "redoubt_model_locks.other": ("no manifest entry", "add the entry"),
            "redoubt_model_locks.third": ("no manifest entry", "add the entry"),
            "redoubt_model_locks.fourth": ("no manifest entry", "add the entry"),
            "redoubt_images.prometheus.tag": ("says nothing about the version", "write the version"),
        },
    )
    assert "sk-short" not in done.stdout


def test_a_refusal_comes_before_any_host_is_asked(tmp_path: Path) -> None:
    """The hosts cannot be reached, and still it is the variable that is named."""
    bad = site() | {"gateway_allowed_cidrs": []}
    done = preflight(write_inventory(tmp_path, bad), preflight_plan_only=False)
    assert done.returncode != 0
    assert "UNREACHABLE" not in done.stdout
    assert_refused(done.stdout, {"gateway_allowed_cidrs": ("the list is empty", "name the networks")})


def test_certificates_are_judged_before_any_host_is_asked(tmp_path: Path) -> None:
    """Each gateway has a pair of its own that is wrong in its own way."""
    good, key = certificate("llm.example.org")
    expired, expired_key = certificate("llm.example.org", days=2, age=3)
    other, other_key = certificate("other.example.org")
    (tmp_path / "good.crt").write_text(good)
    pairs: dict[str, dict[str, Any]] = {
        "good": {"gateway_tls_certificate": str(tmp_path / "good.crt"), "gateway_tls_key": key},
        "mismatch": {"gateway_tls_certificate": good, "gateway_tls_key": other_key},
        "expired": {"gateway_tls_certificate": expired, "gateway_tls_key": expired_key},
        "misnamed": {"gateway_tls_certificate": other, "gateway_tls_key": other_key},
        "nokey": {"gateway_tls_certificate": good},
        "nofile": {"gateway_tls_certificate": str(tmp_path / "none.crt"), "gateway_tls_key": key},
    }
    groups: dict[str, dict[str, dict[str, Any]]] = {
        "gateways": pairs,
        "inference": {"gpu": {"redoubt_private_address": "10.0.0.2"}},
    }
    done = preflight(write_inventory(tmp_path, site() | {"gateway_tls_mode": "files"}, groups))
    assert done.returncode != 0
    lines = [line for line in done.stdout.splitlines() if line.strip().startswith("- gateway_tls")]
    by_host = {host: " ".join(line for line in lines if f"[{host}]" in line) for host in pairs}
    assert by_host["good"] == ""
    assert "gateway_tls_key" in by_host["mismatch"]
    assert "does not belong" in by_host["mismatch"]
    assert "expired on" in by_host["expired"]
    assert "does not cover the name 'llm.example.org'" in by_host["misnamed"]
    assert "gateway_tls_key" in by_host["nokey"]
    assert "missing" in by_host["nokey"]
    assert "cannot be read" in by_host["nofile"]
    assert "none.crt" in by_host["nofile"]
    assert "PRIVATE KEY" not in done.stdout


def test_a_good_site_shows_its_plan_and_no_secret(tmp_path: Path) -> None:
    groups: dict[str, dict[str, dict[str, Any]]] = {
        "gateways": {"gw1": {"redoubt_private_address": "10.0.0.1"}},
        "inference": {"gpu1": {"redoubt_private_address": "10.0.0.2"}, "gpu2": {"redoubt_private_address": "10.0.0.3"}},
        "monitoring": {"mon1": {"redoubt_private_address": "10.0.0.4"}},
    }
    done = preflight(write_inventory(tmp_path, site(), groups))
    assert done.returncode == 0
    assert "gateway: small -> 10.0.0.2:8101, 10.0.0.3:8101" in done.stdout
    assert "monitoring: 2 engines, 4 hosts, 1 gateways, without Grafana" in done.stdout
    assert SECRET not in done.stdout


def test_mistakes_of_some_hosts_name_them(tmp_path: Path) -> None:
    groups: dict[str, dict[str, dict[str, Any]]] = {
        "inference": {
            "gpu1": {},
            "gpu2": {"redoubt_models": [model("small", context="32k")]},
            "gpu3": {"preflight_gpu": 8},
        },
        "gateways": {"gw1": {}},
    }
    done = preflight(write_inventory(tmp_path, site(), groups))
    found = refusals(done.stdout)
    assert " [gpu2]:" in found["redoubt_models[0].context"]
    assert " [gpu3]:" in found["preflight_gpu"]
    assert "did you mean preflight_gpus?" in found["preflight_gpu"]
    assert " [gw1]:" in found["redoubt_private_address of gpu1"]


def test_addresses_that_come_from_facts(tmp_path: Path) -> None:
    """They are waited for; a host that this run does not ask cannot give any."""
    fact = "10.0.0.{{ ansible_facts['python']['version']['major'] }}"
    here = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
        "redoubt_private_address": fact,
    }
    groups: dict[str, dict[str, dict[str, Any]]] = {
        "gateways": {"gw1": here},
        "inference": {"gpu1": here, "down": {"redoubt_private_address": fact}},
    }
    inventory = write_inventory(tmp_path, site(), groups)
    done = preflight(inventory, preflight_plan_only=False)
    assert "[down]: UNREACHABLE!" in done.stdout
    assert "down is left out of the plan of gw1: redoubt_private_address cannot be evaluated now" in done.stdout
    assert done.stdout.count("gateway: small -> ") == 1
    alone = playbook("-i", str(inventory), "playbooks/preflight.yml", "--limit", "gw1")
    assert alone.returncode != 0
    assert "variables of gpu1: redoubt_private_address needs facts of the host" in alone.stdout


def test_host_that_only_serves_models_knows_a_depot_on_another_host(tmp_path: Path) -> None:
    """It looks at that host for its address alone; where only facts would tell it, that is said."""
    here = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    groups: dict[str, dict[str, dict[str, Any]]] = {
        "depot": {"dep1": {**here, "redoubt_private_address": "10.0.0.4"}},
        "inference": {"gpu1": {**here, "redoubt_private_address": "10.0.0.5"}},
    }
    sources = {"packages": "upstream", "images": "file:///media", "models": "depot", "python": "upstream"}
    variables = site() | {"redoubt_sources": sources, "redoubt_site": "one", "depot_allowed_cidrs": ["10.0.0.0/24"]}
    done = preflight(write_inventory(tmp_path, variables, groups), preflight_plan_only=False)
    assert "needs facts of the host" not in done.stdout
    assert "10.0.0.4" in done.stdout, done.stdout
    assert done.returncode == 0, done.stdout
    groups["depot"]["dep1"]["redoubt_private_address"] = "10.0.0.{{ ansible_facts['python']['version']['major'] }}"
    inventory = write_inventory(tmp_path, variables, groups)
    alone = playbook("-i", str(inventory), "playbooks/preflight.yml", "--limit", "gpu1")
    assert alone.returncode != 0
    assert "variables of dep1: redoubt_private_address needs facts of the host" in alone.stdout
