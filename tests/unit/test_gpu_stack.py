"""The driver's set for each kind of hardware, system and wish; and everything that is refused before it is tried."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter_plugins.gpu_stack import nvidia_driver_problems, nvidia_driver_stack
from planner import driver_table
from planner.driver_wishes import Wishes
from planner.gpu_stack import Stack, stack
from tests.unit.gpu_support import GpuHost

TODAY = date(2026, 11, 1)
SYSTEMS = {
    "debian13": {"distribution": "Debian", "distribution_version": "13.1"},
    "debian12": {"distribution": "Debian", "distribution_version": "12.12"},
    "ubuntu2204": {"distribution": "Ubuntu", "distribution_version": "22.04"},
    "ubuntu2404": {"distribution": "Ubuntu", "distribution_version": "24.04"},
    "ubuntu2604": {"distribution": "Ubuntu", "distribution_version": "26.04"},
    "rhel9": {"distribution": "RedHat", "distribution_version": "9.6"},
    "rhel10": {"distribution": "Rocky", "distribution_version": "10.0"},
}
HARDWARE = ("8xH100-SXM", "8xB200", "2xL40S-PCIe", "1xA100-MIG")
FINGERPRINT = ("A" * 40,)


def host(name: str = "debian13", kernel: str = "6.8.0-45-generic", architecture: str = "x86_64") -> dict[str, str]:
    return {**SYSTEMS[name], "kernel": kernel, "architecture": architecture}


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """redoubt_gpu of each description, before there is a driver."""
    return {name: GpuHost(tmp_path_factory.mktemp(name), name).facts() for name in HARDWARE}


def decide(gpu: Mapping[str, Any], system: str = "debian13", **wishes: Any) -> Stack:
    given = {"repository_key_fingerprints": FINGERPRINT, **wishes}
    return stack(gpu, host(system), Wishes(**given), TODAY)


def spoilt(gpu: Mapping[str, Any], **row: Any) -> dict[str, Any]:
    """The same host with one thing changed in each GPU's row."""
    other = copy.deepcopy(dict(gpu))
    for one in other["gpus"]:
        one.update(row)
    return other


def volta(gpu: Mapping[str, Any]) -> dict[str, Any]:
    old = {"product": "Tesla V100", "generation": "Volta", "supports_open_module": False, "needs_open_module": False}
    return spoilt(gpu, **old)


def refusals(made: Stack) -> dict[str, str]:
    return {problem.where: problem.text() for problem in made.problems}


def names(made: Stack) -> set[str]:
    return {item.partition("=")[0] for item in made.packages}


def test_hgx_h100_on_debian(facts: dict[str, dict[str, Any]]) -> None:
    made = decide(facts["8xH100-SXM"])
    assert made.problems == ()
    assert made.warnings == ()
    assert (made.module, made.branch) == ("open", 580)
    assert made.first == ("nvidia-driver-pinning-580.126.20",)
    wanted = {"nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-fabricmanager", "libnvidia-nscq"}
    assert {f"{name}=580.126.20-*" for name in wanted} <= set(made.packages)
    assert "linux-headers-6.8.0-45-generic" in made.packages
    assert "datacenter-gpu-manager-4-cuda13=1:4.6.0-*" in made.packages
    assert not {"nvlsm", "libnvsdm", "nvidia-imex"} & names(made)
    assert "nvidia-kernel-dkms" in made.conflicts
    assert made.units == ("nvidia-persistenced.service", "nvidia-fabricmanager.service")
    assert made.modules == ("nvidia", "nvidia_uvm")
    assert made.expected["fabric"] is True
    assert len(made.expected["gpus"]) == 8
    assert made.repository is not None
    assert made.repository["url"].endswith("/compute/cuda/repos/debian13/x86_64/")


def test_nvlink5_needs_its_subnet_manager_and_modules(facts: dict[str, dict[str, Any]]) -> None:
    made = decide(facts["8xB200"], "ubuntu2404")
    assert {"nvlsm", "libnvsdm", "nvidia-fabricmanager", "linux-modules-extra-6.8.0-45-generic"} <= names(made)
    assert made.modules == ("nvidia", "nvidia_uvm", "ib_umad", "mlx5_ib")
    assert "ib_umad\nmlx5_ib\n" in made.files["/etc/modules-load.d/redoubt-nvidia.conf"]


@pytest.mark.parametrize("name", ["2xL40S-PCIe", "1xA100-MIG"])
def test_pcie_hosts_have_no_fabric(facts: dict[str, dict[str, Any]], name: str) -> None:
    made = decide(facts[name])
    assert not {item for item in names(made) if "fabric" in item or "nscq" in item}
    assert made.units == ("nvidia-persistenced.service",)
    assert made.expected["fabric"] is False


