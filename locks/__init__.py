"""The lock on the control host: its files in git, and what goes into them. What they mean is in module_utils/lock.

Modules import our shared code as `ansible.module_utils.…`, which is where Ansible puts it on a host; so it is here too.
"""

from __future__ import annotations

from pathlib import Path

import ansible.module_utils

_SHARED = str(Path(__file__).resolve().parents[1] / "module_utils")
if _SHARED not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_SHARED)
