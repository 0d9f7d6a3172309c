"""A host leaves the pool and comes back while requests and a stream flow; later runs keep it out.

The tests run in this order; each leaves both hosts in the pool.
"""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from testinfra.host import Host

from tests.support.plays import Play
from tests.support.pool import CONF, LOG, MARK, Pool, statuses, whole

DRAIN, RETURN, GATEWAY_ALONE = (f"../../playbooks/{name}.yml" for name in ("drain", "return", "gateway"))
GATEWAY, A, B = "molecule-drain-gw", "molecule-drain-a", "molecule-drain-b"
POOL = Pool(GATEWAY, A, B)
testinfra_hosts = [f"ansible://{GATEWAY}"]
address, other, ask, direct = POOL.address, POOL.other, POOL.ask, POOL.direct


def looks_of_drain(host: Host) -> int:
    """How often drain has looked on the gateway whether streams still run, as Ansible notes it in the journal."""
    return int(host.check_output("journalctl --quiet --identifier ansible-requests_in_flight --output cat | wc -l"))


def test_both_serve(host: Host) -> None:
    assert ask()["status"] == 200
    assert host.file(CONF).content_string.count(":8101 max_fails") == 2
    assert not host.file(MARK).exists


def test_check_mode_shows_and_changes_nothing(host: Host, play: Play) -> None:
    run = play(DRAIN, check=True, drain_host=A)
    assert run.status == 0
    assert f"+ server {address(A)}:8101 down; # drained" in run.words
    assert not host.file(MARK).exists
    assert "down;" not in host.file(CONF).content_string
    assert direct(A, "/stub/seen")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("molecule-drain-x", "no host of this name serves models"),
        (GATEWAY, "no host of this name serves models"),
        ("", "drain_host is not set"),
    ],
)
def test_other_hosts_are_refused(host: Host, play: Play, name: str, said: str) -> None:
    run = play(DRAIN, drain_host=name)
    assert run.status != 0
    assert said in run.words
    assert not host.file(MARK).exists


def test_drain_cuts_nothing_and_later_runs_keep_it(host: Host, play: Play) -> None:
    with POOL.traffic() as sent, POOL.streams() as running, ThreadPoolExecutor(1) as aside:
        before, looks = len(sent), looks_of_drain(host)
        draining = aside.submit(play, DRAIN, drain_host=A, drain_reason="new fan")
        # The second look begins after the first has seen the streams.
        while looks_of_drain(host) < looks + 2 and not draining.done():
            time.sleep(0.5)
        assert not draining.done(), "the run did not wait for the streams"
        POOL.finish()
        run = draining.result()
        assert run.status == 0
        assert "the gateway has" in run.words
        # Had they been cut, they would not be whole.
        answers = [future.result() for future in running]
        assert [answer["status"] for answer in answers] == [200] * 4
        assert all(whole(answer) for answer in answers)
        lines = int(host.check_output("wc -l < " + LOG))
        time.sleep(2)
        after = host.check_output(f"tail -n +{lines + 1} {LOG}").splitlines()
        assert len(sent) > before
        assert {json.loads(line)["upstream"] for line in after} == {f"{address(B)}:8101"}
    assert statuses(sent) == {200}
    mark = json.loads(host.file(MARK).content_string)
    assert (mark[A]["by"], mark[A]["reason"]) == ("molecule", "new fan")
    assert other(A).check_output("docker inspect -f '{{.State.Status}}' redoubt-small") == "exited"
    # The same again, and everything else: nothing changes, nothing starts.
    again = play(DRAIN, drain_host=A)
    assert (again.status, again.changed) == (0, 0)
    assert f"{A} is drained since {mark[A]['since']} by molecule (new fan)" in again.words
    run = play()
    assert (run.status, run.changed) == (0, 0)
    assert f"server {address(A)}:8101 down;" in host.file(CONF).content_string
    assert other(A).check_output("docker inspect -f '{{.State.Status}}' redoubt-small") == "exited"