@pytest.mark.parametrize(
    ("system", "version", "present", "absent"),
    [
        ("ubuntu2404", "580.126.20", {"libnvidia-compute-580", "nvidia-dkms-580-open"}, {"libnvidia-compute"}),
        ("ubuntu2404", "595.71.05", {"libnvidia-compute", "nvidia-dkms-open"}, {"nvidia-dkms-595-open"}),
        ("rhel9", "580.126.20", {"nvidia-driver-cuda", "kmod-nvidia-open-dkms", "kernel-devel-matched"}, set()),
        ("debian12", "535.261.03", {"nvidia-fabricmanager-535", "libnvidia-nscq-535"}, {"nvidia-fabricmanager"}),
        ("debian12", "580.126.20", {"nvidia-fabricmanager", "libnvidia-nscq"}, {"nvidia-fabricmanager-580"}),
    ],
)
def test_names_by_system_and_branch(
    facts: dict[str, dict[str, Any]], system: str, version: str, present: set[str], absent: set[str]
) -> None:
    made = decide(facts["8xH100-SXM"], system, version=version)
    assert present <= names(made)
    assert not absent & names(made)


def test_dnf_streams_end_with_el9(facts: dict[str, dict[str, Any]]) -> None:
    gpu = facts["8xH100-SXM"]
    assert decide(gpu, "rhel9").stream == "nvidia-driver:580-open"
    assert decide(gpu, "rhel9", module="proprietary").stream == "nvidia-driver:580-dkms"
    assert decide(gpu, "rhel10").stream == ""
    assert decide(gpu, "rhel10").first == ("python3-dnf-plugin-versionlock",)
    assert "/etc/apt/apt.conf.d/52redoubt-nvidia" not in decide(gpu, "rhel10").files


def test_distributions_own_packages(facts: dict[str, dict[str, Any]]) -> None:
    pcie, hgx = facts["2xL40S-PCIe"], facts["8xH100-SXM"]
    ubuntu = decide(hgx, "ubuntu2404", source="distribution")
    assert ubuntu.problems == ()
    assert ubuntu.repository is None
    assert ubuntu.first == ()
    assert {"linux-modules-nvidia-580-server-open-generic", "nvidia-fabricmanager-580"} <= names(ubuntu)
    assert "linux-modules-nvidia-580-server-open-generic" in ubuntu.packages  # versioned by the kernel
    debian = decide(pcie, source="distribution", version="550.163.01")
    assert {"nvidia-open-kernel-dkms=550.163.01-*", "nvidia-smi=550.163.01-*"} <= set(debian.packages)
    assert "nvidia-persistenced" in debian.packages  # the unit that the role starts; it has a version of its own
    assert "nvidia-kernel-open-dkms" in debian.conflicts
    assert "has no manager, nscq" in refusals(decide(hgx, source="distribution"))["nvidia_driver_source"]
    assert (
        "no driver packages of its own"
        in refusals(decide(pcie, "rhel9", source="distribution"))["nvidia_driver_source"]
    )


def test_old_gpus_get_the_proprietary_module_of_the_last_branch(facts: dict[str, dict[str, Any]]) -> None:
    gpu = volta(facts["2xL40S-PCIe"])
    made = decide(gpu)
    assert (made.module, made.problems) == ("proprietary", ())
    assert "nvidia-kernel-dkms" in names(made)
    assert "580 is the last one" in refusals(decide(gpu, version="595.71.05"))["nvidia_driver_version"]
    assert "do not drive Tesla V100" in refusals(decide(gpu, module="open"))["nvidia_driver_module"]


def test_blackwell_is_refused_the_proprietary_module(facts: dict[str, dict[str, Any]]) -> None:
    made = decide(facts["8xB200"], module="proprietary")
    assert "nothing but the open modules drives NVIDIA B200" in refusals(made)["nvidia_driver_module"]
    assert made.packages == ()


def test_gpus_that_no_module_drives_together(facts: dict[str, dict[str, Any]]) -> None:
    mixed = copy.deepcopy(facts["8xB200"])
    mixed["gpus"] = [*mixed["gpus"], *volta(facts["2xL40S-PCIe"])["gpus"]]
    assert "a host has one" in refusals(decide(mixed))["nvidia_driver_module"]


def test_unknown_gpu_is_the_operators_choice(facts: dict[str, dict[str, Any]]) -> None:
    new = spoilt(facts["2xL40S-PCIe"], device="10de:9999", supports_open_module=None, needs_open_module=None)
    assert "10de:9999 are not known here" in refusals(decide(new))["nvidia_driver_module"]
    assert decide(new, module="open").problems == ()


