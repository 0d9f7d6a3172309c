"""The one exception of this package, and how its modules answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ansible.module_utils.run_lock import Busy

SHOWN = 20


class Refusal(Exception):
    """Input or bytes that must not be used. The text is for the operator: what, where, why, the fix."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        shown = self.problems[:SHOWN]
        if len(self.problems) > SHOWN:
            shown.append(f"and {len(self.problems) - SHOWN} more")
        super().__init__("\n".join(shown))


def plural(count: int, noun: str) -> str:
    """Return '1 file', '2 files'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def answer(module: Any, run: Callable[[dict[str, Any], bool], dict[str, Any]], place: str) -> None:
    """Do a module's work, `run(params, check)`, and answer Ansible: its result with ``seconds``, or the refusal.

    ``warnings`` in the result are shown as such.

    `place` stands for the file in an error of the operating system that names none.
    """
    start = time.monotonic()
    try:
        result = run(module.params, module.check_mode)
    except Busy as busy:
        module.fail_json(msg=str(busy), lock_holder=busy.holder)
    except Refusal as refusal:
        module.fail_json(msg=str(refusal))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or place}: {error.strerror or error}")
    for text in result.pop("warnings", ()):
        module.warn(text)
    result["seconds"] = round(time.monotonic() - start, 2)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)
