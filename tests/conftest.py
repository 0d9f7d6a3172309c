"""What all tests share."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

SHARED = str(Path(__file__).resolve().parents[1] / "module_utils")
# Modules import our shared code as `ansible.module_utils.…`, which is where Ansible puts it on a host.
try:
    import ansible.module_utils
except ModuleNotFoundError:
    # A machine with a GPU needs pytest alone (tests/gpu); what needs more of Ansible fails there by itself.
    for name in ("ansible", "ansible.module_utils"):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [SHARED]
else:
    ansible.module_utils.__path__.append(SHARED)
