# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Issuers of tokens (JWT) that the gateway accepts: checked, and as the document that Nginx reads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from module_utils.jwks.keys import Unusable, preloaded
from policy.keys import LIMITS, right_problems, rights
from policy.token_sources import ALGORITHMS, FETCHED, WORD, ca_problem, given_keys, source_problems

VARIABLE = "gateway_jwt_issuers"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}\Z")
MOST_LEEWAY = 300
NEEDED = {"name", "issuer", "audience", "rules"}
FIELDS = {*NEEDED, "jwks", "jwks_url", "jwks_ca", "algorithms", "leeway_seconds", "subject_claim"}
RULE_FIELDS = {"claim", "value", "models", "routes", "addresses", *LIMITS}


def _algorithms(value: Any) -> Iterator[str]:
    if not isinstance(value, list) or not value:
        yield f"algorithms: {value!r} must be a list of {' and '.join(ALGORITHMS)}"
        return
    for item in value:
        if item == "EdDSA":
            yield (
                "algorithms: EdDSA needs Ed25519 in njs, which 0.8.9 of Debian 13 cannot check - "
                "let the issuer sign with ES256 or RS256"
            )
        elif item not in ALGORITHMS:
            yield (
                f"algorithms: {item!r} is not accepted - write some of {', '.join(ALGORITHMS)}; tokens without a "
                "signature (none) and with a shared secret (HS256) prove nothing here"
            )


def _path(value: Any) -> list[str] | None:
    """A claim's name, or the names on the way to it, as a list; None when it is neither."""
    names = [value] if isinstance(value, str) else value
    if isinstance(names, list) and names and all(isinstance(name, str) and name for name in names):
        return names
    return None


def _values(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _rule(rule: Any, models: set[str], routes: set[str]) -> Iterator[str]:
    if not isinstance(rule, dict):
        yield "must be an object - write {claim: department, value: radiology, models: [small]}"
        return
    unknown = sorted(set(rule) - RULE_FIELDS)
    if unknown:
        yield f"{', '.join(unknown)} is not known - it may have {', '.join(sorted(RULE_FIELDS))}"
    if ("claim" in rule) != ("value" in rule):
        yield "claim and value belong together - leave both out for all tokens of this issuer"
    elif "claim" in rule:
        if _path(rule["claim"]) is None:
            yield f"claim: {rule['claim']!r} must be a name, or a list of the names on the way to it"
        values = _values(rule["value"])
        if not values or not all(isinstance(item, str | int | bool) and item != "" for item in values):
            yield f"value: {rule['value']!r} must be a text, a whole number, true or false, or a list of these"
    yield from right_problems(rule, models, routes)


def _entry(entry: dict[str, Any], models: set[str], routes: set[str]) -> Iterator[str]:
    unknown, missing = sorted(set(entry) - FIELDS), sorted(NEEDED - set(entry))
    if unknown:
        yield f"{', '.join(unknown)} is not known - it may have {', '.join(sorted(FIELDS))}"
    if missing:
        yield f"{', '.join(missing)} is missing"
    if not NAME.match(str(entry.get("name", ""))):
        yield f"the name {str(entry.get('name'))!r} must be letters, digits, . _ - (at most 32)"
    for field in ("issuer", "audience"):
        value = entry.get(field, "x")
        if not isinstance(value, str) or not WORD.match(value):
            yield f"{field}: {value!r} must be the text that tokens carry, without spaces (at most 255 characters)"
    yield from source_problems(entry)
    yield from _algorithms(entry.get("algorithms", list(ALGORITHMS)))
    leeway = entry.get("leeway_seconds", 0)
    if not isinstance(leeway, int) or isinstance(leeway, bool) or not 0 <= leeway <= MOST_LEEWAY:
        yield f"leeway_seconds: {leeway!r} must be a whole number without quotes, 0 to {MOST_LEEWAY}"
    if _path(entry.get("subject_claim", "sub")) is None:
        yield f"subject_claim: {entry['subject_claim']!r} must be a name, or a list of the names on the way to it"
    rules = entry.get("rules", [{}])
    if not isinstance(rules, list) or not rules:
        yield "rules: nobody could come in - write [{claim: department, value: radiology}]; {} is for all"
    else:
        for index, rule in enumerate(rules):
            yield from (f"rules[{index}]: {line}" for line in _rule(rule, models, routes))


def issuer_problems(issuers: Any, models: list[dict[str, Any]], files: dict[str, str]) -> list[str]:
    """Everything that is wrong with gateway_jwt_issuers, one line each; empty when all is well.

    `models` is gateway_models, which rules may be limited to; `files` holds the documents of keys that are read from
    the control host, by their paths.
    """
    if not isinstance(issuers, list) or not all(isinstance(entry, dict) for entry in issuers):
        return [f"{VARIABLE}: must be a list of issuers - write [{{name:, issuer:, audience:, jwks:, rules:}}]"]
    names = {str(model.get("name")) for model in models}
    routes = {str(route.get("path")) for model in models for route in model.get("routes") or []}
    problems = []
    for index, entry in enumerate(issuers):
        told = f" ({entry['name']})" if NAME.match(str(entry.get("name", ""))) else ""
        lines = list(_entry(entry, names, routes))
        if not lines and "jwks" in entry:
            try:
                given_keys(entry, files)
            except Unusable as error:
                lines = [f"jwks: {error}"]
        elif not lines and "jwks_ca" in entry:
            lines = list(ca_problem(entry["jwks_ca"], files))
        problems += [f"{VARIABLE}[{index}]{told}: {line}" for line in lines]
    for field in ("name", "issuer"):
        counts = Counter(str(entry.get(field)).lower() for entry in issuers)
        problems += [f"{VARIABLE}: the {field} {text!r} is given twice" for text, n in counts.items() if n > 1]
    return problems


def concurrencies(issuers: list[dict[str, Any]]) -> list[int]:
    """The different limits on requests at a time in the rules."""
    return sorted(
        {rule["concurrent_requests"] for e in issuers for rule in e["rules"] if "concurrent_requests" in rule}
    )


def _rule_record(rule: dict[str, Any]) -> dict[str, Any]:
    may = rights(rule)
    if "concurrent_requests" in rule:
        may["concurrent"] = rule["concurrent_requests"]
    if "claim" not in rule:
        return {"rights": may}
    return {"claim": _path(rule["claim"]), "values": _values(rule["value"]), "rights": may}


def issuer_document(issuers: list[dict[str, Any]], files: dict[str, str]) -> str:
    """What Nginx reads of checked issuers, as JSON: {version, text}, the text again JSON: a list of issuers.

    The version changes with anything in it.
    """
    found = [
        {
            "name": entry["name"],
            "issuer": entry["issuer"],
            "audience": entry["audience"],
            "algorithms": entry.get("algorithms", list(ALGORITHMS)),
            "leeway": entry.get("leeway_seconds", 60),
            "subject": _path(entry.get("subject_claim", "sub")),
            "fetched": FETCHED if "jwks_url" in entry else "",
            "keys": given_keys(entry, files) if "jwks" in entry else [],
            "rules": [_rule_record(rule) for rule in entry["rules"]],
        }
        for entry in issuers
    ]
    return preloaded(found)
