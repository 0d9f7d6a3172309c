"""Every role: specification and defaults say the same, nothing is unused, names and references follow the rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.lint import role_readme
from tests.lint.roles import REPOSITORY, Role, all_roles, load, playbooks, walk

EACH_ROLE = pytest.mark.parametrize("role", all_roles(), ids=lambda role: role.name)
TYPES = {"bool", "dict", "float", "int", "list", "path", "raw", "str"}
# The only role that documents variables without its own prefix: it checks the whole inventory.
CROSS_ROLE_OWNER = "preflight"

# Hosts that a role may name, with the reason.
ALLOWED_HOSTS = {
    "127.0.0.1": "the host itself",
    "localhost": "the host itself",
    "download.docker.com": "Docker's own repository, a default that a variable replaces",
    "download.nvidia.com": "NVIDIA's own repository, a default that a variable replaces",
    "example.com": "reserved for examples",
    "example.org": "reserved for examples",
    "index.docker.io": "no address: Docker's own registry is called so in a user's login file",
    "nvidia.github.io": "NVIDIA's own repository, a default that a variable replaces",
    "wiki.mozilla.org": "source of the TLS profiles, in a comment",
}
URL = re.compile(r"https?://([^\s/:\"'<>\\)\]`,;}]+)")
IMAGE = re.compile(r"^\s*image:\s*[\"']?(?P<ref>[^\s\"'#]+)")
# Whatever is newest when it is asked: an image's tag, a package's state.
MOVING = re.compile(r":latest\b|^\s*-?\s*(?:tag|state|version):\s*[\"']?latest\b")
SENTENCE = re.compile(r"(?:[a-z0-9_]+ \| )?[A-Z][^.]*(?:\.[^.\s][^.]*)*")
# Facts are not injected as variables, so these names mean nothing.
INJECTED_FACT = re.compile(
    r"(?<![\w'\"./-])ansible_(?:distribution|os_family|architecture|default_ipv[46]|hostname|fqdn|kernel|memtotal_mb|"
    r"mounts|nodename|pkg_mgr|processor_\w+|service_mgr|selinux|virtualization_\w+|date_time|all_ipv[46]_addresses)\b"
)


def options(tree: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every option with its place, nested ones too."""
    for name, option in tree.items():
        yield f"{where}{name}", option
        yield from options(option.get("options") or {}, f"{where}{name}.")


@EACH_ROLE
def test_there_is_a_specification(role: Role) -> None:
    assert role.spec.get("short_description")
    assert role.spec.get("description")


@EACH_ROLE
def test_every_option_says_what_it_is(role: Role) -> None:
    for where, option in options(role.options):
        assert option.get("type") in TYPES, where
        assert option.get("description"), where
        assert not (option.get("required") and "default" in option), f"{where}: required, and yet it has a default"
        if option["type"] == "list":
            assert option.get("elements"), f"{where}: of what?"


@EACH_ROLE
def test_specification_and_defaults_say_the_same(role: Role) -> None:
    documented = {name: option.get("default") for name, option in role.options.items() if not option.get("required")}
    given = dict(role.defaults)
    unknown = sorted(set(given) - set(role.options))
    assert not unknown, f"in defaults, but not in the specification: {unknown}"
    required = sorted(name for name in given if role.options[name].get("required"))
    assert not required, f"required, and yet in defaults: {required}"
    for name, value in documented.items():
        assert given.get(name) == value, f"{name}: the specification says {value!r}, the defaults {given.get(name)!r}"


@EACH_ROLE
def test_variables_carry_the_roles_prefix(role: Role) -> None:
    for name in role.options:
        cross = name.startswith("redoubt_") and role.name == CROSS_ROLE_OWNER
        assert cross or name.startswith(f"{role.name}_"), name
    for file in (role.path / "vars").rglob("*.yml"):
        for name in load(file) or {}:
            assert name.startswith(f"__{role.name}_"), f"{file.relative_to(REPOSITORY)}: {name}"


