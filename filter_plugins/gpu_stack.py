"""Filters of the driver role: its decisions, and why a restart is needed.

The decisions are made in the package `planner`, so that they can be used and tested without Ansible.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from module_utils.gpu.ready import reboot_reasons, unbuilt
from planner import gpu_stack
from planner.driver_table import branch_of
from planner.driver_wishes import wishes
from planner.problems import Problem


def nvidia_driver_stack(
    gpu: Mapping[str, Any], host: Mapping[str, Any], variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the decisions (planner.gpu_stack.Stack) as plain data: problems as lines, files and probes for config_set.

    gpu: redoubt_gpu; host: Ansible's facts; variables: the role's variables, others are not looked at.
    """
    made = gpu_stack.stack(gpu, host, wishes(variables), datetime.now(UTC).date())
    plain = {one.name: _plain(getattr(made, one.name)) for one in fields(made)}
    files = [{"path": path, "content": text} for path, text in plain["files"].items() if text]
    absent = [path for path, text in plain["files"].items() if not text]
    return plain | {"files": files, "absent": absent, "probes": [{"unit": unit} for unit in plain["units"]]}


def nvidia_driver_reboot_reasons(gpu: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return why the planned driver can take the GPUs only after a restart."""
    return reboot_reasons(dict(gpu), dict(expected))


def nvidia_driver_unbuilt(gpu: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Return why the host must not be restarted into the wanted kernel; empty where it may."""
    return unbuilt(dict(gpu), dict(expected))


def nvidia_driver_problems(settings: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the role's settings whatever the host is, as "VARIABLE: why - fix"."""
    version = settings.get("nvidia_driver_version")
    if isinstance(version, str) and branch_of(version) is None:
        why = f"{version!r} is no driver version; the set is installed in one exact version"
        return [f"nvidia_driver_version: {why} - write a whole version, such as 580.126.20"]
    return []


def _plain(value: Any) -> Any:
    if isinstance(value, Problem):
        return value.text()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int) or value is None else str(value)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "nvidia_driver_problems": nvidia_driver_problems,
            "nvidia_driver_reboot_reasons": nvidia_driver_reboot_reasons,
            "nvidia_driver_stack": nvidia_driver_stack,
            "nvidia_driver_unbuilt": nvidia_driver_unbuilt,
        }
