"""The stub NVIDIA repositories: packages from lab/stub_nvidia/packages.yml, in signed, flat APT repositories.

They lie on the medium below `stub-nvidia/`, in the folders that NVIDIA's own have on their servers. Nothing in them is
NVIDIA's.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab import gpu_tree
from lab.report import Report
from lab.stub_nvidia import render
from lab.stub_nvidia.render import Package
from lab.tools import require, run

HERE = Path(__file__).resolve().parent / "stub_nvidia"
TABLE = HERE / "packages.yml"
#: Below the medium; hosts see it at /media/redoubt/stub-nvidia.
FOLDER = "stub-nvidia"
NEEDED = {
    "dpkg-deb": "dpkg",
    "apt-ftparchive": "apt-utils",
    "gpg": "gpg",
    "gpg-agent": "gpg-agent",
    "gcc": "gcc libc6-dev",
}
#: A kernel module's file that modinfo reads and no kernel loads.
MODULE = '__attribute__((section(".modinfo"), used)) static const char %s[] = "%s=%s";\n'


@dataclass(frozen=True)
class Keys:
    """A key made for one build: where gpg keeps it, and its public part in both forms."""

    home: Path
    binary: bytes
    armored: bytes


def table() -> dict[str, Any]:
    """The table of packages and repositories."""
    return dict(yaml.safe_load(TABLE.read_text(encoding="utf-8")))


def inputs() -> list[str]:
    """All that the packages are made from, besides this module, as text."""
    files = sorted(path for path in HERE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    names = [str(path.relative_to(HERE)) for path in files]
    texts = [path.read_text(encoding="utf-8") for path in (*files, Path(gpu_tree.__file__))]
    return [os.uname().release, *names, *texts]


def build(target: Path, work: Path, report: Report, stop: threading.Event) -> dict[str, int]:
    """Make all repositories in ``target``, whole or not at all; returns the sizes of the files, by path below it."""
    require(NEEDED, report)
    plan = table()
    scratch = work / "stub-nvidia"
    fresh = work / "stub-nvidia.new"
    for folder in (scratch, fresh):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        # gpg's sockets need a short path.
        with tempfile.TemporaryDirectory(prefix="stub-") as home, report.phase("Build the stub NVIDIA repositories"):
            keys = {name: new_key(Path(home) / name, f"stub {name} repository") for name in plan["repositories"]}
            for package in render.packages(plan, os.uname().release):
                key = keys[package.repositories[0]]
                archive = build_package(package, scratch, key.binary, stop)
                for repository in package.repositories:
                    folder = fresh / plan["repositories"][repository]["folder"]
                    folder.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(archive, folder / archive.name)
            for name, about in plan["repositories"].items():
                if about["label"]:
                    sign(fresh / about["folder"], about["label"], keys[name])
            # Where NVIDIA's container toolkit has its key; the CUDA repository has its own beside the packages.
            (fresh / "libnvidia-container/gpgkey").write_bytes(keys["toolkit"].armored)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh.replace(target)
    finally:
        for folder in (scratch, fresh):
            shutil.rmtree(folder, ignore_errors=True)
    return {str(path.relative_to(target)): path.stat().st_size for path in sorted(target.rglob("*")) if path.is_file()}


def build_package(package: Package, scratch: Path, key: bytes, stop: threading.Event) -> Path:
    """Make the .deb of one package below ``scratch``; returns its path."""
    root = scratch / package.name
    shutil.rmtree(root, ignore_errors=True)
    control = root / "DEBIAN"
    control.mkdir(parents=True)
    _write(control / "control", package.control_text())
    if package.conffiles:
        _write(control / "conffiles", "".join(f"{path}\n" for path in package.conffiles))
    for name, text in package.scripts.items():
        _write(control / name, text, executable=True)
    for path, text in package.contents.items():
        _write(root / path.lstrip("/"), text, executable=path in package.executables)
    for path, source in package.files.items():
        text = (HERE / "payload" / source).read_text(encoding="utf-8")
        _write(root / path.lstrip("/"), text, executable=text.startswith("#!"))
    if package.tools:
        _tools(root / render.LIBRARY.lstrip("/"))
    if package.keyring:
        _write_bytes(root / package.keyring.lstrip("/"), key)
    if package.compiled:
        compile_nvml(root / f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{package.upstream}", package.upstream, stop)
    if package.module:
        _module(root / f"usr/src/nvidia-{package.upstream}/nvidia.ko", package.upstream, package.module)
    archive = scratch / package.file_name
    run(
        ["dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "--build", str(root), str(archive)],
        what=f"the stub package {package.name}", timeout=60, stop=stop,
    )  # fmt: skip
    shutil.rmtree(root)
    return archive


def compile_nvml(target: Path, version: str, stop: threading.Event | None = None) -> None:
    """Compile the mock NVML of this driver version."""
    target.parent.mkdir(parents=True, exist_ok=True)
    run(
        ["gcc", "-O1", "-Wall", "-shared", "-fPIC", "-D_GNU_SOURCE", f'-DSTUB_VERSION="{version}"',
         "-Wl,-soname,libnvidia-ml.so.1", "-o", str(target), str(HERE / "nvml.c")],
        what="the mock NVML", timeout=120, stop=stop,
    )  # fmt: skip


def new_key(home: Path, owner: str) -> Keys:
    """Make a signing key without a passphrase; ``home`` must be a short path, for gpg's sockets."""
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    make = ["--pinentry-mode", "loopback", "--passphrase", "", "--quick-gen-key", owner, "rsa3072", "sign", "never"]
    run([*gpg, *make], what="a signing key", timeout=120)
    binary, armored = home / "key.gpg", home / "key.asc"
    run([*gpg, "--output", str(binary), "--export"], what="the public key", timeout=30)
    run([*gpg, "--armor", "--output", str(armored), "--export"], what="the public key", timeout=30)
    return Keys(home, binary.read_bytes(), armored.read_bytes())


