"""Nothing reaches outside but by the few ways that a lock, a depot and the checks of bytes stand in.

Packages come by `package_set`, images by `container_images`, weights by `weights`. Every other way that a task has to
fetch something would go past the lock, and in a closed network wait for a name server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.lint.roles import REPOSITORY, load, walk

# What fetches by itself, by its name without the collection: what to use in its place.
FETCHERS = {
    **dict.fromkeys(("apt", "dnf", "dnf5", "yum", "package", "zypper"), "package_set"),
    **dict.fromkeys(("apt_key", "apt_repository", "deb822_repository", "rpm_key", "yum_repository"), "package_set"),
    **dict.fromkeys(("pip", "npm", "gem", "git", "subversion", "hg", "maven_artifact"), "the lock"),
    **dict.fromkeys(("docker_image", "docker_image_pull", "podman_image"), "container_images"),
    "docker_compose_v2_pull": "container_images",
    "get_url": "weights, or get_url with a variable for url and a checksum that begins with sha256:",
}
RUNNERS = ("command", "shell", "raw", "script", "expect")
# Programs that fetch, as the first word of a command.
PROGRAMS = re.compile(
    r"(?:^|[;&|(`\n]|\$\(|\b(?:sudo|exec|env|then|do|else)\s)\s*(?:/\S*/)?"
    r"(curl|wget|aria2c|apt-get|apt|aptitude|dnf5?|yum|pipx?3?|npm|git\s+(?:clone|fetch|pull)|"
    r"(?:docker|podman|skopeo|crane)\s+(?:image\s+)?(?:pull|copy)|docker\s+compose\s+pull)(?=\s|$)"
)
# Programs' ways of taking what nobody signed or proved.
UNPROVED = re.compile(
    r"trusted\s*[=:]\s*(?:yes|true)|allow[-_]?unauthenticated|\bgpgcheck\s*=\s*0|--no-?gpg-?check(?:s)?\b|"
    r"--no-check-certificate|curl[^\n]*\s(?:-k|--insecure)\b|validate_certs\s*:\s*(?:false|no)\b|"
    r"Verify-Peer\s+\"?false|Acquire::AllowInsecure\w*\W+(?:true|yes|1)|--trusted-host|insecure-registr",
    re.IGNORECASE,
)
SIGNED_INDEX = re.compile(r"^repo_gpgcheck=1$", re.MULTILINE)
URL = re.compile(
    r"\b(?:https?|ftp)://(?!\{\{|\{%|127\.|localhost\b|\[::1\]|(?:[\w.-]+\.)?example\.(?:com|org)\b)([\w\[][^\s\"'<>]*)"
)
VARIABLE = re.compile(r"\{\{\s*\w+\s*\}\}")
VERSIONED = (".yml", ".j2", ".py", ".sh", ".conf", ".cfg")


def name_of(task: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the module of a task, without its collection, and its arguments."""
    for key, arguments in task.items():
        parts = key.split(".")
        if len(parts) in (1, 3):
            yield parts[-1], arguments


def _proved(arguments: Any) -> bool:
    """Whether a fetch has an address that the operator gives, and a digest that it must have."""
    given = arguments if isinstance(arguments, Mapping) else {}
    return bool(VARIABLE.fullmatch(str(given.get("url", "")))) and str(given.get("checksum", "")).startswith("sha256:")


