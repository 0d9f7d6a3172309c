# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Bytes on their way into a depot, hashed while they are copied."""

from __future__ import annotations

import hashlib
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.transfer import CHUNK, write_all


def copy_proved(stream: Any, descriptor: int, where: str, sha256: str, size: int) -> None:
    """Copy a stream into an open file. Raises Refusal for other bytes than these, naming `where`, OSError."""
    digest, count = hashlib.sha256(), 0
    while data := stream.read(min(CHUNK, size + 1 - count)):
        digest.update(data)
        count += len(data)
        if count > size:
            break
        write_all(descriptor, memoryview(data))
    if count != size:
        raise Refusal(f"{where}: expected {size} bytes, found {'more' if count > size else count}")
    if digest.hexdigest() != sha256:
        raise Refusal(f"{where}: expected sha256 {sha256}, found {digest.hexdigest()}")
