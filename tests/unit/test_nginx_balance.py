"""How requests are spread: what the role renders passes the policy, each seeded breach is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policy import breaches
from policy.routes import gateway_routes
from tests.support.gateway_render import MODELS, VARIABLES, Rendered, render

KEYS = "../redoubt/gateway/keys.conf"
PAGES = ["/", "/page.css", "/page.js", "/ca.crt"]
TALKING: list[dict[str, Any]] = [MODELS[0], {**MODELS[1], "balance": "conversation"}]
HASH = "hash $gateway_conversation consistent;"


def check(text: str, models: list[dict[str, Any]]) -> list[str]:
    return breaches(text, gateway_routes(models, PAGES), models, VARIABLES["gateway_allowed_cidrs"], [KEYS])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return render(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return render(tmp_path_factory.mktemp("talking"), gateway_models=TALKING)


def test_nothing_of_it_is_there_unless_wanted(plain: Rendered) -> None:
    assert (plain.problems, plain.breaches) == ([], [])
    for word in ("conversation", "gateway_opening", HASH):
        assert word not in plain.text
    assert plain.text.count("least_conn;") == 1


def test_only_the_model_that_wants_it_has_it(talking: Rendered) -> None:
    assert (talking.problems, talking.breaches) == ([], [])
    assert talking.text.count(HASH) == 1
    assert "least_conn" not in talking.text
    assert '"/-/large/v1/chat/completions" 1;' in talking.text
    assert '"/-/small/v1/chat/completions" 1;' not in talking.text


def test_single_model_reads_no_body_twice(tmp_path: Path) -> None:
    made = render(tmp_path, gateway_models=[{**MODELS[1], "balance": "conversation"}])
    assert (made.problems, made.breaches) == ([], [])
    assert "js_import conversations.js;" in made.text
    assert "gateway_conversing" not in made.text


BREACHES = {
    "not consistent": (HASH, "hash $gateway_conversation;", "must have 'hash $gateway_conversation consistent;' alone"),
    "by the address": (HASH, "hash $remote_addr consistent;", "must have 'hash"),
    "by the key": (HASH, "hash $http_authorization consistent;", "must have 'hash"),
    "not at all": (HASH, "", "must have 'hash"),
    "two ways": (HASH, HASH + " least_conn;", "must have 'hash"),
    "behind keepalive": (HASH, "keepalive 9; " + HASH, "must stand before 'keepalive'"),
    "another program's conversation": ("conversations.key;", "usage.path;", "js_set $gateway_conversation"),
    "conversation in the log": ('"path":"$gateway_path"', '"path":"$gateway_conversation"', "$gateway_conversation"),
    "opening in the log": ('"path":"$gateway_path"', '"path":"$gateway_opening"', "$gateway_opening"),
}


@pytest.mark.parametrize("name", BREACHES)
def test_breach_is_refused(talking: Rendered, name: str) -> None:
    old, new, wanted = BREACHES[name]
    assert old in talking.text, f"the seed of {name!r} no longer fits the template"
    found = check(talking.text.replace(old, new), TALKING)
    assert any(wanted in line for line in found), found


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("least_conn;", HASH, "the plan wants no balance by conversation"),
        ("least_conn;", "", "it must have 'least_conn;'"),
    ],
)
def test_breach_without_it_is_refused(plain: Rendered, old: str, new: str, wanted: str) -> None:
    found = check(plain.text.replace(old, new), MODELS)
    assert any(wanted in line for line in found), found


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return render(tmp_path_factory.mktemp("watched"), gateway_health_checks=True)


INCLUDE = "include ../redoubt/gateway/pools/redoubt_1.conf;"


def test_servers_stand_in_the_files_of_their_groups(watched: Rendered, plain: Rendered) -> None:
    assert (watched.problems, watched.breaches) == ([], [])
    assert watched.text.count("include ../redoubt/gateway/pools/") == 2
    assert "10.0.0.5" not in watched.text
    assert "gateway/pools" not in plain.text


def test_checker_gets_the_plans_pools(watched: Rendered) -> None:
    files = {entry["path"]: entry["content"] for entry in watched.health}
    wanted = json.loads(files["/etc/redoubt/gateway/pools.json"])
    assert [(row["pool"], row["servers"]) for row in wanted["models"]] == [
        (f"redoubt_{number}", model["servers"]) for number, model in enumerate(MODELS)
    ]
    assert (wanted["fails"], wanted["passes"], wanted["timeout"]) == (3, 2, 5)
    assert "OnUnitActiveSec=10s" in files["/etc/systemd/system/redoubt-gateway-health.timer"]


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (INCLUDE, INCLUDE.replace("_1", "_0"), "redoubt_1 has ../redoubt/gateway/pools/redoubt_0.conf, but"),
        (INCLUDE, INCLUDE + " server 10.0.0.5:8101;", "has servers besides those"),
        (INCLUDE, "server 10.0.0.5:8101;", "redoubt_1 has no include, but the plan wants"),
        (INCLUDE, "include ../redoubt/gateway/pools/*.conf;", "could bring in anything"),
        (INCLUDE, INCLUDE + " include ../redoubt/gateway/keys.conf;", "but the plan wants"),
        ("gzip off;", f"gzip off; {INCLUDE}", "belongs nowhere else"),
    ],
)
def test_breach_of_the_groups_files_is_refused(watched: Rendered, old: str, new: str, wanted: str) -> None:
    files = {f"redoubt_{number}": f"../redoubt/gateway/pools/redoubt_{number}.conf" for number in range(2)}
    allowed = VARIABLES["gateway_allowed_cidrs"]
    assert breaches(watched.text, gateway_routes(MODELS, PAGES), MODELS, allowed, [KEYS], pools=files) == []
    text = watched.text.replace(old, new)
    found = breaches(text, gateway_routes(MODELS, PAGES), MODELS, allowed, [KEYS], pools=files)
    assert any(wanted in line for line in found), found


def test_group_without_servers_or_with_an_unwanted_file_is_refused(plain: Rendered) -> None:
    server = "        server 127.0.0.1:8101 max_fails=3 fail_timeout=10s;\n"
    assert any("redoubt_0 has no servers" in line for line in check(plain.text.replace(server, ""), MODELS))
    text = plain.text.replace(server, INCLUDE.replace("_1", "_0"))
    assert any("but the plan wants no include" in line for line in check(text, MODELS))


def test_server_of_another_weight(tmp_path: Path) -> None:
    models = [MODELS[0], {**MODELS[1], "weights": {"10.0.0.6:8101": 4}}]
    made = render(tmp_path, gateway_models=models)
    assert (made.problems, made.breaches) == ([], [])
    assert "server 10.0.0.5:8101 max_fails" in made.text
    assert "server 10.0.0.6:8101 weight=4 max_fails" in made.text
    for old, new, wanted in (
        ("weight=4", "weight=5", "10.0.0.6:8101 of redoubt_1 has weight 5 instead of 4"),
        (" weight=4", "", "10.0.0.6:8101 of redoubt_1 has weight 1 instead of 4"),
        ("10.0.0.5:8101 max", "10.0.0.5:8101 weight=9 max", "10.0.0.5:8101 of redoubt_1 has weight 9 instead of 1"),
    ):
        assert any(wanted in line for line in check(made.text.replace(old, new), models))
