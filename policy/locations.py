# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The policy on a location that reaches an engine, or chooses one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from policy.promises import Plan, at, refuses
from policy.tree import Node

TIME = re.compile(r"(\d+)(ms|s|m|h|d)?\Z")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
SHORTEST_STREAM_READ = 600
# The check's own failure is no pass either.
AUTH_GUARD = ["$gateway_verdict", "!=", "pass"]
CHOICE_GUARD = ["$gateway_known", "!=", "pass"]
PATH_GUARD = ["$request_uri", "!=", "$uri$is_args$args"]
ANSWER_FILTER = "usage.count buffer_type=buffer"
FILTER_MISSING = f"'js_body_filter {ANSWER_FILTER};' is missing"
ANSWERS = {"choose": "models.choose", "list": "models.list", "page": "page.show"}


def _seconds(value: str) -> float:
    match = TIME.match(value)
    return int(match[1]) * SECONDS[match[2]] if match else 0.0


def proxied(location: Node, plan: Plan) -> Iterator[str]:
    """The promises of a location that reaches an engine."""
    path = location.args[-1]
    target = location.find("proxy_pass")[-1].args[0]
    route = plan.routes.get(path)
    if location.args[:1] != ["="] or route is None or route["kind"] in ANSWERS:
        yield at(location, f"location {' '.join(location.args)} reaches an engine but is no exact route of the plan")
        route = {}
    match = re.match(r"http://(\$?[^/$]+)(/[^$]*)?\Z", target)
    if match is None or match[1] not in {*plan.servers, *plan.arms}:
        yield at(location, f"proxy_pass {target} leads outside the plan's engines")
    elif route and (match[1], match[2]) != (route["upstream"], route["target"]):
        yield at(location, f"proxy_pass {target} is not what the plan says for {path}")
    if not refuses(location, AUTH_GUARD, ("500",)):
        yield at(location, f"{path} is reachable without an API key ('if ({' '.join(AUTH_GUARD)})' is missing)")
    if route and route["kind"] == "inner":
        if not location.find("internal"):
            yield at(location, f"{path} is for chosen requests only ('internal;' is missing)")
    else:
        yield from _exact(location, path)
    if not refuses(location, ["$gateway_method_known", "=", "0"], ("405",)):
        yield at(location, f"{path} does not check the method")
    for name in ("limit_req", "limit_conn"):
        if not location.effective(name):
            yield at(location, f"{path} has no {name}")
    handed_on = not any(n.args == ["Authorization", ""] for n in location.effective("proxy_set_header"))
    if location.value("proxy_pass_request_headers") != "off" and handed_on:
        yield at(location, f"{path} hands the client's key on to the engine")
    if "non_idempotent" in location.value("proxy_next_upstream"):
        yield at(location, f"{path} would repeat requests that an engine may have begun to answer")
    if (not route or "POST" in route["methods"]) and location.value("js_body_filter") != ANSWER_FILTER:
        yield at(location, f"{path} is not counted, and its streams end bare when an engine dies: {FILTER_MISSING}")
    if not route or route["stream"]:
        yield from _streaming(location, path)


def _exact(location: Node, path: str) -> Iterator[str]:
    if not refuses(location, PATH_GUARD, ("404",)):
        yield at(location, f"{path} may be written in other ways ('if ({' '.join(PATH_GUARD)})' is missing)")


def choosing(location: Node, plan: Plan) -> Iterator[str]:
    """The promises of a location that reads a body to find the model, lists the models, or is part of the page.

    The page alone needs no key: it is the same for everybody.
    """
    path = location.args[-1]
    route = plan.routes.get(path, {})
    if location.args[:1] != ["="] or ANSWERS.get(route.get("kind", "")) != location.value("js_content"):
        yield at(location, f"js_content {location.value('js_content')} is not what the plan says for {path}")
    if route.get("kind") == "page":
        yield from _exact(location, path)
        return
    guard, status = (CHOICE_GUARD, "401") if route.get("kind") == "choose" else (AUTH_GUARD, "500")
    if not refuses(location, guard, (status,)):
        yield at(location, f"{path} is reachable without an API key ('if ({' '.join(guard)})' is missing)")
    if not refuses(location, ["$gateway_method_known", "=", "0"], ("405",)):
        yield at(location, f"{path} does not check the method")
    if not location.effective("limit_req"):
        yield at(location, f"{path} has no limit_req")
    yield from _exact(location, path)


def _streaming(location: Node, path: str) -> Iterator[str]:
    wanted = {"proxy_buffering": "off", "proxy_http_version": "1.1", "gzip": "off"}
    for name, value in wanted.items():
        if location.value(name) != value:
            yield at(location, f"{path} is streamed: {name} must be {value}")
    if location.value("proxy_cache") not in ("", "off"):
        yield at(location, f"{path} is streamed: no proxy_cache")
    for name in ("proxy_read_timeout", "send_timeout"):
        if _seconds(location.value(name)) < SHORTEST_STREAM_READ:
            yield at(location, f"{path} is streamed: {name} must be {SHORTEST_STREAM_READ}s or more")
