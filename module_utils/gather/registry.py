# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Images in registries, over HTTP: what a lock says of one, and where its parts are. Needs no container engine.

Logins are those of the user's Docker configuration; a registry on this machine may speak plain HTTP, as Docker allows.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.fetch.errors import Retry, Unusable
from ansible.module_utils.fetch.http import Client, Network, shown
from ansible.module_utils.fetch.sources import Item
from ansible.module_utils.fetch.web import Web

from . import oci

HUB = "docker.io"
HUB_API = "registry-1.docker.io"
HUB_LOGIN = "https://index.docker.io/v1/"
ACCEPT = ", ".join((*oci.INDEXES, *oci.MANIFESTS))
LARGEST_DOCUMENT = 8 << 20
CHALLENGE = re.compile(r'(realm|service|scope)="([^"]*)"')
LOCAL = re.compile(r"(?:localhost|127\.[0-9.]+|\[::1\])(?::[0-9]+)?")
HOST = re.compile(
    r"[A-Za-z0-9.-]+\.[A-Za-z0-9-]+(?::[0-9]+)?|[A-Za-z0-9.-]+:[0-9]+|localhost|\[[0-9a-fA-F:]+\](?::[0-9]+)?"
)


@dataclass(frozen=True)
class Place:
    """Where a registry has an image: its base address, the login's name for it, and the image's name there."""

    base: str
    login: str
    name: str

    def manifest(self, reference: str) -> str:
        """Return the address of a manifest, by tag or digest."""
        return f"{self.base}/v2/{self.name}/manifests/{reference}"

    def blob(self, sha256: str) -> str:
        """Return the address of a blob."""
        return f"{self.base}/v2/{self.name}/blobs/sha256:{sha256}"


def place_of(name: str, mirror: str = "") -> Place:
    """Return where an image is: the registry in its name, Docker's own, or `mirror` (HOST[:PORT][/PREFIX])."""
    if mirror:
        host, _, prefix = mirror.partition("/")
        return Place(_base(host), host, f"{prefix}/{name}".lstrip("/"))
    first, slash, rest = name.partition("/")
    if slash and HOST.fullmatch(first) and first not in (HUB, f"index.{HUB}"):
        return Place(_base(first), first, rest)
    bare = rest if slash and first in (HUB, f"index.{HUB}") else name
    return Place(f"https://{HUB_API}", HUB_LOGIN, bare if "/" in bare else f"library/{bare}")


def _base(host: str) -> str:
    return f"{'http' if LOCAL.fullmatch(host) else 'https'}://{host}"


@dataclass
class Registry:
    """A way to registries; tokens are kept by repository."""

    network: Network = field(default_factory=Network)
    logins: Mapping[str, str] = field(default_factory=dict, repr=False)
    _tokens: dict[str, str] = field(default_factory=dict, repr=False)

    def document(self, place: Place, reference: str) -> tuple[bytes, str]:
        """Return a manifest's bytes and media type; by digest its bytes are proved. Raises Refusal."""
        url = place.manifest(reference)
        data, headers = self._get(place, url, ACCEPT)
        found = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if reference.startswith("sha256:") and reference != found:
            raise Refusal(f"{shown(url)}: expected {reference}, found {found}")
        try:
            kind = json.loads(data).get("mediaType") or (headers.get("Content-Type") or "").partition(";")[0]
        except (ValueError, AttributeError) as error:
            raise Refusal(f"{shown(url)}: is no manifest ({error})") from error
        if kind not in oci.MANIFESTS + oci.INDEXES:
            raise Refusal(f"{shown(url)}: is of type {kind!r}, which no depot serves; the image must be built anew")
        return data, kind

    def blob(self, place: Place, sha256: str) -> bytes:
        """Return a small blob, proved. Raises Refusal."""
        url = place.blob(sha256)
        data, _ = self._get(place, url, "*/*")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Refusal(f"{shown(url)}: its bytes are not those of its digest")
        return data

    def token(self, place: Place) -> str:
        """Return the bearer token for an image's blobs, '' where none is needed; asked for when unknown."""
        return self._tokens.get(f"{place.base}/{place.name}", "")

    def _get(self, place: Place, url: str, accept: str) -> tuple[bytes, Message]:
        key = f"{place.base}/{place.name}"
        for attempt in (1, 2):
            response = self._ask(url, {"Accept": accept}, self._tokens.get(key, ""))
            if response.status == http.client.UNAUTHORIZED and attempt == 1:
                challenge = response.headers.get("WWW-Authenticate") or ""
                response.read()
                self._tokens[key] = self._login(place, challenge, url)
                continue
            break
        if response.status != http.client.OK:
            hint = {
                401: "; log in there (docker login), or is the image's name right?",
                403: "; may this login read the image?",
                404: "; are name and tag or digest right?",
                429: "; too many requests, log in there or wait",
            }.get(response.status, "")
            raise Refusal(f"{shown(url)}: the registry answers {response.status} {response.reason}{hint}")
        data = response.read(LARGEST_DOCUMENT + 1)
        if len(data) > LARGEST_DOCUMENT:
            raise Refusal(f"{shown(url)}: is larger than any manifest")
        return data, response.headers

    def _login(self, place: Place, challenge: str, url: str) -> str:
        kind, _, _ = challenge.partition(" ")
        login = self.logins.get(place.login, "")
        if kind.lower() != "bearer":
            raise Refusal(f"{shown(url)}: wants a login of kind {kind or '?'}; only bearer tokens are known")
        said = dict(CHALLENGE.findall(challenge))
        realm = said.pop("realm", "")
        if not realm.startswith(("https://", "http://" if place.base.startswith("http://") else "https://")):
            raise Refusal(f"{shown(url)}: names no server for tokens that may be asked ({shown(realm)})")
        said.setdefault("scope", f"repository:{place.name}:pull")
        headers = {"Authorization": f"Basic {login}"} if login else {}
        response = self._ask(f"{realm}?{urllib.parse.urlencode(sorted(said.items()))}", headers, "")
        data = response.read(LARGEST_DOCUMENT)
        try:
            found = json.loads(data) if response.status == http.client.OK else {}
        except ValueError:
            found = {}
        token = found.get("token") or found.get("access_token") if isinstance(found, dict) else None
        if not isinstance(token, str) or not token:
            raise Refusal(f"{shown(realm)}: gives no token for {place.name} ({response.status} {response.reason})")
        return token

    def _ask(self, url: str, headers: Mapping[str, str], token: str) -> http.client.HTTPResponse:
        try:
            response: http.client.HTTPResponse = Client(self.network).get(url, headers, token)[0]
        except (Retry, Unusable) as error:
            raise Refusal(str(error)) from error
        return response


