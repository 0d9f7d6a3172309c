# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""A signed APT or DNF repository, trusted by the fingerprint of its key. Standard library only, Python 3.9+.

A repository is a dictionary: name, url, suite, components, key, key_url, key_fingerprints, leftovers,
remove_leftovers (see package_set).
"""

from __future__ import annotations

import glob
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from ansible.module_utils.config_files import snapshot
from ansible.module_utils.openpgp import armour, fingerprints

FETCH_SECONDS = 30
MODE = 0o644  # apt reads keys and sources as its own unprivileged user
APT_SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources")
DNF_SOURCES = ("/etc/yum.repos.d/*.repo",)
KEY_LIMIT = 1 << 20  # no key file is a megabyte


class Untrusted(Exception):
    """The repository cannot be trusted or reached; the text is for the operator."""


def plain(fingerprint: str) -> str:
    """A fingerprint without spaces and colons, in upper case. Raises Untrusted when it is none."""
    text = re.sub(r"[\s:]", "", fingerprint).upper()
    if not re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", text):
        raise Untrusted(f"{fingerprint!r} is no full key fingerprint (40 or 64 hexadecimal digits)")
    return text


def check_key(data: bytes, allowed: list[str], where: str) -> None:
    """Raises Untrusted unless every primary key in `data` is one of `allowed`."""
    try:
        found = fingerprints(data)
    except ValueError as error:
        raise Untrusted(f"the key from {where} is not usable: {error}") from error
    strangers = [item for item in found if item not in allowed]
    if strangers:
        raise Untrusted(
            f"the key from {where} has the fingerprint {', '.join(strangers)}, expected {', '.join(allowed)}."
            " Nothing was changed: find out who signed before you change the expected fingerprint."
        )


def apt_source(params: dict[str, Any], key_path: str) -> str:
    """The deb822 source file; a flat repository, whose suite is a path, has no components."""
    flat = params["suite"].endswith("/")
    return (
        "# Ansible managed\n"
        "Types: deb\n"
        f"URIs: {params['url']}\n"
        f"Suites: {params['suite']}\n"
        + ("" if flat else f"Components: {' '.join(params['components'])}\n")
        + f"Signed-By: {key_path}\n"
    )


def dnf_source(params: dict[str, Any], key_path: str) -> str:
    """The .repo file."""
    return (
        "# Ansible managed\n"
        f"[{params['name']}]\n"
        f"name={params['name']}\n"
        f"baseurl={params['url']}\n"
        "enabled=1\n"
        "gpgcheck=1\n"
        f"gpgkey=file://{key_path}\n"
    )


def paths(name: str, apt: bool) -> tuple[str, str]:
    """(key file, source file) for a repository."""
    if apt:
        return f"/etc/apt/keyrings/{name}.asc", f"/etc/apt/sources.list.d/{name}.sources"
    return f"/etc/pki/rpm-gpg/RPM-GPG-KEY-{name}", f"/etc/yum.repos.d/{name}.repo"


def names_address(text: str, url: str) -> bool:
    """Whether a source file's text has a source at this address; comments do not count."""
    address = url.rstrip("/")
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return any(word.rstrip("/").rpartition("=")[2] == address for line in lines for word in line.split())


def leftovers(params: dict[str, Any], apt: bool) -> list[str]:
    """Source files in this repository's way: the ones given, and all others that name its address.

    Raises Untrusted where there are some and they shall not be removed.
    """
    own = paths(params["name"], apt)[1]
    places = APT_SOURCES if apt else DNF_SOURCES
    found = {path for pattern in params["leftovers"] for path in glob.glob(pattern)}
    for path in (path for pattern in places for path in glob.glob(pattern)):
        if names_address(Path(path).read_text(encoding="utf-8", errors="replace"), params["url"]):
            found.add(path)
    old = sorted(found - {own})
    if old and not params["remove_leftovers"]:
        raise Untrusted(
            f"{', '.join(old)}: left by an earlier installation of the repository {params['name']} ({params['url']}),"
            " whose key it would trust otherwise than here. Nothing was changed: look at it, then remove it, or set the"
            " role's ..._remove_old_sources: true."
        )
    return old


def fetch(url: str) -> bytes:
    """The key file at `url`. Raises Untrusted."""
    if not url.startswith(("https://", "http://", "file:///")):
        raise Untrusted(f"the key address {url!r} must begin with https://, http:// or file:///")
    try:
        # The scheme is checked above, and what comes back is trusted by its fingerprint only.
        with urllib.request.urlopen(url, timeout=FETCH_SECONDS) as answer:  # noqa: S310
            return bytes(answer.read(KEY_LIMIT))
    except (urllib.error.URLError, OSError) as error:
        raise Untrusted(
            f"cannot fetch the repository key from {url}: {error}."
            " Give the key itself in the variable that holds it, or make the address reachable."
        ) from error


def wanted_key(params: dict[str, Any], key_path: str, allowed: list[str], check: bool) -> bytes | None:
    """The key to be on the host; None in check mode when it would have to be fetched first. Raises Untrusted."""
    if params["key"]:
        given: bytes = (params["key"].strip() + "\n").encode()
        check_key(given, allowed, "the variable")
        return given
    now = snapshot(key_path)
    if now.kind == "file":
        try:
            standing: bytes = now.data
            check_key(standing, allowed, key_path)
            return standing
        except Untrusted:
            pass  # fetched anew below
    if check:
        return None
    data = fetch(params["key_url"])
    check_key(data, allowed, params["key_url"])
    armoured: bytes = armour(data)
    return armoured


def differing(params: dict[str, Any], apt: bool, check: bool) -> dict[str, bytes | None]:
    """The files of a repository that are not as they shall be: path and content to write.

    Content None stands for a key that is still to be fetched (check mode only). Raises Untrusted.
    """
    allowed = [plain(item) for item in params["key_fingerprints"]]
    if not params["key"] and not params["key_url"]:
        raise Untrusted(f"the repository {params['name']} has neither a key nor a key address")
    key_path, source_path = paths(params["name"], apt)
    source = (apt_source if apt else dnf_source)(params, key_path).encode()
    files = {key_path: wanted_key(params, key_path, allowed, check), source_path: source}
    return {path: data for path, data in files.items() if data is None or not _stands(path, data)}


def _stands(path: str, data: bytes) -> bool:
    now = snapshot(path)
    return bool(now.kind == "file" and now.data == data and now.mode == MODE)
