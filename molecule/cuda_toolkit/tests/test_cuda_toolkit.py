"""CUDA toolkits side by side, from stub packages."""

from __future__ import annotations

from testinfra.host import Host

from tests.support.plays import Play


def nvcc(host: Host, folder: str = "cuda") -> str:
    return str(host.check_output(f"/usr/local/{folder}/bin/nvcc"))


def test_both_are_there_and_one_is_chosen(host: Host) -> None:
    assert nvcc(host, "cuda-13.0") == "stub nvcc 13.0.2"
    assert nvcc(host, "cuda-12.9") == nvcc(host) == "stub nvcc 12.9.1"
    assert set(host.check_output("apt-mark showhold").split()) == {"cuda-toolkit-13-0", "cuda-toolkit-12-9"}


def test_another_choice(host: Host, play: Play) -> None:
    run = play(cuda_toolkit_default="13.0.2")
    assert (run.status, run.changed) == (0, 1)
    assert nvcc(host) == "stub nvcc 13.0.2"
    assert play().status == 0
    assert nvcc(host) == "stub nvcc 12.9.1"


def test_exact_version_also_downwards(host: Host, play: Play) -> None:
    assert play(cuda_toolkit_versions=["13.0.1", "12.9"]).status == 0
    assert nvcc(host, "cuda-13.0") == "stub nvcc 13.0.1"
    assert play().status == 0
    assert nvcc(host, "cuda-13.0") == "stub nvcc 13.0.2"


def test_two_of_one_release_are_refused(host: Host, play: Play) -> None:
    run = play(cuda_toolkit_versions=["13.0.1", "13.0.2"], cuda_toolkit_default="13.0.1")
    assert run.status != 0
    assert "13.0 is there twice" in run.words
    assert nvcc(host, "cuda-13.0") == "stub nvcc 13.0.2"
