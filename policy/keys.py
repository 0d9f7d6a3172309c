# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The API keys of the gateway, checked, and as the records that Nginx finds them by.

No message holds a key or its digest.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

VARIABLE = "gateway_api_keys"
ISSUED = "gateway_issued_keys"
# What a bearer token may hold (RFC 6750), so that a key can mean nothing else inside a header.
KEY = re.compile(r"[A-Za-z0-9._~+/-]+=*\Z")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
LENGTHS = (32, 200)
# Hex digits of a digest by which a key is found; the rest is compared in constant time.
HEAD = 16
LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
FIELDS = {"name", "key", "digest", "previous", "models", "routes", "addresses", "expires", *LIMITS}
# One zone of shared memory is made for each.
MOST_CONCURRENCIES = 32


def _repeated(values: list[str]) -> list[str]:
    counts = Counter(value.lower() for value in values)
    return sorted(value for value, count in counts.items() if count > 1)


def moment(value: object) -> int:
    """Seconds since 1970 of a date (its first second) or a time; without a zone it is UTC. Raises ValueError."""
    if isinstance(value, datetime):
        found = value
    elif isinstance(value, date):
        found = datetime(value.year, value.month, value.day)
    else:
        found = datetime.fromisoformat(str(value))
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def _secret(entry: dict[str, Any]) -> str | None:
    """What is wrong with an entry's key or digest."""
    if ("key" in entry) == ("digest" in entry):
        return "must have either key or digest"
    if "digest" in entry:
        if DIGEST.match(str(entry["digest"])):
            return None
        return "the digest must be sha256: and 64 small hex digits - `./redoubt play keys` makes one"
    key = str(entry["key"])
    shortest, longest = LENGTHS
    if not shortest <= len(key) <= longest:
        return f"the key has {len(key)} characters instead of {shortest} to {longest} - make one: openssl rand -hex 24"
    if not KEY.match(key):
        return "the key has characters a bearer token cannot hold - use letters, digits and . _ ~ + / -"
    if len(set(key)) < 8:
        return "the key can be guessed - make one: openssl rand -hex 24"
    return None


def _listed(entry: dict[str, Any], field: str, problem: Callable[[str], str | None]) -> Iterator[str]:
    if field not in entry:
        return
    value = entry[field]
    if not isinstance(value, list) or not value:
        yield f"{field} must be a list with something in it - leave it out for all"
        return
    for item in value:
        wrong = problem(str(item))
        if wrong:
            yield f"{field}: {item!r} {wrong}"


def _network(text: str) -> str | None:
    try:
        ipaddress.ip_network(text, strict=True)
    except ValueError as error:
        return f"is no network ({error}) - write it as 10.20.0.0/16 or fd00::/64"
    return None


def _choice(known: set[str], item: str) -> str | None:
    # Before there is a plan nobody knows them; the role asks again.
    return None if item in known or not known else f"is none of {', '.join(sorted(known))} - write some of these"


def _end(value: object) -> Iterator[str]:
    try:
        moment(value)
    except ValueError:
        yield f"expires: {value!r} is no date - write 2027-01-31 or 2027-01-31T18:00:00+01:00"


def _previous(value: object) -> Iterator[str]:
    if not isinstance(value, dict) or set(value) != {"digest", "expires"}:
        yield "previous must have digest and expires, nothing else"
    elif not DIGEST.match(str(value["digest"])):
        yield "previous: the digest must be sha256: and 64 small hex digits"
    else:
        yield from _end(value["expires"])


def _entry(entry: dict[str, Any], models: set[str], routes: set[str]) -> Iterator[str]:
    unknown = sorted(set(entry) - FIELDS)
    if unknown:
        yield f"{', '.join(unknown)} is not known - it may have {', '.join(sorted(FIELDS))}"
    if not NAME.match(str(entry.get("name", ""))):
        yield f"the name {str(entry.get('name'))!r} must be letters, digits, . _ @ - (at most 64)"
    wrong = _secret(entry)
    if wrong:
        yield wrong
    if "previous" in entry:
        yield from _previous(entry["previous"])
    if "expires" in entry:
        yield from _end(entry["expires"])
    yield from right_problems(entry, models, routes)


