# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the public keys of issuers come from: documents that are given, or addresses that gateways ask."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509

from module_utils.jwks.keys import Unusable, parse, usable

ALGORITHMS = ("RS256", "ES256")
WORD = re.compile(r"[!-~]{1,255}\Z")
#: Keys that a gateway has fetched, and what it asks for them.
FETCHED = "/var/lib/redoubt/jwks/keys.json"
LIBRARY = "/usr/local/lib/redoubt/jwks"
Files = dict[str, str]


def source_problems(entry: dict[str, Any]) -> Iterator[str]:
    """What is wrong with where the keys come from."""
    if ("jwks" in entry) == ("jwks_url" in entry):
        yield "must have either jwks (a file on the control host, or the document) or jwks_url"
    elif "jwks_url" in entry:
        url = str(entry["jwks_url"])
        try:
            parts = urlsplit(url)
            fine = parts.scheme == "https" and parts.hostname and parts.username is None and parts.port != 0
        except ValueError:
            fine = False
        if not fine or not WORD.match(url) or parts.fragment:
            yield f"jwks_url: {url!r} is no address that keys may come from - write https://HOST/PATH"
    elif not isinstance(entry["jwks"], str | dict):
        yield "jwks must be a file on the control host, or the document itself"
    if "jwks_ca" in entry and "jwks_url" not in entry:
        yield "jwks_ca is for jwks_url only"


def given_keys(entry: dict[str, Any], files: Files) -> list[dict[str, Any]]:
    """The usable keys of an issuer whose document is given, or in one of `files` (texts by path). Raises Unusable."""
    given = entry["jwks"]
    if isinstance(given, str):
        text = given if given.lstrip().startswith("{") else files.get(given, "")
        if not text:
            raise Unusable(f"the file {given} is not there, or is empty")
        given = parse(text)
    found, others = usable(given)
    accepted = [key for key in found if key["alg"] in entry.get("algorithms", ALGORITHMS)]
    if not accepted:
        raise Unusable("none of its keys is for the issuer's algorithms" + "".join(f"; {line}" for line in others[:3]))
    return accepted


def _ca(value: str, files: Files) -> str:
    return value if "-----BEGIN" in value else files.get(value, "")


def ca_problem(value: object, files: Files) -> Iterator[str]:
    """What is wrong with a CA: PEM text, or a path of one of `files`."""
    text = _ca(str(value), files)
    try:
        x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        where = "the text" if "-----BEGIN" in str(value) else str(value)
        yield f"jwks_ca: {where} holds no certificate in PEM, or is not there - give the CA of jwks_url's server"


def sources(issuers: list[dict[str, Any]], files: Files) -> list[dict[str, str]]:
    """The files [{path, content}] by which a gateway fetches the keys of checked issuers."""
    found, rows = [], []
    for entry in issuers:
        if "jwks_url" not in entry:
            continue
        row = {"name": entry["name"], "url": entry["jwks_url"], "algorithms": entry.get("algorithms", list(ALGORITHMS))}
        if "jwks_ca" in entry:
            row["ca"] = f"{LIBRARY}/{entry['name']}.pem"
            found.append({"path": row["ca"], "content": _ca(entry["jwks_ca"], files)})
        rows.append(row)
    return [{"path": f"{LIBRARY}/sources.json", "content": json.dumps(rows, indent=1) + "\n"}, *found]
