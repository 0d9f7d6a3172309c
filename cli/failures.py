"""What a failed result of Ansible says to a person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TAIL_LINES = 25
SECTIONS = ("stderr", "module_stderr", "stdout", "module_stdout", "exception")


@dataclass(frozen=True)
class Failure:
    """One failed (or unreachable) result on one host; `text` is what there is to read, perhaps many lines."""

    host: str
    phase: str
    task: str
    text: str
    item: str | None = None
    path: str | None = None
    unreachable: bool = False
    ignored: bool = False

    def headline(self) -> str:
        """First line of the report: outcome, host, phase, task and loop item."""
        outcome = "UNREACHABLE" if self.unreachable else "FAILED (ignored)" if self.ignored else "FAILED"
        item = f" (item {self.item})" if self.item is not None else ""
        return f"{outcome} {self.host} | {self.phase} | {self.task}{item}"

    def lines(self) -> list[str]:
        """The whole report: headline, place in the sources, then the text, indented."""
        place = [f"  at {self.path}"] if self.path else []
        return [self.headline(), *place, *(f"  {line}" for line in self.text.splitlines())]


def tail(text: str, limit: int = TAIL_LINES) -> str:
    """The last lines of a text, with a word on what was left out."""
    lines = text.rstrip().splitlines()
    if len(lines) <= limit:
        return "\n".join(lines)
    return "\n".join([f"... {len(lines) - limit} lines before ...", *lines[-limit:]])


def item_label(result: Mapping[str, Any]) -> str | None:
    """The loop item of a result, short; None when there is none or it is hidden."""
    if "censored" in result:
        return None
    label = result.get("_ansible_item_label", result.get(str(result.get("ansible_loop_var", "item"))))
    if label is None:
        return None
    return plain(label)[:200]


def plain(value: object) -> str:
    """Any value of a result as text: strings as they are, lists of strings as lines, the rest as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def failure_text(result: Mapping[str, Any]) -> str:
    """Message, command, exit code and the end of what was printed; hidden results say that they are hidden."""
    if "censored" in result:
        return plain(result["censored"])
    parts: list[str] = []
    message = plain(result.get("msg", "")).strip()
    if message:
        parts.append(message)
    if "assertion" in result and plain(result["assertion"]) not in message:
        parts.append(f"assertion: {plain(result['assertion'])}")
    if "cmd" in result:
        command = result["cmd"]
        parts.append("command: " + (" ".join(map(str, command)) if isinstance(command, list) else str(command)))
    if "rc" in result:
        parts.append(f"exit code: {result['rc']}")
    for name in SECTIONS:
        section = tail(plain(result.get(name) or ""))
        if not section or section in message or section == "(traceback unavailable)":
            continue
        parts.append(f"{name}:\n" + "\n".join(f"  {line}" for line in section.splitlines()))
    if not parts:
        rest = {key: value for key, value in result.items() if not key.startswith("_ansible")}
        parts.append(tail(json.dumps(rest, indent=1, ensure_ascii=False, default=str)))
    return "\n".join(parts)
