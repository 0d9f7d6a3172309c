"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import ansible.module_utils

# Modules import our shared code as `ansible.module_utils.…`, which is where Ansible puts it on a host.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))
