"""What the tests on a machine with GPUs look at: our facts, and NVIDIA's library as a second witness."""

from __future__ import annotations

import os
from typing import Any

import pytest

from module_utils.gpu.facts import gather
from module_utils.gpu.host import ADMIN_PATH, Host
from tests.gpu.nvml import Nvml


@pytest.fixture(scope="session")
def facts() -> dict[str, Any]:
    """redoubt_gpu of this machine."""
    return gather(Host("/", f"{os.environ.get('PATH', '')}:{ADMIN_PATH}"))


@pytest.fixture(scope="session")
def nvml() -> Nvml:
    """The library. Without one there is nothing to compare with."""
    try:
        return Nvml()
    except OSError as error:
        pytest.skip(f"NVIDIA's library is not installed: {error}")


@pytest.fixture(scope="session")
def witness(nvml: Nvml) -> dict[str, dict[str, Any]]:
    """What the library says of each GPU."""
    if nvml.code != 0:
        pytest.skip(f"NVIDIA's library does not start (code {nvml.code})")
    rows = nvml.gpus()
    assert rows, "NVIDIA's library starts and knows no GPU"
    return rows
