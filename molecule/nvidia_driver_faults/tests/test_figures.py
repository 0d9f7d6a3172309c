"""Faults of running GPUs: the figures that Prometheus scrapes, the alert, the doctor and the role each name them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from lab import gpu_description, gpus
from module_utils.gpu import figures
from tests.support.plays import Play
from tests.support.prometheus import alerts, fetch, query, until

NAME = "molecule-faults"
PAGE = "http://127.0.0.1:9100/metrics"
FILE = "/var/lib/redoubt/textfile/redoubt_gpu.prom"
TIMER, SERVICE = "redoubt-gpu-figures.timer", "redoubt-gpu-figures.service"
LAST = gpu_description.load("8xH100-SXM")["gpus"][7]["address"]
OURS = {"GpuMissing", "GpuFiguresStale", "GpuFabricNotReady", "GpuDriverMismatch"}


def scraped(host: Host) -> dict[str, float]:
    return figures.parse(fetch(host, PAGE))


def look(host: Host) -> dict[str, float]:
    """The figures of a look that is taken now."""
    host.check_output("systemctl start %s", SERVICE)
    return scraped(host)


def firing(host: Host) -> set[str]:
    return OURS & set(alerts(host))


def summary(host: Host, name: str) -> str:
    text: str = alerts(host)[name]["annotations"]["summary"]
    return text


@pytest.fixture(autouse=True)
def sound_again(host: Host) -> Iterator[None]:
    """Take every fault away afterwards, and see the alerts go."""
    yield
    gpus.set_faults(NAME)
    host.check_output("systemctl start %s", TIMER)
    look(host)
    assert until(lambda: firing(host) == set(), 60)


def test_a_sound_host(host: Host, play: Play) -> None:
    found = look(host)
    assert found.pop(figures.LOOKED) > 1_700_000_000
    assert found == {figures.EXPECTED: 8, figures.VISIBLE: 8, figures.FABRIC: 1, figures.MISMATCH: 0}
    assert until(lambda: query(host, "redoubt_gpu_visible") == {"127.0.0.1:9100": 8})
    assert firing(host) == set()
    assert play("doctor.yml").status == 0


def sandboxed(host: Host, command: str) -> bool:
    """Whether another program succeeds in the same sandbox."""
    unit = host.file(f"/etc/systemd/system/{SERVICE}").content_string
    other = "\n".join(f"ExecStart={command}" if line.startswith("ExecStart=") else line for line in unit.splitlines())
    host.check_output("printf '%%s\n' %s > /run/systemd/system/probe.service", other)
    host.check_output("systemctl daemon-reload")
    return bool(host.run("systemctl start probe.service").rc == 0)


def test_the_program_can_write_its_file_and_do_nothing_else(host: Host) -> None:
    host.check_output("touch /etc/redoubt/some.key")
    try:
        assert sandboxed(host, "/usr/bin/touch /var/lib/redoubt/textfile/.x")
        assert not sandboxed(host, "/usr/bin/touch /var/lib/redoubt/x")
        assert not sandboxed(host, "/usr/bin/cat /etc/redoubt/some.key")
        assert not sandboxed(host, "/usr/bin/chown 1:1 /var/lib/redoubt/textfile/.x")
        assert sandboxed(host, "/usr/bin/python3 -c pass")
        assert not sandboxed(host, f"/usr/bin/python3 -c 'import urllib.request as u; u.urlopen(\"{PAGE}\")'")
    finally:
        host.check_output("rm -f /etc/redoubt/some.key /var/lib/redoubt/textfile/.x /run/systemd/system/probe.service")
        host.check_output("systemctl daemon-reload; systemctl reset-failed")


def test_gpu_lost_after_start_is_seen_by_the_timer(host: Host, play: Play) -> None:
    gpus.set_faults(NAME, lost_gpus=[LAST])
    assert until(lambda: scraped(host)[figures.VISIBLE] == 7, 90)  # nobody but the timer looks
    assert until(lambda: "GpuMissing" in firing(host), 60)
    assert summary(host, "GpuMissing") == "one misses 1 of its GPUs"
    said, run = play("doctor.yml"), play("driver.yml")
    assert f"7 of 8 GPUs can be used, not {LAST} (Unable to determine the device handle for GPU7" in said.words
    assert "Read 'dmesg' for Xid 79 and the GPU's address" in said.words
    assert "gpus.figures: 7 of 8 GPUs can be used" in said.words
    assert run.status != 0
    assert f"gpus: 7 of 8 GPUs can be used, not {LAST}" in run.words


def test_seven_of_eight_on_the_bus(host: Host, play: Play) -> None:
    # Even gone from the bus, and in a run that finds seven: what the plan says is the measure.
    hardware = "/etc/stub-nvidia/hardware.json"
    before = host.file(hardware).content_string
    changed = json.loads(before)
    changed["gpus"].pop()
    host.check_output("cp %s /var/tmp/hardware.json && printf %%s %s > %s", hardware, json.dumps(changed), hardware)
    host.check_output("stub-nvidia refresh")
    try:
        found = look(host)
        fired = until(lambda: "GpuMissing" in firing(host), 60)
        said, run = play("doctor.yml"), play("driver.yml")
    finally:
        host.check_output("mv /var/tmp/hardware.json %s && stub-nvidia refresh", hardware)
    assert (found[figures.EXPECTED], found[figures.VISIBLE]) == (8, 7)
    assert fired
    for one in (said, run):
        assert one.status != 0
        assert "7 of 8 GPUs can be used, 1 not on the PCI bus" in one.words
        assert "If it was taken out on purpose, change preflight_gpus" in one.words


def test_driver_and_library_of_two_versions(host: Host, play: Play) -> None:
    gpus.set_faults(NAME, loaded_driver="580.95.05")
    assert "Driver/library version mismatch" in host.run("nvidia-smi").stdout
    found = look(host)
    assert (found[figures.MISMATCH], found[figures.VISIBLE]) == (1, 0)
    assert until(lambda: "GpuDriverMismatch" in firing(host), 60)
    assert "Driver/library version mismatch" in alerts(host)["GpuDriverMismatch"]["annotations"]["description"]
    said, run = play("doctor.yml"), play("driver.yml")
    assert "gpu.driver: module and library are of two versions: loaded 580.95.05" in said.words
    assert "Driver/library version mismatch" in said.words
    assert "-> Restart the host in a maintenance window; then run the host playbook again." in said.words
    assert "gpus.figures: 0 of 8 GPUs can be used; the driver's libraries are of another version" in said.words
    assert run.status != 0
    assert "driver 580.95.05 is loaded, 580.126.20 is wanted" in run.words
    assert "Driver/library version mismatch" in run.words
    assert "nvidia_driver_reboot is never, so it was not. Take its engines out of service, restart it" in run.words
    assert "or set nvidia_driver_reboot: when_needed" in run.words


def test_fabric_in_progress_for_ever(host: Host, play: Play) -> None:
    gpus.set_faults(NAME, fabric="In Progress")
    assert look(host)[figures.FABRIC] == 0
    assert until(lambda: "GpuFabricNotReady" in firing(host), 60)
    assert "systemctl status nvidia-fabricmanager" in alerts(host)["GpuFabricNotReady"]["annotations"]["runbook"]
    said, run = play("doctor.yml"), play("driver.yml", nvidia_driver_fabric_timeout=1)
    for one in (said, run):
        assert one.status != 0
        assert "the fabric is In Progress/None, not Completed/Success" in one.words
        assert "Read 'journalctl -u nvidia-fabricmanager' and /var/log/fabricmanager.log." in one.words
    assert "gpus.figures: the NVLink fabric is not ready" in said.words


def test_fabric_manager_one_version_off(host: Host, play: Play) -> None:
    move = "apt-get -y --allow-downgrades --allow-change-held-packages install nvidia-fabricmanager=580.95.05-1"
    host.check_output(move)
    said = play("doctor.yml")
    assert "gpu.fabric: nvidia-fabricmanager is 580.95.05, the loaded driver 580.126.20" in said.words
    assert "CUDA would fail with error 802" in said.words
    assert "-> Run the host playbook: it installs both in one version." in said.words
    assert play("driver.yml").status == 0  # which is what the remedy says
    assert play("doctor.yml").status == 0


def test_a_program_that_no_longer_runs(host: Host, play: Play) -> None:
    host.check_output("systemctl stop %s", TIMER)
    host.check_output(f"sed -i 's/^{figures.LOOKED} .*/{figures.LOOKED} 1700000000/' {FILE}")
    assert until(lambda: "GpuFiguresStale" in firing(host), 60)
    assert summary(host, "GpuFiguresStale") == "Nobody looks whether the GPUs of one are there"
    said = play("doctor.yml")
    assert said.status != 0
    assert "nobody looks at the GPUs any more" in said.words
    assert "systemctl status redoubt-gpu-figures" in said.words
    assert play().status == 0  # the monitoring playbook's part starts it again
    assert host.service(TIMER).is_running
    assert until(lambda: firing(host) == set(), 60)


def test_without_gpus_nothing_of_it_stays(host: Host, play: Play) -> None:
    assert play(gpus=0).status == 0
    assert play(gpus=0).changed == 0
    assert not host.file(FILE).exists
    assert not host.file(f"/etc/systemd/system/{TIMER}").exists
    assert not host.service(TIMER).is_running
    assert scraped(host) == {}
    assert play().status == 0
    assert look(host)[figures.VISIBLE] == 8
