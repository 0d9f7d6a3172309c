"""The wheels of the control host: what of requirements.txt a Python of a platform needs, with pip itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename

from locks import folder as files  # noqa: F401 - puts our shared code where the imports below look for it

from ansible.module_utils.artifacts.errors import Refusal  # isort: skip
from ansible.module_utils.artifacts.transfer import hash_file  # isort: skip
from ansible.module_utils.gather import wheels  # isort: skip


def pins_for(target: Mapping[str, str], requirements: str) -> list[tuple[Requirement, list[str]]]:
    """Return each requirement of a file with hashes that holds for a target, without its marker, and its hashes.

    Raises Refusal for one that is not pinned.
    """
    python, machine = target["python"], target["platform"].rpartition("_2_")[2].partition("_")[2]
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": machine,
    }
    chosen = []
    for line in requirements.replace("\\\n", " ").splitlines():
        words, *hashes = line.partition("#")[0].split("--hash=")
        if not words.strip():
            continue
        requirement = Requirement(words.strip())
        pins = [part for part in requirement.specifier if part.operator == "==" and not part.version.endswith("*")]
        if not pins or not hashes:
            raise Refusal(f"requirements.txt: {words.strip()} is not pinned to one version with its hashes")
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            chosen.append((requirement, [value.strip() for value in hashes]))
    return chosen


def resolve(requirements: Path, targets: Sequence[Mapping[str, str]], cache: Path, index: str = "") -> dict[str, Any]:
    """Return the lock's section `python`: every wheel for each target, with pip's own. Raises Refusal, OSError.

    index: of wheels, see wheels.Pip.
    """
    how, text = wheels.Pip(index=index), requirements.read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = {}
    for target in targets:
        label = wheels.label(target)
        folder = cache / label
        pins = pins_for(target, text)
        lines = "".join(" ".join([str(pin), *(f"--hash={value}" for value in hashes)]) + "\n" for pin, hashes in pins)
        said = wheels.pip(how, target, folder, lines)
        # The launcher runs pip out of its own wheel; the lock is what pins it.
        said = said or wheels.pip(how, target, folder / "pip", "pip\n", hashed=False)
        if said:
            raise Refusal(f"the wheels for Python {target['python']} on {target['platform']} cannot be had: {said}")
        wanted = {(str(pin.name).lower().replace("_", "-"), next(iter(pin.specifier)).version) for pin, _ in pins}
        paths = [path for path in sorted(folder.glob("*.whl")) if _identity(path) in wanted]
        paths.append(max((folder / "pip").glob("*.whl"), key=lambda path: parse_wheel_filename(path.name)[1]))
        for path in paths:
            row = found.setdefault(path.name, _row(path))
            row["targets"].append(label)
    return {
        "requirements": wheels.requirements_digest(requirements),
        "targets": [dict(target) for target in targets],
        "files": [found[name] for name in sorted(found)],
    }


def _identity(path: Path) -> tuple[str, str]:
    name, version, _, _ = parse_wheel_filename(path.name)
    return str(name), str(version)


def _row(path: Path) -> dict[str, Any]:
    name, version = _identity(path)
    sha256, size = hash_file(path, lambda _: None)
    row = {"name": name, "version": version, "file": path.name, "sha256": sha256, "size": size}
    return {**row, "origin": "pip", "targets": []}
