"""The DCGM exporter's container (a stub stands in it) on a host that watches itself."""

from __future__ import annotations

import json

from testinfra.host import Host

from tests.support import dashboards
from tests.support.plays import Play
from tests.support.prometheus import PROMETHEUS, alerts, fetch, query, targets, until

NAME = "redoubt-dcgm-exporter"
PAGE = "http://127.0.0.1:9400/metrics"
TEXTFILE = "/var/lib/redoubt/textfile/gpu.prom"
GPU = ("gpu", "127.0.0.1:9400")


def test_the_exporter_is_a_target_that_is_up(host: Host) -> None:
    assert until(lambda: targets(host).get(GPU) == "up")
    assert query(host, 'redoubt:targets:expected{job="gpu"}') == {"": 1}


def test_the_container_is_bounded(host: Host) -> None:
    (state,) = json.loads(host.check_output(f"docker inspect {NAME}"))
    limits = state["HostConfig"]
    assert limits["ReadonlyRootfs"]
    assert limits["CapDrop"] == ["ALL"]
    assert [name.removeprefix("CAP_") for name in limits["CapAdd"]] == ["SYS_ADMIN"]
    assert limits["SecurityOpt"] == ["no-new-privileges:true"]
    assert limits["Memory"] == 512 * 2**20
    assert limits["NanoCpus"] == 10**9
    assert limits["PidsLimit"] == 512
    assert limits["LogConfig"]["Config"] == {"max-file": "3", "max-size": "10m"}
    assert limits["RestartPolicy"]["Name"] == "unless-stopped"
    assert not limits["Privileged"]
    (request,) = limits["DeviceRequests"]
    assert (request["Driver"], request["DeviceIDs"]) == ("cdi", ["nvidia.com/gpu=all"])


def test_nothing_listens_beyond_loopback(host: Host) -> None:
    listening = {line.split()[3] for line in host.check_output("ss -Hltn").splitlines()}
    assert {address for address in listening if address.endswith(":9400")} == {"127.0.0.1:9400"}


def test_the_rules_count_cards_and_not_mig_instances(host: Host) -> None:
    assert until(lambda: query(host, "host:gpus:count") == {"127.0.0.1:9400": 2})


def test_every_query_of_the_dashboard_finds_data(host: Host) -> None:
    ask = dashboards.ask_remotely(PROMETHEUS, host.check_output)
    board = dashboards.load()["gpu"]
    assert until(lambda: dashboards.problems(dashboards.run([board], ask)) == [], 60)


def test_a_missing_card_fires_and_is_named(host: Host) -> None:
    host.check_output(f"echo 'redoubt_gpu_expected 8' > {TEXTFILE}")
    try:
        assert until(lambda: "GpuMissing" in alerts(host), 60)
        assert alerts(host)["GpuMissing"]["annotations"]["summary"] == "one misses 6 of its GPUs"
    finally:
        host.check_output(f"rm {TEXTFILE}")


def test_an_exporter_that_stops_fires_and_the_play_repairs_it(host: Host, play: Play) -> None:
    host.check_output(f"docker stop --time 1 {NAME}")
    assert until(lambda: "GpuExporterDown" in alerts(host), 60)
    assert play().status == 0
    assert until(lambda: targets(host).get(GPU) == "up")


def test_without_profiling_there_is_no_capability_and_no_figure(host: Host, play: Play) -> None:
    assert "DCGM_FI_PROF_DRAM_ACTIVE{" in fetch(host, PAGE)
    run = play(dcgm_profiling=False)
    assert (run.status, run.changed) == (0, 1)
    assert "DCGM_FI_PROF_" not in fetch(host, PAGE)
    (state,) = json.loads(host.check_output(f"docker inspect {NAME}"))
    assert not state["HostConfig"]["CapAdd"]
    assert play().status == 0
    assert "DCGM_FI_PROF_DRAM_ACTIVE{" in fetch(host, PAGE)


def test_a_counter_that_the_exporter_refuses_is_taken_back(host: Host, play: Play) -> None:
    unknown = [{"field": "DCGM_FI_DEV_NO_SUCH_THING", "type": "gauge", "help": "nothing"}]
    run = play(dcgm_extra_counters=unknown)
    assert run.status != 0
    assert "the previous configuration is back" in run.words
    assert "no such field: DCGM_FI_DEV_NO_SUCH_THING" in run.words
    assert "DCGM_FI_DEV_GPU_TEMP{" in fetch(host, PAGE)


def test_bad_settings_are_refused_before_anything_changes(host: Host, play: Play) -> None:
    before = host.check_output("find /etc/redoubt/dcgm -printf '%%p %%C@\\n' | sort | sha256sum")
    run = play(dcgm_address="0.0.0.0", dcgm_interval=0)  # noqa: S104 - shall be refused
    assert run.status != 0
    assert "neither loopback nor private" in run.words
    assert "0 s is no useful interval" in run.words
    assert host.check_output("find /etc/redoubt/dcgm -printf '%%p %%C@\\n' | sort | sha256sum") == before


def test_none_leaves_the_host_alone(play: Play) -> None:
    run = play(dcgm_method="none")
    assert (run.status, run.changed) == (0, 0)
