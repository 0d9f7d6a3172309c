# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Keep services that come with packages from being started by them. Standard library only, Python 3.9+."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible.module_utils.config_files import write_atomically

# Debian's packages ask this program whether they may start a service; 101 is no.
POLICY = Path("/usr/sbin/policy-rc.d")
NO_SERVICE = b"#!/bin/sh\n# Redoubt installs; removed at the end.\nexit 101\n"


@contextmanager
def services_off(wanted: bool) -> Iterator[None]:
    """Have no package start a service meanwhile. What POLICY was comes back, unless a killed run left it there."""
    if not wanted:
        yield
        return
    before = POLICY.read_bytes() if POLICY.exists() else NO_SERVICE
    write_atomically(str(POLICY), NO_SERVICE, 0o755, 0, 0)
    try:
        yield
    finally:
        if before == NO_SERVICE:
            POLICY.unlink()
        else:
            write_atomically(str(POLICY), before, 0o755, 0, 0)