def test_secure_boot(facts: dict[str, dict[str, Any]]) -> None:
    gpu = {**facts["2xL40S-PCIe"], "secure_boot": True}
    assert "mokutil --import /var/lib/dkms/mok.pub" in refusals(decide(gpu))["Secure Boot"]
    ubuntu = refusals(decide(gpu, "ubuntu2404"))["Secure Boot"]
    assert "/var/lib/shim-signed/mok/MOK.der" in ubuntu
    assert "nvidia_driver_source: distribution" in ubuntu
    assert decide(gpu, "ubuntu2404", source="distribution").problems == ()
    assert decide(gpu, secure_boot_key_enrolled=True).problems == ()


def test_going_back_must_be_allowed(facts: dict[str, dict[str, Any]]) -> None:
    gpu = copy.deepcopy(facts["2xL40S-PCIe"])
    gpu["driver"]["installed"] = "595.71.05"
    assert "595.71.05 is installed, which is newer" in refusals(decide(gpu))["nvidia_driver_version"]
    assert decide(gpu, allow_downgrade=True).problems == ()
    assert decide(gpu, version="595.71.05").problems == ()


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("535.261.03", "support of branch 535 ended on 2026-06-30; supported: 580 (until 2028-06)"),
        ("610.43.02", "support of branch 610 ended on 2026-08-31"),
        ("615.71.09", "the end of life of branch 615 is not known here"),
    ],
)
def test_end_of_life_is_a_warning(facts: dict[str, dict[str, Any]], version: str, words: str) -> None:
    made = decide(facts["2xL40S-PCIe"], version=version)
    assert made.problems == ()
    assert words in made.warnings[0]


@pytest.mark.parametrize("version", ["580", "latest", "580.126.20-1", ""])
def test_no_whole_version_is_refused(facts: dict[str, dict[str, Any]], version: str) -> None:
    assert "no driver version" in refusals(decide(facts["2xL40S-PCIe"], version=version))["nvidia_driver_version"]
    assert "no driver version" in nvidia_driver_problems({"nvidia_driver_version": version})[0]


def test_key_without_a_verified_fingerprint_must_be_given(facts: dict[str, dict[str, Any]]) -> None:
    gpu = facts["2xL40S-PCIe"]
    for system in SYSTEMS:
        made = decide(gpu, system, repository_key_fingerprints=())
        where = "nvidia_driver_repository_key_fingerprints"
        assert (where in refusals(made)) is (system in ("ubuntu2604", "rhel10"))
    assert made.repository is not None
    assert made.repository["key_fingerprints"] == []


def test_what_an_operator_should_know(facts: dict[str, dict[str, Any]]) -> None:
    gpu = spoilt(facts["2xL40S-PCIe"], bound="vfio-pci")
    gpu["driver"]["nouveau"] = True
    made = decide(gpu)
    assert [warning.split(":")[0] for warning in made.warnings] == [
        "the kernel has loaded nouveau",
        "GPUs are bound to vfio-pci",
    ]
    assert made.expected["gpus"] == []
    guest = {**facts["8xB200"], "nvlink_management": []}
    assert "several NVLink 5 GPUs" in decide(guest).warnings[0]


def test_kernel_that_comes_next(facts: dict[str, dict[str, Any]]) -> None:
    gpu = facts["2xL40S-PCIe"]
    assert decide(gpu).expected["kernel"] == ""
    made = decide(gpu, kernel="6.12.94+deb13-amd64")
    assert made.expected["kernel"] == "6.12.94+deb13-amd64"
    assert [name for name in made.packages if name.startswith("linux-")] == ["linux-headers-6.12.94+deb13-amd64"]
    assert "it is no kernel release" in refusals(decide(gpu, kernel="../boot"))["nvidia_driver_kernel"]


def test_options_go_by_the_names_of_files(facts: dict[str, dict[str, Any]]) -> None:
    gpu, old = facts["2xL40S-PCIe"], volta(facts["2xL40S-PCIe"])
    wishes: dict[str, Any] = {"source": "distribution", "version": "550.163.01", "disable_hmm": True}
    path = "/etc/modprobe.d/redoubt-nvidia.conf"
    assert "\noptions nvidia_current_open_uvm uvm_disable_hmm=1\n" in decide(gpu, **wishes).files[path]
    assert "\noptions nvidia_current_uvm uvm_disable_hmm=1\n" in decide(old, **wishes).files[path]
    assert "\noptions nvidia_uvm uvm_disable_hmm=1\n" in decide(gpu, "ubuntu2404", **wishes).files[path]


