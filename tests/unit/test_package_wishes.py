"""Wishes: the tasks that install, asked what they would install on another platform."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from action_plugins.package_set import merged
from filter_plugins.package_wishes import package_wishes
from tests.lint.roles import REPOSITORY

PLAY = """
- name: Note the wishes
  hosts: all
  gather_facts: false
  vars:
    deployment_plan: {driver: null, gpu_stack: false, gpu_exporter: null, gpus_expected: 0}
  tasks:
    - name: Note them
      ansible.builtin.include_tasks: "{{ tasks }}"
    - name: Keep them
      ansible.builtin.copy:
        content: "{{ noted | map(attribute='ansible_facts.redoubt_wishes') | package_wishes | to_json }}"
        dest: "{{ out }}"
        mode: "0644"
      delegate_to: localhost
      connection: local
      run_once: true
      vars:
        noted: "{{ ansible_play_hosts | map('extract', hostvars) }}"
"""
# Nobody is at this address: who asks a host gets no answer.
INVENTORY = """
[gateways]
door ansible_host=192.0.2.1
[inference]
door
worker ansible_host=192.0.2.2
"""


def wishes(folder: Path, platform: str, **variables: Any) -> tuple[dict[str, Any], str]:
    """What the roles wish on this platform, and what Ansible said."""
    (folder / "play.yml").write_text(PLAY)
    (folder / "hosts").write_text(INVENTORY)
    out = folder / "wishes.json"
    out.unlink(missing_ok=True)
    extra = {"tasks": str(REPOSITORY / "playbooks/tasks/wishes.yml"), "out": str(out), "wishes_platform": platform}
    extra["ansible_python_interpreter"] = sys.executable
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            "hosts",
            "play.yml",
            "-e",
            json.dumps(extra | variables),
        ],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(out.read_text()) if out.exists() else {}
    return found, " ".join((done.stdout + done.stderr).split())


def test_all_roles_of_all_hosts_without_asking_one(tmp_path: Path) -> None:
    found, _ = wishes(tmp_path, "debian-13-amd64", common_packages=["mine"], weights_fanout=True)
    assert found == {
        "wishes": {
            "common": ["ca-certificates", "curl", "iproute2", "mine", "openssl", "procps"],
            "docker": ["docker-cli", "docker-compose", "docker.io"],
            "gateway": ["libnginx-mod-http-js", "logrotate", "nginx", "openssl", "python3-cryptography"],
            "logrotate": ["logrotate"],
            "weights": ["nginx", "openssl"],
        },
        "repositories": [],
        "streams": [],
    }


def test_another_platform_has_other_names_and_a_repository(tmp_path: Path) -> None:
    found, _ = wishes(tmp_path, "rocky-9-amd64", docker_source="docker", docker_repository_key="KEY")
    assert "procps-ng" in found["wishes"]["common"]
    assert "docker-ce" in found["wishes"]["docker"]
    (repository,) = found["repositories"]
    assert (repository["name"], repository["key"]) == ("docker", "KEY")
    assert "weights" not in found["wishes"]


def test_what_a_role_refuses_is_refused_when_locking(tmp_path: Path) -> None:
    found, said = wishes(tmp_path, "debian-12-amd64")
    assert found == {}
    assert "docker_source is distribution on Debian 12" in said


@pytest.mark.parametrize("driver", [{"version": "580.126.20"}, None], ids=["planned", "host not asked"])
def test_a_driver_is_not_guessed(tmp_path: Path, driver: dict[str, str] | None) -> None:
    plan = {"driver": driver, "gpu_stack": True, "gpu_exporter": None, "gpus_expected": 8}
    found, said = wishes(tmp_path, "debian-13-amd64", deployment_plan=plan)
    assert found == {}
    assert "shall get an NVIDIA driver" in said
    assert "lock_ask_hosts=true" in said


def test_a_driver_that_somebody_else_installs_is_not_asked_for(tmp_path: Path) -> None:
    plan = {"driver": None, "gpu_stack": True, "gpu_exporter": None, "gpus_expected": 8}
    found, said = wishes(tmp_path, "debian-13-amd64", deployment_plan=plan, nvidia_driver_manage=False)
    assert "nvidia_container_toolkit" in found["wishes"], said
    assert "nvidia_driver" not in found["wishes"]


def test_no_such_platform(tmp_path: Path) -> None:
    found, said = wishes(tmp_path, "debian-77-amd64")
    assert found == {}
    assert "redoubt_platforms" in said


def test_several_tasks_of_a_role_add_up() -> None:
    one = merged({}, {"packages": ["b", "a=1"], "first": ["pin"], "repository": {"name": "r"}, "stream": ""})
    assert one == {"packages": ["a=1", "b", "pin"], "repositories": [{"name": "r"}], "streams": []}
    assert merged(one, {"packages": ["c"], "repository": {"name": "r"}, "stream": "engine:4"}) == {
        "packages": ["a=1", "b", "c", "pin"],
        "repositories": [{"name": "r"}],
        "streams": ["engine:4"],
    }


def test_hosts_that_mean_another_repository_by_one_name() -> None:
    row = {"packages": [], "streams": ["s:1"], "repositories": [{"name": "r", "url": "https://a.example.org"}]}
    found = package_wishes([{"x": row}, {"y": row}])
    assert (found["repositories"], found["streams"]) == (row["repositories"], ["s:1"])
    other = {"packages": [], "streams": [], "repositories": [{"name": "r", "url": "https://b.example.org"}]}
    with pytest.raises(ValueError, match="two repositories are called r"):
        package_wishes([{"x": row}, {"x": other}])
