# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What a program says, whole: a list of packages is longer than what `probes.run` keeps."""

from __future__ import annotations

import os
import subprocess
from typing import List, Tuple


def ask(command: List[str], timeout: float) -> Tuple[int, str, str]:
    """Run a program without a shell, in the C locale; returns (exit status, its output, its errors)."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        return 127, "", f"{command[0]}: no such program"
    except subprocess.TimeoutExpired:
        return 124, "", f"no end after {timeout:.0f} s"
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace").strip()
