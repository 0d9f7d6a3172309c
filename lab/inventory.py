"""Lab hosts as an Ansible inventory."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from lab import ssh
from lab.hosts import Host


def variables(host: Host) -> dict[str, Any]:
    """The connection variables of one host."""
    return {
        "ansible_host": host.address,
        "ansible_port": host.port,
        "ansible_user": host.user,
        "ansible_ssh_private_key_file": str(host.key_file),
        "ansible_ssh_common_args": shlex.join(ssh.options(host.known_hosts_file)),
        "ansible_python_interpreter": "/usr/bin/python3",
    }


def document(hosts: Iterable[Host]) -> dict[str, Any]:
    """An inventory, in the shape of `ansible-inventory --list`, of these hosts."""
    known = sorted(hosts, key=lambda host: host.name)
    return {
        "_meta": {"hostvars": {host.name: variables(host) for host in known}},
        "all": {"children": ["ungrouped"]},
        "ungrouped": {"hosts": [host.name for host in known]},
    }
