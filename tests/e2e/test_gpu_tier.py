"""The tests for machines with GPUs, proved on a lab host with stub ones: they run all, and see a lie of nvidia-smi."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import gpus, hosts, images
from lab.report import PlainReport
from module_utils.gpu import smi
from tests.support.site import REPOSITORY, Site

HOST = "e2e-gpu-tier"
DRIVER = "580.126.20"
INSTALL = """set -eu
echo 'deb [signed-by={cuda.key}] {cuda.uri} /' >/etc/apt/sources.list.d/cuda.list
echo 'deb [signed-by={toolkit.key}] {toolkit.uri} /' >/etc/apt/sources.list.d/toolkit.list
apt-get -qq update
apt-get -qq install --no-install-recommends python3-pytest nvidia-driver-pinning-{driver}
apt-get -qq install --no-install-recommends nvidia-driver-cuda nvidia-kernel-open-dkms nvidia-persistenced \
  nvidia-fabricmanager nvidia-container-toolkit-base
systemctl enable --now nvidia-persistenced
mkdir -p /srv/redoubt && tar --extract --file=/var/tmp/redoubt.tar --directory=/srv/redoubt"""
RUN = "cd /srv/redoubt && {path}python3 -m pytest -v -p no:cacheprovider tests/gpu 2>&1; echo ended with $?"
#: What the liar says: column of nvidia-smi -> its cell in one row, a different one for each.
LIES = {
    "uuid": "GPU-00000000-0000-0000-0000-000000000000",
    "index": "77",
    "serial": "77",
    "name": "NVIDIA Nothing",
    "memory.total": "77",
    "persistence_mode": "Disabled",
    "ecc.mode.current": "Disabled",
    "ecc.errors.uncorrected.volatile.total": "77",
    "gpu_recovery_action": "Reset",
    "mig.mode.current": "Enabled",
    "mig.mode.pending": "Enabled",
    "fabric.state": "In Progress",
    "fabric.status": "Failure",
    "compute_mode": "Prohibited",
    "remapped_rows.pending": "Yes",
    "remapped_rows.failure": "Yes",
}
LIAR = """#!/usr/bin/python3
# stub: nvidia-smi as it is, but for the lies in each answer.
import subprocess, sys
lies = {lies!r}
done = subprocess.run(["/usr/bin/nvidia-smi", *sys.argv[1:]], capture_output=True, text=True)
lines = done.stdout.splitlines()
asked = [word.partition("=")[2] for word in sys.argv[1:] if word.startswith("--query-")]
for at, name in enumerate(asked[0].split(",") if asked else ()):
    if name in lies:
        row = list(lies).index(name) % len(lines)
        cells = lines[row].split(", ")
        lines[row] = ", ".join([*cells[:at], lies[name], *cells[at + 1:]])
if sys.argv[1:] == ["-L"]:
    row = list(lies).index("mig.mode.current") % len(lines)
    lines.insert(row + 1, "  MIG 1g.10gb        Device  0: (UUID: MIG-00000000-0000-0000-0000-000000000000)")
print("\\n".join(lines))
sys.exit(done.returncode)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A host with eight stub GPUs, their stub driver and toolkit, this repository and pytest; no Ansible."""
    folder = tmp_path_factory.mktemp("gpu-tier")
    archive = folder / "redoubt.tar"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True).stdout
    pack = ["tar", "--create", f"--file={archive}", "--null", "--files-from=-"]
    subprocess.run(pack, cwd=REPOSITORY, input=names, check=True)
    images.build(PlainReport())
    try:
        site = Site(folder / "site", {HOST: hosts.up(HOST, report=PlainReport())}, HOST)
        gpus.fit(HOST, "8xH100-SXM")
        site.send(HOST, archive, "/var/tmp/redoubt.tar")  # noqa: S108 - on a host of our own
        site.on(HOST, INSTALL.format(driver=DRIVER, **gpus.repositories()), timeout=300)
        yield site
    finally:
        hosts.down(HOST)


def fitted(site: Site, description: str, *, manager: bool) -> None:
    """Give the host this hardware, with the driver loaded and the services that it needs."""
    gpus.fit(HOST, description)
    units = "nvidia-persistenced" + (" nvidia-fabricmanager" if manager else "")
    generate = "nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml"
    site.on(HOST, f"nvidia-smi -L && systemctl restart {units} && mkdir -p /var/run/cdi && {generate}")


def outcomes(said: str, word: str) -> set[str]:
    """Names of the tests that came to this end."""
    return set(re.findall(rf"^tests/gpu/test_machine\.py::(\S+) {word}", said, re.MULTILINE))


@pytest.mark.slow
@pytest.mark.parametrize("description", ["8xH100-SXM", "2xL40S-PCIe", "1xA100-MIG"])
def test_all_of_them_run_and_pass(site: Site, description: str) -> None:
    fitted(site, description, manager=description == "8xH100-SXM")
    said = site.on(HOST, RUN.format(path=""), timeout=300)
    assert "ended with 0" in said, said[-6000:]
    assert outcomes(said, "SKIPPED") == {"test_a_loaded_model_takes_what_is_counted"}, said[-3000:]
    assert len(outcomes(said, "PASSED")) >= 28
    assert "No module named 'ansible'" in site.on(HOST, "python3 -c 'import ansible' 2>&1 || true")


@pytest.mark.slow
def test_each_lie_is_seen(site: Site, tmp_path: Path) -> None:
    fitted(site, "8xH100-SXM", manager=True)
    liar = tmp_path / "nvidia-smi"
    liar.write_text(LIAR.format(lies=LIES), encoding="utf-8")
    site.send(HOST, liar, "/var/tmp/nvidia-smi")  # noqa: S108 - on a host of our own
    site.on(HOST, "install -D -m 0755 /var/tmp/nvidia-smi /opt/liar/nvidia-smi")
    said = site.on(HOST, RUN.format(path="PATH=/opt/liar:$PATH "), timeout=300)
    assert {f"test_field[{name}]" for name in smi.gpu_row({}, [])} <= outcomes(said, "FAILED"), said[-6000:]
    of_the_table = {f"test_field[{name}]" for name in ("device", "generation", "mig_capable")}
    assert of_the_table <= outcomes(said, "PASSED")


@pytest.mark.slow
def test_a_gpu_that_nvidia_smi_hides_is_seen(site: Site) -> None:
    fitted(site, "8xH100-SXM", manager=True)
    lines = ("#!/bin/sh", "# stub: nvidia-smi without its last line", '/usr/bin/nvidia-smi "$@" | head -n -1')
    write = " ".join(shlex.quote(line) for line in lines)
    site.on(
        HOST, f"cd /opt && mkdir -p hides && printf '%s\\n' {write} >hides/nvidia-smi && chmod 0755 hides/nvidia-smi"
    )
    said = site.on(HOST, RUN.format(path="PATH=/opt/hides:$PATH "), timeout=300)
    assert {"test_the_same_gpus_can_be_used", "test_doctor_finds_it_good"} <= outcomes(said, "FAILED")


@pytest.mark.slow
def test_another_driver_in_the_kernel_is_told_alike(site: Site) -> None:
    fitted(site, "8xH100-SXM", manager=True)
    gpus.set_faults(HOST, loaded_driver="580.95.05")
    said = site.on(HOST, RUN.format(path=""), timeout=300)
    gpus.set_faults(HOST, loaded_driver=None)
    assert "test_the_library_and_nvidia_smi_start_or_fail_alike PASSED" in said  # both say that the versions differ
    assert "does not start (code 18)" in said
    assert outcomes(said, "FAILED") == set()
