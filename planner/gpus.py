"""Which model gets which GPUs of one host: lists first, then counts in order, then the one `auto`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planner import mig
from planner.document import Model
from planner.problems import Problems


def assign(
    models: Sequence[Model],
    known: int | tuple[str, ...] | None,
    problems: Problems,
    *,
    later: bool = False,
    layout: Sequence[mig.Entry] = (),
) -> Mapping[str, tuple[str, ...]]:
    """Return model name -> devices (indexes or UUIDs; empty = CPU).

    `known`: the host's GPUs as a count or as UUIDs, None = not known; then counts are numbered from 0 upwards and
    only `auto` cannot be answered, which is a problem unless the answer comes `later`. A GPU never goes to two models.
    `layout`: MIG devices, named GPU:NUMBER, take the place of the GPUs that it divides; a model gets one at most.
    """
    present = None if known is None else mig.names(layout, known)
    owners: dict[str, str] = {}
    given: dict[str, tuple[str, ...]] = {}
    for model in models:
        if isinstance(model.gpus, tuple):
            given[model.name] = _listed(model, model.gpus, known, present, owners, problems)
    mixed = any(_named_elsewhere(device, known) for device in owners)
    for model in models:
        if isinstance(model.gpus, int):
            given[model.name] = _counted(model, model.gpus, present, mixed, owners, problems)
    _automatic([model for model in models if model.gpus == "auto"], present, mixed, owners, given, problems, later)
    for model in models:
        _check_mig(model, given[model.name], problems)
    return given


def _check_mig(model: Model, devices: Sequence[str], problems: Problems) -> None:
    """A process uses one MIG device, the first that it sees (NVIDIA MIG user guide, "CUDA device enumeration")."""
    if len(devices) > 1 and any(_is_mig(device) for device in devices):
        why = f"it would get {', '.join(devices)}, and an engine can use one MIG device, alone"
        fix = 'write 1, or name one device, such as ["0:0"]'
        problems.add(f"{model.where}.gpus", why, fix, "auto" if model.gpus == "auto" else len(devices))


def _named_elsewhere(device: str, known: int | tuple[str, ...] | None) -> bool:
    """Whether a device's name tells nothing of its place, so that it might be counted a second time."""
    return device.startswith("MIG-") or not (device.replace(":", "").isdecimal() or isinstance(known, tuple))


def _is_mig(device: str) -> bool:
    return device.startswith("MIG-") or ":" in device


def _listed(
    model: Model,
    wanted: tuple[str, ...],
    known: int | tuple[str, ...] | None,
    present: tuple[str, ...] | None,
    owners: dict[str, str],
    problems: Problems,
) -> tuple[str, ...]:
    where = f"{model.where}.gpus"
    devices: list[str] = []
    for gpu in wanted:
        # One name per GPU: an index of a host whose UUIDs are known is written as the UUID.
        device = known[int(gpu)] if isinstance(known, tuple) and gpu.isdecimal() and int(gpu) < len(known) else gpu
        # UUIDs of MIG devices are only known once the driver has made them.
        by_place = device.replace(":", "").isdecimal() or (isinstance(known, tuple) and not device.startswith("MIG-"))
        missing = present is not None and device not in present and by_place
        if missing:
            problems.add(where, f"the host has no GPU {gpu}", f"name GPUs of {_listing(present)}", list(wanted))
        elif device in owners:
            why = f"GPU {gpu} already belongs to model {owners[device]}"
            problems.add(where, why, "give each GPU to one model", list(wanted))
        owners.setdefault(device, model.name)
        devices.append(device)
    return tuple(devices)


def _counted(
    model: Model,
    count: int,
    present: tuple[str, ...] | None,
    mixed: bool,
    owners: dict[str, str],
    problems: Problems,
) -> tuple[str, ...]:
    if count == 0:
        return ()
    where = f"{model.where}.gpus"
    if mixed:
        why = "counts cannot be combined with UUIDs of another model while the host's GPUs are not known"
        problems.add(where, why, "give this model a list too, or list the UUIDs in preflight_gpus", count)
        return ()
    if present is None:
        free: list[str] = []
        index = 0
        while len(free) < min(count, 1024):
            if str(index) not in owners:
                free.append(str(index))
            index += 1
    else:
        free = [device for device in present if device not in owners]
    if count > len(free):
        total = "no GPU" if not present else f"{len(present)} GPUs, {len(free)} of them still free"
        why = f"the model wants {count} GPUs, the host has {total}"
        problems.add(where, why, "lower the count, move a model to another host, or write 0 for the CPU", count)
    devices = tuple(free[:count])
    owners.update(dict.fromkeys(devices, model.name))
    return devices


def _automatic(
    models: Sequence[Model],
    present: tuple[str, ...] | None,
    mixed: bool,
    owners: dict[str, str],
    given: dict[str, tuple[str, ...]],
    problems: Problems,
    later: bool,
) -> None:
    if not models:
        return
    for model in models[1:]:
        why = f"only one model per host can be `auto`, and {models[0].name} is"
        problems.add(f"{model.where}.gpus", why, "write a count", "auto")
    first = models[0]
    given.update({model.name: () for model in models})
    if present is None and later:
        return
    if present is None:
        why = "`auto` needs to know the host's GPUs"
        problems.add(f"{first.where}.gpus", why, "write a count, or set preflight_gpus for the host", "auto")
        return
    free = tuple(device for device in present if device not in owners)
    if not free and present:
        problems.add(f"{first.where}.gpus", "no GPU of the host is left for `auto`", "write counts", "auto")
    elif not free or mixed:
        problems.warn(f"model {first.name}: the host has no free GPU, so it runs on the CPU")
    else:
        given[first.name] = free


def _listing(present: tuple[str, ...] | None) -> str:
    return ", ".join(present) if present else "the host (it has none)"
