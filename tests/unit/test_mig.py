"""MIG: what a layout may say, what it makes of the devices that models get, and who stands in its way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from filter_plugins.mig import mig_parts, mig_refusal
from module_utils.gpu.mig import container_users, differing, disturbed, process_users, using
from planner import evaluate, mig
from planner.problems import Problems
from tests.support.plan_documents import document, host, model
from tests.unit.gpu_support import GpuHost

ALL_SEVEN = [{"gpus": "all", "devices": {"1g.10gb": 7}}]


@pytest.fixture
def h100(tmp_path: Path) -> dict[str, Any]:
    return GpuHost(tmp_path, "8xH100-SXM").with_driver().facts()


def on(gpu: int, devices: dict[str, int]) -> list[dict[str, Any]]:
    return [{"gpus": [gpu], "devices": devices}]


# Layouts


@pytest.mark.parametrize(
    "devices",
    [
        {"1g.10gb": 7},
        {"3g.40gb": 2},
        {"4g.40gb": 1, "3g.40gb": 1},
        {"3g.40gb": 1, "2g.20gb": 1, "1g.10gb": 2},
        {"2g.20gb": 3, "1g.10gb": 1},
        {"1g.20gb": 4},
        {"1g.10gb": 6, "1g.10gb+me": 1},
        {"7g.80gb": 1},
        {},
    ],
)
def test_layouts_that_fit(h100: dict[str, Any], devices: dict[str, int]) -> None:
    assert mig_refusal(on(0, devices), h100) == []


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (on(0, {"1g.10gb": 8}), "gives at most 7 of 1g.10gb"),
        (on(0, {"3g.40gb": 2, "1g.10gb": 1}), "7 of 7 compute slices and 9 of 8 memory slices"),
        (on(0, {"4g.40gb": 1, "2g.20gb": 2}), "8 of 7 compute slices"),
        (on(0, {"1g.5gb": 7}), "has no profile 1g.5gb. Fix: choose of 1g.10gb, 1g.20gb"),
        (on(0, {"10gb": 7}), "it is not profile: number"),
        (on(0, {"1g.10gb": 0}), "it is not profile: number"),
        (on(8, {"1g.10gb": 7}), "the host has 8 GPUs. Fix: name GPUs from 0 to 7"),
        ([{"gpus": ["GPU-1"], "devices": {}}], "neither `all` nor a list of GPUs by their place"),
        ([{"gpus": [0]}], "it is not {gpus, devices}"),
        ([*ALL_SEVEN, *on(1, {})], "GPU all is named twice"),
        ([*on(1, {}), *on(1, {"7g.80gb": 1})], "GPU 1 is named twice"),
        ("all", "it is not a list"),
    ],
)
def test_layouts_that_are_refused(h100: dict[str, Any], layout: object, said: str) -> None:
    assert said in "\n".join(mig_refusal(layout, h100))


def test_gpu_that_cannot(tmp_path: Path) -> None:
    l40s = GpuHost(tmp_path, "2xL40S-PCIe").with_driver().facts()
    assert "NVIDIA L40S cannot be divided by MIG. Fix: take the GPU out" in "\n".join(mig_refusal(ALL_SEVEN, l40s))
    assert mig_refusal([{"gpus": "all", "devices": {}}], l40s) == []


def test_unknown_product_is_left_to_its_driver(h100: dict[str, Any]) -> None:
    gpu = {**h100["gpus"][0], "device": "10de:ffff", "product": None, "mig_capable": None}
    facts = {**h100, "gpus": [gpu]}
    assert mig_refusal(on(0, {"1g.99gb": 7}), facts) == []
    # nvidia-smi has the last word: [N/A] is no.
    assert "cannot be divided" in "\n".join(
        mig_refusal(on(0, {"1g.99gb": 7}), {**h100, "gpus": [{**gpu, "mig": None}]})
    )


@pytest.mark.parametrize("family", {id(family): family for family in mig.FAMILIES.values()}.values())
def test_each_family_can_be_filled_with_each_profile(family: mig.Family) -> None:
    for name, profile in family.profiles.items():
        assert profile.compute * profile.most <= family.compute, name
        assert profile.memory * profile.most <= family.memory, name
        assert int(name[0]) == profile.compute
        # One more never fits, so that the numbers say all.
        more = profile.most + 1
        assert profile.compute * more > family.compute or profile.memory * more > family.memory, name


def test_what_mig_parted_gets(h100: dict[str, Any]) -> None:
    layout = [{"gpus": [1, 0], "devices": {"3g.40gb": 2}}, {"gpus": [7], "devices": {}}]
    # Its `assert` is content only where every GPU is named.
    assert mig_parts(layout, h100) == [
        {"devices": [0], "mig-enabled": True, "mig-devices": {"3g.40gb": 2}},
        {"devices": [1], "mig-enabled": True, "mig-devices": {"3g.40gb": 2}},
        *({"devices": [gpu], "mig-enabled": False} for gpu in range(2, 8)),
    ]


def test_gpus_of_another_driver_do_not_count(h100: dict[str, Any]) -> None:
    """NVIDIA's tools number what their driver has: a GPU that was given to a virtual machine is none of them."""
    given_away = {**h100["gpus"][0], "bound": "vfio-pci", "visible": False, "mig": None}
    facts = {**h100, "gpus": [given_away, *h100["gpus"][1:]]}
    assert mig_refusal(on(0, {"1g.10gb": 7}), facts) == []
    assert "the host has 7 GPUs" in "\n".join(mig_refusal(on(7, {"1g.10gb": 7}), facts))
    assert [part["devices"] for part in mig_parts(ALL_SEVEN, facts)] == [[gpu] for gpu in range(7)]


