"""A stub of NVIDIA's DCGM exporter as an image: busybox from Debian, a script and figures that were made up."""

from __future__ import annotations

import shutil
import tarfile
import threading
from pathlib import Path

from lab import stub_dcgm
from lab.archive import Image, TreeLayer, write_image
from lab.debian import bootstrap
from lab.errors import LabError
from lab.report import Report

SUITE = "trixie"
SCRIPT = Path(__file__).parent / "files/stub_dcgm_exporter.sh"
BUSYBOX = "usr/bin/busybox"
APPLETS = ("sh", "awk", "grep", "httpd", "mkdir")


def inputs() -> tuple[str, str]:
    """What the image is made of besides busybox: the script, and the figures of one card with and one without MIG."""
    figures = stub_dcgm.exposition(stub_dcgm.counters(profiling=True), (*stub_dcgm.PLAIN, *stub_dcgm.MIG))
    return SCRIPT.read_text(encoding="utf-8"), figures


def build(images: Path, key: str, work: Path, report: Report, stop: threading.Event) -> dict[str, Image]:
    """Make the image and write its archive; returns it by its name in the lock file. Raises LabError."""
    archive, tree = work / "stub-dcgm.root", work / "stub-dcgm.tree"
    with report.phase("Build the stub of the DCGM exporter"):
        try:
            bootstrap(SUITE, archive, variant="extract", include=["busybox-static"], report=report, stop=stop)
            _busybox(archive, tree / "bin")
            for name, text in zip(("exporter", "figures.txt"), inputs(), strict=True):
                (tree / name).write_text(text, encoding="utf-8")
            (tree / "exporter").chmod(0o755)
            made = write_image(
                images / f"stub-dcgm-exporter-{key[:8]}.tar",
                name="redoubt.lab/stub-dcgm-exporter",
                tag=key[:8],
                layers=[TreeLayer(tree)],
                config={"Entrypoint": ["/exporter"], "Env": ["PATH=/bin"], "Labels": {"redoubt.lab": "1"}},
            )
            return {"stub_dcgm_exporter": made}
        finally:
            archive.unlink(missing_ok=True)
            shutil.rmtree(tree, ignore_errors=True)


def _busybox(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    with tarfile.open(archive, "r:") as root:
        member = next((member for member in root if member.name.removeprefix("./") == BUSYBOX), None)
        content = root.extractfile(member) if member else None
        if content is None:
            raise LabError(f"Debian's package busybox-static has no {BUSYBOX} any more: mend lab/recipe_stub_dcgm.py")
        (folder / "busybox").write_bytes(content.read())
    (folder / "busybox").chmod(0o755)
    for applet in APPLETS:
        (folder / applet).symlink_to("busybox")
