# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What asks DNF's own library; run by the distribution's Python, which has it, not by Ansible's. JSON in, JSON out.

In: {root, system, repositories, enabled, folders, machine, releasever, module_platform, streams, groups, asks, only}.
`system`: what is installed in `root` counts; `repositories`: folder of .repo files; `enabled`: names of those that
count, or all; `folders`: {option of DNF: path}; `machine`: as the kernel says it; `asks`: {NAME: [specs]}; `groups`:
for some NAMEs, groups whose mandatory packages are asked for too; `only`: {name: version} that may be taken, or null.
Out: {asks: {NAME: {rows: [...], problem}}, urls: {REPOSITORY: address}} or {problem}. A row has name, version (with its
epoch where that is not 0), architecture, repository, url, sum ([kind, hex digits]) and size.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree


def configured(dnf: Any, given: Mapping[str, Any]) -> Any:
    """DNF with the repositories' lists read, checked as their files say. Raises dnf.exceptions.Error."""
    conf = dnf.conf.Conf()
    if given["system"]:
        conf.read()
    conf.installroot = given["root"]
    conf.reposdir = [given["repositories"]]
    for name, path in given["folders"].items():
        setattr(conf, name, path)
    conf.varsdir = conf.varsdir if given["system"] else []
    conf.plugins = False
    conf.install_weak_deps = False
    conf.best = True
    conf.zchunk = False
    conf.skip_if_unavailable = False
    if hasattr(conf, "optional_metadata_types"):  # newer DNF reads them only where a file's name is asked for, or not
        conf.optional_metadata_types = ["comps", "filelists"]
    if given["machine"]:
        conf.arch = given["machine"]
    if given["releasever"]:
        conf.substitutions["releasever"] = given["releasever"]
    if given["module_platform"]:
        conf.module_platform_id = given["module_platform"]
    base = dnf.Base(conf)
    base.read_all_repos()
    for repository in base.repos.all():
        if given["enabled"] and repository.id not in given["enabled"]:
            repository.disable()
    for repository in base.repos.iter_enabled():
        repository.skip_if_unavailable = False
        repository.load_metadata_other = False
    base.fill_sack(load_system_repo="auto" if given["system"] else False)
    if given["streams"]:
        importlib.import_module("dnf.module.module_base").ModuleBase(base).enable(given["streams"])
    foreign = base.sack.query().available().filterm(arch__neq=[conf.arch, "noarch"])
    base.sack.add_excludes(foreign)
    return base


def version(package: Any) -> str:
    """VERSION-RELEASE, behind EPOCH: where that is not 0."""
    text = f"{package.version}-{package.release}"
    return f"{package.epoch}:{text}" if package.epoch else text


def row(package: Any) -> dict[str, Any]:
    """A package as the lock wants it."""
    kind, digits = package.returnIdSum()
    return {
        "name": package.name,
        "version": version(package),
        "architecture": package.arch,
        "repository": package.reponame,
        "url": package.remote_location(),
        "sum": [kind, digits],
        "size": package.downloadsize,
    }


def groups_of(base: Any) -> dict[str, list[str]]:
    """Names of the mandatory packages of every group of the repositories.

    Read here: the library that DNF has for it crashes on Debian 13. Raises ValueError.
    """
    decompress = importlib.import_module("dnf.yum.misc").decompress
    found: dict[str, list[str]] = {}
    for repository in base.repos.iter_enabled():
        packed = repository.get_metadata_path("group_gz") or repository.get_metadata_path("group")
        if not packed:
            continue
        with tempfile.TemporaryDirectory() as folder:
            plain = decompress(packed, dest=f"{folder}/comps.xml")
            try:
                # Signed by a known key, or from the repository whose packages are.
                tree = ElementTree.parse(plain)  # noqa: S314
            except ElementTree.ParseError as error:
                raise ValueError(f"repository {repository.id}: its groups are no XML: {error}") from error
        for group in tree.iter("group"):
            members = [one.text or "" for one in group.iter("packagereq") if one.get("type") == "mandatory"]
            found.setdefault(group.findtext("id", ""), []).extend(members)
    return found


def members(base: Any, known: Mapping[str, Sequence[str]], groups: Sequence[str], needed: bool) -> list[str]:
    """Names of the mandatory packages of these groups that the repositories have.

    Raises ValueError where a group is `needed` and not there.
    """
    for name in groups:
        if name not in known and needed:
            raise ValueError(f"the repositories have no group {name!r}: name the base system's packages, base_packages")
    names = {member for name in groups for member in known.get(name, ())}
    return sorted(name for name in names if base.sack.query().available().filterm(name=name))


def resolved(dnf: Any, base: Any, specs: Sequence[str]) -> dict[str, Any]:
    """{rows, problem} of one question."""
    base.reset(goal=True)
    lacking = []
    for spec in specs:
        try:
            base.install(spec)
        except dnf.exceptions.MarkingError:
            lacking.append(spec)
    if lacking:
        return {"rows": [], "problem": f"no repository has {', '.join(lacking)}"}
    try:
        base.resolve()
    except dnf.exceptions.Error as error:
        return {"rows": [], "problem": " ".join(str(error).split())}
    rows = [row(package) for package in base.transaction.install_set]
    return {"rows": sorted(rows, key=lambda one: (one["name"], one["version"])), "problem": ""}


def answer(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the file's text says."""
    dnf = importlib.import_module("dnf")
    try:
        base = configured(dnf, given)
        if given["only"] is not None:
            others = [one for one in base.sack.query().available() if given["only"].get(one.name) != version(one)]
            base.sack.add_excludes(base.sack.query().filterm(pkg=others))
        groups = given["groups"]
        known = groups_of(base) if groups else {}
        asks = {
            name: resolved(dnf, base, [*specs, *members(base, known, groups.get(name, ()), not specs)])
            for name, specs in given["asks"].items()
        }
        place = "repodata/repomd.xml"
        urls = {one.id: (one.remote_location(place) or "")[: -len(place)] for one in base.repos.iter_enabled()}
    except (dnf.exceptions.Error, ValueError, RuntimeError, OSError) as error:
        return {"problem": " ".join(str(error).split())}
    return {"asks": asks, "urls": urls, "problem": ""}


if __name__ == "__main__":
    print(json.dumps(answer(json.load(sys.stdin))))