def sign(folder: Path, label: str, keys: Keys) -> None:
    """Write the index of a flat repository and sign it."""
    index = run(["apt-ftparchive", "packages", str(folder)], what="a package index", timeout=120)
    text = index.replace(f"Filename: {folder}/", "Filename: ./")
    _write(folder / "Packages", text)
    _write_bytes(folder / "Packages.gz", gzip.compress(text.encode(), mtime=0))
    fields: Mapping[str, str] = {"Origin": "NVIDIA", "Label": label, "Description": "stub of the Redoubt lab"}
    options = [word for key, value in fields.items() for word in ("-o", f"APT::FTPArchive::Release::{key}={value}")]
    release = run(["apt-ftparchive", *options, "release", str(folder)], what="a Release file", timeout=60)
    _write(folder / "Release", release)
    gpg = ["gpg", "--homedir", str(keys.home), "--batch", "--yes", "--quiet", "--digest-algo", "SHA512"]
    for how, name in ((["--clearsign"], "InRelease"), (["--armor", "--detach-sign"], "Release.gpg")):
        run([*gpg, *how, "--output", str(folder / name), str(folder / "Release")], what=name, timeout=60)
    _write_bytes(folder / "stub.pub", keys.armored)


def _tools(folder: Path) -> None:
    """The tools, the lab's own writer of the fake tree, and the part of PyYAML that is Python."""
    for path in sorted((HERE / "tools").glob("*.py")):
        _write(folder / "tools" / path.name, path.read_text(encoding="utf-8"))
    _write(folder / "gpu_tree.py", Path(gpu_tree.__file__).read_text(encoding="utf-8"))
    for path in sorted(Path(yaml.__file__).parent.glob("*.py")):
        _write(folder / "yaml" / path.name, path.read_text(encoding="utf-8"))


def _module(target: Path, version: str, flavour: str) -> None:
    about: Mapping[str, Any] = {
        "version": version,
        "license": "Dual MIT/GPL" if flavour == "open" else "NVIDIA",
        "description": "stub of the Redoubt lab",
    }
    source = target.with_suffix(".c")
    _write(source, "".join(MODULE % (key, key, value) for key, value in about.items()))
    run(["gcc", "-c", "-o", str(target), str(source)], what="the stub module", timeout=60)
    source.unlink()


def _write(path: Path, text: str, *, executable: bool = False) -> None:
    _write_bytes(path, text.encode())
    path.chmod(0o755 if executable else 0o644)


def _write_bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o644)