def right_problems(entry: dict[str, Any], models: set[str], routes: set[str]) -> Iterator[str]:
    """What is wrong with the rights of a key, or of a rule for tokens: models, routes, addresses, limits."""
    yield from _listed(entry, "addresses", _network)
    yield from _listed(entry, "models", partial(_choice, models))
    yield from _listed(entry, "routes", partial(_choice, routes))
    for field in LIMITS:
        value = entry.get(field, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            yield f"{field}: {value!r} must be a whole number without quotes, 1 or more - leave it out for no limit"


def key_problems(given: Any, issued: Any, models: list[dict[str, Any]], needed: bool = True) -> list[str]:
    """Everything that is wrong with the two lists of keys, one line each; empty when all is well.

    `given` is gateway_api_keys, `issued` gateway_issued_keys, `models` gateway_models, which keys may be limited to
    (empty while there is no plan). Unless `needed`, there may be no key: others may come in with tokens.
    """
    for variable, value in ((VARIABLE, given), (ISSUED, issued)):
        if not isinstance(value, list):
            return [f"{variable}: must be a list of keys"]
    if needed and not given and not issued:
        return [
            f"{VARIABLE}: no key is given - add [{{name: CLIENT, key: SECRET}}] to the vault, or issue one with "
            "`./redoubt play keys -e keys_issue=CLIENT`"
        ]
    names = {str(model.get("name")) for model in models}
    routes = {str(route.get("path")) for model in models for route in model.get("routes") or []}
    problems = []
    for variable, value in ((VARIABLE, given), (ISSUED, issued)):
        for index, entry in enumerate(value):
            if not isinstance(entry, dict):
                problems.append(f"{variable}[{index}]: must have name and key")
                continue
            told = f" ({entry['name']})" if NAME.match(str(entry.get("name", ""))) else ""
            problems += [f"{variable}[{index}]{told}: {line}" for line in _entry(entry, names, routes)]
    entries = [entry for entry in [*given, *issued] if isinstance(entry, dict)]
    repeated = _repeated([str(entry.get("name")) for entry in entries])
    problems += [f"{VARIABLE}: the name {name!r} is given twice (capital letters do not count)" for name in repeated]
    if _repeated([_digest(entry) for entry in entries if "key" in entry or "digest" in entry]):
        problems.append(f"{VARIABLE}: two clients have the same key")
    if len({str(entry.get("concurrent_requests")) for entry in entries}) > MOST_CONCURRENCIES:
        problems.append(
            f"{VARIABLE}: more than {MOST_CONCURRENCIES} different values of concurrent_requests - use fewer"
        )
    return problems


def _digest(entry: dict[str, Any]) -> str:
    if "digest" in entry:
        return str(entry["digest"]).removeprefix("sha256:")
    return hashlib.sha256(str(entry["key"]).encode()).hexdigest()


def _networks(values: list[str]) -> list[list[Any]]:
    networks = [ipaddress.ip_network(str(value)) for value in values]
    return [[network.network_address.packed.hex(), network.prefixlen] for network in networks]


def rights(entry: dict[str, Any]) -> dict[str, Any]:
    """The part of a record that says what a key, or who comes with a token, may."""
    found: dict[str, Any] = {
        field: [str(item) for item in entry[field]] for field in ("models", "routes") if field in entry
    }
    if "addresses" in entry:
        found["addresses"] = _networks(entry["addresses"])
    for field, short in (("requests_per_minute", "requests"), ("tokens_per_minute", "tokens")):
        if field in entry:
            found[short] = int(entry[field])
    return found


def key_records(keys: list[dict[str, Any]]) -> list[dict[str, str]]:
    """[{id, record}] of checked keys, sorted by id: the head of a key's SHA-256, and what it may, as JSON.

    Fields of a record that are absent do not limit: digest (64 hex digits), name, models, routes, addresses
    ([base in hex, bits]), expires (seconds since 1970), requests and tokens (per minute).
    """
    found = []
    for entry in keys:
        record: dict[str, Any] = {"digest": _digest(entry), "name": str(entry["name"]), **rights(entry)}
        if "expires" in entry:
            record["expires"] = moment(entry["expires"])
        found.append(record)
        if "previous" in entry:
            ends = [moment(entry["previous"]["expires"])] + ([record["expires"]] if "expires" in record else [])
            found.append({**record, "digest": _digest(entry["previous"]), "expires": min(ends)})
    rows = [{"id": item["digest"][:HEAD], "record": json.dumps(item, separators=(",", ":"))} for item in found]
    return sorted(rows, key=lambda row: row["id"])
