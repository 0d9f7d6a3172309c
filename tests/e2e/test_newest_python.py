"""The control side on the newest Python and ansible-core, without any index: a Debian 13 host runs the unit tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab import hosts, images
from lab.report import PlainReport
from tests.support.site import REPOSITORY, Site
from tests.support.wheels import download

CONTROL = "e2e4"
PYTHON = "3.13"


@pytest.mark.slow
def test_the_unit_tests_pass_on_the_newest_python(tmp_path: Path) -> None:
    download(PYTHON, REPOSITORY / "requirements-dev.txt", tmp_path / "wheels")
    tree = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True).stdout
    archive = tmp_path / "control.tar"
    pack = ["tar", "--create", f"--file={archive}", "--null", "--files-from=-", "-C", str(tmp_path), "wheels"]
    subprocess.run(pack, cwd=REPOSITORY, input=tree, check=True)
    report = PlainReport()
    images.build(report)
    try:
        site = Site(tmp_path / "site", {CONTROL: hosts.up(CONTROL, report=report)}, CONTROL)
        site.send(CONTROL, archive, "/var/tmp/control.tar")  # noqa: S108 - on a host of our own
        site.on(
            CONTROL,
            "apt-get -qq update && apt-get -qq install --no-install-recommends python3-venv git prometheus",
            timeout=300,
        )
        site.on(CONTROL, "mkdir /srv/control && tar --extract --file=/var/tmp/control.tar --directory=/srv/control")
        offline = "cd /srv/control && export PIP_NO_INDEX=1 PIP_FIND_LINKS=/srv/control/wheels"
        site.on(CONTROL, f"{offline} && ./redoubt setup --dev", timeout=600)
        versions = site.on(CONTROL, "/srv/control/.venv/bin/ansible --version")
        assert "[core 2.21." in versions
        assert f"python version = {PYTHON}." in versions
        said = site.on(CONTROL, f"{offline} && ./redoubt test --only unit; echo ended with $?", timeout=1500)
        assert "ended with 0" in said, said[-6000:]
    finally:
        hosts.down(CONTROL)
