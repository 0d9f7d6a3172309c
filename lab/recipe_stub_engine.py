"""A stub engine as an image: Debian's Python with tests/support/stub_serving.py, for hosts with stub GPUs."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from lab.archive import Image, TarLayer, TreeLayer, write_image
from lab.debian import bootstrap
from lab.report import Report

SUITE = "trixie"
SCRIPT = Path(__file__).parents[1] / "tests/support/stub_serving.py"
#: base-files brings the links /bin and /lib64.
PACKAGES = ("base-files", "busybox-static", "python3-minimal", "libpython3-stdlib")
#: For the stub nvidia-smi that CDI puts into containers.
APPLETS = ("sh", "sed", "tr")
#: The engine whose flags the planner gives: see planner/data.
VERSION = "0.32.0"


def inputs() -> list[str]:
    """What the image is made of besides Debian's packages."""
    return [SCRIPT.read_text(encoding="utf-8")]


def build(images: Path, key: str, work: Path, report: Report, stop: threading.Event) -> dict[str, Image]:
    """Make the image and write its archive; returns it by its name in the lock file. Raises LabError."""
    root, tree = work / "stub-engine.root", work / "stub-engine.tree"
    tag = f"{VERSION}-{key[:8]}"
    with report.phase("Build the stub engine"):
        try:
            bootstrap(SUITE, root, variant="extract", include=PACKAGES, report=report, stop=stop)
            (tree / "usr/bin").mkdir(parents=True)
            for applet in APPLETS:
                (tree / "usr/bin" / applet).symlink_to("busybox")
            shutil.copyfile(SCRIPT, tree / "stub_serving.py")
            made = write_image(
                images / f"stub-engine-{tag}.tar",
                name="redoubt.lab/stub-engine",
                tag=tag,
                layers=[TarLayer(root), TreeLayer(tree)],
                config={
                    "Entrypoint": ["/usr/bin/python3", "/stub_serving.py"],
                    "Env": ["PATH=/usr/bin", "PYTHONUNBUFFERED=1"],
                    "Labels": {"redoubt.lab": "1"},
                },
            )
            return {"stub_engine": made}
        finally:
            root.unlink(missing_ok=True)
            shutil.rmtree(tree, ignore_errors=True)