# Devices of the plan


def planned(gpus: list[Any], layout: list[dict[str, Any]], known: object = 2) -> tuple[list[list[str]], str]:
    """Devices of models that want these GPUs, and all problems."""
    models = [model(f"m{index}", gpus=wanted) for index, wanted in enumerate(gpus)]
    made, problems = evaluate(document({"h1": host(*models, gpus=known, mig=layout)}))
    assert made is not None
    return [engine["devices"] for engine in made["engines"]], "\n".join(problem.text() for problem in problems)


HALVES = on(0, {"3g.40gb": 2})


def test_mig_devices_are_counted_like_gpus() -> None:
    assert planned([1, 1, 1], HALVES) == ([["0:0"], ["0:1"], ["1"]], "")
    uuids = ["GPU-a", "GPU-b"]
    assert planned([1, 1, 1], HALVES, uuids) == ([["0:0"], ["0:1"], ["GPU-b"]], "")
    assert planned([["0:1"], 1, "auto"], HALVES) == ([["0:1"], ["0:0"], ["1"]], "")
    assert planned([["1"], 1], HALVES, uuids) == ([["GPU-b"], ["0:0"]], "")


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ([["0"]], "the host has no GPU 0. Fix: name GPUs of 0:0, 0:1, 1"),
        ([["0:2"]], "the host has no GPU 0:2"),
        ([["0:0"], ["0:0"]], "GPU 0:0 already belongs to model m0"),
        ([2], "an engine can use one MIG device, alone. Fix: write 1"),
        (["auto"], "it would get 0:0, 0:1, 1, and an engine can use one MIG device"),
        ([1, 1, 1, 1], "the host has 3 GPUs, 0 of them still free"),
        ([["MIG-1"], 1], "counts cannot be combined with UUIDs"),
    ],
)
def test_devices_that_are_refused(gpus: list[Any], said: str) -> None:
    assert said in planned(gpus, HALVES)[1]


def test_mig_device_by_uuid_is_believed_but_not_counted_past() -> None:
    assert "counts cannot be combined" in planned([["MIG-1"], 1], HALVES, ["GPU-a", "GPU-b"])[1]
    assert planned([["MIG-1"]], HALVES, ["GPU-a", "GPU-b"]) == ([["MIG-1"]], "")


def test_wrong_layout_is_refused_with_the_plan() -> None:
    assert "nvidia_mig_layout[0].gpus" in planned([1], [{"gpus": 0, "devices": {}}])[1]


def test_layout_that_the_hosts_gpus_cannot_have_is_refused_with_the_plan(h100: dict[str, Any]) -> None:
    site = {"h1": host(model(gpus=1), gpus=8, mig=on(1, {"1g.5gb": 7}))}
    facts = {"gpus": 8, "gpu_rows": h100["gpus"]}
    _, problems = evaluate(document(site, facts=facts))
    assert [problem.where for problem in problems] == ["nvidia_mig_layout, GPU 1"]


