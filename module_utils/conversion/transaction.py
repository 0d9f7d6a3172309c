"""The work of one conversion: nothing when its result is there, else prove the input, run the job, publish."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts import images
from ansible.module_utils.artifacts.docker_cli import Docker as ImageStore
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import verified
from ansible.module_utils.artifacts.progress import write_json
from ansible.module_utils.artifacts.settling import Settings
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.artifacts.survey import walk
from ansible.module_utils.release_docker import Docker

from .container import PAUSE, OneShot
from .job import IMAGE_MARK, Job
from .result import Made, publish, take

# Below the models' directory, since the result is moved into the store by a rename.
FOLDER = ".converting"


@dataclass(frozen=True)
class Place:
    """Where a host keeps what, and how the work is limited. `user` owns what the container may write to."""

    store: Store
    state: Path
    logs: Path
    progress: Path
    images_file: Path
    reserve_bytes: int
    timeout: float
    user: tuple[int, int]
    allow_pickle: Sequence[str] = ()
    allow_code: Sequence[str] = ()
    pause: float = PAUSE

    def folder(self, job: Job) -> Path:
        """Return the private folder of a job at work."""
        return Path(self.store.models, FOLDER, job.name)

    def record(self, job: Job) -> Path:
        """Return the file that says what became of this very job."""
        return self.state / job.name / f"{job.key}.json"

    def log(self, job: Job) -> Path:
        """Return the file with the job's words."""
        return self.logs / f"{job.name}-{job.key}.log"


def convert(place: Place, job: Job, check: bool) -> dict[str, Any]:
    """Bring a conversion about; tell whether anything changed, and its lock entry. Raises Refusal, OSError."""
    record = read_record(place, job)
    why = "" if record is None else _fault(place, job, record)
    if record is not None and not why:
        return {"changed": False, "state": "present", **_told(place, job, record)}
    if check:
        return {"changed": True, "state": "converted", "name": job.name, "why": why}
    try:
        record = _work(place, job)
    except Refusal as refusal:
        text = f"Nothing of {job.name} was published; models and releases are as they were"
        raise Refusal([f"conversion {job.name}: {refusal.problems[0]}", *refusal.problems[1:], text]) from None
    finally:
        clear(place, job)
    return {"changed": True, "state": "converted", "why": why, **_told(place, job, record)}


def _told(place: Place, job: Job, record: dict[str, Any]) -> dict[str, Any]:
    entry = record["entry"]
    path = place.store.models / job.name / entry["revision"][:12]
    return {"name": job.name, "entry": entry, "path": str(path), "record": str(place.record(job)), "log": record["log"]}


def read_record(place: Place, job: Job) -> dict[str, Any] | None:
    """Return what is written of a job that was done before; None where there is nothing that can be read."""
    try:
        document = json.loads(place.record(job).read_bytes())
        parse_models([{**document["entry"], "name": job.name}], [job.name], [job.name])
    except (OSError, ValueError, KeyError, TypeError, Refusal):
        return None
    return dict(document)


def _fault(place: Place, job: Job, record: dict[str, Any]) -> str:
    """Say what is wrong with the published result, or nothing."""
    models = parse_models([{**record["entry"], "name": job.name}], [job.name], [job.name])
    (verdict,) = verified(place.store, models, Settings(), deep=False)
    return str(verdict["faults"][0]["text"]) if verdict["faults"] else ""


def _work(place: Place, job: Job) -> dict[str, Any]:
    image = _image(place, job)
    _prove_inputs(place, job)
    clear(place, job)  # what a killed run left: its container may still work
    folder = place.folder(job)
    _refuse_small_disk(place, job)
    _prepare(place, job, image)
    begun = _now()
    one_shot = OneShot(Docker(project(job)), job.container, place.log(job))
    one_shot.run(folder, _watch(place, job), place.timeout, place.pause)
    made = take(job, folder / "output", folder / "scratch" / "tools.json", place.allow_pickle, place.allow_code)
    publish(place.store, made, folder / "output")
    return _write_record(place, job, made, begun)


