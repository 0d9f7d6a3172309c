"""What the installer does to the machine it runs on: its packages, the project's tree, links. No network is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.package_services import services_off

QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "NEEDRESTART_SUSPEND": "1"}


def platform() -> str:
    """The name of this machine's platform, such as debian-13-amd64; empty where it has no dpkg. Raises Refusal."""
    if shutil.which("dpkg") is None:
        return ""
    words = {}
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        words[key] = value.strip('"')
    version = words.get("VERSION_ID", "")
    if words.get("ID") != "ubuntu":
        version = version.partition(".")[0]
    return f"{words.get('ID', '')}-{version}-{_run(['dpkg', '--print-architecture']).strip()}"


def install(view: Path, name: str, row: Mapping[str, Any]) -> list[str]:
    """Install the packages that a control host begins with, from a depot's view; return those that came.

    `row`: the platform `name` of the lock. A package that is there in the same version or a newer one stays. Services
    that come with them are left off. Raises Refusal.
    """
    wanted = {item["name"]: item for item in row["packages"] if item.get("bootstrap")}
    there = _versions(wanted)
    coming = {key: item for key, item in wanted.items() if not _is_there(there.get(key), item["version"])}
    if not coming:
        return []
    files = [str(view / "packages" / name / item["path"]) for item in coming.values()]
    with tempfile.TemporaryDirectory() as nothing, services_off(True):
        alone = [f"-o=Dir::State::Lists={nothing}", "-o=Dir::Etc::SourceList=/dev/null"]
        alone += ["-o=Dir::Etc::SourceParts=/dev/null", "-o=APT::Sandbox::User=root", "-o=Acquire::http::Proxy=false"]
        keep = ["-o=Dpkg::Options::=--force-confdef", "-o=Dpkg::Options::=--force-confold"]
        _run(["apt-get", "-qy", "--no-install-recommends", *alone, *keep, "install", *files])
    if "nginx" in coming and "nginx" not in there:
        # The package enables a server with a page of its own; the depot's and the gateway's are others.
        _run(["systemctl", "disable", "--quiet", "nginx.service"])
    return sorted(coming)


def unpack(archive: Path, target: Path) -> bool:
    """Unpack the project's tree, the one folder in an archive, to `target`; False where it is there. Raises Refusal."""
    if target.is_dir():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(beside, filter="data")  # refuses what would leave the folder
        (tree,) = beside.iterdir()
        tree.rename(target)  # whole, or not at all
    except (tarfile.TarError, OSError, ValueError) as error:
        mend = "if it is missing or damaged, import the bundle again (install.pyz on the medium, with --key)"
        raise Refusal(f"{archive}: cannot be unpacked to {target}: {error}; {mend}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return True


def share(place: Path, folder: Path) -> None:
    """Let `place` in a tree lead to a folder that all trees share. What is there already stays. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not place.exists():
        place.symlink_to(folder)


def link(path: Path, target: Path) -> None:
    """Let a symbolic link lead to `target`, at once. Raises Refusal where something else is in its place."""
    if path.exists() and not path.is_symlink():
        raise Refusal(f"{path}: is there and no link of ours; move it away, or name another place with --into")
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.name)
    fresh.replace(path)


def _versions(names: Mapping[str, Any]) -> dict[str, str]:
    """Versions of those of these packages that are installed."""
    form = "-f=${Package}\t${db:Status-Status}\t${Version}\n"
    done = subprocess.run(["dpkg-query", "-W", form, *names], capture_output=True, text=True, check=False)
    rows = (line.split("\t") for line in done.stdout.splitlines())
    return {name: version for name, status, version in rows if status == "installed"}


def _is_there(version: str | None, wanted: str) -> bool:
    if version is None:
        return False
    return subprocess.run(["dpkg", "--compare-versions", version, "ge", wanted], check=False).returncode == 0


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, env={**os.environ, **QUIET}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr + done.stdout).strip()[-2000:]
        raise Refusal(f"{command[0]} ended with {done.returncode}: {said}")
    return done.stdout