def fetch_problems(tasks: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what is wrong with the tasks of one file: name of the task, why."""
    rows = list(walk(tasks))
    # A package file whose bytes an earlier task of the same file proved may be installed as it is.
    files = {
        str(arguments["dest"])
        for task in rows
        for module, arguments in name_of(task)
        if module == "get_url" and _proved(arguments) and "dest" in arguments
    }
    for task in rows:
        where = task.get("name", "a task without a name")
        for module, arguments in name_of(task):
            given = arguments if isinstance(arguments, Mapping) else {}
            if "update_cache" in given or "cache_valid_time" in given:
                yield f"{where}: update_cache asks all of the host's sources; use package_set"
            local = str(given.get("deb") or given.get("name") or "") in files
            if module in FETCHERS and not local and not (module == "get_url" and _proved(arguments)):
                yield f"{where}: {module} goes past the lock; use {FETCHERS[module]}"
            if module in RUNNERS:
                found = PROGRAMS.search(_command(arguments))
                if found:
                    yield f"{where}: `{found[1]}` goes past the lock"


def _command(arguments: Any) -> str:
    if not isinstance(arguments, Mapping):
        return str(arguments)
    words = arguments.get("argv") or arguments.get("cmd") or arguments.get("_raw_params") or ""
    return " ".join(map(str, words)) if isinstance(words, list) else str(words)


def strings(value: Any) -> Iterator[str]:
    """Yield all texts in a YAML value; what stands in comments is none."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def _task_files() -> list[Path]:
    found = [path for folder in ("tasks", "handlers") for path in (REPOSITORY / "roles").glob(f"*/{folder}/**/*.yml")]
    return sorted([*found, *(REPOSITORY / "playbooks/tasks").glob("*.yml")])


def _plays() -> list[Path]:
    return sorted([*REPOSITORY.glob("*.yml"), *(REPOSITORY / "playbooks").glob("*.yml")])


def _tasks(path: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = load(path) or []
    sections = ("pre_tasks", "tasks", "post_tasks", "handlers")
    inner = [task for entry in entries for section in sections for task in entry.get(section) or []]
    return [*entries, *inner]


def test_tasks_fetch_by_our_own_modules_only() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}: {problem}"
        for path in [*_task_files(), *_plays()]
        for problem in fetch_problems(_tasks(path))
    ]
    assert not found, "\n".join(found)


def test_no_address_is_written_out_in_a_task() -> None:
    """Addresses are defaults of variables, so that a depot or a mirror can take their place."""
    found = []
    for path in [*_task_files(), *_plays(), *sorted((REPOSITORY / "roles").glob("*/vars/**/*.yml"))]:
        for text in strings(load(path)):
            found += [f"{path.relative_to(REPOSITORY)}: {match[0]}" for match in URL.finditer(text)]
    for folder in ("roles", "templates"):
        for path in sorted((REPOSITORY / folder).rglob("*.j2")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                matches = [] if line.lstrip().startswith("#") else URL.finditer(line.split("{#")[0])
                found += [f"{path.relative_to(REPOSITORY)}:{number}: {match[0]}" for match in matches]
    assert not found, "\n".join(found)


def unproved(line: str, text: str) -> bool:
    """Whether this line of the text takes what nobody proved. A signed index proves each package by its checksum."""
    found = UNPROVED.search(line)
    return found is not None and not (found[0].startswith("gpgcheck") and SIGNED_INDEX.search(text))


def test_a_signature_of_the_index_is_enough_and_none_is_not() -> None:
    assert unproved("gpgcheck=0", "[depot]\ngpgcheck=0\n")
    assert unproved("gpgcheck=0", "[depot]\ngpgcheck=0\nrepo_gpgcheck=0\n")
    assert not unproved("gpgcheck=0", "[depot]\ngpgcheck=0\nrepo_gpgcheck=1\n")
    assert unproved("deb [trusted=yes] x", "repo_gpgcheck=1\n")


def test_nothing_is_taken_unproved() -> None:
    found = []
    for folder in ("roles", "playbooks", "templates", "library", "module_utils", "action_plugins", "inventories"):
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.suffix not in VERSIONED:
                continue
            text = path.read_text(encoding="utf-8")
            for number, line in enumerate(text.splitlines(), 1):
                # A sentence about it is none of it.
                if unproved(line, text) and not line.lstrip().startswith(("#", "- ", '"')):
                    found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}")
    assert not found, "\n".join(found)
