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

from policy.keys import right_problems

PAGES = "gateway_people_pages"
USERS = "gateway_people_users"
PROXY = "gateway_people_oidc"
PATH = re.compile(r"/([A-Za-z0-9][A-Za-z0-9._-]*/)+\Z")
USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
# What crypt(3) of the systems here knows and nobody can try by the million.
HASH = re.compile(r"\$(6\$(rounds=[0-9]{4,9}\$)?[./0-9A-Za-z]{8,16}\$[./0-9A-Za-z]{86}|y\$[./0-9A-Za-z$]{40,200})\Z")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
USUAL_METHODS = ("GET", "HEAD", "POST")
MOST_PAGES = 16
PAGE_FIELDS = {"path", "upstream", "login", "users", "groups", "addresses", "methods"}
LOGINS = ("password", "oidc")
GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
#: Where an OIDC proxy's own pages stand, at the gateway and at the proxy.
SIGN_IN = "/oauth2/"
OIDC = "redoubt_people_oidc"


def _server_problem(text: str) -> str | None:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        return "write ADDRESS:PORT, for example 127.0.0.1:3000"
    try:
        ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return "write an IP address before the port"
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


def _who(page: dict[str, Any], names: set[str]) -> Iterator[str]:
    login = page.get("login", "password")
    if login not in LOGINS:
        yield f"login {login!r} must be {' or '.join(LOGINS)}"
    elif login == "oidc":
        groups = page.get("groups", ["x"])
        if "users" in page:
            yield "users are for pages with a password - name groups of the identity provider"
        if not isinstance(groups, list) or not groups or not all(GROUP.match(str(group)) for group in groups):
            yield f"groups: {groups!r} must be a list of names of letters, digits, . _ - (leave it out for everybody)"
    else:
        wanted = page.get("users", sorted(names))
        if "groups" in page:
            yield "groups are for pages with login: oidc - name users"
        if not isinstance(wanted, list) or not wanted:
            yield f"users: nobody could come in - name some of {USERS}, or leave it out for all of them"
        else:
            yield from (f"users: {user!r} is not in {USERS}" for user in wanted if user not in names)


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
    yield from _who(page, names)
    yield from right_problems({"addresses": page["addresses"]} if "addresses" in page else {}, set(), set())
    methods = page.get("methods", list(USUAL_METHODS))
    if not isinstance(methods, list) or not methods or set(map(str, methods)) - set(METHODS):
        yield f"methods {methods!r} - use some of {', '.join(METHODS)}"


def _oidc(pages: list[Any], proxy: str) -> Iterator[str]:
    """What is wrong with the OIDC proxy, which some pages ask."""
    if proxy and _server_problem(proxy):
        yield f"{PROXY}: {proxy!r}: {_server_problem(proxy)}"
    asked = [page for page in pages if isinstance(page, dict) and page.get("login") == "oidc"]
    if asked and not proxy:
        yield f"{PROXY}: {PAGES} has pages with login: oidc, and nobody to ask - write ADDRESS:PORT of the OIDC proxy"
    for page in pages if proxy else []:
        if isinstance(page, dict) and str(page.get("path", "")).startswith(SIGN_IN):
            yield f"{PAGES}: {page['path']} is where people sign in - take another path"


def people_problems(pages: Any, users: Any, routes: list[dict[str, Any]], proxy: str = "") -> list[str]:
    """Everything that is wrong with the pages and their users, one line each.

    `routes` is the gateway's table, `proxy` the OIDC proxy (host:port) or empty.
    """
    for variable, value in ((PAGES, pages), (USERS, users)):
        if not isinstance(value, list):
            return [f"{variable}: must be a list"]
    problems = [*_users(users), *_oidc(pages, str(proxy))]
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


def _row(index: int, page: dict[str, Any], users: list[dict[str, str]]) -> dict[str, Any]:
    row = {
        "path": page["path"],
        "login": page.get("login", "password"),
        "upstream": f"redoubt_people_{index}",
        "server": page["upstream"],
        "addresses": [str(item) for item in page.get("addresses", [])],
        "methods": list(page.get("methods", USUAL_METHODS)),
    }
    if row["login"] == "oidc":
        groups = f"?allowed_groups={','.join(page['groups'])}" if "groups" in page else ""
        return {
            **row,
            "name": "$gateway_people_user",
            "check": f"/-/people/{index}",
            "question": f"http://{OIDC}{SIGN_IN}auth{groups}",
            "sign_in": f"{SIGN_IN}start?rd={page['path']}",
        }
    wanted = page.get("users", [entry["name"] for entry in users])
    lines = [f"{entry['name']}:{entry['hash']}\n" for entry in users if entry["name"] in wanted]
    return {**row, "name": "$remote_user", "file": f"redoubt_people_{index}.htpasswd", "passwords": "".join(lines)}


def people_rows(pages: list[dict[str, Any]], users: list[dict[str, str]], proxy: str = "") -> list[dict[str, Any]]:
    """One row for each checked page: path, login, upstream (its name), server, addresses, methods, name (variable).

    With a password: file, passwords. With login oidc: check (path of the question to the proxy), question (its address
    there), sign_in (where nobody's browser is sent); and one more row, of login `sign_in`, for the proxy's own pages.
    """
    rows = [_row(index, page, users) for index, page in enumerate(pages)]
    if any(row["login"] == "oidc" for row in rows):
        signing = {"login": "sign_in", "upstream": OIDC, "server": proxy, "addresses": [], "name": '""'}
        rows.append({"path": SIGN_IN, "methods": list(USUAL_METHODS), **signing})
    return rows
