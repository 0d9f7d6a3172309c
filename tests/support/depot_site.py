"""Two sites' locks with real packages, an image and a wheel, and their bytes as a depot keeps them.

Run as `python -m tests.support.depot_site FOLDER RPMS.tar`: writes FOLDER/locks.json and FOLDER/blobs/sha256/ab/….
RPMS.tar is a DNF platform that was locked: its files, its lists, and its row of the lock as platform.json.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from tests.support.depots import LockMaker

CONTROL = """Package: {name}
Version: {version}
Architecture: all
Maintainer: Redoubt contributors <root@localhost>
{more}Description: stub package {name}
"""
RPM_PLATFORM = "rocky-9-amd64"
NORTH, SOUTH = "bank-north", "bank-south"


def deb(name: str, version: str, more: str = "") -> tuple[str, bytes]:
    """Build a package with one file; return its control text and its bytes."""
    control = CONTROL.format(name=name, version=version, more=more)
    with tempfile.TemporaryDirectory() as work:
        tree = Path(work, "tree")
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(control)
        (tree / "usr/share/stub").mkdir(parents=True)
        (tree / "usr/share/stub" / name).write_text(f"{name} {version}\n")
        target = Path(work, "it.deb")
        command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(target)]
        subprocess.run(command, check=True, capture_output=True)
        return control, target.read_bytes()


def wheel(name: str, version: str) -> tuple[str, bytes]:
    """Build a wheel with one module; return its file's name and its bytes."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f'VERSION = "{version}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: stub\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text.encode())}\n")
    files[f"{info}/RECORD"] = "".join(rows) + f"{info}/RECORD,,\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0)), text)
    return f"{name}-{version}-py3-none-any.whl", buffer.getvalue()


def layer(path: str, data: bytes) -> bytes:
    """Return a layer of an image with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(path)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def site(name: str, version: str, serial: int = 1) -> LockMaker:
    """Return a site's lock: a package that needs another, an image of two layers, a model, a wheel."""
    made = LockMaker(name, serial)
    for package, number, more in (
        ("stub-depot-data", "1.0", ""),
        ("stub-depot", version, "Depends: stub-depot-data (= 1.0)\n"),
    ):
        control, data = deb(package, number, more)
        made.package(package, number, data, control, "all")
    made.image("probe", "redoubt/probe", [layer("etc/probe", b"1\n"), layer("etc/second", bytes(200_000))])
    made.model(
        "smol", "b" * 40, {"config.json": b'{"model_type": "stub"}', "model.safetensors": bytes(range(256)) * 4000}
    )
    file, data = wheel("stub_probe", "1.0")
    made.wheel("stub_probe", "1.0", file, data)
    return made


def members(archive: Path) -> dict[str, bytes]:
    """Return the files of a tar archive."""
    with tarfile.open(archive) as opened:
        streams = {item.name.removeprefix("./"): opened.extractfile(item) for item in opened if item.isfile()}
        return {name: stream.read() for name, stream in streams.items() if stream is not None}


def main(folder: Path, rpms: Path) -> None:
    """Write the locks of two sites and all their bytes."""
    first, second, other = site(NORTH, "1.0"), site(NORTH, "1.1", 2), site(SOUTH, "1.0")
    files = members(rpms)
    first.locked_platform(RPM_PLATFORM, json.loads(files.pop("platform.json")), files)
    locks = {"first": first.lock(), "second": second.lock(), "other": other.lock()}
    for sha256, data in {**first.contents, **second.contents, **other.contents}.items():
        target = folder / "blobs/sha256" / sha256[:2] / sha256
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    (folder / "locks.json").write_text(json.dumps(locks, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
