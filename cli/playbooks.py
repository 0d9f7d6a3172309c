"""From what was typed after `play` to what ansible-playbook is given."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

DEFAULT_INVENTORY = "inventories/demo"
#: Options whose value is a file; a relative one is meant from where the person stands.
FILE_OPTIONS = (
    *("-i", "--inventory", "--inventory-file", "--private-key", "--key-file", "-M", "--module-path"),
    *("--vault-password-file", "--vault-pass-file", "--become-password-file", "--become-pass-file"),
    *("--connection-password-file", "--conn-pass-file"),
)
PROMPTS = {
    "k": ("SSH password", r"^SSH password:\s*?$"),
    "K": ("BECOME password", r"^BECOME password.*:\s*?$"),
    "J": ("Vault password", r"^Vault password.*:\s*?$"),
}
LONG_PROMPTS = {
    "--ask-pass": "k",
    "--ask-become-pass": "K",
    "--ask-vault-pass": "J",
    "--ask-vault-password": "J",
}
NO_HOST_OPTIONS = ("--version", "-h", "--help")


class UsageError(ValueError):
    """What was typed cannot be meant; the text says why and what is near."""


def available(root: Path) -> list[str]:
    """The names that `play` takes: site, and each file in playbooks/."""
    found = {path.stem for path in (root / "playbooks").glob("*.yml")}
    if (root / "site.yml").is_file():
        found.add("site")
    return sorted(found)


def resolve(name: str, root: Path, cwd: Path) -> Path:
    """The playbook's file. `name` is one of `available`, or the path of any playbook (ends in .yml or .yaml).

    Raises UsageError with the nearest name when there is none.
    """
    if name.endswith((".yml", ".yaml")):
        for base in (cwd, root, root / "playbooks"):
            if (base / name).is_file():
                return (base / name).resolve()
        name = Path(name).stem
    names = available(root)
    if name in names:
        return root / "site.yml" if name == "site" else root / "playbooks" / f"{name}.yml"
    near = nearest(name, names)
    hint = f"did you mean `{near}`?" if near else f"there are: {', '.join(names) or 'none yet'}"
    raise UsageError(f"there is no playbook `{name}`; {hint}")


def nearest(word: str, words: Sequence[str]) -> str | None:
    """The most similar of the words, if one is similar at all."""
    found = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.5)
    return found[0] if found else None


def absolute(args: Sequence[str], cwd: Path, root: Path) -> list[str]:
    """The options with file names that hold from the repository's root, where ansible-playbook is started.

    Only names of things that are there, seen from `cwd`, are changed; everything else is passed on untouched.
    """
    if cwd == root:
        return list(args)
    done: list[str] = []
    previous = ""
    for arg in args:
        option, equals, value = arg.partition("=")
        if previous in FILE_OPTIONS:
            done.append(_from(arg, cwd))
        elif equals and option in FILE_OPTIONS:
            done.append(f"{option}={_from(value, cwd)}")
        elif previous in ("-e", "--extra-vars") and arg.startswith("@"):
            done.append("@" + _from(arg[1:], cwd))
        elif previous == "--vault-id" and "@" in arg:
            label, _, source = arg.rpartition("@")
            done.append(f"{label}@{_from(source, cwd)}")
        else:
            done.append(arg)
        previous = arg
    return done


def prompts(args: Sequence[str]) -> dict[str, str]:
    """The questions that these options make Ansible ask: text for the person -> pattern of the question."""
    keys: list[str] = []
    for index, arg in enumerate(args):
        if arg in LONG_PROMPTS:
            keys.append(LONG_PROMPTS[arg])
        elif re.fullmatch(r"-[bCDkKJv]+", arg):
            keys += [letter for letter in arg if letter in PROMPTS]
        elif arg.endswith("@prompt") and (arg.startswith("--vault-id=") or args[index - 1] == "--vault-id"):
            keys.append("J")
    return {PROMPTS[key][0]: PROMPTS[key][1] for key in keys}


def command_line(playbook: Path, inventories: Sequence[str], extra: Sequence[str], root: Path) -> list[str]:
    """The arguments of ansible-playbook. Raises UsageError when the default inventory is not there."""
    chosen = list(inventories) or [DEFAULT_INVENTORY]
    if not inventories and not (root / DEFAULT_INVENTORY).exists() and not set(extra) & set(NO_HOST_OPTIONS):
        raise UsageError(f"{DEFAULT_INVENTORY} is not there; name an inventory with -i")
    listed = [part for inventory in chosen for part in ("-i", inventory)]
    return [*listed, *extra, str(playbook)]


def _from(name: str, cwd: Path) -> str:
    path = cwd / name
    return str(path) if name and not name.endswith(",") and path.exists() else name
