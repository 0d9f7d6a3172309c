# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Pages for people behind the gateway (`gateway_people_pages`), who come with a password: checked, and laid out.

No message holds a password's hash.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

PAGES = "gateway_people_pages"
USERS = "gateway_people_users"
PATH = re.compile(r"/([A-Za-z0-9][A-Za-z0-9._-]*/)+\Z")
USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
# What crypt(3) of the systems here knows and nobody can try by the million.
HASH = re.compile(r"\$(6\$(rounds=[0-9]{4,9}\$)?[./0-9A-Za-z]{8,16}\$[./0-9A-Za-z]{86}|y\$[./0-9A-Za-z$]{40,200})\Z")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
USUAL_METHODS = ("GET", "HEAD", "POST")
MOST_PAGES = 16
PAGE_FIELDS = {"path", "upstream", "users", "addresses", "methods"}


def _server_problem(text: str) -> str | None:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        return "write ADDRESS:PORT, for example 127.0.0.1:3000"
    try:
        ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return "write an IP address before the port"
    return None


def _network_problem(text: str) -> str | None:
    try:
        ipaddress.ip_network(text, strict=True)
    except ValueError as error:
        return str(error)
    return None


def _users(users: list[Any]) -> Iterator[str]:
    for index, entry in enumerate(users):
        where = f"{USERS}[{index}]"
        if not isinstance(entry, dict) or set(entry) != {"name", "hash"}:
            yield f"{where}: must have name and hash, nothing else"
            continue
        if not USER.match(str(entry["name"])):
            yield f"{where}: the name {str(entry['name'])!r} must be letters, digits, . _ @ - (at most 64)"
        if not HASH.match(str(entry["hash"])):
            yield f"{where} ({entry['name']}): the hash is none of SHA-512 ($6$) or yescrypt ($y$) - openssl passwd -6"
    counts = Counter(str(entry.get("name")) for entry in users if isinstance(entry, dict))
    yield from (f"{USERS}: the name {name!r} is given twice" for name, count in counts.items() if count > 1)


def _page(page: dict[str, Any], names: set[str], routes: list[str]) -> Iterator[str]:
    unknown = sorted(set(page) - PAGE_FIELDS)
    if unknown:
        yield f"{', '.join(unknown)} is not known - it may have {', '.join(sorted(PAGE_FIELDS))}"
    path = str(page.get("path", ""))
    if not PATH.match(path):
        yield f"path {path!r} must be a folder such as /grafana/"
    for route in routes:
        if route.startswith(path) and PATH.match(path):
            yield f"path {path} would stand over the route {route} - take another path"
            break
    wrong = _server_problem(str(page.get("upstream", "")))
    if wrong:
        yield f"upstream {page.get('upstream')!r}: {wrong}"
    wanted = page.get("users", sorted(names))
    if not isinstance(wanted, list) or not wanted:
        yield f"users: nobody could come in - name some of {USERS}, or leave it out for all of them"
    else:
        yield from (f"users: {user!r} is not in {USERS}" for user in wanted if user not in names)
    addresses = page.get("addresses", ["::/0"])
    if not isinstance(addresses, list) or not addresses:
        yield "addresses must be a list with something in it - leave it out for all of gateway_allowed_cidrs"
    else:
        for item in addresses:
            problem = _network_problem(str(item))
            if problem:
                yield f"addresses: {item!r} is no network ({problem}) - write it as 10.20.0.0/16 or fd00::/64"
    methods = page.get("methods", list(USUAL_METHODS))
    if not isinstance(methods, list) or not methods or set(map(str, methods)) - set(METHODS):
        yield f"methods {methods!r} - use some of {', '.join(METHODS)}"


def people_problems(pages: Any, users: Any, routes: list[dict[str, Any]]) -> list[str]:
    """Everything that is wrong with the pages and their users, one line each; `routes` is the gateway's table."""
    for variable, value in ((PAGES, pages), (USERS, users)):
        if not isinstance(value, list):
            return [f"{variable}: must be a list"]
    problems = list(_users(users))
    if len(pages) > MOST_PAGES:
        problems.append(f"{PAGES}: more than {MOST_PAGES} pages")
    names = {str(entry.get("name")) for entry in users if isinstance(entry, dict)}
    paths = [str(route["path"]) for route in routes if route["path"] != "/"]
    for index, page in enumerate(pages):
        lines = _page(page, names, [*paths, "/healthz"]) if isinstance(page, dict) else ["must have path and upstream"]
        problems += [f"{PAGES}[{index}]: {line}" for line in lines]
    found = [str(page.get("path")) for page in pages if isinstance(page, dict)]
    for path in found:
        if any(other is not path and other.startswith(path) for other in found):
            problems.append(f"{PAGES}: {path} is given twice, or lies within another page")
    return problems


def people_rows(pages: list[dict[str, Any]], users: list[dict[str, str]]) -> list[dict[str, Any]]:
    """One row for each checked page: path, upstream (its name), server, addresses, methods, file, passwords."""
    rows = []
    for index, page in enumerate(pages):
        wanted = page.get("users", [entry["name"] for entry in users])
        lines = [f"{entry['name']}:{entry['hash']}\n" for entry in users if entry["name"] in wanted]
        rows.append(
            {
                "path": page["path"],
                "upstream": f"redoubt_people_{index}",
                "server": page["upstream"],
                "addresses": [str(item) for item in page.get("addresses", [])],
                "methods": list(page.get("methods", USUAL_METHODS)),
                "file": f"redoubt_people_{index}.htpasswd",
                "passwords": "".join(lines),
            }
        )
    return rows
