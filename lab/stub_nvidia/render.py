"""From the table of stub packages to the content of each package: no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LIBRARY = "/usr/lib/stub-nvidia"
LAUNCHER = """#!/usr/bin/python3
# stub: plays {program} on a lab host. Not NVIDIA's.
import sys

sys.path.insert(0, "{library}")
from tools.{module} import main

sys.exit(main())
"""
POSTINST = """#!/bin/sh
set -e
if [ "$1" = configure ]; then
{steps}
fi
"""
RELATIONS = ("depends", "recommends", "provides", "conflicts", "replaces")
KNOWN = frozenset(
    (*RELATIONS, "name", "each", "version", "architecture", "source", "multiarch", "description", "unverified",
     "repositories", "component", "launchers", "files", "contents", "conffiles", "enable", "start", "diverts",
     "tools", "module", "compiled", "keyring")
)  # fmt: skip


@dataclass(frozen=True)
class Package:
    """One package: its control fields in order, and what it puts where.

    ``contents`` maps absolute paths to text, ``executables`` are those of them that run; ``files`` maps paths to names
    in the payload folder. ``scripts`` are maintainer scripts by name. ``compiled``, ``module`` and ``keyring`` name
    what only a build can make: the NVML library, a kernel module of this flavour, the public key at this path.
    """

    name: str
    version: str
    repositories: tuple[str, ...]
    control: dict[str, str]
    upstream: str = ""
    contents: dict[str, str] = field(default_factory=dict)
    executables: frozenset[str] = frozenset()
    files: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)
    conffiles: tuple[str, ...] = ()
    tools: bool = False
    compiled: str = ""
    module: str = ""
    keyring: str = ""

    @property
    def file_name(self) -> str:
        """The name of the .deb: without the epoch, as in any repository."""
        return f"{self.name}_{self.version.rpartition(':')[2]}_{self.control['Architecture']}.deb"

    def control_text(self) -> str:
        """The control file."""
        return "".join(f"{key}: {value}\n" for key, value in self.control.items())


def packages(table: Mapping[str, Any], kernel: str) -> list[Package]:
    """All packages of the table; ``kernel`` is the kernel's release on the lab's machine.

    Raises ValueError where the table has a key or a repository that nobody knows.
    """
    found = []
    for row in table["packages"]:
        unknown = set(row) - KNOWN
        if unknown:
            raise ValueError(f"packages.yml: {row['name']}: there is no {', '.join(sorted(unknown))}")
        missing = set(row.get("repositories", ())) - set(table["repositories"])
        if missing:
            raise ValueError(f"packages.yml: {row['name']}: there is no repository {', '.join(sorted(missing))}")
        found += [_package(row, words) for words in _words(row, table, kernel)]
    return found


def _words(row: Mapping[str, Any], table: Mapping[str, Any], kernel: str) -> Iterator[dict[str, str]]:
    """What stands for the words in braces, once for each package that the row makes."""
    each = row.get("each")
    if each is None:
        yield {"kernel": kernel, "package_version": row["version"], "version": row["version"]}
    elif each == "branch":
        for branch in sorted({version.partition(".")[0] for version in table["drivers"]}):
            version = row["version"].format(branch=branch)
            yield {"branch": branch, "package_version": version, "version": version, "pinned": f"{branch}."}
    else:
        for version in table["drivers" if each == "driver" else "toolkits"]:
            yield {"version": version, "package_version": f"{version}-1", "pinned": version}


def _package(row: Mapping[str, Any], words: Mapping[str, str]) -> Package:
    words = {**words, "exact": f"(= {words['package_version']})"}
    name = row["name"].format(**words)
    upstream = words["version"]
    relations = {key: ", ".join(item.format(**words) for item in row.get(key, ())) for key in RELATIONS}
    about = row.get("description", f"stub of {name}")
    control = {
        "Package": name,
        "Source": row.get("source", ""),
        "Version": words["package_version"],
        "Architecture": row.get("architecture", "amd64"),
        "Multi-Arch": row.get("multiarch", ""),
        "Maintainer": "Redoubt lab <stub@example.invalid>",
        "Section": "NVIDIA",
        "Priority": "optional",
        **{key.capitalize(): value for key, value in relations.items()},
        "Description": f"{about} (stub of the Redoubt lab, not NVIDIA's)",
    }
    launchers = {
        path: LAUNCHER.format(program=path.rpartition("/")[2], module=module, library=LIBRARY)
        for path, module in row.get("launchers", {}).items()
    }
    contents = {path: _fill(text, words) for path, text in row.get("contents", {}).items()}
    if row.get("component"):
        contents[f"{LIBRARY}/versions/{row['component']}"] = f"{upstream}\n"
    if row.get("module"):
        contents[f"{LIBRARY}/versions/flavour"] = f"{row['module']}\n"
    if not (contents or launchers or row.get("files")):
        contents[f"/usr/share/doc/{name}/README.stub"] = "stub: empty on purpose\n"
    return Package(
        name=name,
        version=words["package_version"],
        repositories=tuple(row.get("repositories", ("cuda",))),
        control={key: value for key, value in control.items() if value},
        upstream=upstream,
        contents={**contents, **launchers},
        executables=frozenset(launchers),
        files=dict(row.get("files", {})),
        scripts=_scripts(row, name, upstream),
        conffiles=tuple(row.get("conffiles", ())),
        tools=row.get("tools", False),
        compiled=row.get("compiled", ""),
        module=row.get("module", ""),
        keyring=row.get("keyring", ""),
    )


def _fill(text: str, words: Mapping[str, str]) -> str:
    """Only the words in braces that are ours: configuration files have braces of their own."""
    return re.sub(r"\{(\w+)\}", lambda found: words.get(found[1], found[0]), text)


def _scripts(row: Mapping[str, Any], name: str, version: str) -> dict[str, str]:
    scripts: dict[str, str] = {}
    steps: list[str] = []
    if row.get("module"):
        steps.append(f"    stub-nvidia module-installed {version}")
        scripts["prerm"] = _removal([f"    stub-nvidia module-removed {version}"])
    steps += _unit_steps(row.get("enable", ()), start=row.get("start", True))
    if row.get("enable"):
        units = " ".join(row["enable"])
        # A unit that cannot be stopped must not keep its package from being removed.
        stop = f"    if [ -d /run/systemd/system ]; then systemctl disable --now {units} || true; fi"
        scripts["prerm"] = _removal([stop])
    if row.get("diverts"):
        scripts["preinst"] = "#!/bin/sh\nset -e\n" + "".join(
            f"dpkg-divert --package {name} --add --rename --divert {path}.distrib {path}\n" for path in row["diverts"]
        )
        scripts["postrm"] = _removal(
            [f"    dpkg-divert --package {name} --remove --rename {path}" for path in row["diverts"]]
        )
    if row.get("compiled"):
        # ldconfig makes the link from libnvidia-ml.so.1 to this version's file.
        steps.append("    ldconfig")
    if steps:
        scripts["postinst"] = POSTINST.format(steps="\n".join(steps))
    return scripts


def _removal(steps: Sequence[str]) -> str:
    return '#!/bin/sh\nset -e\nif [ "$1" = remove ]; then\n' + "\n".join(steps) + "\nfi\n"


def _unit_steps(units: Sequence[str], *, start: bool) -> list[str]:
    if not units:
        return []
    now = "--now " if start else ""
    return [
        "    if [ -d /run/systemd/system ]; then",
        "        systemctl daemon-reload",
        f"        systemctl enable {now}{' '.join(units)}",
        "    fi",
    ]
