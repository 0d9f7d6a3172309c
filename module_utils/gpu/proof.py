"""What a container sees of the GPUs that it was given, compared with what it was to be given."""

from __future__ import annotations

import re
from typing import NamedTuple

GPU = re.compile(r"^GPU\s+(\d+):.*\(UUID:\s+(GPU-[^)\s]+)\)")
MIG = re.compile(r"^\s+MIG\s+\S+\s+Device\s+(\d+):\s+\(UUID:\s+(MIG-[^)\s]+)\)")


class Listing(NamedTuple):
    """What `nvidia-smi -L` lists: GPUs and MIG devices by UUID, each with its CDI name by index."""

    gpus: dict[str, str]
    mig: dict[str, str]
    #: GPUs that are divided; they are no devices of their own.
    divided: frozenset[str]


def listing(text: str) -> Listing:
    """Read the answer of `nvidia-smi -L`."""
    gpus: dict[str, str] = {}
    mig: dict[str, str] = {}
    divided = set()
    for line in text.splitlines():
        whole, part = GPU.match(line), MIG.match(line)
        if whole:
            gpus[whole[2]] = whole[1]
        elif part and gpus:
            last = list(gpus)[-1]
            divided.add(last)
            mig[part[2]] = f"{gpus[last]}:{part[1]}"
    return Listing(gpus, mig, frozenset(divided))


def compare(host: Listing, inside: Listing, planned: list[str]) -> str:
    """Why the container does not see exactly the planned devices (CDI names); empty when it does."""
    names = {name: uuid for uuid, name in [*host.gpus.items(), *host.mig.items()]}
    wanted = {names.get(device, device) for device in planned}
    seen = {*inside.mig, *(uuid for uuid in inside.gpus if uuid not in host.divided)}
    missing, extra = wanted - seen, seen - wanted
    known = {**host.gpus, **host.mig}
    texts = []
    if missing:
        visible = len(wanted) - len(missing)
        texts.append(f"{visible} of {len(wanted)} GPUs are visible, missing: {_list(missing, known)}")
    if extra:
        texts.append(f"visible, but not planned: {_list(extra, known)}")
    return "; ".join(texts)


def _list(uuids: set[str], known: dict[str, str]) -> str:
    here = sorted(f"{known[uuid]} ({uuid})" for uuid in uuids if uuid in known)
    return ", ".join([*here, *(f"{uuid} (not on the host either)" for uuid in sorted(uuids - set(known)))])
