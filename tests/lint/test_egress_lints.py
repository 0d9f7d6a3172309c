"""The checks of test_egress can fail: each is shown something wrong, and lets pass what is right."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.lint import test_egress
from tests.lint.test_egress import UNPROVED, URL, fetch_problems

GET = "get_url: {{url: '{0}', dest: /x, checksum: '{1}'}}"
PROVED = GET.format("{{ role_url }}", "sha256:{{ role_sha256 }}")


def problems(*tasks: str) -> list[str]:
    return list(fetch_problems([{"name": "Go", **yaml.safe_load(task)} for task in tasks]))


@pytest.mark.parametrize(
    "task",
    [
        "ansible.builtin.apt: {name: curl}",
        "ansible.builtin.apt: {deb: /x}",
        "ansible.builtin.package: {name: curl, update_cache: true}",
        "package_set: {packages: [a], update_cache: true}",
        "ansible.builtin.pip: {name: x}",
        "ansible.builtin.git: {repo: x, dest: /x}",
        "community.docker.docker_image_pull: {name: x}",
        "ansible.builtin." + GET.format("{{ role_url }}", "md5:1"),
        "ansible.builtin." + GET.format("{{ base }}/x", "sha256:1"),
        "ansible.builtin.command: {argv: [curl, -O, x]}",
        "ansible.builtin.shell: {cmd: 'set -e; apt-get update'}",
        "ansible.builtin.shell: 'docker pull x'",
        "block: [{name: Go, ansible.builtin.command: /usr/bin/wget x}]",
    ],
)
def test_ways_past_the_lock_are_found(task: str) -> None:
    assert problems(task)


def test_our_own_ways_pass() -> None:
    assert problems("package_set: {packages: [curl]}", "container_images: {images: []}") == []
    assert problems("ansible.builtin.command: {argv: [apt-mark, showhold]}", "ansible.builtin.command: id curl") == []
    assert problems(f"ansible.builtin.{PROVED}", "ansible.builtin.apt: {deb: /x}") == []


@pytest.mark.parametrize(
    "line",
    [
        "deb [trusted=yes] x",
        "Trusted: yes",
        "gpgcheck=0",
        "apt-get --allow-unauthenticated",
        "curl -sS -k x",
        "validate_certs: false",
        'Acquire::AllowInsecureRepositories "true";',
        "pip --trusted-host x",
    ],
)
def test_what_is_taken_unproved_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    path = tmp_path / "roles/example/templates/x.j2"
    path.parent.mkdir(parents=True)
    path.write_text('gpgcheck=1\nAcquire::AllowInsecureRepositories "false";\nvalidate_certs: true\n')
    monkeypatch.setattr(test_egress, "REPOSITORY", tmp_path)
    test_egress.test_nothing_is_taken_unproved()
    path.write_text(line + "\n")
    assert UNPROVED.search(line)
    with pytest.raises(AssertionError, match=r"x\.j2:1"):
        test_egress.test_nothing_is_taken_unproved()


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("https://files.pythonhosted.net/x", True),
        ("http://10.1.2.3/x", True),
        ("https://{{ role_host }}/x", False),
        ("http://127.0.0.1:80/", False),
        ("http://[::1]:80/", False),
        ("https://repo.example.org/x", False),
    ],
)
def test_addresses_that_are_written_out_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, bad: bool
) -> None:
    path = tmp_path / "roles/example/tasks/main.yml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump([{"name": "Go", "x": {"url": text}}]) + "# see https://somewhere.net/\n")
    monkeypatch.setattr(test_egress, "REPOSITORY", tmp_path)
    assert bool(URL.search(text)) is bad
    if bad:
        with pytest.raises(AssertionError, match=r"tasks/main\.yml"):
            test_egress.test_no_address_is_written_out_in_a_task()
    else:
        test_egress.test_no_address_is_written_out_in_a_task()
