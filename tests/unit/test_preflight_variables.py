"""Variables against the roles' specifications: unknown, renamed, mistyped, missing, and what must not be printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from planner import inventory, sources, specs
from planner.problems import Problem, looks_secret, merged, report, shown

SPECS: specs.Specs = {
    "gateway": {
        "gateway_allowed_cidrs": {
            "type": "list",
            "elements": "str",
            "required": True,
            "description": "Client networks.",
        },
        "gateway_https_port": {"type": "int", "default": 443},
        "gateway_models": {"type": "list", "elements": "dict", "required": True},
        "gateway_tls_mode": {"type": "str", "choices": ["private_ca", "files"], "default": "private_ca"},
        "gateway_api_keys": {
            "type": "list",
            "elements": "dict",
            "no_log": True,
            "options": {"name": {"type": "str", "required": True}, "key": {"type": "str", "required": True}},
        },
        "gateway_ratio": {"type": "float", "default": 1.0},
        "gateway_log": {"type": "bool", "default": False},
        "gateway_ca": {"type": "path"},
        "gateway_extra": {"type": "raw"},
    },
    "docker": {"docker_daemon_options": {"type": "dict", "default": {}}},
    "preflight": {"redoubt_models": {"type": "list", "elements": "dict"}},
}
RULES = inventory.Rules(
    specs=SPECS,
    renamed={"gateway_allowlist": "gateway_allowed_cidrs"},
    ignored=["docker_mine_*"],
    planned=["gateway_models"],
    roles={"gateway": ["docker", "gateway"]},
)


def check(
    kinds: tuple[str, ...] = (),
    rules: inventory.Rules = RULES,
    values: Mapping[str, object] | None = None,
    **more: object,
) -> dict[str, Problem]:
    """Return the problems of these variables by place."""
    values = {**(values or {}), **more}
    found = inventory.check(inventory.Variables(frozenset(values), values), kinds, rules)
    return {problem.where: problem for problem in found}


def one(name: str, value: object) -> dict[str, Problem]:
    """Return the problems of one variable by place."""
    return check(values={name: value})


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("gateway_allowed_cidr", "did you mean gateway_allowed_cidrs?"),
        ("gateway_https_prot", "did you mean gateway_https_port?"),
        ("redoubt_model", "did you mean redoubt_models?"),
        ("docker_demon_options", "did you mean docker_daemon_options?"),
        ("redoubt_zzz_qqq_www", "remove it"),
    ],
)
def test_unknown_variables_name_the_nearest(name: str, fix: str) -> None:
    found = one(name, 1)[name]
    assert "no role knows" in found.why
    assert fix in found.fix


def test_variables_of_others_and_those_set_aside_are_left_alone() -> None:
    assert not check(ansible_host="x", site_name="y", docker_mine_registry="z", gatewayport=1)


def test_a_renamed_variable_names_the_new_one() -> None:
    found = check(gateway_allowlist=[])["gateway_allowlist"]
    assert "new name" in found.why
    assert found.fix == "rename it to gateway_allowed_cidrs"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("gateway_https_port", "443", "must be a whole number, not text"),
        ("gateway_https_port", True, "must be a whole number, not a boolean"),
        ("gateway_https_port", 70000, "not a port"),
        ("gateway_https_port", 0, "not a port"),
        ("gateway_log", "yes", "must be a boolean, not text"),
        ("gateway_log", 1, "must be a boolean, not a number"),
        ("gateway_ratio", "1.5", "must be a number, not text"),
        ("gateway_tls_mode", 3, "must be text, not a number"),
        ("gateway_tls_mode", "file", "not one of the choices"),
        ("gateway_ca", ["x"], "must be a path, not a list"),
        ("gateway_allowed_cidrs", "10.0.0.0/8", "must be a list, not text"),
        ("gateway_allowed_cidrs", None, "must be a list, not null"),
        ("docker_daemon_options", [], "must be a mapping, not a list"),
    ],
)
def test_wrong_types_are_refused(name: str, value: object, why: str) -> None:
    found = one(name, value)[name]
    assert why in found.why
    assert found.value == shown(value)
    assert found.fix


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gateway_https_port", 8443),
        ("gateway_ratio", 2),
        ("gateway_log", True),
        ("gateway_tls_mode", "files"),
        ("gateway_ca", None),
        ("gateway_extra", object),
        ("gateway_allowed_cidrs", ["10.0.0.0/8", "2001:db8::/32", "10.0.0.1"]),
        ("docker_daemon_options", {"a": 1}),
    ],
)
def test_right_values_pass(name: str, value: object) -> None:
    assert not one(name, value)


@pytest.mark.parametrize(
    ("value", "why", "fix"),
    [
        ("10.0.0.1/8", "has host bits set", "write 10.0.0.0/8, or 10.0.0.1"),
        ("300.0.0.0/8", "not a network", "10.0.0.0/8"),
        ("10.0.0.0/33", "not a network", "10.0.0.0/8"),
        ("example.org", "not a network", "10.0.0.0/8"),
        ("", "not a network", "10.0.0.0/8"),
        (10, "a network is text", "10.0.0.0/8"),
    ],
)
def test_invalid_cidrs_are_refused(value: object, why: str, fix: str) -> None:
    found = check(gateway_allowed_cidrs=["10.0.0.0/8", value])["gateway_allowed_cidrs[1]"]
    assert why in found.why
    assert fix in found.fix
    assert found.value == shown(value)


def test_nested_fields() -> None:
    found = check(gateway_api_keys=[{"nme": "a", "key": "sk-secret"}, {"name": 5, "key": 12345}, "sk-secret"])
    assert found["gateway_api_keys[0].nme"].fix == "did you mean `name`?"
    assert "missing" in found["gateway_api_keys[0].name"].why
    assert "must be text" in found["gateway_api_keys[1].name"].why
    assert found["gateway_api_keys[1].key"].value == "(not shown)"
    assert found["gateway_api_keys[2]"].value == "(not shown)"
    assert "sk-secret" not in report(found.values())


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("gateway_api_keys", True),
        ("redoubt_models[0].engine_args.api-key", True),
        ("gateway_tls_key", True),
        ("grafana_password", True),
        ("monitoring_alert_secrets", True),
        ("gateway_hotkeys", False),
        ("gateway_upstream_keepalive_timeout", False),
        ("redoubt_models[0].name", False),
    ],
)
def test_names_that_tell_of_a_secret(name: str, secret: bool) -> None:
    assert looks_secret(name) is secret


def test_required_variables_are_asked_of_the_hosts_that_need_them() -> None:
    assert not check(("inference",))
    found = check(("gateway",))
    assert list(found) == ["gateway_allowed_cidrs"]  # the plan gives gateway_models
    assert found["gateway_allowed_cidrs"].fix == "set it: Client networks"


def judged(settings: dict[str, Any]) -> list[str]:
    """Stands for a role's own judgement."""
    lines = []
    if not settings["gateway_allowed_cidrs"]:
        lines.append("gateway_allowed_cidrs: no network - name at least one")
    if not settings["gateway_models"]:
        lines.append("gateway_models: no model - the plan gives them")
    if settings["gateway_https_port"] == 443:
        lines.append("gateway_https_port: taken - use 8443")
    return lines


