"""The stub repositories: the packages that the table makes, their signatures, and what apt makes of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import recipe_stub_nvidia
from lab.stub_nvidia import render
from tests.unit import stub_nvidia_support as support

CUDA = "compute/cuda/repos/debian13/x86_64"
TOOLKIT = "libnvidia-container/stable/deb/amd64"
SET = ["nvidia-driver-cuda", "nvidia-kernel-open-dkms"]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return support.built(tmp_path_factory.mktemp("stub-nvidia"))


class Apt:
    """apt-get with a private root: it knows the stub repositories and a few packages of Debian, and only simulates."""

    def __init__(self, folder: Path, repositories: Path) -> None:
        self.root = folder
        for name in ("etc/apt/preferences.d", "etc/apt/apt.conf.d", "var/lib/dpkg", "var/lib/apt/lists/partial",
                     "var/cache/apt/archives/partial", "etc/apt/trusted.gpg.d", "etc/apt/sources.list.d"):  # fmt: skip
            (folder / name).mkdir(parents=True)
        debian = folder / "debian"
        debian.mkdir()
        plain = (
            "Package: {}\nVersion: 1\nArchitecture: amd64\nFilename: ./{}.deb\nSize: 1\nSHA256: {}\nDescription: x\n"
        )
        names = ("python3", "kmod", "libibumad3", "libc6")
        (debian / "Packages").write_text("\n".join(plain.format(name, name, "0" * 64) for name in names))
        self.installed({})
        signed = "".join(
            f"deb [signed-by={repositories / part / 'stub.pub'}] file:{repositories / part} /\n"
            for part in (CUDA, TOOLKIT)
        )
        (folder / "etc/apt/sources.list").write_text(f"{signed}deb [trusted=yes] file:{debian} /\n")

    def installed(self, packages: dict[str, str]) -> None:
        """Say what is installed, by name and version."""
        form = "Package: {}\nStatus: install ok installed\nVersion: {}\nArchitecture: amd64\nDescription: x\n"
        text = "\n".join(form.format(name, version) for name, version in packages.items())
        (self.root / "var/lib/dpkg/status").write_text(text)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        options = [f"Dir={self.root}", f"Dir::State::status={self.root}/var/lib/dpkg/status", "APT::Sandbox::User=root",
                   "APT::Architecture=amd64", "Acquire::Languages=none", "Dir::Etc::parts=/nonexistent"]  # fmt: skip
        line = ["apt-get", *(word for option in options for word in ("-o", option)), *words]
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "APT_CONFIG": "/dev/null"}
        return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)

    def choose(self, *packages: str) -> dict[str, str]:
        """What apt would install for these words, by name and version. Raises AssertionError where it refuses."""
        done = self.run("-s", "install", *packages)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", done.stdout, flags=re.M))


@pytest.fixture
def apt(repositories: Path, tmp_path: Path) -> Iterator[Apt]:
    made = Apt(tmp_path, repositories)
    done = made.run("update")
    assert done.returncode == 0, done.stdout + done.stderr
    yield made


def test_every_package_says_that_it_is_a_stub_and_of_whom() -> None:
    packages = render.packages(recipe_stub_nvidia.table(), "6.12.0-1-amd64")
    assert len(packages) > 60
    for package in packages:
        assert "stub" in package.control["Description"]
        assert "lab" in package.control["Maintainer"]
        assert not re.search(r"\{\w+\}", package.control_text()), package.control_text()
        for path in package.executables:
            assert "stub" in package.contents[path]


def test_names_and_versions_are_those_of_nvidia() -> None:
    packages = render.packages(recipe_stub_nvidia.table(), "6.12.0-1-amd64")
    names = {(package.name, package.version) for package in packages}
    for version in ("580.95.05", "580.126.20", "595.71.05"):
        for name in ("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-fabricmanager", "libnvidia-nscq"):
            assert (name, f"{version}-1") in names
        assert (f"nvidia-driver-pinning-{version}", f"{version}-1") in names
    assert ("nvidia-driver-pinning-580", "580-1") in names
    assert ("nvidia-container-toolkit", "1.19.0-1") in names
    # Suffixes of branches ended before 580.
    assert not [name for name, _ in names if re.fullmatch(r"(nvidia-fabricmanager|libnvidia-nscq)-\d+", name)]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"depend": []}, "there is no depend"), ({"repositories": ["cudo"]}, "there is no repository cudo")],
)
def test_a_wrong_row_is_refused(change: dict[str, Any], words: str) -> None:
    table = recipe_stub_nvidia.table()
    table["packages"][0].update(change)
    with pytest.raises(ValueError, match=words):
        render.packages(table, "6.12.0-1-amd64")


def test_the_key_of_the_build_follows_the_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "stub_nvidia"
    shutil.copytree(recipe_stub_nvidia.HERE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(recipe_stub_nvidia, "HERE", copy)
    before = recipe_stub_nvidia.inputs()
    assert recipe_stub_nvidia.inputs() == before
    (copy / "payload/nvidia-smi-container").write_text("#!/bin/sh\n")
    assert recipe_stub_nvidia.inputs() != before


def test_a_package_has_its_scripts_and_files(repositories: Path, tmp_path: Path) -> None:
    archive = repositories / CUDA / "nvidia-fabricmanager_580.126.20-1_amd64.deb"
    subprocess.run(["dpkg-deb", "-R", str(archive), str(tmp_path / "fm")], check=True)
    assert (tmp_path / "fm/usr/lib/stub-nvidia/versions/fabricmanager").read_text() == "580.126.20\n"
    assert os.access(tmp_path / "fm/usr/bin/nv-fabricmanager", os.X_OK)
    postinst = (tmp_path / "fm/DEBIAN/postinst").read_text()
    assert "systemctl enable nvidia-fabricmanager.service" in postinst, "enabled, not started"
    for script in (tmp_path / "fm/DEBIAN").glob("p*"):
        subprocess.run(["sh", "-n", str(script)], check=True)


def test_modinfo_reads_the_version_of_the_stub_module(repositories: Path, tmp_path: Path) -> None:
    archive = repositories / CUDA / "nvidia-kernel-open-dkms_580.126.20-1_amd64.deb"
    subprocess.run(["dpkg-deb", "-x", str(archive), str(tmp_path)], check=True)
    module = (tmp_path / "usr/src/nvidia-580.126.20/nvidia.ko").read_bytes()
    assert b"version=580.126.20\0" in module
    assert b"license=Dual MIT/GPL\0" in module


def test_a_repository_that_was_changed_after_signing_is_refused(repositories: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(repositories, copy)
    for path in (copy / CUDA).glob("Packages*"):
        path.unlink()
    (copy / CUDA / "Packages").write_text("Package: evil\nVersion: 1\nArchitecture: all\n")
    done = Apt(tmp_path / "root", copy).run("update")
    assert done.returncode != 0
    assert "Packages" in done.stderr


def test_one_repository_is_not_signed_with_the_key_of_the_other(repositories: Path, tmp_path: Path) -> None:
    apt = Apt(tmp_path, repositories)
    sources = tmp_path / "etc/apt/sources.list"
    text = sources.read_text().replace(f"{CUDA}/stub.pub", f"{TOOLKIT}/stub.pub")
    sources.write_text(text)
    done = apt.run("update")
    # As gpgv says it (Debian 12) and as sqv does (Debian 13).
    assert re.search("NO_PUBKEY|Missing key", done.stderr + done.stdout)


def test_the_compute_set_installs_from_the_newest_branch_without_a_pin(apt: Apt) -> None:
    chosen = apt.choose(*SET)
    assert chosen["nvidia-driver-cuda"] == chosen["libnvidia-ml1"] == "595.71.05-1"
    assert chosen["dkms"] == "1:3.3.0-1"
    assert "nvidia-kernel-dkms" not in chosen


def _pin(apt: Apt, repositories: Path, package: str) -> None:
    """Do what installing a pinning package does."""
    archive = next((repositories / CUDA).glob(f"{package}_*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(archive), str(apt.root)], check=True)


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("nvidia-driver-pinning-580", "580.126.20-1"),
        ("nvidia-driver-pinning-580.95.05", "580.95.05-1"),
        ("nvidia-driver-pinning-595", "595.71.05-1"),
    ],
)
def test_a_pinning_package_chooses_the_whole_set(apt: Apt, repositories: Path, package: str, version: str) -> None:
    _pin(apt, repositories, package)
    words = [*SET, "nvidia-persistenced", "nvidia-fabricmanager", "libnvidia-nscq", "libnvsdm", "nvidia-imex"]
    chosen = apt.choose(*words)
    free = {"dkms", "kmod", "python3", "stub-nvidia-common"}
    assert {chosen[name] for name in chosen.keys() - free} == {version}, chosen


def test_nvlink5_brings_its_fabric_of_the_pinned_branch(apt: Apt, repositories: Path) -> None:
    _pin(apt, repositories, "nvidia-driver-pinning-580")
    chosen = apt.choose("nvlink5-580")
    assert chosen["nvidia-fabricmanager"] == chosen["nvidia-kernel-open-dkms"] == "580.126.20-1"
    assert {"nvlsm", "libnvsdm", "libibumad3"} <= set(chosen)


def test_two_pins_exclude_each_other(apt: Apt) -> None:
    done = apt.run("-s", "install", "nvidia-driver-pinning-580", "nvidia-driver-pinning-595")
    assert done.returncode != 0
    assert "Conflicts" in done.stdout + done.stderr


@pytest.mark.parametrize("words", [("nvidia-kernel-open-dkms", "nvidia-kernel-dkms"), ("nvidia-open", "cuda-drivers")])
def test_open_and_proprietary_modules_exclude_each_other(apt: Apt, words: tuple[str, str]) -> None:
    done = apt.run("-s", "install", *words)
    assert done.returncode != 0
    assert "onflict" in done.stdout + done.stderr


def test_apt_itself_lets_a_fabric_manager_of_another_version_in(apt: Apt) -> None:
    """As with NVIDIA's: no relation keeps it away; the program refuses to start."""
    chosen = apt.choose("nvidia-driver-cuda=580.126.20-1", "libcuda1=580.126.20-1", "libnvidia-ml1=580.126.20-1",
                        "libnvidia-cfg1=580.126.20-1", "libnvidia-ptxjitcompiler1=580.126.20-1",
                        "libnvidia-nvvm4=580.126.20-1", "nvidia-fabricmanager=580.95.05-1")  # fmt: skip
    assert (chosen["nvidia-fabricmanager"], chosen["nvidia-driver-cuda"]) == ("580.95.05-1", "580.126.20-1")