def lock_reference(
    registry: Registry, wish: Mapping[str, Any], platforms: Sequence[str], mirror: str = ""
) -> dict[str, Any]:
    """Return the lock's row for an image of a registry, for these platforms (linux/amd64).

    By the wish's digest, or by its tag as it is now. Raises Refusal.
    """
    place = place_of(str(wish["name"]), mirror)
    reference = str(wish.get("digest") or wish["tag"])
    data, kind = registry.document(place, reference)
    digest = hashlib.sha256(data).hexdigest()
    where = f"{wish['name']}:{wish['tag']}"
    if kind in oci.INDEXES:
        listed = [row for row in json.loads(data)["manifests"] if _matches(row.get("platform") or {}, platforms)]
        missing = set(platforms) - {_plain(oci.platform_of(row["platform"])) for row in listed}
        if missing:
            raise Refusal(f"{where}: the registry has it for other platforms than {', '.join(sorted(missing))}")
        blobs = [oci.Blob("manifests", digest, len(data), kind, "any")]
        found = [_one(registry, place, row["digest"]) for row in listed]
    else:
        blobs, found = [], [_one(registry, place, f"sha256:{digest}")]
    config_digest = f"sha256:{found[0][0].sha256}"
    stated = wish.get("config_digest")
    if stated and stated not in {f"sha256:{config.sha256}" for config, _ in found}:
        raise Refusal(f"{where}: expected config digest {stated}, found {config_digest}")
    for config, rows in found:
        blobs += [config, *rows]
    size = sum(blob.size for blob in blobs if blob.role == "blobs")
    return {
        "name": wish["name"],
        "tag": str(wish["tag"]),
        "digest": f"sha256:{digest}",
        "config_digest": stated or config_digest,
        "size": int(wish.get("size") or size),
        "platforms": sorted({config.platform for config, _ in found}),
        "origin": f"{mirror.rstrip('/') + '/' if mirror else ''}{wish['name']}@sha256:{digest}",
        "blobs": [blob.row() for blob in oci.ordered(blobs)],
    }


def _one(registry: Registry, place: Place, digest: str) -> tuple[oci.Blob, list[oci.Blob]]:
    """Return the configuration of an image of one platform, and its manifest and layers."""
    data, kind = registry.document(place, digest)
    document = json.loads(data)
    about = document["config"]
    config_sha256 = _sha256(about["digest"])
    platform = oci.platform_of(json.loads(registry.blob(place, config_sha256)))
    config = oci.Blob("blobs", config_sha256, about["size"], about["mediaType"], platform)
    rows = [oci.Blob("manifests", _sha256(digest), len(data), kind, platform)]
    rows += [
        oci.Blob("blobs", _sha256(row["digest"]), row["size"], row["mediaType"], platform)
        for row in document.get("layers", ())
    ]
    return config, rows


class BlobSource(Web):  # type: ignore[misc]  # mypy does not see what stands in ansible.module_utils
    """The blobs of one image, as the fetch engine asks for them."""

    def __init__(self, registry: Registry, place: Place) -> None:
        super().__init__(f"{place.base}/v2/{place.name}/blobs", registry.network, registry.token(place))

    def address(self, item: Item) -> str:
        """Return the address of a blob."""
        return f"{self.base}/sha256:{item.sha256}"


def docker_logins(config: Path | None = None) -> dict[str, str]:
    """Return {registry: base64 of NAME:PASSWORD} of the user's Docker configuration; nothing where there is none."""
    path = config or Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8")).get("auths") or {}
        return {str(host): row["auth"] for host, row in rows.items() if _is_login(row.get("auth"))}
    except (OSError, ValueError, AttributeError):
        return {}


def _is_login(text: object) -> bool:
    try:
        return isinstance(text, str) and b":" in base64.b64decode(text, validate=True)
    except ValueError:
        return False


def _matches(platform: Mapping[str, Any], wanted: Sequence[str]) -> bool:
    return _plain(oci.platform_of(platform)) in wanted


def _plain(platform: str) -> str:
    """linux/arm64/v8 is what everybody means by linux/arm64."""
    return "/".join(platform.split("/")[:2])


def _sha256(digest: object) -> str:
    kind, _, value = str(digest).partition(":")
    if kind != "sha256" or not re.fullmatch("[0-9a-f]{64}", value):
        raise Refusal(f"the registry names a part by {digest!r}; only sha256 digests can be proved here")
    return value
