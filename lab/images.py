"""Everything that the lab builds: what is missing is built, what is there is reused, and the lock file lists it."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import json
import shutil
import threading
from collections.abc import Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import docker
import yaml
from docker.errors import APIError, ImageNotFound

from lab import (
    archive,
    debian,
    paths,
    recipe_host,
    recipe_model,
    recipe_monitoring,
    recipe_stub_dcgm,
    recipe_stub_engine,
    recipe_stub_nvidia,
    recipe_vllm,
)
from lab.archive import Image
from lab.errors import LabError
from lab.recipe_model import ModelRecord
from lab.report import Report
from lab.tools import file_lock, terminable, write_private

PLATFORMS = tuple(recipe_host.SUITES)
#: Images that need no other unit, with their recipes; `inputs` of one tells what it uses besides Debian's packages.
SMALL: dict[str, ModuleType] = {
    "monitoring": recipe_monitoring,
    "stub-dcgm": recipe_stub_dcgm,
    "stub-engine": recipe_stub_engine,
}
#: What can be built, by name.
UNITS = (*(f"host-{platform}" for platform in PLATFORMS), *SMALL, "vllm", "model", "stub-nvidia")
#: What `build` makes when not told otherwise: the second platform and the stubs only on demand.
DEFAULT = ("host-debian13", "monitoring", "vllm", "model")
#: What the tests need.
TESTS = (*DEFAULT, "stub-dcgm", "stub-engine")
IMAGES = paths.MEDIA / "images"
HEADER = "# What the lab has built, by digest. Written by the lab: do not edit.\n"


@dataclass(frozen=True)
class Lock:
    """What is on the medium: images by their name in the lock file, and models."""

    path: Path
    images: dict[str, Image]
    models: dict[str, ModelRecord]

    def document(self) -> dict[str, Any]:
        """The content of the lock file."""
        return {
            "redoubt_images": {name: image.as_dict() for name, image in self.images.items()},
            "redoubt_model_locks": {name: record.as_dict() for name, record in self.models.items()},
        }


def build(report: Report, only: Iterable[str] | None = None) -> Lock:
    """Build what is missing of ``only`` (all but the second platform's hosts), and write the lock file.

    Raises LabError with what failed; what was finished by then is kept.
    """
    wanted = list(DEFAULT if only is None else only)
    unknown = sorted(set(wanted) - set(UNITS))
    if unknown:
        raise LabError(f"the lab builds no {', '.join(unknown)}; it builds {', '.join(UNITS)}")
    if _missing(wanted):
        with terminable(), file_lock("images"):
            missing = _missing(wanted)
            if missing:
                _build(missing, report)
    return write_lock()


def read_lock() -> Lock:
    """What is on the medium now."""
    images: dict[str, Image] = {}
    models: dict[str, ModelRecord] = {}
    for unit in ("vllm", *SMALL):
        images.update({name: Image(**plain) for name, plain in (_current(unit) or {}).get("images", {}).items()})
    for name, plain in (_current("model") or {}).get("models", {}).items():
        models[name] = ModelRecord.from_dict(name, plain)
    return Lock(paths.LOCK_FILE, images, models)


def write_lock() -> Lock:
    """Write the lock file where it differs from what is on the medium."""
    lock = read_lock()
    text = HEADER + yaml.safe_dump(lock.document(), sort_keys=False, width=200)
    if not paths.LOCK_FILE.exists() or paths.LOCK_FILE.read_text(encoding="utf-8") != text:
        write_private(paths.LOCK_FILE, text)
        paths.LOCK_FILE.chmod(0o644)
    return lock


def listing() -> list[tuple[str, str, int]]:
    """Each thing the lab can build, with its state and the bytes it takes."""
    rows = []
    for unit in UNITS:
        record = _current(unit)
        files = _files(unit, record) if record else {}
        rows.append((unit, "built" if record else "missing", sum(files.values())))
    return rows


def host_image(client: docker.DockerClient, platform: str, report: Report) -> str:
    """The name of the image for hosts of this platform, built and loaded into the engine where needed."""
    unit = f"host-{platform}"
    build(report, [unit])
    record = _current(unit)
    if record is None:
        raise LabError(f"the image {unit} vanished while it was being loaded: try again")
    image = Image(**record["images"][unit])
    name = f"{image.name}:{image.tag}"
    with file_lock(f"load-{unit}"):
        try:
            client.images.get(image.config_digest).tag(image.name, image.tag)
        except ImageNotFound:
            archive_file = paths.HOST_IMAGES / image.archive
            with report.phase(f"Load the host image for {platform}"), archive_file.open("rb") as handle:
                client.images.load(handle)
        for other in client.images.list(image.name):
            # An older one: it stays as long as a host uses it.
            if other.id != image.config_digest:
                _untag(client, other.tags)
    return name


def remove(client: docker.DockerClient | None) -> None:
    """Remove all that was built, also from the engine. Hosts must be gone before."""
    with file_lock("images"):
        for folder in (paths.MEDIA, paths.HOST_IMAGES, paths.WORK, paths.STATE / "built"):
            shutil.rmtree(folder, ignore_errors=True)
        paths.LOCK_FILE.unlink(missing_ok=True)
        if client is None:
            return
        for platform in PLATFORMS:
            for image in client.images.list(f"redoubt.lab/host-{platform}"):
                _untag(client, image.tags)


def _untag(client: docker.DockerClient, tags: Iterable[str]) -> None:
    """Remove images that no container uses, of this checkout or another."""
    for tag in tags:
        with contextlib.suppress(APIError):
            client.images.remove(tag)


def key_of(*parts: str) -> str:
    """The key of something made from these inputs: no two different lists of parts share one."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def meaning(source: str) -> str:
    """Python source without comments and layout: changing those makes nothing different."""
    return ast.dump(ast.parse(source))


def key(unit: str) -> str:
    """The key of what this unit would be if it were built now."""
    if unit.startswith("host-"):
        parts = [unit, _source(recipe_host), *debian.machine_options()]
    elif unit in SMALL:
        recipe = SMALL[unit]
        parts = [unit, _source(recipe), *(recipe.inputs() if hasattr(recipe, "inputs") else ())]
    elif unit == "stub-nvidia":
        parts = [unit, _source(recipe_stub_nvidia), *recipe_stub_nvidia.inputs()]
    elif unit == "vllm":
        parts = [unit, _source(recipe_vllm), recipe_vllm.PINS.read_text(encoding="utf-8")]
    else:
        files = (recipe_vllm.PINS, recipe_model.PINS, recipe_model.CONVERT)
        parts = [unit, _source(recipe_model), *(path.read_text(encoding="utf-8") for path in files)]
    return key_of(str(archive.FORMAT), *parts)


def _source(module: ModuleType) -> str:
    return meaning(inspect.getsource(module))


def _missing(wanted: Iterable[str]) -> list[str]:
    return [unit for unit in UNITS if unit in wanted and _current(unit) is None]


def _current(unit: str) -> dict[str, Any] | None:
    """The record of a unit that is built, from today's inputs, with all its files there; else None."""
    try:
        record: dict[str, Any] = json.loads(_record_file(unit).read_text(encoding="utf-8"))
        whole = record["key"] == key(unit) and all(
            path.stat().st_size == size for path, size in _files(unit, record).items()
        )
    except (OSError, ValueError, KeyError):
        return None
    return record if whole else None


def _files(unit: str, record: dict[str, Any]) -> dict[Path, int]:
    """The files that a record stands for, with their sizes."""
    folder = paths.HOST_IMAGES if unit.startswith("host-") else IMAGES
    found = {folder / plain["archive"]: int(plain["size"]) for plain in record.get("images", {}).values()}
    for name, plain in record.get("models", {}).items():
        for file in plain["files"]:
            found[paths.MEDIA / "models" / name / file["path"]] = int(file["size"])
    for name, size in record.get("files", {}).items():
        found[paths.MEDIA / recipe_stub_nvidia.FOLDER / name] = int(size)
    return found


def _record_file(unit: str) -> Path:
    return paths.STATE / "built" / f"{unit}.json"


def _build(missing: list[str], report: Report) -> None:
    """Build these units, at the same time where they do not need each other."""
    shutil.rmtree(paths.WORK, ignore_errors=True)
    for folder in (paths.WORK, paths.HOST_IMAGES, IMAGES):
        folder.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    if "model" in missing and "vllm" not in missing and _current("vllm") is None:
        missing = ["vllm", *missing]
    # Taken before the work begins: what is edited meanwhile must not pass for built.
    keys = {unit: key(unit) for unit in missing}
    try:
        with ThreadPoolExecutor(max_workers=8, thread_name_prefix="lab-build") as pool:
            try:
                done, _ = wait(_submit(pool, keys, report, stop), return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:
                # Something failed, or we were interrupted: end what still runs, and wait for it.
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        shutil.rmtree(paths.WORK, ignore_errors=True)


def _submit(pool: ThreadPoolExecutor, keys: dict[str, str], report: Report, stop: threading.Event) -> list[Future[Any]]:
    """Start all builds, the longest first. A build that needs another's result waits for it in its own thread."""
    work = paths.WORK
    futures: list[Future[Any]] = []
    if "vllm" in keys:
        site = pool.submit(recipe_vllm.tree, work / "site", report, stop)
        root = pool.submit(recipe_vllm.base, work / "vllm.root", report, stop)
        futures += [site, root, pool.submit(_build_vllm, keys["vllm"], site, root, report)]
    elif "model" in keys:
        built = read_lock().images["vllm"]
        site = pool.submit(recipe_vllm.unpack, IMAGES / built.archive, work / "site", report)
        futures.append(site)
    if "model" in keys:
        futures.append(pool.submit(_build_model, keys["model"], site, report, stop))
    futures += [pool.submit(_build_small, unit, keys[unit], report, stop) for unit in SMALL if unit in keys]
    if "stub-nvidia" in keys:
        futures.append(pool.submit(_build_stub_nvidia, keys["stub-nvidia"], report, stop))
    for unit, unit_key in keys.items():
        if unit.startswith("host-"):
            futures.append(pool.submit(_build_host, unit, unit_key, report, stop))
    return futures


def _build_host(unit: str, unit_key: str, report: Report, stop: threading.Event) -> None:
    target = paths.HOST_IMAGES / f"{unit}-{unit_key[:8]}.tar"
    image = recipe_host.build(unit.removeprefix("host-"), unit_key, target, paths.WORK, report, stop)
    _keep(unit, unit_key, {unit: image})


def _build_small(unit: str, unit_key: str, report: Report, stop: threading.Event) -> None:
    _keep(unit, unit_key, SMALL[unit].build(IMAGES, unit_key, paths.WORK, report, stop))


def _build_stub_nvidia(unit_key: str, report: Report, stop: threading.Event) -> None:
    files = recipe_stub_nvidia.build(paths.MEDIA / recipe_stub_nvidia.FOLDER, paths.WORK, report, stop)
    write_private(_record_file("stub-nvidia"), json.dumps({"key": unit_key, "files": files}) + "\n")


def _build_vllm(unit_key: str, site: Future[Path], root: Future[Path], report: Report) -> None:
    tag = f"{recipe_vllm.VERSION}-{unit_key[:8]}"
    packages, base = site.result(), root.result()
    command = recipe_vllm.command_layer(paths.WORK / "vllm-command")
    total = base.stat().st_size + sum(path.stat().st_size for path in packages.rglob("*") if path.is_file())

    def progress(done: int) -> None:
        report.progress(done // 1_000_000, total // 1_000_000, "MB")

    with report.phase("Write the vLLM image"):
        image = recipe_vllm.assemble(IMAGES / f"vllm-cpu-{tag}.tar", base, packages, command, tag, progress)
    _keep("vllm", unit_key, {"vllm": image})


def _build_model(unit_key: str, site: Future[Path], report: Report, stop: threading.Event) -> None:
    made = recipe_model.build(site.result(), paths.WORK, report, stop)
    record = {"key": unit_key, "models": {made.name: made.as_dict()}}
    write_private(_record_file("model"), json.dumps(record) + "\n")


def _keep(unit: str, unit_key: str, made: dict[str, Image]) -> None:
    """Write down what was built, and remove the archives that it takes the place of."""
    old: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        old = json.loads(_record_file(unit).read_text(encoding="utf-8"))
    record = {"key": unit_key, "images": {name: image.as_dict() for name, image in made.items()}}
    write_private(_record_file(unit), json.dumps(record) + "\n")
    for path in _files(unit, old).keys() - _files(unit, record).keys():
        path.unlink(missing_ok=True)