def project(job: Job) -> str:
    """Return a name that Compose takes."""
    return job.container.replace(".", "_")


def _image(place: Place, job: Job) -> str:
    """Return the Id by which the proved image is started: its name may be given to another one meanwhile."""
    docker = ImageStore(60)
    settings = images.Settings(place.images_file, place.progress)
    (verdict,) = images.verified(docker, [job.image], settings)
    if not verdict["ok"]:
        raise Refusal(f"image {verdict['detail']}; bring it with the playbook convert")
    found = docker.inspect([job.image.ref])[job.image.ref]
    if found is None:
        raise Refusal(f"image {job.image.ref} vanished; run again")
    return str(found.id)


def _prove_inputs(place: Place, job: Job) -> None:
    """Hash every byte that goes in: the manifest will vouch for it."""
    # One by one: the same files may go in twice, under two names.
    verdicts = [verified(place.store, [model], Settings(), deep=True)[0] for model in job.inputs]
    texts = [str(fault["text"]) for verdict in verdicts for fault in verdict["faults"]]
    if texts:
        raise Refusal([f"its input is not what the lock says: {texts[0]}", *texts[1:], "The playbook weights mends it"])


def _free(place: Place) -> int:
    disk = os.statvfs(place.store.models)
    return disk.f_bavail * disk.f_frsize


def _refuse_small_disk(place: Place, job: Job) -> None:
    free = _free(place)
    short = job.needed_bytes + place.reserve_bytes - free
    if short > 0:
        raise Refusal(
            f"{place.store.models}: needs {short} more bytes: about {job.needed_bytes} while it works and "
            f"{place.reserve_bytes} to be left free (convert_reserve_bytes), {free} are free"
        )


def _prepare(place: Place, job: Job, image: str) -> None:
    """Make the job's folder: programs that it reads, and two folders that it writes to."""
    folder = place.folder(job)
    folder.mkdir(mode=0o700, parents=True)
    folder.parent.chmod(0o700)
    for name, mode in (("programs", 0o755), ("output", 0o700), ("scratch", 0o700)):
        (folder / name).mkdir()
        (folder / name).chmod(mode)
        if name != "programs" and os.geteuid() == 0:
            os.chown(folder / name, *place.user)
    for name, text in job.programs.items():
        path = folder / "programs" / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o444)
    compose = folder / "compose.yml"
    compose.write_text(job.compose.replace(IMAGE_MARK, image), encoding="utf-8")
    compose.chmod(0o600)


def _watch(place: Place, job: Job) -> Callable[[str], str | None]:
    start = time.monotonic()
    output = place.folder(job) / "output"

    def watch(line: str) -> str | None:
        written = sum(status.st_size for status in walk(output).values())
        seconds = int(time.monotonic() - start)
        document = {"schema": 1, "what": "conversion", "item": job.name, "done_bytes": written, "seconds": seconds}
        document |= {"line": line, "finished": False, "updated": int(time.time())}
        write_json(place.progress, document)
        free = _free(place)
        if free < place.reserve_bytes:
            return (
                f"{place.store.models} has {free} bytes free, less than convert_reserve_bytes ({place.reserve_bytes})"
            )
        return None

    return watch


def _write_record(place: Place, job: Job, made: Made, begun: str) -> dict[str, Any]:
    record = {
        "schema": 1,
        "begun": begun,
        "ended": _now(),
        "log": str(place.log(job)),
        "entry": made.entry,
        "manifest": json.loads(made.manifest),
    }
    # In this order: the entry is written to a file as it is, by this run and by later ones.
    write_json(place.record(job), record, sort_keys=False)
    return record


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def clear(place: Place, job: Job) -> None:
    """Remove the job's container, if one is left, and its folder. Raises Refusal, OSError."""
    docker = Docker(project(job))
    if docker.available():
        OneShot(docker, job.container, place.log(job)).remove()
    if place.folder(job).exists():
        shutil.rmtree(place.folder(job))
    place.progress.unlink(missing_ok=True)
