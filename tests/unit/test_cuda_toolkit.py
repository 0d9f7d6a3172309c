"""CUDA toolkits side by side: names, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from filter_plugins.cuda_toolkit import cuda_toolkit_refusal
from planner import cuda_toolkit


def facts(loaded: str | None) -> dict[str, Any]:
    return {"driver": {"loaded": loaded}}


def test_names() -> None:
    assert cuda_toolkit.packages(["13.0.2", "12.9"]) == ["cuda-toolkit-13-0=13.0.2-*", "cuda-toolkit-12-9"]
    assert cuda_toolkit.folder("13.0.2") == "/usr/local/cuda-13.0"


def test_what_goes_together() -> None:
    assert cuda_toolkit_refusal(["13.0.2", "12.9"], "12.9", facts("580.126.20")) == []
    assert cuda_toolkit_refusal(["13.0.2"], "", facts(None)) == []


@pytest.mark.parametrize(
    ("versions", "default", "driver", "said"),
    [
        (["13"], "", "580.126.20", "it is no version"),
        (["13.0.1", "13.0.2"], "", "580.126.20", "13.0 is there twice"),
        (["13.0"], "12.9", "580.126.20", "cuda_toolkit_default"),
        (["13.0"], "", "570.211.01", "its programs need driver 580 or newer, loaded is 570.211.01"),
    ],
)
def test_what_is_refused(versions: list[str], default: str, driver: str, said: str) -> None:
    assert said in "\n".join(cuda_toolkit_refusal(versions, default, facts(driver)))
