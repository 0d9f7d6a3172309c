# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Packages of RPM as rows of a lock, and the lists that a depot's DNF repository serves. Pure.

The lists are plain XML, so that a lock's diff can be read, and the same for the same packages. Python 3.9+.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

LISTS = ("primary", "filelists")  # what resolves and installs; changelogs are left out
FILE_TIME = re.compile(r'<time file="\d+" build="(\d+)"/>')
BEFORE = "  <revision>"  # in repomd.xml: what is before it is the same in every repository
DATA = """\
  <data type="{kind}">
    <checksum type="sha256">{sha256}</checksum>
    <location href="{path}"/>
    <timestamp>{when}</timestamp>
    <size>{size}</size>
  </data>
"""


def pool_path(row: Mapping[str, Any]) -> str:
    """Where a depot's view has a package: pool/e/engine-2.0-1.el9.x86_64.rpm, without the version's epoch."""
    name = str(row["name"])
    version = str(row["version"]).rpartition(":")[2]
    return f"pool/{name[0].lower()}/{name}-{version}.{row['architecture']}.rpm"


def entry(row: Mapping[str, Any], *, base: bool, bootstrap: bool) -> dict[str, Any]:
    """A lock's row for a package, as the program that asks DNF names it; `sum` must be one of SHA-256."""
    return {
        "name": row["name"],
        "version": row["version"],
        "architecture": row["architecture"],
        "sha256": row["sum"][1].lower(),
        "size": row["size"],
        "path": pool_path(row),
        "origin": row["url"],
        "base": base,
        "bootstrap": bootstrap,
    }


def repodata(lists: Mapping[str, str]) -> dict[str, str]:
    """{path: text} of the lists below repodata/, from the texts of LISTS and repomd as createrepo_c wrote them."""
    when = max([0, *map(int, FILE_TIME.findall(lists["primary"]))])
    texts = {}
    for kind in LISTS:
        # The time of the file is that of whoever fetched it.
        texts[f"repodata/{kind}.xml"] = FILE_TIME.sub(r'<time file="\1" build="\1"/>', lists[kind])
    data = ""
    for kind, (path, text) in zip(LISTS, texts.items()):
        raw = text.encode()
        sha256 = hashlib.sha256(raw).hexdigest()
        data += DATA.format(kind=kind, sha256=sha256, path=path, when=when, size=len(raw))
    revision = hashlib.sha256(data.encode()).hexdigest()[:12]
    head = lists["repomd"].partition(BEFORE)[0]
    return {**texts, "repodata/repomd.xml": f"{head}{BEFORE}{revision}</revision>\n{data}</repomd>\n"}