def test_a_roles_own_judgement_is_asked_with_its_defaults() -> None:
    rules = inventory.Rules(**{**RULES.__dict__, "judges": {"gateway": judged}})
    found = check(("gateway",), rules, gateway_allowed_cidrs=[])
    assert set(found) == {"gateway_allowed_cidrs", "gateway_https_port"}
    assert found["gateway_allowed_cidrs"].why == "no network"
    assert found["gateway_allowed_cidrs"].fix == "name at least one"


def test_a_judgement_on_a_refused_variable_is_left_out() -> None:
    rules = inventory.Rules(**{**RULES.__dict__, "judges": {"gateway": judged}})
    found = check(("gateway",), rules, gateway_allowed_cidrs=["x"], gateway_https_port="443")
    assert set(found) == {"gateway_allowed_cidrs[0]", "gateway_https_port"}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("/media/models", "not a source"),
        ("ftp://x/y", "not a source"),
        ("registry", "not a source"),
        ("file://media/models", "must be absolute"),
        ("controller://models", "must be absolute"),
        ("https://user:password@example.org/m", "name or password"),
    ],
)
def test_bad_sources(value: str, why: str) -> None:
    (found,) = sources.problems({"images": "registry", "models": value})
    assert found.where == "redoubt_sources.models"
    assert why in found.why
    assert "password" not in found.text() or found.value is None


def test_the_same_problem_of_several_hosts_is_said_once() -> None:
    problem = Problem("a", "wrong", "mend it")
    found = merged([problem.on("h1"), Problem("b", "x", "y").on("h1"), problem.on("h2")])
    assert [entry.hosts for entry in found] == [("h1", "h2"), ("h1",)]
    assert found[0].text() == "a [h1, h2]: wrong. Fix: mend it."
    many = problem.on(*(f"h{index}" for index in range(9)))
    assert "[h0, h1, h2, h3, h4 and 4 more]" in many.text()


def test_variables_that_wait_for_facts() -> None:
    raw: Mapping[str, Any] = {
        "ansible_facts": {},
        "address": "{{ ansible_facts['default_ipv4']['address'] }}",
        "redoubt_private_address": "{{ address }}",
        "gateway_listen_addresses": ["{{ redoubt_private_address }}"],
        "redoubt_models": "{{ models }}",
    }
    expected = {"address", "redoubt_private_address", "gateway_listen_addresses"}
    assert inventory.needing("ansible_facts", raw) == expected
