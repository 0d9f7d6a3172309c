# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters of the playbook keys: the register of issued API keys, changed, judged and told."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

# Ansible loads this file on its own; the project's packages lie beside filter_plugins.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from policy import register as keys
from policy.keys import key_problems


def gateway_keys_changed(
    register: list[dict[str, Any]], verb: str, name: str, digest: str, limits: dict[str, Any], overlap_hours: float
) -> list[dict[str, Any]]:
    """Return the register after `issue`, `rotate` or `revoke` of a client's key. Raises AnsibleFilterError."""
    try:
        if verb == "issue":
            return keys.issue(register, name, digest, limits)
        if verb == "rotate":
            return keys.rotate(register, name, digest, datetime.now(UTC), timedelta(hours=float(overlap_hours)))
        return keys.revoke(register, name)
    except keys.KeyRefused as error:
        raise AnsibleFilterError(str(error)) from None


def gateway_issued_key_problems(
    register: list[dict[str, Any]], given: list[dict[str, Any]], models: list[dict[str, Any]]
) -> list[str]:
    """Return what the gateways would refuse in the register, beside the keys `given` in the vault."""
    return key_problems(given, register, models) if given or register else []


def gateway_key_rows(register: list[dict[str, Any]]) -> list[str]:
    """Return one line for each issued key."""
    return keys.rows(register, datetime.now(UTC)) or ["no key was issued"]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Names of the filters."""
        return {
            "gateway_keys_changed": gateway_keys_changed,
            "gateway_issued_key_problems": gateway_issued_key_problems,
            "gateway_key_rows": gateway_key_rows,
        }