def test_files(facts: dict[str, dict[str, Any]]) -> None:
    gpu = facts["2xL40S-PCIe"]
    plain, all_of_it = decide(gpu).files, decide(gpu, disable_hmm=True, peermem=True, hold=False).files
    modprobe, apt = "/etc/modprobe.d/redoubt-nvidia.conf", "/etc/apt/apt.conf.d/52redoubt-nvidia"
    assert {"blacklist nouveau", "blacklist nova_core"} < set(plain[modprobe].splitlines())
    assert "uvm_disable_hmm" not in plain[modprobe]
    assert "options nvidia_uvm uvm_disable_hmm=1\n" in all_of_it[modprobe]
    assert all_of_it["/etc/modules-load.d/redoubt-nvidia.conf"].endswith("nvidia_peermem\n")
    assert '"^linux-(image|headers|modules)";' in plain[apt]
    assert all_of_it[apt] == ""
    filtered = nvidia_driver_stack(gpu, host(), {"nvidia_driver_hold": False, "nvidia_driver_imex_nodes": ["10.0.0.1"]})
    assert filtered["absent"] == [apt]
    assert {"path": "/etc/nvidia-imex/nodes_config.cfg", "content": "10.0.0.1\n"} in filtered["files"]
    assert {"unit": "nvidia-imex.service"} in filtered["probes"]


@given(
    name=st.sampled_from(HARDWARE),
    system=st.sampled_from(sorted(SYSTEMS)),
    source=st.sampled_from(["nvidia", "distribution"]),
    module=st.sampled_from(["auto", "open", "proprietary"]),
    branch=st.sampled_from(["535.261.03", "580.126.20", "595.71.05"]),
)
def test_whatever_is_not_refused_is_one_set_of_one_version(
    name: str, system: str, source: str, module: str, branch: str, facts: dict[str, dict[str, Any]]
) -> None:
    made = decide(facts[name], system, source=source, module=module, version=branch)
    if made.problems:
        assert all(problem.why and problem.fix for problem in made.problems)
        return
    exact = [item for item in made.packages if "=" in item and not item.startswith("datacenter")]
    assert exact
    assert {item.partition("=")[2] for item in exact} == {f"{branch}-*"}
    assert len(names(made)) == len(made.packages)
    assert not names(made) & set(made.conflicts)
    assert made.module in ("open", "proprietary")
    assert ("nvidia-fabricmanager.service" in made.units) is made.expected["fabric"]
    if made.expected["fabric"]:
        assert any("fabricmanager" in item for item in exact)
    assert (made.repository is None) is (source == "distribution")
    assert not [text for text in made.files.values() if "{" in text.replace("Package-Blacklist {", "")]


def test_defaults_of_the_wishes_are_the_roles() -> None:
    import yaml  # noqa: PLC0415 - only here

    defaults = yaml.safe_load(Path("roles/nvidia_driver/defaults/main.yml").read_text(encoding="utf-8"))
    for name, value in vars(Wishes()).items():
        given = defaults[f"nvidia_driver_{name}"]
        assert (tuple(given) if isinstance(given, list) else given) == value


def preflight() -> Any:
    """The preflight role's action, which is no importable module."""
    path = Path("roles/preflight/action_plugins/preflight_check.py")
    spec = importlib.util.spec_from_file_location("preflight_check", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("manage", "decided"), [(True, True), (None, True), (False, False)])
def test_preflight_decides_where_there_are_gpus_to_manage(
    facts: dict[str, dict[str, Any]], manage: bool | None, decided: bool
) -> None:
    module = preflight()
    raw: dict[str, Any] = {
        "nvidia_driver_version": "595.71.05",
        "dcgm_method": "package",
        "dcgm_package_version": "1:4.5.3-1",
    }
    raw |= {} if manage is None else {"nvidia_driver_manage": manage}
    this = module._Host(raw, raw.__getitem__, facts_known=True)
    this.read(raw)
    known = {"ansible_facts": {**host(), "redoubt_gpu": {**facts["8xH100-SXM"], "secure_boot": True}}}
    made = module.ActionModule._driver(this, ["inference"], known)
    assert (made is not None) is decided
    if decided:
        assert made.version == "595.71.05"
        assert set(refusals(made)) == {"Secure Boot", "dcgm_package_version"}
    assert module.ActionModule._driver(this, ["inference"], {"ansible_facts": host()}) is None
    # A gateway or a monitoring host may have a graphics card: it is nobody's business here.
    assert module.ActionModule._driver(this, ["gateway", "monitoring"], known) is None


def test_every_branch_has_an_end() -> None:
    for name in driver_table.table()["branches"]:
        assert isinstance(driver_table.end_of_life(int(name)), date)
    assert driver_table.branch_of("580.65") == 580


def test_gpus_of_virtual_machines_decide_nothing(facts: dict[str, dict[str, Any]]) -> None:
    both = copy.deepcopy(facts["8xB200"])
    both["gpus"].append({**volta(facts["2xL40S-PCIe"])["gpus"][0], "bound": "vfio-pci"})
    made = decide(both)
    assert (made.module, made.problems) == ("open", ())
    assert len(made.expected["gpus"]) == 8
