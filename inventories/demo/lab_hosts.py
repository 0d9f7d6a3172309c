#!/usr/bin/env python3
"""Dynamic inventory: how the demo's lab host is reached. Without a lab it says nothing and hosts.yml stands alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO_HOSTS = {"demo1"}


def main() -> None:
    """Print an Ansible inventory document."""
    python = REPOSITORY / ".venv/bin/python"
    found: dict[str, dict[str, object]] = {}
    if python.exists():
        done = subprocess.run(
            [python, "-m", "lab", "inventory"], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode == 0:
            hostvars = json.loads(done.stdout).get("_meta", {}).get("hostvars", {})
            found = {name: values for name, values in hostvars.items() if name in DEMO_HOSTS}
    print(json.dumps({"_meta": {"hostvars": found}, "all": {"hosts": sorted(found)}}))


if __name__ == "__main__":
    main()
