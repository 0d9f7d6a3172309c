"""The plan: what it holds, and what it refuses."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from filter_plugins.deployment_plan import FilterModule
from planner import PlanRefused, evaluate, plan
from planner.problems import Problem
from tests.support.plan_documents import REVISION, digest, document, host, image, images, lock, model

GIB = 2**30


def problems(raw: dict[str, Any]) -> dict[str, Problem]:
    """Return what is wrong by place."""
    return {problem.where: problem for problem in evaluate(raw)[1]}


def test_one_machine_that_does_everything() -> None:
    made = plan(document())
    engine = made["engines"][0]
    assert made["schema"] == 1
    assert made["kinds"] == ["gateway", "inference", "monitoring"]
    assert engine["container"] == "redoubt-small"
    assert (engine["address"], engine["port"]) == ("127.0.0.1", 8101)
    assert engine["image"] == {"ref": "example/vllm:0.32.0-ab12cd34", "config_digest": f"sha256:{digest('vllm')}"}
    assert engine["weights"] == {
        "name": "small",
        "revision": REVISION,
        "path": f"/srv/redoubt/models/small/{REVISION[:12]}",
        "mount": "/models/small",
    }
    assert [entry["key"] for entry in made["images"]] == sorted(images())
    assert made["weights"][0]["files"] == lock("small")["files"]
    assert made["gateway"]["models"][0]["servers"] == ["127.0.0.1:8101"]
    assert {route["path"] for route in made["gateway"]["models"][0]["routes"]} == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
    }
    targets = made["monitoring"]["targets"]
    assert targets["engines"] == [
        {
            "target": "127.0.0.1:8101",
            "path": "/metrics",
            "labels": {"model": "small", "engine": "vllm", "host": "h1"},
        }
    ]
    assert targets["hosts"] == [{"target": "127.0.0.1:9100", "labels": {"host": "h1"}}]
    assert targets["gateways"] == [
        {"target": "https://llm.example.org/healthz", "address": "127.0.0.1", "labels": {"host": "h1"}}
    ]
    assert made["monitoring"]["images"]["grafana"] is None
    assert made["exporter"] == {"image": "example/node_exporter:1.0.0", "address": "127.0.0.1", "port": 9100}
    assert made["warnings"] == []


def test_a_model_without_gpus_runs_as_a_cpu_model() -> None:
    engine = plan(document({"h1": host(model(resources={"kv_cache_gib": 3, "memory": "8g", "cpus": 2}))}))["engines"][0]
    command = " ".join(engine["command"])
    assert engine["command"][0] == "/models/small"
    assert "--dtype bfloat16 --enforce-eager" in command
    assert "--max-model-len 2048 --max-num-seqs 4" in command
    assert "--tensor-parallel-size" not in command
    assert engine["environment"]["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert engine["environment"]["HF_HUB_OFFLINE"] == engine["environment"]["TRANSFORMERS_OFFLINE"] == "1"
    assert engine["environment"]["VLLM_NO_USAGE_STATS"] == engine["environment"]["DO_NOT_TRACK"] == "1"
    assert engine["resources"] == {"cpus": 2.0, "memory": "8g", "shm_size": "1g"}
    assert engine["devices"] == []


def test_a_model_with_gpus_is_divided_over_them() -> None:
    engine = plan(document({"h1": host(model(gpus=4), gpus=8)}))["engines"][0]
    command = " ".join(engine["command"])
    assert "--tensor-parallel-size 4" in command
    assert "bfloat16" not in command
    assert "--gpu-memory-utilization" not in command
    assert "VLLM_CPU_KVCACHE_SPACE" not in engine["environment"]
    assert engine["devices"] == ["0", "1", "2", "3"]
    assert engine["resources"]["shm_size"] == "16g"


def test_a_gateway_elsewhere_reaches_every_replica() -> None:
    hosts = {
        "gw1": host(kinds=("gateway",), address="10.0.0.1"),
        "gpu1": host(model(), address="10.0.0.11"),
        "gpu2": host(model(), model("other"), address="fd00::12"),
    }
    made = plan(document(hosts, "gw1"))
    assert [(entry["name"], entry["servers"]) for entry in made["gateway"]["models"]] == [
        ("small", ["10.0.0.11:8101", "[fd00::12]:8101"]),
        ("other", ["[fd00::12]:8102"]),
    ]
    assert made["engines"] == []
    assert [entry["key"] for entry in made["images"]] == ["node_exporter"]
    assert made["weights"] == []


def test_how_requests_are_spread_is_one_for_all_hosts_of_a_model() -> None:
    def site(*wanted: str | None) -> dict[str, Any]:
        served = {
            f"gpu{number}": host(model(**({"balance": way} if way else {})), address=f"10.0.0.{number + 2}")
            for number, way in enumerate(wanted)
        }
        return document({"gw1": host(kinds=("gateway",), address="10.0.0.1"), **served}, name="gw1")

    assert "balance" not in plan(site(None, None))["gateway"]["models"][0]
    assert plan(site("conversation", "conversation"))["gateway"]["models"][0]["balance"] == "conversation"
    refused = problems(site("conversation", "least_conn"))["redoubt_models[0].balance"]
    assert "another host wants conversation" in str(refused)
    assert "no way to spread requests" in str(problems(site("random"))["redoubt_models[0].balance"])


def test_weight_of_a_host_reaches_the_gateway() -> None:
    served = {f"gpu{n}": host(model() | more, address=f"10.0.0.{n}") for n, more in ((2, {}), (3, {"weight": 4}))}
    site = document({"gw1": host(kinds=("gateway",), address="10.0.0.1"), **served}, name="gw1")
    assert plan(site)["gateway"]["models"][0]["weights"] == {"10.0.0.3:8101": 4}
    served["gpu3"]["models"][0]["weight"] = 101
    assert "redoubt_models[0].weight" in problems(site)


def test_canaries_stand_beside_the_other_hosts_of_a_model() -> None:
    def site(*shares: int | None, **more: Any) -> dict[str, Any]:
        served = {
            f"gpu{number}": host(model() | ({} if share is None else {"canary": share}), address=f"10.0.0.{number + 2}")
            for number, share in enumerate(shares)
        }
        return document({"gw1": host(kinds=("gateway",), address="10.0.0.1"), **served}, name="gw1", **more)

    entry = plan(site(None, 10, 10))["gateway"]["models"][0]
    assert entry["servers"] == ["10.0.0.2:8101"]
    assert entry["canary"] == {"servers": ["10.0.0.3:8101", "10.0.0.4:8101"], "drained": [], "percent": 10}
    mark = {"since": "2026-01-01", "by": "x", "reason": ""}
    drained = plan(site(None, 10, 10, drained={"gpu1": mark}))["gateway"]["models"][0]["canary"]
    assert (drained["servers"], drained["drained"]) == (["10.0.0.4:8101"], ["10.0.0.3:8101"])
    told = FilterModule().filters()["deployment_plan_lines"](plan(site(None, 10)))
    assert any("10 % of the keys: 10.0.0.3:8101" in line for line in told)
    assert "another host has 10" in str(problems(site(None, 10, 20))["redoubt_models[0].canary"])
    assert "all hosts that serve small are canaries" in str(problems(site(10, 10))["redoubt_models"])
    assert "redoubt_models[0].canary" in problems(site(None, 101))


def test_an_engine_on_loopback_cannot_serve_another_machine() -> None:
    hosts = {"gw1": host(kinds=("gateway",), address="10.0.0.1"), "gpu1": host(model())}
    found = problems(document(hosts, "gw1"))["redoubt_private_address of gpu1"]
    assert found.value == '"127.0.0.1"'
    assert "another machine" in found.why
    assert "10.0.0.11" in found.fix


@pytest.mark.parametrize("address", [str(ipaddress.IPv4Address(0)), "8.8.8.8", "::", "gpu1.example.org", "224.0.0.1"])
def test_engines_never_listen_on_a_public_address(address: str) -> None:
    found = problems(document({"h1": host(model(), address=address)}))
    assert found["redoubt_private_address of h1"].value == f'"{address}"'


@pytest.mark.parametrize(
    ("fields", "where", "value", "why", "fix"),
    [
        ({"engine": "sglang"}, "engine", '"sglang"', "not yet in this release", "vllm"),
        ({"engine": "vlm"}, "engine", '"vlm"', "no such engine", "vllm"),
        ({"gpus": "two"}, "gpus", '"two"', "not `auto`, a count, or a list", "auto, 0"),
        ({"gpus": -1}, "gpus", "-1", "not `auto`, a count, or a list", "auto, 0"),
        ({"gpus": True}, "gpus", "true", "not `auto`, a count, or a list", "auto, 0"),
        ({"gpus": 9}, "gpus", "9", "the host has 8 GPUs", "lower the count"),
        ({"gpus": ["8"]}, "gpus", '["8"]', "has no GPU 8", "0, 1, 2"),
        ({"context": 0}, "context", "0", "not a whole number", "at least 1"),
        ({"context": "32k"}, "context", '"32k"', "not a whole number", "at least 1"),
        ({"port": 80}, "port", "80", "from 1024 to 65535", "from 1024"),
        ({"port": 9090}, "port", "9090", "belongs to Prometheus", "another port"),
        ({"image": "vllm_old"}, "image", '"vllm_old"', "no image `vllm_old`", "from the lock"),
        ({"name": "Bad Name"}, "name", '"Bad Name"', "lower-case", "qwen2.5"),
        ({"resources": {"memory": "8 GB"}}, "resources.memory", '"8 GB"', "not a size", "8g"),
        ({"resources": {"cpus": 0}}, "resources.cpus", "0", "above 0", "1.5"),
        ({"source": {"revision": "main"}}, "source.revision", '"main"', "not a branch", "40 hexadecimal"),
        ({"source": {"revision": "f" * 40}}, "source.revision", f'"{"f" * 40}"', REVISION, "lock this revision"),
        ({"resources": {"kv_cache_gib": 2}, "gpus": 1}, "resources.kv_cache_gib", "2", "without a GPU", "remove it"),
    ],
)
def test_bad_model_fields(fields: dict[str, Any], where: str, value: str, why: str, fix: str) -> None:
    found = problems(document({"h1": host(model(**fields), gpus=8)}))[f"redoubt_models[0].{where}"]
    assert found.value == value
    assert why in found.why
    assert fix in found.fix


def test_duplicate_names_and_ports_are_refused() -> None:
    found = problems(document({"h1": host(model("a"), model("a"), model("b", port=8101))}))
    assert "already used by redoubt_models[0]" in found["redoubt_models[1].name"].why
    assert "already used by redoubt_models[0]" in found["redoubt_models[2].port"].why


def test_a_port_given_by_hand_may_not_meet_one_given_by_place() -> None:
    assert "redoubt_models[1].port" in problems(document({"h1": host(model("a", port=8102), model("b"))}))


def test_a_model_without_a_manifest_entry_is_refused() -> None:
    found = problems(document(locks={}))["redoubt_model_locks.small"]
    assert "no manifest entry" in found.why
    assert "add the entry" in found.fix


@pytest.mark.parametrize(
    ("change", "where", "why"),
    [
        ({"files": []}, "files", "names no files"),
        ({"total_size": 1}, "total_size", "not the sum"),
        ({"revision": "main"}, "revision", "full commit"),
        (
            {"files": [{"path": "../x", "size": 500, "sha256": digest("x")}]},
            "files[0].path",
            "leaves the model's folder",
        ),
        ({"files": [{"path": "/x", "size": 500, "sha256": digest("x")}]}, "files[0].path", "leaves the model's folder"),
        ({"files": [{"path": "x", "size": 500, "sha256": "abc"}]}, "files[0].sha256", "not a SHA-256"),
    ],
)
def test_bad_locks(change: dict[str, Any], where: str, why: str) -> None:
    found = problems(document(locks={"small": lock("small") | change}))
    assert why in found[f"redoubt_model_locks.small.{where}"].why


@pytest.mark.parametrize(
    ("change", "sources", "where", "why"),
    [
        ({"config_digest": None}, "file:///m", "", "by tag only"),
        ({}, "registry", ".digest", "asked by manifest digest"),
        ({"archive": None}, "file:///m", ".archive", "has no archive"),
        ({"tag": "latest"}, "file:///m", ".tag", "nothing about the version"),
        ({"config_digest": "sha256:" + "0" * 64}, "file:///m", "", "placeholders"),
        ({"config_digest": "sha256:12"}, "file:///m", ".config_digest", "not a digest"),
    ],
)
def test_bad_images(change: dict[str, Any], sources: str, where: str, why: str) -> None:
    raw = document(images=images() | {"vllm": image("vllm") | change})
    raw["sources"] = {"images": sources, "models": "file:///m"}
    found = problems(raw)[f"redoubt_images.vllm{where}"]
    assert why in found.why
    assert found.fix


def test_placeholders_are_only_warned_about_when_nothing_is_installed() -> None:
    raw = document(images=images() | {"vllm": image("vllm") | {"config_digest": "sha256:" + "0" * 64}}, plan_only=True)
    made = plan(raw)
    assert made["warnings"] == [
        "installing would be refused, since these have no real digests yet: redoubt_images.vllm"
    ]


def test_a_tag_alone_is_enough_while_nothing_is_installed() -> None:
    raw = document(images=images() | {"vllm": {"name": "example/vllm", "tag": "0.33.0", "size": 1}}, plan_only=True)
    assert plan(raw)["warnings"] == [
        "installing would be refused, since these have no real digests yet: redoubt_images.vllm"
    ]


@pytest.mark.parametrize("key", ["vllm", "node_exporter", "prometheus", "blackbox_exporter"])
def test_a_missing_image_is_named(key: str) -> None:
    raw = document()
    del raw["images"][key]
    assert f"no image `{key}`" in problems(raw)[f"redoubt_images.{key}"].why


def test_grafana_runs_where_its_image_is_given() -> None:
    assert plan(document(images=images("grafana")))["monitoring"]["images"]["grafana"] == "example/grafana:1.0.0"


def test_all_problems_are_reported_at_once() -> None:
    raw = document(
        {"h1": host(model("a", engine="tgi"), model("b", context=-1), address=str(ipaddress.IPv4Address(0)))}, locks={}
    )
    with pytest.raises(PlanRefused) as refused:
        plan(raw)
    text = str(refused.value)
    assert text.startswith("Refused: 5 problems, no host was changed.")
    for word in (
        "redoubt_models[0].engine",
        "redoubt_models[1].context",
        "locks.a",
        "locks.b",
        "private_address of h1",
    ):
        assert word in text
    assert all(line.endswith((".", "?", ")")) for line in text.splitlines())


@pytest.mark.parametrize(
    ("system", "version", "supported"),
    [
        ("Debian", "13.1", True),
        ("Debian", "11", False),
        ("Ubuntu", "24.04", True),
        ("Ubuntu", "24.10", False),
        ("Ubuntu", "26.04", True),
        ("Rocky", "9.4", True),
        ("AlmaLinux", "10.0", True),
        ("RedHat", "8.9", False),
        ("Fedora", "43", False),
    ],
)
def test_supported_systems(system: str, version: str, supported: bool) -> None:
    found = problems(document(facts={"system": system, "version": version}))
    if supported:
        assert not found
    else:
        refusal = found["operating system of h1"]
        assert refusal.value == f'"{system} {version}"'
        assert "Debian 12, 13" in refusal.fix


def test_an_unknown_architecture_is_refused() -> None:
    assert "architecture of h1" in problems(document(facts={"architecture": "ppc64le"}))


def disks(**free: int) -> dict[str, Any]:
    """Return facts with free bytes per file system."""
    paths = {"docker": "/var/lib/docker", "srv": "/srv/redoubt"}
    return {"disks": {paths[name]: {"filesystem": f"/{name}", "free_bytes": bytes_} for name, bytes_ in free.items()}}


def test_disk_must_hold_images_and_weights() -> None:
    raw = document(disk_reserve=GIB, locks={"small": lock("small", 10 * GIB)})
    assert not problems(raw | {"facts": disks(docker=2 * GIB, srv=11 * GIB)})
    found = problems(raw | {"facts": disks(docker=2 * GIB, srv=11 * GIB - 1)})
    assert list(found) == ["disk of h1 (/srv)"]
    assert "10.0 GiB" in found["disk of h1 (/srv)"].why
    assert "free " in found["disk of h1 (/srv)"].fix


def test_paths_on_one_file_system_share_its_space() -> None:
    raw = document(images={key: image(key, GIB) for key in images()}, locks={"small": lock("small", 4 * GIB)})
    one = {path: {"filesystem": "/", "free_bytes": 9 * GIB} for path in ("/var/lib/docker", "/srv/redoubt")}
    found = problems(raw | {"facts": {"disks": one}})["disk of h1 (/)"]
    assert "/var/lib/docker and /srv/redoubt" in found.why
    assert not problems(raw | {"facts": {"disks": {p: d | {"free_bytes": 10 * GIB} for p, d in one.items()}}})


def test_what_the_host_already_holds_needs_no_space() -> None:
    facts = {
        "images": [image(key)["config_digest"] for key in images()],
        "weights": [f"/srv/redoubt/models/small/{REVISION[:12]}"],
    }
    assert [need["needed_bytes"] for need in plan(document(facts=facts))["disk"]] == [0, 0]
    assert [need["needed_bytes"] for need in plan(document())["disk"]] == [5500, 500]


def test_an_archive_from_elsewhere_needs_space_of_its_own() -> None:
    raw = document()
    raw["sources"]["images"] = "https://files.example.org/images"
    assert {"path": "/var/lib/redoubt", "needed_bytes": 1000} in plan(raw)["disk"]


def test_limits_beyond_the_host_are_refused() -> None:
    raw = document({"h1": host(model(resources={"cpus": 4, "memory": "64g"}))}, facts={"cpus": 2, "memory_bytes": GIB})
    found = problems(raw)
    assert "2 cores" in found["redoubt_models[0].resources.cpus"].why
    assert "1.0 GiB" in found["redoubt_models[0].resources.memory"].why


def test_a_model_must_fit_into_its_memory_limit() -> None:
    raw = document({"h1": host(model(resources={"memory": "2g", "kv_cache_gib": 2}))})
    assert "weights and KV cache need" in problems(raw)["redoubt_models[0].resources.memory"].why


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"host": "h1"},
        {"host": "h1", "hosts": []},
        {"host": "h1", "hosts": {"h1": None}},
        {"host": "h1", "hosts": {"h1": {"kinds": "inference", "models": "x"}}},
        {"host": "h1", "hosts": {"h1": {"kinds": ["inference"], "models": [None, 3, {}]}}, "images": [], "locks": 3},
        document(images={"vllm": None, "node_exporter": {"name": 1}}, locks={"small": "x"}),
        document({"h1": {"kinds": ["inference"], "models": [{"name": "a", "resources": [], "engine_args": "x"}]}}),
    ],
)
def test_nonsense_is_refused_without_a_stack_trace(raw: dict[str, Any]) -> None:
    with pytest.raises(PlanRefused):
        plan(raw | {"sources": raw.get("sources")} if raw else raw)


def test_the_filter_returns_plain_data_and_refuses_in_words() -> None:
    filters = FilterModule().filters()
    made = filters["deployment_plan"](document())
    assert json.loads(json.dumps(made)) == made
    shown = filters["deployment_plan_lines"](made)
    assert shown[0] == "h1: gateway, inference, monitoring"
    assert any("127.0.0.1:8101" in line and "CPU" in line for line in shown)
    with pytest.raises(ValueError, match="Refused: 1 problem, no host was changed"):
        filters["deployment_plan"](document(locks={}))


def test_repository_of_a_model_comes_from_its_lock_or_its_source() -> None:
    chosen = {"h1": host(model(source={"repo": "some-org/Small-1B"}))}
    raw = document(chosen)
    assert plan(raw)["weights"][0]["repo"] == "some-org/Small-1B"
    raw["locks"]["small"]["repo"] = "locked/Small-1B"
    assert plan(raw)["weights"][0]["repo"] == "locked/Small-1B"
    assert plan(document())["weights"][0]["repo"] == ""
    raw = document({"h1": host(model(source={"repo": "https://hub/some-org"}))})
    assert "not the name of a repository" in problems(raw)["redoubt_models[0].source.repo"].why