def test_a_version_for_the_meta_package_alone_lets_the_driver_float(apt: Apt) -> None:
    """As with NVIDIA's: the relations of nvidia-open are loose."""
    chosen = apt.choose("nvidia-open=580.126.20-1")
    assert chosen["nvidia-open"] == "580.126.20-1"
    assert chosen["nvidia-kernel-open-dkms"] == "595.71.05-1"


def test_the_toolkit_wants_all_its_parts_of_one_version(apt: Apt) -> None:
    assert apt.choose("nvidia-container-toolkit")["nvidia-container-toolkit-base"] == "1.20.0-1"
    assert apt.run("-s", "install", "nvidia-container-toolkit=1.19.0-1").returncode != 0
    four = [
        "nvidia-container-toolkit",
        "nvidia-container-toolkit-base",
        "libnvidia-container-tools",
        "libnvidia-container1",
    ]
    assert set(apt.choose(*(f"{name}=1.19.0-1" for name in four)).values()) >= {"1.19.0-1"}


def test_mig_parted_is_in_no_repository(apt: Apt, repositories: Path) -> None:
    assert apt.run("-s", "install", "nvidia-mig-manager").returncode != 0
    assert list(repositories.glob("mig-parted/releases/download/v0.15.0/nvidia-mig-manager_0.15.0-1_amd64.deb"))


def test_the_keyring_package_points_at_its_repository(repositories: Path, tmp_path: Path) -> None:
    archive = repositories / CUDA / "cuda-keyring_1.1-1_all.deb"
    subprocess.run(["dpkg-deb", "-x", str(archive), str(tmp_path)], check=True)
    line = (tmp_path / "etc/apt/sources.list.d/cuda-debian13-x86_64.list").read_text()
    assert "signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg" in line
    assert line.rstrip().endswith("/stub-nvidia/compute/cuda/repos/debian13/x86_64 /")
    assert (tmp_path / "usr/share/keyrings/cuda-archive-keyring.gpg").stat().st_size > 100


def test_the_table_marks_what_is_not_verified() -> None:
    rows = yaml.safe_load(recipe_stub_nvidia.TABLE.read_text())["packages"]
    assert {row["name"] for row in rows if row.get("unverified")} >= {"nvidia-driver-cuda", "nvidia-kernel-open-dkms"}
