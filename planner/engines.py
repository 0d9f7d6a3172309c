"""What an engine is: it says how its container is started, watched and routed; the core does the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from planner.document import Image, Model
from planner.problems import Problems


@dataclass(frozen=True)
class Start:
    """What an engine needs to know to start a model."""

    model: Model
    image: Image
    mount: str
    devices: tuple[str, ...]

    @property
    def cpu(self) -> bool:
        """Whether the model runs without a GPU."""
        return not self.devices


@dataclass(frozen=True)
class Rendered:
    """One engine's container: words after the entry point, environment (nothing secret), times in seconds."""

    command: list[str]
    environment: dict[str, str]
    health: dict[str, object]
    stop_grace_period: int
    shm_size: str


class Engine(Protocol):
    """What every engine offers; rendering never fails, all mistakes go to `problems`.

    image: its key in redoubt_images unless a model names another; routes: what the gateway may pass;
    request_metrics: gauges that count requests at work and requests that wait, in this order.
    """

    name: str
    image: str
    metrics_path: str
    request_metrics: Sequence[str]
    routes: Sequence[Mapping[str, object]]

    def render(self, start: Start, problems: Problems) -> Rendered:
        """Return the container of a model."""
