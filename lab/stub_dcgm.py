"""What a DCGM exporter would say, for tests and for the lab's stub of its image: no GPU and no DCGM are involved.

The form (order of labels, those of MIG instances, what an instance does not have) is that of NVIDIA's exporter 4.8.2,
read from its source; the figures are made up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined

COUNTERS = Path(__file__).parents[1] / "roles/dcgm/templates/counters.csv.j2"
TYPES = ("gauge", "counter", "label")
HEALTH_WATCHES = ("PCIE", "NVLINK", "PMU", "MCU", "MEM", "SM", "INFOROM", "THERMAL", "POWER", "DRIVER", "ALL")
#: Fields of the whole card only: the exporter leaves them out for a MIG instance.
CARD_ONLY = ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_MEM_COPY_UTIL")
#: MiB, MHz, °C, W, mJ, ns and shares; what is not here is 0.
FIGURES = {
    "DCGM_FI_DEV_GPU_UTIL": "87",
    "DCGM_FI_DEV_MEM_COPY_UTIL": "41",
    "DCGM_FI_DEV_FB_FREE": "9559",
    "DCGM_FI_DEV_FB_USED": "71424",
    "DCGM_FI_DEV_FB_RESERVED": "576",
    "DCGM_FI_DEV_SM_CLOCK": "1755",
    "DCGM_FI_DEV_MEM_CLOCK": "2619",
    "DCGM_FI_DEV_GPU_TEMP": "58",
    "DCGM_FI_DEV_MEMORY_TEMP": "66",
    "DCGM_FI_DEV_POWER_USAGE": "512.331000",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": "774238412",
    "DCGM_FI_DEV_POWER_VIOLATION": "91000000000",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": "0.912000",
    "DCGM_FI_PROF_SM_ACTIVE": "0.731000",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": "0.284000",
    "DCGM_FI_PROF_DRAM_ACTIVE": "0.617000",
    "DCGM_FI_PROF_PCIE_TX_BYTES": "1843212",
    "DCGM_FI_PROF_PCIE_RX_BYTES": "2201884",
}


@dataclass(frozen=True)
class Counter:
    """One line of the list of counters."""

    field: str
    type: str
    help: str


@dataclass(frozen=True)
class Card:
    """One GPU; `instances` are its MIG instances as (profile, id), none when MIG is off."""

    uuid: str
    address: str
    product: str = "NVIDIA H100 80GB HBM3"
    instances: Sequence[tuple[str, int]] = ()


PLAIN = (Card("GPU-11111111-aaaa-4aaa-8aaa-000000000000", "00000000:1B:00.0"),)
MIG = (
    Card("GPU-22222222-bbbb-4bbb-8bbb-000000000000", "00000000:43:00.0", instances=(("3g.40gb", 1), ("3g.40gb", 2))),
)


def counters(*, profiling: bool) -> list[Counter]:
    """The role's list of counters. Raises ValueError for a line that the exporter would refuse."""
    environment = Environment(trim_blocks=True, undefined=StrictUndefined, autoescape=False)  # noqa: S701 - no HTML
    template = environment.from_string(COUNTERS.read_text(encoding="utf-8"))
    return parse(template.render(ansible_managed="", dcgm_profiling=profiling, dcgm_extra_counters=[]))


def parse(text: str) -> list[Counter]:
    """A list of counters, as the exporter reads it. Raises ValueError for a line that it would refuse."""
    found = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != 3 or parts[1] not in TYPES:
            raise ValueError(f"no `field, type, help`: {line!r}")
        found.append(Counter(*parts))
    return found


def exposition(listed: Sequence[Counter], cards: Sequence[Card], hostname: str = "stub") -> str:
    """The metrics page of an exporter with these counters and cards."""
    lines: list[str] = []
    for counter in listed:
        if counter.type != "label":
            lines += [f"# HELP {counter.field} {counter.help}", f"# TYPE {counter.field} {counter.type}"]
            for index, card in enumerate(cards):
                lines += _series(counter.field, index, card, hostname)
    return "\n".join(lines) + "\n"


def _series(field: str, index: int, card: Card, hostname: str) -> Iterator[str]:
    of_card = f'gpu="{index}",UUID="{card.uuid}",pci_bus_id="{card.address}",device="nvidia{index}"'
    of_card += f',modelName="{card.product}"'
    end = f'Hostname="{hostname}",DCGM_FI_DRIVER_VERSION="580.126.20"'
    # Health is watched per card, with or without MIG.
    whole = not card.instances or field == "DCGM_EXP_GPU_HEALTH_STATUS"
    if not whole and field in CARD_ONLY:
        return
    entities = [""] if whole else [f'GPU_I_PROFILE="{name}",GPU_I_ID="{number}",' for name, number in card.instances]
    for entity in entities:
        for more in _own_labels(field):
            value = "10" if "gpu_idle" in more else FIGURES.get(field, "0")
            yield f"{field}{{{of_card},{entity}{end}{more}}} {value}"


def _own_labels(field: str) -> list[str]:
    """The labels that only this field has, once for each of its series."""
    if field == "DCGM_EXP_GPU_HEALTH_STATUS":
        return [f',health_error_code="DCGM_FR_OK",health_watch="{watch}"' for watch in HEALTH_WATCHES]
    if field == "DCGM_EXP_CLOCK_EVENTS_COUNT":
        return [',clock_event="gpu_idle",window_size_in_ms="300000"']
    if field == "DCGM_EXP_XID_ERRORS_COUNT":
        return [',window_size_in_ms="300000"']
    if field == "DCGM_FI_DEV_XID_ERRORS":
        return [',err_code="0",err_msg="No Error"']
    return [""]
