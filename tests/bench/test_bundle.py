"""A bundle of some gigabytes against cp, rsync and tar | zstd of the same bytes in the same run, and its memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.reading import hash_from_disk
from ansible.module_utils.lock.document import sealed

from tests.bench.results import record
from tests.support.bundles import depot_at, key_pair
from tests.support.lock_documents import make
from tests.support.programs import client
from tests.support.site import REPOSITORY

MIB = 1024 * 1024
FILES = {f"model-{number:05d}-of-00004.safetensors": 512 * MIB for number in range(1, 5)}
SMALL = 1000
LEAST_VERIFY, LEAST_IMPORT = 0.9, 0.8
MOST_MEMORY = 300 * MIB
RUNS = 3

CHILD = """
import json, resource, sys, time
from pathlib import Path
from cli.shared_code import share
share()
from ansible.module_utils.bundle.building import Wishes, build
from ansible.module_utils.bundle.checking import verify
from ansible.module_utils.bundle.importing import bring
from ansible.module_utils.bundle.signing import sign
from ansible.module_utils.depot.depot import Depot
folder = Path(sys.argv[2])
start = time.monotonic()
if sys.argv[1] == "build":
    built = build(Depot(folder / "near"), json.loads((folder / "lock.json").read_text()), folder / "medium", Wishes())
elif sys.argv[1] == "verify":
    assert verify(folder / "medium", [folder / "operator.pub"]).exit_code == 0
else:
    bring(folder / "medium", Depot(folder / "far"), [folder / "operator.pub"])
seconds = time.monotonic() - start
if sys.argv[1] == "build":
    sign(folder / "medium", built.manifest, folder / "operator.key")
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def material(folder: Path) -> int:
    """A depot with four large and many small files, and its lock; the number of bytes."""
    lock, contents = make()
    body = {key: value for key, value in lock.items() if key not in ("schema", "site", "serial", "digest")}
    near = depot_at(folder / "near", contents)
    model = body["models"]["smollm2-135m-instruct"]
    for path, size in FILES.items():
        digest, target = hashlib.sha256(), folder / "bytes"
        with target.open("wb") as stream:
            for _ in range(size // (16 * MIB)):
                data = os.urandom(16 * MIB)
                digest.update(data)
                stream.write(data)
        near.add_blob(target, digest.hexdigest(), size)
        target.unlink()
        model["files"].append({"path": path, "sha256": digest.hexdigest(), "size": size})
    for number in range(SMALL):
        data = os.urandom(100_000)
        sha256 = hashlib.sha256(data).hexdigest()
        near.add_blob(BytesIO(data), sha256, len(data))
        model["files"].append({"path": f"small/{number}", "sha256": sha256, "size": len(data)})
    model["total_size"] = sum(row["size"] for row in model["files"])
    document = sealed(body, lock["site"])
    (folder / "lock.json").write_text(json.dumps(document))
    key_pair(folder, "operator")
    return int(model["total_size"])


def forget(folder: Path) -> None:
    """Let the kernel forget a folder's bytes: a medium that was just plugged in is not in memory."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(run: Callable[[], Any]) -> float:
    """Seconds of a run, its bytes on the disk included."""
    os.sync()
    start = time.monotonic()
    run()
    os.sync()
    return time.monotonic() - start


def child(action: str, folder: Path) -> tuple[float, int]:
    """Seconds and bytes of memory of one action in a process of its own, its bytes on the disk included."""
    os.sync()
    start = time.monotonic()
    command = [sys.executable, "-c", CHILD, action, str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    os.sync()
    return time.monotonic() - start, int(json.loads(done.stdout)[1])


def hash_all(folder: Path) -> None:
    """The rate that verifying is measured by: every file hashed in parallel, read in the same way."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda path: hash_from_disk(path, lambda _: None), files))


@pytest.mark.slow
def test_bundle_against_plain_copies(tmp_path: Path) -> None:
    size = material(tmp_path)
    others = {
        "cp": ["cp", "-r", "medium/volume-001", "copy"],
        "rsync": [client("rsync", "rsync"), "-a", "medium/volume-001/", "copy"],
        "tar_zstd": ["sh", "-c", f"mkdir copy && tar c medium/volume-001 | {client('zstd', 'zstd')} -1 -T0 > copy/all"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ("build", "verify", "import", "hash", *others)}
    memory: dict[str, int] = {}
    for _ in range(RUNS):
        for folder in ("medium", "far"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
        for action in ("build", "verify", "import"):
            if action == "verify":
                forget(tmp_path / "medium")
                seconds["hash"].append(timed(lambda: hash_all(tmp_path / "medium")))
            forget(tmp_path / ("near" if action == "build" else "medium"))
            took, peak = child(action, tmp_path)
            seconds[action].append(took)
            memory[action] = max(peak, memory.get(action, 0))
        for name, command in others.items():
            shutil.rmtree(tmp_path / "far", ignore_errors=True)
            forget(tmp_path / "medium")
            seconds[name].append(timed(partial(subprocess.run, command, cwd=tmp_path, check=True)))
            shutil.rmtree(tmp_path / "copy")
    best = {name: min(values) for name, values in seconds.items()}
    figures: dict[str, Any] = {
        "bytes": size,
        "mb_per_second": {name: round(size / value / 1e6) for name, value in best.items()},
        "verify_of_hash": round(best["hash"] / best["verify"], 2),
        "import_of_cp": round(best["cp"] / best["import"], 2),
        "memory_mib": {name: round(value / MIB) for name, value in memory.items()},
    }
    record("bundle", figures)
    assert max(memory.values()) < MOST_MEMORY
    assert figures["verify_of_hash"] >= LEAST_VERIFY
    assert figures["import_of_cp"] >= LEAST_IMPORT
