"""Some of the keys get another revision of a model: the share is right, a key keeps its arm, nothing else decides."""

from __future__ import annotations

import http.client
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from policy import breaches
from policy.routes import gateway_routes
from tests.support import programs
from tests.support.gateway_render import MODELS, VARIABLES, Rendered, render
from tests.support.ports import free_port

PAGES = ["/", "/page.css", "/page.js", "/ca.crt"]
KEYS = 10_000
CONFIGURATION = """
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{}}
http {{
  access_log off;
  keepalive_requests 1000000;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
  uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
  map $http_x_client $gateway_client {{ default $http_x_client; }}
  {split}
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 $gateway_arm_1; }} }}
}}
"""


def models(percent: int = 10) -> list[dict[str, Any]]:
    return [MODELS[0], {**MODELS[1], "canary": {"servers": ["10.0.0.7:8101"], "percent": percent}}]


def check(text: str, wanted: list[dict[str, Any]]) -> list[str]:
    allowed = VARIABLES["gateway_allowed_cidrs"]
    return breaches(text, gateway_routes(wanted, PAGES), wanted, allowed, ["../redoubt/gateway/keys.conf"])


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return render(tmp_path_factory.mktemp("canary"), gateway_models=models())


@pytest.fixture
def arms(tmp_path: Path, rendered: Rendered) -> Iterator[Callable[[int], list[str]]]:
    """The group of each of many keys, by a real Nginx that the rendered choice decides in."""
    running: list[subprocess.Popen[bytes]] = []
    split = re.search(r"split_clients [^}]*\}", rendered.text)
    assert split is not None

    def ask(percent: int) -> list[str]:
        port, root = free_port(), tmp_path / str(percent)
        root.mkdir()
        text = split[0].replace("10%", f"{percent}%")
        (root / "nginx.conf").write_text(CONFIGURATION.format(root=root, port=port, split=text))
        command = [programs.nginx(), "-c", str(root / "nginx.conf"), "-g", "daemon off; master_process off;"]
        running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        deadline = time.monotonic() + 20
        while True:
            try:
                connection.connect()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        found = []
        for number in range(KEYS):
            connection.request("GET", "/", headers={"X-Client": f"client-{number}"})
            found.append(connection.getresponse().read().decode())
        return found

    yield ask
    for one in running:
        one.terminate()
        one.wait(10)


def test_share_of_the_keys_is_right_and_grows_without_moving_any_back(arms: Callable[[int], list[str]]) -> None:
    """The bounds are four standard deviations of a fair draw."""
    before: set[int] = set()
    for percent, most in ((10, 120), (25, 174)):
        found = arms(percent)
        assert set(found) == {"redoubt_1", "redoubt_1_canary"}
        now = {number for number, arm in enumerate(found) if arm == "redoubt_1_canary"}
        assert abs(len(now) - KEYS * percent // 100) <= most
        assert before <= now
        before = now


def test_canary_has_its_own_group_and_the_others_behind_it(rendered: Rendered) -> None:
    assert (rendered.problems, rendered.breaches) == ([], [])
    group = rendered.text.partition("upstream redoubt_1_canary {")[2].partition("}")[0]
    assert "server 10.0.0.7:8101 max_fails=3 fail_timeout=10s;" in group
    assert group.count("backup;") == 2
    assert "10.0.0.7" not in rendered.text.partition("upstream redoubt_1 {")[2].partition("}")[0]
    assert "proxy_pass http://$gateway_arm_1/v1/chat/completions;" in rendered.text
    assert "proxy_pass http://redoubt_0/v1/chat/completions;" in rendered.text
    assert "proxy_pass http://redoubt_1/" not in rendered.text


@pytest.mark.parametrize(("percent", "lines"), [(0, ["* redoubt_1;"]), (100, ["100% redoubt_1_canary;"])])
def test_nobody_or_everybody(tmp_path: Path, percent: int, lines: list[str]) -> None:
    made = render(tmp_path, gateway_models=models(percent))
    assert (made.problems, made.breaches) == ([], [])
    split = made.text.partition("split_clients ")[2].partition("}")[0]
    assert [line.strip() for line in split.splitlines()[1:] if line.strip()] == lines


def test_nothing_of_it_is_there_unless_wanted(tmp_path: Path) -> None:
    made = render(tmp_path)
    assert "split_clients" not in made.text
    assert "backup" not in made.text
    assert "gateway_arm" not in made.text


SPLIT = 'split_clients "$gateway_client:large" $gateway_arm_1 {'
PASS = "proxy_pass http://$gateway_arm_1/v1/chat/completions;"
BREACHES = {
    "by the address": (SPLIT, SPLIT.replace("$gateway_client", "$remote_addr"), "is not what the plan says"),
    "by a header": (SPLIT, SPLIT.replace("$gateway_client", "$http_x_arm"), "is not what the plan says"),
    "another share": ("10% redoubt_1_canary;", "50% redoubt_1_canary;", "is not what the plan says"),
    "another model": ("10% redoubt_1_canary;", "10% redoubt_0;", "is not what the plan says"),
    "an address": ("10% redoubt_1_canary;", "10% 10.9.9.9:80;", "is not what the plan says"),
    "another variable": (SPLIT, SPLIT.replace("$gateway_arm_1", "$gateway_arm_9"), "is not what the plan says"),
    "chosen by a map": (
        "gzip off;",
        "gzip off; map $http_x $gateway_arm_1 { default redoubt_0; }",
        "only split_clients",
    ),
    "chosen by a program": ("gzip off;", "gzip off; js_var $gateway_arm_1 redoubt_0;", "only split_clients may"),
    "set by hand": (PASS, f"set $gateway_arm_1 redoubt_0; {PASS}", "must not be set"),
    "passed by another variable": (PASS, PASS.replace("$gateway_arm_1", "$http_x"), "outside the plan's engines"),
    "passed by the host": (PASS, PASS.replace("$gateway_arm_1", "$host"), "outside the plan's engines"),
    "canary passed over": (PASS, PASS.replace("$gateway_arm_1", "redoubt_1"), "is not what the plan says"),
    "canary alone": (PASS, PASS.replace("$gateway_arm_1", "redoubt_1_canary"), "is not what the plan says"),
    "help of strangers": ("server 10.0.0.5:8101 backup;", "server 10.9.9.9:8101 backup;", "not in the plan"),
    "canary in the other group": (
        "server 10.0.0.5:8101 max_fails",
        "server 10.0.0.7:8101 max_fails",
        "not in the plan",
    ),
    "other group as the canary": (
        "server 10.0.0.7:8101 max_fails",
        "server 10.0.0.5:8101 max_fails",
        "not in the plan",
    ),
}


@pytest.mark.parametrize("name", BREACHES)
def test_breach_is_refused(rendered: Rendered, name: str) -> None:
    old, new, wanted = BREACHES[name]
    assert old in rendered.text, f"the seed of {name!r} no longer fits the template"
    found = check(rendered.text.replace(old, new), models())
    assert any(wanted in line for line in found), found