@EACH_ROLE
def test_every_variable_is_used(role: Role) -> None:
    text = role.text(without=("meta", "defaults", "README.md"))
    shared = "\n".join(
        path.read_text(encoding="utf-8")
        # Preflight makes the plan from the variables of all roles.
        for folder in (
            "filter_plugins",
            "locks",
            "planner",
            "playbooks",
            "provenance",
            "roles/preflight/action_plugins",
            "templates",
        )
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and path.suffix in (".py", ".yml", ".j2")
    )
    defaults = (role.path / "defaults/main.yml").read_text(encoding="utf-8") if role.defaults else ""
    for name in role.options:
        word = re.compile(rf"\b{name}\b")
        in_defaults = len(word.findall(defaults)) > 1
        assert word.search(text) or word.search(shared) or in_defaults, f"{name} is never used"
    internal = role.text(without=("meta", "README.md"))
    for file in (role.path / "vars").rglob("*.yml"):
        for name in load(file) or {}:
            assert len(re.findall(rf"\b{name}\b", internal)) > 1, (
                f"{file.relative_to(REPOSITORY)}: {name} is never used"
            )


@EACH_ROLE
def test_tasks_have_names_in_sentence_case(role: Role) -> None:
    for file, task in role.tasks():
        name = task.get("name", "")
        assert SENTENCE.fullmatch(name), f"{file.relative_to(REPOSITORY)}: {name or task!r}"


@pytest.mark.parametrize("path", playbooks(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_plays_and_their_tasks_have_names_in_sentence_case(path: Path) -> None:
    for play in walk(load(path) or []):
        sections = [play.get(key) or [] for key in ("pre_tasks", "tasks", "post_tasks", "handlers")]
        for entry in [play, *(task for section in sections for task in walk(section))]:
            assert SENTENCE.fullmatch(entry.get("name", "")), entry


@EACH_ROLE
def test_roles_know_no_groups_and_no_injected_facts(role: Role) -> None:
    text = role.text(without=("README.md", "files", "action_plugins"))
    for word in ("groups[", "groups.", "group_names"):
        assert not re.search(rf"(?<!\w){re.escape(word)}", text), f"group names belong into playbooks: {word}"
    assert not INJECTED_FACT.findall(text)


@EACH_ROLE
def test_errors_are_never_swallowed(role: Role) -> None:
    for file, task in role.tasks():
        assert "ignore_errors" not in task, f"{file.relative_to(REPOSITORY)}: {task.get('name')}"
        assert task.get("failed_when") is not False, f"{file.relative_to(REPOSITORY)}: {task.get('name')}"


def texts() -> list[Path]:
    """Return the files that end up on hosts or decide what does."""
    folders = ("roles", "playbooks", "templates", "library", "module_utils", "filter_plugins")
    suffixes = (".yml", ".j2", ".py", ".json", ".conf", ".sh")
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.suffix in suffixes)


def test_no_url_outside_the_allowed_list() -> None:
    found = []
    for path in texts():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for host in URL.findall(line):
                bare = host.removeprefix("www.")
                known = bare in ALLOWED_HOSTS or any(bare.endswith(f".{allowed}") for allowed in ALLOWED_HOSTS)
                written_out = re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", bare)
                if written_out and not known:
                    found.append(f"{path.relative_to(REPOSITORY)}:{number}: {host}")
    assert not found, "\n".join(found)


def test_no_image_by_tag_alone() -> None:
    """Images come from the lock; a literal reference would escape its digests."""
    found = []
    for path in texts():
        if path.suffix not in (".yml", ".j2"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = IMAGE.match(line)
            literal = match and "{" not in match["ref"] and ":" in match["ref"] and "@sha256:" not in match["ref"]
            if literal or MOVING.search(line):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}")
    assert not found, "\n".join(found)


def test_generated_documents_are_fresh() -> None:
    paths = [str(path.relative_to(REPOSITORY)) for path in role_readme.stale()]
    assert not paths, f"run: python -m tests.lint.role_readme --write   (stale: {', '.join(paths)})"
