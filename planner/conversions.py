"""Conversions: from what an operator wrote to one-shot containers. The kinds are in data/conversions.yml. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from planner import conversion_options, entries, fields
from planner.artifacts import Artifacts
from planner.document import Conversion, Document, Host, Lock, Resources
from planner.problems import Problems

_VARIABLE = "redoubt_conversions"
_PYTHON = fields.Pattern(re.compile(r"(?:/[\w./-]+/)?python3(?:\.\d+)?"), "it is not a Python", "write python3.11")
_SHM = "1g"
# Nothing is asked of anybody, and what programs keep for later goes to the job's own folder.
_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HOME": "/scratch/huggingface",
    "HF_HUB_OFFLINE": "1",
    "HOME": "/scratch",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "TMPDIR": "/scratch",
    "TRANSFORMERS_OFFLINE": "1",
    "USER": "nobody",
}


@cache
def kinds() -> Mapping[str, Mapping[str, Any]]:
    """Return the kinds by name."""
    text = (Path(__file__).parent / "data/conversions.yml").read_text(encoding="utf-8")
    loaded: Mapping[str, Mapping[str, Any]] = yaml.safe_load(text)
    return loaded


def parse(raw: object, problems: Problems) -> tuple[Conversion, ...]:
    """Read redoubt_conversions; mistakes go to `problems`."""
    if raw is None:
        return ()
    if not isinstance(raw, list | tuple):
        problems.add(_VARIABLE, "it is not a list", "write a list of conversions", raw)
        return ()
    found: dict[str, Conversion] = {}
    for index, entry in enumerate(raw):
        made = _one(entry, f"{_VARIABLE}[{index}]", problems)
        if made is not None and made.name in found:
            why = f"the name is already used by {found[made.name].where}"
            problems.add(f"{made.where}.name", why, "give each result its own name", made.name)
        elif made is not None:
            found[made.name] = made
    return tuple(found.values())


def _one(raw: object, where: str, problems: Problems) -> Conversion | None:
    if not isinstance(raw, Mapping):
        problems.add(where, "a conversion is a mapping", "write `- name: …` with its fields", raw)
        return None
    name = fields.text(raw, "name", where, problems, pattern=fields.MODEL_NAME)
    origin = fields.text(raw, "from", where, problems, pattern=fields.MODEL_NAME)
    kind = fields.text(raw, "kind", where, problems)
    if kind is not None and kind not in kinds():
        conversion_options.unknown(f"{where}.kind", "there is no such kind", kind, sorted(kinds()), kind, problems)
        return None
    if name is None or origin is None or kind is None:
        return None
    if name == origin:
        problems.add(f"{where}.name", "the result would replace its own input", "give the result another name", name)
    there = f"{where}.resources"
    limits = fields.mapping(raw, "resources", there, problems)
    resources = Resources(
        cpus=fields.number(limits, "cpus", there, problems),
        memory=fields.text(limits, "memory", there, problems, pattern=fields.SIZE, optional=True),
        shm_size=fields.text(limits, "shm_size", there, problems, pattern=fields.SIZE, optional=True),
    )
    return Conversion(
        where=where,
        name=name,
        origin=origin,
        kind=kind,
        image=fields.text(raw, "image", where, problems, optional=True),
        gpus=_gpus(raw.get("gpus"), kind, f"{where}.gpus", problems),
        options=fields.mapping(raw, "options", f"{where}.options", problems),
        python=fields.text(raw, "python", where, problems, pattern=_PYTHON, optional=True) or "python3",
        resources=resources,
    )


def _gpus(raw: object, kind: str, where: str, problems: Problems) -> tuple[str, ...]:
    needed = kinds()[kind]["gpus"]
    listed = raw if isinstance(raw, list | tuple) and all(isinstance(gpu, int | str) for gpu in raw) else None
    if needed == "none" and raw:
        problems.add(where, f"{kind} works without a GPU", "remove it", raw)
    elif needed != "none" and (listed is None or (needed == "some" and not listed)):
        slow = "" if needed == "some" else ", or [] for the CPU (slow)"
        fix = f'name GPUs that serve nothing, such as [0] or ["GPU-…"]{slow}'
        problems.add(where, f"{kind} takes GPUs, and none from engines by itself", fix, raw)
    return tuple(dict.fromkeys(str(gpu) for gpu in listed or ()))


def plan(
    document: Document, host: Host, served: Mapping[str, Sequence[str]], root: str, problems: Problems
) -> list[dict[str, Any]]:
    """Return the conversions of a host; `served`: the devices of each engine there; `root`: where models are."""
    # Apart from what the host needs for serving: these images and weights come when somebody converts.
    artifacts = Artifacts(document, problems)
    made = []
    for job in host.conversions:
        entry = _entry(job, document, artifacts, problems)
        if entry is not None:
            _check_gpus(job, entry["devices"], document, host, served, problems)
            entry["inputs"] = [
                {**one, "path": f"{root}/{one['name']}/{one['revision'][:12]}"} for one in entry["inputs"]
            ]
            made.append(entry)
    artifacts.warn_of_unknown_digests()
    return made


def _entry(job: Conversion, document: Document, artifacts: Artifacts, problems: Problems) -> dict[str, Any] | None:
    kind = kinds()[job.kind]
    options = conversion_options.chosen(job.kind, kind["options"], job.options, f"{job.where}.options", problems)
    key = job.image or str(kind["image"])
    image = artifacts.image(key, f"{job.where}.image")
    origin = _input(job.origin, f"{job.where}.from", document, artifacts, problems)
    result = document.locks.get(job.name)
    if result is not None and result.repo:
        why = f"that is the name of a model of a hub ({result.repo})"
        problems.add(f"{job.where}.name", why, "give the result a name of its own", job.name)
    if origin is not None and not any(str(file["path"]).endswith(tuple(kind["takes"])) for file in origin.files):
        why = f"{job.kind} takes {' or '.join(kind['takes'])} files, and the lock of {job.origin} has none"
        problems.add(f"{job.where}.from", why, "name a model that has them", job.origin)
    calibration = None
    wanted = options.pop("calibration", None)
    if wanted is not None:
        calibration = _input(str(wanted), f"{job.where}.options.calibration", document, artifacts, problems)
    elif options.get("scheme") in kind.get("calibrated", ()):
        where = f"{job.where}.options.calibration"
        fix = "lock a folder with *.jsonl files (weights_lock), and write its name"
        problems.add(where, f"scheme {options['scheme']} measures activations on data", fix)
    if image is None or origin is None:
        return None
    devices = list(job.gpus)
    fixed = dict(kind.get("fixed", {}))
    if job.kind == "gguf":
        fixed["name"] = job.name
    if job.kind == "trtllm":
        fixed["gpus"] = len(devices)
    if calibration is not None:
        fixed["calibrate"] = True
    inputs = [{**entries.weights_entry(origin), "mount": "/input"}]
    if calibration is not None:
        inputs.append({**entries.weights_entry(calibration), "mount": "/calibration"})
    return {
        "name": job.name,
        "kind": job.kind,
        "container": f"redoubt-convert-{job.name}",
        "image": entries.image_entry(image),
        "inputs": inputs,
        "programs": ["common.py", kind["program"]],
        "entrypoint": [job.python],
        "command": [f"/programs/{kind['program']}", *conversion_options.words(fixed | options)],
        "environment": dict(_ENVIRONMENT),
        "devices": devices,
        "resources": {
            "cpus": job.resources.cpus,
            "memory": job.resources.memory,
            "shm_size": job.resources.shm_size or _SHM,
        },
        "gives": kind["gives"],
        "needed_bytes": int(origin.total_size * kind["disk"]),
        "license": origin.license,
    }


def _input(name: str, where: str, document: Document, artifacts: Artifacts, problems: Problems) -> Lock | None:
    lock = document.locks.get(name)
    if lock is None:
        listed = ", ".join(sorted(document.locks)) or "none"
        why = f"it has no entry in redoubt_model_locks (there are: {listed})"
        problems.add(where, why, "lock it first (playbook weights_lock), or name one of those", name)
        return None
    artifacts.judge_placeholders(lock)
    return lock


def _check_gpus(
    job: Conversion,
    devices: Sequence[str],
    document: Document,
    host: Host,
    served: Mapping[str, Sequence[str]],
    problems: Problems,
) -> None:
    """A GPU that serves a model is taken from it only where the host is drained."""
    known = host.gpus if host.gpus is not None else document.facts.gpus
    count = len(known) if isinstance(known, tuple) else known
    for device in devices:
        where = f"{job.where}.gpus"
        if count is not None and device.isdecimal() and int(device) >= count:
            problems.add(where, f"the host has no GPU {device}", f"name some of its {count} GPUs", list(devices))
        owner = next((name for name, own in served.items() if device in own), None)
        if owner is not None and host.name not in document.drained:
            fix = f"name a GPU that serves nothing, or drain the host first (playbook drain, -e drain_host={host.name})"
            problems.add(where, f"GPU {device} serves model {owner}", fix, list(devices))