def test_plan_says_what_the_host_needs() -> None:
    made, _ = evaluate(document({"h1": host(model(gpus=1), gpus=2, mig=HALVES)}))
    assert made is not None
    assert (made["gpu_stack"], made["mig"], made["docker_options"]) == (True, True, {"features": {"cdi": True}})
    made, _ = evaluate(document({"h1": host(model(), gpus=0, mig=HALVES)}))
    assert made is not None
    assert (made["gpu_stack"], made["mig"], made["docker_options"]) == (False, False, {})
    made, _ = evaluate(document({"h1": host(model(), gpus=2, legacy_runtime=True)}))
    assert made is not None
    assert "nvidia" in made["docker_options"]["runtimes"]


# Who is in the way


def container(name: str, labels: dict[str, str] | None = None, **config: Any) -> dict[str, Any]:
    return {"Name": f"/{name}", "Config": {"Labels": labels}, "HostConfig": config}


def cdi(*names: str) -> dict[str, Any]:
    return {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={name}" for name in names]}]}


def test_containers_by_what_they_were_given(h100: dict[str, Any]) -> None:
    gpus = h100["gpus"]
    found = container_users(
        [
            container("web"),
            container("index", **cdi("3")),
            container("uuid", **cdi(gpus[4]["uuid"])),
            container("slice", {"redoubt.engine": "vllm"}, **cdi("5:1")),
            container("everything", **cdi("all")),
            container("unknown", **cdi("3", "GPU-of-yesterday")),
            container("legacy", Runtime="nvidia"),
            container("count", DeviceRequests=[{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]),
            container("node", Devices=[{"PathOnHost": "/dev/nvidia6"}, {"PathOnHost": "/dev/nvidiactl"}]),
        ],
        gpus,
    )
    assert {user.name: sorted(user.gpus) for user in found} == {
        "index": [3], "uuid": [4], "slice": [5], "node": [6],
        "everything": [], "unknown": [], "legacy": [], "count": [],
    }  # fmt: skip
    assert [user.name for user in found if user.engine] == ["slice"]
    assert [user.name for user in using(found, [5])] == ["slice", "everything", "unknown", "legacy", "count"]


def test_processes(h100: dict[str, Any]) -> None:
    text = f"{h100['gpus'][2]['uuid']}, 4711, /usr/bin/train\nGPU-unknown, 12, x\nNo running processes found\n"
    found = process_users(text, h100["gpus"])
    assert [(user.name, sorted(user.gpus)) for user in found] == [
        ("process 4711 (/usr/bin/train)", [2]),
        ("process 12 (x)", []),
    ]


def test_which_gpus_differ(tmp_path: Path) -> None:
    gpus = GpuHost(tmp_path, "1xA100-MIG").with_driver().facts()["gpus"]
    as_it_is = {"devices": [0], "mig-enabled": True, "mig-devices": {"3g.40gb": 1, "2g.20gb": 1, "1g.10gb": 2}}
    assert differing(gpus, [as_it_is]) == []
    assert differing(gpus, [{**as_it_is, "mig-devices": {"1g.10gb": 7}}]) == [0]
    assert differing(gpus, [{"devices": [0], "mig-enabled": False}]) == [0]
    assert differing(gpus, [{**as_it_is, "devices": [1]}]) == [1]


def test_which_gpus_a_change_disturbs(tmp_path: Path, h100: dict[str, Any]) -> None:
    """Before Hopper a GPU is reset when MIG is switched, and mig-parted resets all of a host at once."""
    switched = [{"devices": [0], "mig-enabled": True, "mig-devices": {"1g.10gb": 7}}]
    assert disturbed(h100["gpus"], switched, [0]) == [0]
    older = [{**gpu, "generation": "Ampere"} for gpu in h100["gpus"]]
    assert disturbed(older, switched, [0]) == list(range(8))
    divided = [{**older[0], "mig": True}, *older[1:]]
    assert disturbed(divided, switched, [0]) == [0]


def test_problems_are_collected() -> None:
    problems = Problems()
    assert mig.parse([{"gpus": [0]}, *on(1, {})], problems) == (mig.Entry((1,), {}),)
    assert len(problems.found) == 1
