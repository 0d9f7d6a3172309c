"""Images of Prometheus, Alertmanager and two exporters, from Debian's packages, laid out like the projects' own images.

Each has two layers: a shared one with busybox, the C library and certificate authorities, and its own programs.
"""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.archive import Image, TreeLayer, write_image
from lab.debian import bootstrap
from lab.errors import LabError
from lab.report import Report

SUITE = "trixie"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
NOBODY = 65534


@dataclass(frozen=True)
class Service:
    """One image: its package, what is taken from it (path in the package: path in the image), and how it starts."""

    package: str
    files: dict[str, str]
    entrypoint: str
    arguments: Sequence[str]
    folder: str
    port: int


SERVICES = {
    "prometheus": Service(
        "prometheus",
        {
            "usr/bin/prometheus": "bin/prometheus",
            "usr/bin/promtool": "bin/promtool",
            "usr/share/prometheus/web": "usr/share/prometheus/web",
        },
        "/bin/prometheus",
        ("--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"),
        "prometheus",
        9090,
    ),
    "alertmanager": Service(
        "prometheus-alertmanager",
        {
            "usr/bin/prometheus-alertmanager": "bin/alertmanager",
            "usr/bin/amtool": "bin/amtool",
            "usr/share/prometheus/alertmanager": "usr/share/prometheus/alertmanager",
        },
        "/bin/alertmanager",
        ("--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager"),
        "alertmanager",
        9093,
    ),
    "node_exporter": Service(
        "prometheus-node-exporter",
        {"usr/bin/prometheus-node-exporter": "bin/node_exporter"},
        "/bin/node_exporter",
        (),
        "",
        9100,
    ),
    "blackbox_exporter": Service(
        "prometheus-blackbox-exporter",
        {"usr/bin/prometheus-blackbox-exporter": "bin/blackbox_exporter"},
        "/bin/blackbox_exporter",
        ("--config.file=/etc/blackbox_exporter/config.yml",),
        "",
        9115,
    ),
}
SHARED = ("busybox-static", "ca-certificates", "libc6", "tzdata", "netbase")
APPLETS = (
    "sh", "ls", "cat", "echo", "wget", "nslookup", "ping", "nc", "ps", "kill", "id", "env", "grep", "head", "tail",
    "df", "du", "find", "sleep", "stat", "true", "false", "date", "mkdir", "rm",
)  # fmt: skip
USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
GROUP = "root:x:0:\nnobody:x:65534:\n"


def build(images: Path, key: str, work: Path, report: Report, stop: threading.Event) -> dict[str, Image]:
    """Make the four images and write their archives; returns them by their name in the lock file."""
    archive = work / "monitoring.root"
    shared = work / "monitoring.shared"
    own = work / "monitoring.own"
    with report.phase("Build the monitoring images"):
        try:
            packages = [service.package for service in SERVICES.values()]
            bootstrap(SUITE, archive, variant="extract", include=[*packages, *SHARED], report=report, stop=stop)
            with tarfile.open(archive, "r:") as root:
                members = {member.name.removeprefix("./"): member for member in root.getmembers()}
                _shared(root, members, shared)
                made = {}
                for name, service in SERVICES.items():
                    shutil.rmtree(own, ignore_errors=True)
                    made[name] = _image(root, members, name, service, key, shared, own, images)
            return made
        finally:
            archive.unlink(missing_ok=True)
            for folder in (shared, own):
                shutil.rmtree(folder, ignore_errors=True)


def changelog_version(line: str, package: str) -> str:
    """The version in the first line of a package's changelog. Raises LabError where there is none."""
    found = re.match(r"\S+ \(([^()\s]+)\)", line)
    if found is None:
        raise LabError(f"the changelog of Debian's package {package} names no version: {line[:80]!r}")
    return found[1]


def upstream(version: str) -> str:
    """The upstream part of a Debian version, fit for an image tag: no epoch, no repacking mark, no Debian revision."""
    return re.split(r"[+~-]", version.partition(":")[2] or version)[0]


