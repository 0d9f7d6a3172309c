"""A locked package that the source does not give to DNF is named like APT's: artefact, lock, and what to run.

DNF 4 runs for real, from a server that goes wrong. DNF 5 is not in Debian: its words are those that its users show.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils import package_dnf, package_tools
from ansible.module_utils.package_faults import ungiven, unlisted
from ansible.module_utils.package_lock import PackageLock

from tests.support import programs
from tests.support.fault_server import Fault, FaultServer, always, serving
from tests.support.rpm_repository import Rpm, RpmRepository
from tests.unit.test_package_set_dnf import lock

PLATFORM = "rocky-9-amd64"
VERSIONS = {"engine": "1:1.0-1.el9", "engine-libs": "3:2.0-1.el9"}
FILE = "engine-libs-2.0-1.el9.noarch.rpm"


@pytest.fixture(scope="module")
def _repository(tmp_path_factory: pytest.TempPathFactory) -> RpmRepository:
    programs.rpm_tools()
    made = RpmRepository(tmp_path_factory.mktemp("rpm"))
    made.publish(
        [Rpm("engine", "1.0", epoch=1, requires=("engine-libs",)), Rpm("engine-libs", "2.0", epoch=3)], signed=False
    )
    (made.folder.parent / "repos.d").mkdir()
    return made


@pytest.fixture
def server(_repository: RpmRepository) -> Iterator[FaultServer]:
    """A server of that repository, which depot.repo names."""
    folder = _repository.folder
    files = {f"/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with serving(files) as started:
        text = _repository.source(str(folder.parent / "key.asc"), packages=False, address=started.base)
        (folder.parent / "repos.d/depot.repo").write_text(text)
        yield started


def refused(known: PackageLock, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Why engine cannot be installed into an empty system, by the module's own way through real DNF."""
    for name in ("root", "logdir"):
        (folder / name).mkdir()
    folders = {name: str(folder / name) for name in ("cachedir", "persistdir", "logdir")}
    place = {"root": str(folder / "root"), "folders": folders}
    monkeypatch.setattr(package_dnf, "rehearsed", functools.partial(package_dnf.rehearsed, host=place))
    there = [f"--installroot={folder}/root", "--releasever=9", *(f"--setopt={k}={v}" for k, v in folders.items())]
    monkeypatch.setattr(package_tools, "DNF", [*package_tools.DNF, *there])
    host = package_tools.Host(120, known)
    host.apt = False
    host.refresh([])
    with pytest.raises(package_tools.Refused) as caught:
        host.install(["engine=1:1.0-1.el9"], "", [], older=False, held=False)
    return str(caught.value)


def test_a_file_that_the_depot_lacks_is_named_with_its_lock_and_the_command(
    _repository: RpmRepository, server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del server.files[f"/{FILE}"]
    said = refused(lock(_repository, VERSIONS), tmp_path, monkeypatch)
    source = _repository.folder.parent / "repos.d/depot.repo"
    assert f"the source in {source} lacks engine-libs 3:2.0-1.el9 ({FILE}), which lock/platforms/{PLATFORM}.yml" in said
    assert "./redoubt play gather" in said and "./redoubt bundle import" in said
    assert "lacks engine " not in said


@pytest.mark.parametrize(
    ("fault", "fix"),
    [(Fault(status=403), "depot_allowed_cidrs"), (Fault(cut_after=0), "./redoubt play depot")],
    ids=["forbidden", "cut"],
)
def test_a_depot_that_gives_nothing_is_no_lack(
    _repository: RpmRepository,
    server: FaultServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    fix: str,
) -> None:
    server.rule = always(fault, FILE)
    said = refused(lock(_repository, VERSIONS), tmp_path, monkeypatch)
    assert f"/{FILE} cannot be had (" in said
    assert fix in said
    assert " lacks " not in said


EL = """\
[MIRROR] galera-4-26.4.19-1.el7.x86_64.rpm: Status code: 404 for https://depot/rpms/galera-4-26.4.19-1.el7.x86_64.rpm
[FAILED] galera-4-26.4.19-1.el7.x86_64.rpm: No more mirrors to try - All mirrors were already tried without success
Error: Error downloading packages:
  Cannot download rpms/galera-4-26.4.19-1.el7.x86_64.rpm: All mirrors were tried
"""
DNF_5 = """\
>>> Status code: 404 for https://depot/Packages/g/gcc-15.2.1-1.fc44.1.x86_64.rpm (IP: 10.0.0.5)
>>> No more mirrors to try - All mirrors were already tried without success
Failed to download packages
 Librepo error: Cannot download Packages/g/gcc-15.2.1-1.fc44.1.x86_64.rpm: All mirrors were tried
"""


@pytest.mark.parametrize(("output", "name"), [(EL, "galera-4-26.4.19-1.el7"), (DNF_5, "gcc-15.2.1-1.fc44.1")])
def test_the_words_of_other_versions(output: str, name: str) -> None:
    said = ungiven(output, {}, "depot.repo", "")
    assert f"lacks {name}.x86_64.rpm, which lock/platforms/PLATFORM.yml lists" in said
    reasonless = "\n".join(line for line in output.splitlines() if "Status" not in line)
    assert f"{name}.x86_64.rpm cannot be had (dnf tells no reason)" in ungiven(reasonless, {}, "depot.repo", "")


def test_what_another_mirror_gave_is_no_fault() -> None:
    assert ungiven("\n".join(EL.splitlines()[:1]), {}, "depot.repo", "") == ""
    assert ungiven("Error: Unable to find a match: x\n", {}, "depot.repo", "") == ""
    assert unlisted("nothing provides x needed by y", "depot.repo", "") == "nothing provides x needed by y"
