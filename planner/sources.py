"""Where a host's bytes come from: redoubt_sources, one word or a mapping, and the depot that it names. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from planner.problems import Problem, Problems, shown

KINDS = ("packages", "images", "models", "python")
WORDS = ("depot", "upstream")
VARIABLE = "redoubt_sources"
DEPOT_PORT = 8443
REGISTRY = "registry"
# registry://HOST[:PORT][/PREFIX]: a registry that has the images of the others below its own name.
MIRRORED = f"{REGISTRY}://"

# Paths on a host. APT reads them as a user without rights, so none lies below /etc/redoubt.
APT_SOURCES = "/etc/apt/redoubt/depot.sources"
MIRROR_SOURCES = "/etc/apt/redoubt/mirror.sources"
DNF_SOURCES = "/etc/redoubt/yum.repos.d/depot.repo"
CA_FILE = "/etc/ssl/redoubt-depot-ca.crt"

_FORMS = "file:///FOLDER on the host, controller:///FOLDER on this machine, or https://SERVER/FOLDER"
_REGISTRY = re.compile(r"[A-Za-z0-9.\-\[\]:]+(?:/[a-z0-9._/-]+)?")
_DEPOT_URL = re.compile(r"https://[A-Za-z0-9.\-\[\]:]+")


@dataclass(frozen=True)
class Depot:
    """A depot as hosts reach it: https://ADDRESS:PORT, the site's name in it, and what it is trusted by.

    `host` is its name in the inventory, where certificate and key are read when they are not given.
    """

    url: str
    site: str
    host: str | None = None
    ca: str = field(default="", repr=False)
    key: str = field(default="", repr=False)

    @property
    def server(self) -> str:
        """ADDRESS:PORT, as Docker writes a registry."""
        return self.url.partition("://")[2]

    def entry(self) -> dict[str, Any]:
        """The depot as it stands in a plan."""
        return {
            "url": self.url,
            "site": self.site,
            "host": self.host,
            "name": re.sub(r":\d+$", "", self.server),
            "ca_file": CA_FILE,
            "ca": self.ca,
            "key": self.key,
        }


def spread(raw: object) -> dict[str, str]:
    """Return the source of each kind; a word means all of them, and what is not named comes from upstream."""
    if isinstance(raw, str):
        return dict.fromkeys(KINDS, raw)
    named = raw if isinstance(raw, Mapping) else {}
    found = {str(kind): value for kind, value in named.items() if isinstance(value, str)}
    return {kind: found.get(kind, "upstream") for kind in KINDS}


def problems(raw: object) -> list[Problem]:
    """Return what is wrong with redoubt_sources as it is written."""
    if raw is None:
        return []
    if isinstance(raw, str):
        if raw in WORDS:
            return []
        return [Problem(VARIABLE, "it is not a source", f"write {' or '.join(WORDS)}, or a mapping", shown(raw))]
    if not isinstance(raw, Mapping):
        return [Problem(VARIABLE, "it is neither a word nor a mapping", f"write one of {KINDS}: SOURCE", shown(raw))]
    found: list[Problem] = []
    for name, value in raw.items():
        where = f"{VARIABLE}.{name}"
        if name not in KINDS:
            found.append(Problem(where, "there is no such kind of source", f"name one of {', '.join(KINDS)}"))
        elif not isinstance(value, str):
            found.append(Problem(where, "it is not text", "write a source", shown(value)))
        elif value not in WORDS and not (name == "images" and value == REGISTRY):
            found += _problem_of(where, name, value)
    found += [
        Problem(f"{VARIABLE}.{kind}", "it is missing", "write depot, upstream, or where they are")
        for kind in ("images", "models")
        if kind not in raw
    ]
    return found


def _problem_of(where: str, kind: str, value: str) -> list[Problem]:
    """Judge one source that is no word."""
    scheme, separator, rest = value.partition("://")
    allowed = {
        "images": ("file", "controller", "http", "https", REGISTRY),
        "models": ("file", "controller", "http", "https"),
    }.get(kind, ("file", "https") if kind == "packages" else ("file", "http", "https"))
    if not separator or scheme not in allowed:
        also = f", `{REGISTRY}`, or {MIRRORED}HOST:PORT" if kind == "images" else ""
        forms = _FORMS if kind in ("images", "models") else "the https:// address of a mirror"
        return [Problem(where, "it is not a source", f"write depot, upstream, {forms}{also}", shown(value))]
    if scheme in ("file", "controller") and not rest.startswith("/"):
        return [Problem(where, "the folder must be absolute", f"write {scheme}:///{rest}", shown(value))]
    if scheme not in ("file", "controller") and "@" in rest.partition("/")[0]:
        return [Problem(where, "it holds a name or password, which would be printed", "use a source that needs none")]
    if scheme == REGISTRY and not _REGISTRY.fullmatch(rest):
        return [Problem(where, "it is not a registry", f"write {MIRRORED}HOST:PORT", shown(value))]
    return []


def depot(raw: object, sources: Mapping[str, str], this: str, found: Problems) -> Depot | None:
    """Return the depot that some source names; problems go to `found`.

    raw: {given: redoubt_depot, host: first host of the depots, address, port, site}; address is null while unknown.
    """
    named = [kind for kind in KINDS if sources.get(kind) == "depot"]
    if not named:
        return None
    raw = raw if isinstance(raw, Mapping) else {}
    given = raw.get("given")
    given = given if isinstance(given, Mapping) else {}
    site = str(given.get("site") or raw.get("site") or "")
    if not site:
        why = "a depot keeps each site's files under its name, and this site has none"
        found.add("redoubt_site", why, "make the lock (./redoubt play lock), or write the name")
        return None
    url = str(given.get("url") or "").rstrip("/")
    host = raw.get("host")
    if url:
        if not _DEPOT_URL.fullmatch(url):
            found.add("redoubt_depot.url", "it is not a depot's address", "write https://ADDRESS:PORT", url)
            return None
        untrusted = [key for key in ("ca", "key") if not given.get(key)] if not host else []
        for key in untrusted:
            what = {"ca": "the certificate authority of its TLS", "key": "the OpenPGP key that signs its packages"}[key]
            found.add(f"redoubt_depot.{key}", f"{what} is missing", "write it as text (PEM or ASCII armour)")
        return Depot(url, site, _text(host), str(given.get("ca") or ""), str(given.get("key") or ""))
    address = raw.get("address")
    if not host:
        why = f"{', '.join(named)} come from a depot, but no host is in the group depot"
        found.add("redoubt_depot.url", why, "add a host to the group depot, or write the url, ca and key of a depot")
        return None
    if not isinstance(address, str):
        return None  # not known yet; the plan with the hosts' facts judges it
    if address.startswith("127.") and host != this:
        why = f"the depot listens on {address} only, and this is another machine"
        found.add(
            f"redoubt_private_address of {host}", why, "set it in the host's variables, such as 10.0.0.11", address
        )
    port = raw.get("port")
    port = port if isinstance(port, int) else DEPOT_PORT
    name = f"[{address}]" if ":" in address else address
    return Depot(f"https://{name}:{port}", site, _text(host), str(given.get("ca") or ""), str(given.get("key") or ""))


def _text(value: object) -> str | None:
    return str(value) if value else None


def entry(sources: Mapping[str, str], known: Depot | None) -> dict[str, Any]:
    """Return what the roles are told: where each kind is, in the form that the role of that kind understands."""
    made: dict[str, Any] = {**sources, "images_ca_file": "", "models_depot": {}}
    if made["images"] == "upstream":
        made["images"] = REGISTRY
    if known is not None and made["images"] == "depot":
        made |= {"images": f"{MIRRORED}{known.server}/{known.site}", "images_ca_file": CA_FILE}
    if known is not None and made["models"] == "depot":
        made["models_depot"] = {"url": f"{known.url}/{known.site}/models", "ca_file": CA_FILE}
    return made


def packages(
    lock: Mapping[str, Any] | None, sources: Mapping[str, str], known: Depot | None, system: str | None
) -> dict[str, Any] | None:
    """Return what /etc/redoubt/packages.json says on a host; None where neither lock nor depot speaks of packages."""
    alone = sources.get("packages") == "depot" and known is not None
    mirrored = "://" in sources.get("packages", "")
    if lock is None and not alone and not mirrored:
        return None
    lock = lock or {}
    row = lock.get("packages") or {}
    apt = system in (None, "Debian", "Ubuntu")
    return {
        "mode": str(lock.get("mode") or "open"),
        "platform": str(lock.get("platform") or ""),
        "lock_digest": str(lock.get("digest") or ""),
        "downgrade": lock.get("downgrade") is True,
        "sources": (APT_SOURCES if apt else DNF_SOURCES) if alone else MIRROR_SOURCES if mirrored else "",
        "packages": {
            item["name"]: {"version": item["version"], "architecture": item["architecture"], "sha256": item["sha256"]}
            for item in row.get("packages", ())
        },
    }