def _image(
    root: tarfile.TarFile,
    members: dict[str, tarfile.TarInfo],
    name: str,
    service: Service,
    key: str,
    shared: Path,
    own: Path,
    images: Path,
) -> Image:
    for source, target in service.files.items():
        _take(root, members, source, own / target)
    owners = {}
    if service.folder:
        (own / service.folder).mkdir()
        owners[service.folder] = NOBODY
    image = f"redoubt.lab/{name.replace('_', '-')}"
    history = _read(root, members[f"usr/share/doc/{service.package}/changelog.Debian.gz"])
    version = changelog_version(gzip.decompress(history).decode("utf-8").partition("\n")[0], service.package)
    tag = upstream(version)
    return write_image(
        images / f"{name.replace('_', '-')}-{tag}-{key[:8]}.tar",
        name=image,
        tag=tag,
        layers=[TreeLayer(shared), TreeLayer(own, owners=owners)],
        config={
            "Cmd": list(service.arguments),
            "Entrypoint": [service.entrypoint],
            "Env": ["PATH=/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
            "ExposedPorts": {f"{service.port}/tcp": {}},
            "Labels": {"redoubt.lab": "1", "org.opencontainers.image.version": version},
            "User": f"{NOBODY}:{NOBODY}",
            "WorkingDir": f"/{service.folder}",
        },
    )


def _shared(root: tarfile.TarFile, members: dict[str, tarfile.TarInfo], target: Path) -> None:
    """The layer that all four have in common."""
    _take(root, members, "usr/bin/busybox", target / "bin/busybox")
    for applet in APPLETS:
        (target / "bin" / applet).symlink_to("busybox")
    for library in ("libc.so.6", "libresolv.so.2", "libnss_dns.so.2", "libnss_files.so.2", "libpthread.so.0"):
        if f"{LIBRARIES}/{library}" in members:
            _take(root, members, f"{LIBRARIES}/{library}", target / "lib/x86_64-linux-gnu" / library)
    _take(root, members, f"{LIBRARIES}/ld-linux-x86-64.so.2", target / "lib64/ld-linux-x86-64.so.2")
    _take(root, members, "usr/share/zoneinfo", target / "usr/share/zoneinfo")
    for name in ("protocols", "services"):
        _take(root, members, f"etc/{name}", target / "etc" / name)
    authorities = sorted(path for path in members if re.fullmatch(r"usr/share/ca-certificates/mozilla/.+\.crt", path))
    certificates = target / "etc/ssl/certs/ca-certificates.crt"
    certificates.parent.mkdir(parents=True)
    certificates.write_text("".join(_read(root, members[path]).decode() for path in authorities), encoding="utf-8")
    (target / "etc/passwd").write_text(USERS, encoding="ascii")
    (target / "etc/group").write_text(GROUP, encoding="ascii")
    (target / "etc/nsswitch.conf").write_text("hosts: files dns\n", encoding="ascii")
    (target / "tmp").mkdir()
    (target / "tmp").chmod(0o1777)
    (target / "usr").mkdir(exist_ok=True)
    (target / "usr/bin").symlink_to("../bin")


def _take(root: tarfile.TarFile, members: dict[str, tarfile.TarInfo], source: str, target: Path) -> None:
    """Copy a file or a folder, following links inside the packages."""
    member = members.get(source)
    if member is None:
        raise LabError(f"Debian's packages have no {source} any more: mend lab/recipe_monitoring.py")
    if member.issym():
        link = member.linkname
        # Links between folders of different packages (to fonts or scripts of the web pages) may lead outside: left out.
        inside = link.lstrip("/") if link.startswith("/") else str(Path(source).parent / link)
        if inside in members:
            _take(root, members, inside, target)
    elif member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(members):
            if path.startswith(f"{source}/") and "/" not in path[len(source) + 1 :]:
                _take(root, members, path, target / path[len(source) + 1 :])
    else:
        content = root.extractfile(member)
        if content is None:
            raise LabError(f"{source} in Debian's packages is neither file nor folder nor link")
        target.parent.mkdir(parents=True, exist_ok=True)
        with content, target.open("wb") as out:
            shutil.copyfileobj(content, out)
        target.chmod(member.mode)


def _read(root: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = root.extractfile(member)
    if content is None:
        raise LabError(f"{member.name} in Debian's packages is no file")
    return content.read()
