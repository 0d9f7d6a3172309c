"""The gateway role's configuration, rendered by Ansible as on a real run, without a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
ROLE = REPO / "roles/gateway"
KEY = "sk-0123456789abcdef0123456789abcdef0123456789abcdef"
NAMES = ["redoubt.lab"]
MODELS: list[dict[str, Any]] = [
    {
        "name": "small",
        "servers": ["127.0.0.1:8101"],
        "routes": [
            {"path": "/v1/chat/completions", "methods": ["POST"], "stream": True},
            {"path": "/v1/models", "methods": ["GET"], "stream": False},
        ],
    },
    {
        "name": "large",
        "servers": ["10.0.0.5:8101", "10.0.0.6:8101"],
        "routes": [{"path": "/v1/chat/completions", "methods": ["POST"], "stream": True}],
    },
]
VARIABLES: dict[str, Any] = {
    "gateway_server_names": NAMES,
    "gateway_allowed_cidrs": ["10.0.0.0/8", "fd00::/8"],
    "gateway_api_keys": [{"name": "alice", "key": KEY}],
    "gateway_models": MODELS,
}


@dataclass(frozen=True)
class Rendered:
    """What the role would put on a host, and what it would refuse."""

    text: str
    keys: str
    problems: list[str]
    breaches: list[str]
    page: str
    issuers: str
    people: list[dict[str, str]]
    health: list[dict[str, str]]


def render(folder: Path, nginx: str = "1.26.3", openssl: str = "3.5.1", **variables: Any) -> Rendered:
    """Render with these versions of Nginx and OpenSSL on the (imagined) host.

    Raises subprocess.CalledProcessError when Ansible fails.
    """
    for name in ("templates", "files"):
        (folder / name).symlink_to(ROLE / name)
    look = f"@nginx\nnginx version: nginx/{nginx}\nbuilt with OpenSSL {openssl} 1 Jul 2025\n@ipv6\nyes\n"
    wanted = {
        "text": "__gateway_rendered.text",
        "keys": "__gateway_keys_text",
        "problems": "__gateway_settings | gateway_problems + __gateway_issuer_problems + __gateway_people_problems",
        "issuers": "__gateway_issuers_text",
        "people": "__gateway_people_files",
        "breaches": "__gateway_breaches",
        "health": "__gateway_health_others",
        "page": "lookup('ansible.builtin.template', 'page.js.j2')",
    }
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "become": False,
        "vars_files": [str(ROLE / f) for f in ("defaults/main.yml", "vars/main.yml", "vars/Debian.yml")],
        "vars": {
            "__gateway_look": {"stdout": look},
            "__gateway_rendered": "{{ __gateway_body | gateway_generation([__gateway_keys_text]) }}",
            "ansible_python_interpreter": sys.executable,
        },
        "tasks": [
            {
                "ansible.builtin.copy": {
                    "content": f"{{{{ ({text}) | to_json }}}}",
                    "dest": str(folder / name),
                    "mode": "0600",
                }
            }
            for name, text in wanted.items()
        ],
    }
    (folder / "play.yml").write_text(json.dumps([play]))
    # As extra variables: they must win over the role's defaults, which are plain files here.
    (folder / "extra.json").write_text(json.dumps({**VARIABLES, **variables}))
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "-i", "localhost,", "-e", f"@{folder / 'extra.json'}", str(folder / "play.yml")]
    subprocess.run(command, cwd=REPO, env=dict(os.environ), check=True, capture_output=True, timeout=120)
    return Rendered(**{name: json.loads((folder / name).read_text()) for name in wanted})