def test_a_gateway_run_that_does_not_ask_the_host_keeps_it_drained(host: Host, play: Play) -> None:
    run = play(GATEWAY_ALONE)
    assert (run.status, run.changed) == (0, 0)
    assert f"server {address(A)}:8101 down;" in host.file(CONF).content_string


def test_last_endpoint_is_refused(host: Host, play: Play) -> None:
    run = play(DRAIN, drain_host=B)
    assert run.status != 0
    assert f"small would be left without an endpoint if {B} were drained: no other host serves it" in run.words
    assert "drain_allow_last_endpoint" in run.words
    assert ask()["status"] == 200
    assert B not in host.file(MARK).content_string


def test_last_endpoint_by_force_and_back(host: Host, play: Play) -> None:
    run = play(DRAIN, drain_host=B, drain_allow_last_endpoint=True)
    assert run.status == 0
    assert "small is served by nobody: all its hosts are drained" in run.words
    assert ask()["status"] == 502
    assert play(RETURN, drain_host=B).status == 0
    assert ask()["status"] == 200


def test_a_host_that_does_not_serve_is_not_returned(host: Host, play: Play) -> None:
    a = other(A)
    a.check_output("mv /srv/redoubt/models /srv/redoubt/hidden")
    run = play(RETURN, drain_host=A)
    a.check_output("mv /srv/redoubt/hidden /srv/redoubt/models")
    assert run.status != 0
    assert f"server {address(A)}:8101 down;" in host.file(CONF).content_string


def test_return_puts_it_back(host: Host, play: Play) -> None:
    with POOL.traffic() as sent:
        assert play(RETURN, drain_host=A).status == 0
    assert statuses(sent) == {200}
    assert not host.file(MARK).exists
    assert not other(A).file(MARK).exists
    assert host.file(CONF).content_string.count(":8101 max_fails") == 2
    before = direct(A, "/stub/seen")["seen"]
    assert {ask()["status"] for _ in range(10)} == {200}
    assert direct(A, "/stub/seen")["seen"] > before
    again = play(RETURN, drain_host=A)
    assert (again.status, again.changed) == (0, 0)


def test_endpoint_that_does_not_answer_does_not_count(host: Host, play: Play) -> None:
    other(B).check_output("docker pause redoubt-small")
    run = play(DRAIN, drain_host=A)
    other(B).check_output("docker unpause redoubt-small")
    assert run.status != 0
    assert f"{address(B)}:8101/health does not answer" in run.words
    assert not host.file(MARK).exists


def test_engine_that_never_comes_to_rest(host: Host, play: Play) -> None:
    """A request that no gateway knows of: only the engine's own metrics tell."""
    a = other(A)
    a.check_output(
        "systemd-run --quiet --collect --unit never-ends curl -sN -d '{\"stub_events\": 100000}' http://%s:8101/v1/completions",
        address(A),
    )
    seen = 0
    while not seen:
        seen = direct(A, "/stub/seen")["running"]
    run = play(DRAIN, drain_host=A, drain_limit_seconds=3)
    assert run.status != 0
    assert f"{A} is not idle after 3 s (drain_limit_seconds): engine small has 1 running and 0 waiting" in run.words
    assert f"play return -i INVENTORY -e drain_host={A}" in run.words
    assert re.search(r"engine small has 1 running and 0 waiting; waited \d+ of at most 3 s", run.words)
    assert f"server {address(A)}:8101 down;" in host.file(CONF).content_string
    assert direct(A, "/stub/seen")["running"] == 1
    run = play(DRAIN, drain_host=A, drain_limit_seconds=1, drain_cut_requests=True)
    assert run.status == 0
    assert a.check_output("docker inspect -f '{{.State.Status}}' redoubt-small") == "exited"
    assert play(RETURN, drain_host=A).status == 0
    assert not host.file(MARK).exists
