"""The engines of this release by name."""

from __future__ import annotations

from collections.abc import Mapping

from planner.engines import Engine
from planner.vllm import Vllm

ENGINES: Mapping[str, Engine] = {engine.name: engine for engine in (Vllm(),)}

# Engines that a later release brings: refused by name, so that nobody looks for a spelling mistake.
NOT_YET = ("llamacpp", "sglang", "tgi", "trtllm")
