"""Our shared code under the name that it has on a host, for programs that run without Ansible."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType


def share() -> None:
    """Let our shared code be found as ansible.module_utils, which is its name on a host; Ansible need not be there."""
    shared = str(Path(__file__).resolve().parents[1] / "module_utils")
    try:
        import ansible.module_utils as found  # noqa: PLC0415  # it may be missing
    except ModuleNotFoundError:
        for name in ("ansible", "ansible.module_utils"):
            made = ModuleType(name)
            made.__path__ = [shared]
            sys.modules[name] = made
    else:
        if shared not in found.__path__:
            found.__path__.append(shared)
