"""Entry point of install.pyz. Standard library only: the machine has nothing else yet."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

# Inside the archive, or the checkout: the folder that has module_utils/.
HERE = Path(__file__).resolve().parent
ROOT = HERE if HERE.name.endswith(".pyz") else HERE.parent

# Modules import our shared code as `ansible.module_utils.…`, which is where Ansible puts it on a host.
for name in ("ansible", "ansible.module_utils"):
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [f"{ROOT}/module_utils"]

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # `python3 installer` in a checkout knows this folder alone

from installer.steps import main  # noqa: E402  # needs the above

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
