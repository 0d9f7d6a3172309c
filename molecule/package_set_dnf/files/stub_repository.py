"""Make a DNF repository with NVIDIA's EL 9 names in a folder: stub packages, signed, in module streams.

Usage: stub_repository.py FOLDER. Runs on the lab host; needs rpm, createrepo-c and gpg. Nothing in it is NVIDIA's.
FOLDER/rhel9/x86_64 is the repository, FOLDER/key.asc the key that signs its packages, FOLDER/fingerprint the
key's; FOLDER/stranger is a repository whose one package is signed by somebody else.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

DRIVERS = ("580.95.05", "580.126.20", "595.71.05")
# Of the driver's version. NVIDIA's have the epoch 3.
SET = (
    "nvidia-driver-cuda",
    "nvidia-driver-cuda-libs",
    "nvidia-kmod-common",
    "nvidia-modprobe",
    "nvidia-persistenced",
    "kmod-nvidia-open-dkms",
    "nvidia-fabricmanager",
    "libnvidia-nscq",
)
# What they stand on, in a version of its own: EL's, EPEL's and DCGM's.
OTHERS = {
    "kernel-devel-matched": "5.14.0",
    "kernel-headers": "5.14.0",
    "python3-dnf-plugin-versionlock": "4.3.0",  # the plugin itself is Debian's
    "kmod-nvidia-latest-dkms": "580.95.05",
    "datacenter-gpu-manager-4-core": "4.6.0",
    "datacenter-gpu-manager-4-cuda13": "4.6.0",
}
RELEASE = "1.el9"
SPEC = """\
Name: {name}
Epoch: {epoch}
Version: {version}
Release: {release}
Summary: stub of the Redoubt lab
License: Apache-2.0
BuildArch: {architecture}
{relations}
%description
Stub: empty on purpose, not NVIDIA's.
%files
"""
STREAM = """\
---
document: modulemd
version: 2
data:
  name: nvidia-driver
  stream: "{stream}"
  version: {number}
  context: stub
  arch: x86_64
  summary: stub of the Redoubt lab
  description: stub of the Redoubt lab
  license: {{module: [Apache-2.0]}}
  dependencies:
  - requires: {{platform: [el9]}}
  artifacts:
    rpms:
{artifacts}
...
"""


def run(*command: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def build(name: str, version: str, epoch: int, folder: Path, relations: Sequence[str] = ()) -> str:
    """Build one package into the folder; returns its name with epoch, version, release and architecture."""
    architecture = "x86_64" if epoch else "noarch"
    spec = folder / f"{name}.spec"
    words = {"name": name, "version": version, "epoch": epoch, "release": RELEASE, "architecture": architecture}
    spec.write_text(SPEC.format(relations="".join(f"{line}\n" for line in relations), **words), encoding="utf-8")
    run(
        "rpmbuild",
        "--quiet",
        "-bb",
        "--define",
        f"_rpmdir {folder}",
        "--define",
        "_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm",
        str(spec),
    )
    spec.unlink()
    return f"{name}-{epoch}:{version}-{RELEASE}.{architecture}"


def sign(folder: Path, owner: str, key: Path) -> None:
    """Make a key, sign all packages of the folder with it, write its public part and beside that its fingerprint."""
    home = key.with_suffix(".home")
    home.mkdir(mode=0o700)
    gpg = ("gpg", "--homedir", str(home), "--batch", "--quiet")
    run(*gpg, "--pinentry-mode", "loopback", "--passphrase", "", "--quick-gen-key", owner, "rsa3072", "sign", "never")
    run(*gpg, "--armor", "--output", str(key), "--export")
    told = subprocess.run([*gpg, "--with-colons", "--list-keys"], check=True, capture_output=True, text=True).stdout
    fingerprint = next(line.split(":")[9] for line in told.splitlines() if line.startswith("fpr:"))
    (key.parent / "fingerprint").write_text(fingerprint + "\n", encoding="utf-8")
    packages = [str(path) for path in sorted(folder.glob("*.rpm"))]
    run("rpmsign", "--define", f"_gpg_path {home}", "--define", f"_gpg_name {owner}", "--addsign", *packages)


def main() -> None:
    """Make it all."""
    root = Path(sys.argv[1])
    folder, stranger = root / "rhel9/x86_64", root / "stranger"
    folder.mkdir(parents=True)
    stranger.mkdir()
    streams: dict[str, list[str]] = {}
    for version in DRIVERS:
        libs = [f"Requires: nvidia-driver-cuda-libs = 3:{version}"]
        for name in SET:
            made = build(name, version, 3, folder, libs if name == "nvidia-driver-cuda" else ())
            streams.setdefault(f"{version.partition('.')[0]}-open", []).append(made)
    for name, version in OTHERS.items():
        build(name, version, 0, folder)
    build("nvidia-settings", DRIVERS[-1], 0, stranger)
    sign(folder, "stub dnf repository", root / "key.asc")
    sign(stranger, "stub stranger", stranger / "key.asc")
    modules = root / "modules.yaml"
    modules.write_text(
        "".join(
            STREAM.format(
                stream=name, number=20261101, artifacts="".join(f"    - {item}\n" for item in items).rstrip("\n")
            )
            for name, items in streams.items()
        ),
        encoding="utf-8",
    )
    for place in (folder, stranger):
        run("createrepo_c", "--quiet", str(place))
    run("modifyrepo_c", "--mdtype=modules", str(modules), str(folder / "repodata"))


if __name__ == "__main__":
    main()
