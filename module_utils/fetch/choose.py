"""From what an operator writes to sources."""

from __future__ import annotations

import os
import urllib.parse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.sources import FORMS, parse_address

from .http import Network, shown
from .sources import Folder, Source
from .web import Addresses, BlobStore, Depot, Hub, ModelScope, Web

KINDS = ("tree", "hub", "modelscope", "blobs", "depot", "addresses")


def make_sources(listed: Sequence[Mapping[str, Any] | str], variable: str, network: Network) -> list[Source]:
    """Turn a list of addresses, or of {url, kind, token, revision, urls}, into sources. Raises Refusal."""
    if network.ca_file and not os.path.isfile(network.ca_file):
        raise Refusal(f"the certificate authority {network.ca_file} for {variable} is not on the host")
    made = []
    for index, item in enumerate(listed):
        where = variable if len(listed) == 1 else f"{variable}[{index}]"
        made.append(_source({"url": item} if isinstance(item, str) else item, where, network))
    # What a source did wrong is noted under its name: two of one name would both be left for what one of them did.
    seen: Counter[str] = Counter()
    for source in made:
        seen[source.name] += 1
        if seen[source.name] > 1:
            source.name += f" ({seen[source.name]})"
    return made


def _source(item: Mapping[str, Any], where: str, network: Network) -> Source:
    kind = item.get("kind") or "tree"
    url, token = item.get("url") or "", item.get("token") or ""
    if kind == "addresses":
        urls = item.get("urls") or {}
        wrong = [label for label, address in urls.items() if not str(address).startswith(("http://", "https://"))]
        if not urls or wrong:
            raise Refusal(
                f"{where}.urls: give each file's http(s) address as MODEL/PATH: ADDRESS {wrong or ''}".strip()
            )
        return Addresses(urls, network)
    scheme, path = parse_address(url, where)
    if scheme == "http" and "@" in urllib.parse.urlsplit(url).netloc:
        raise Refusal(f"{where}: {shown(url)} holds a name or password, which would be printed; use token")
    if scheme == "file":
        if kind != "tree":
            raise Refusal(f"{where} is '{url}' of kind {kind}; a folder can only be of kind tree; write {FORMS}")
        return Folder(Path(path))
    if kind == "hub":
        return Hub(url, network, token)
    if kind == "modelscope":
        return ModelScope(url, network, token, item.get("revision") or "master")
    kinds = {"blobs": BlobStore, "depot": Depot}
    return kinds.get(kind, Web)(url, network, token)
