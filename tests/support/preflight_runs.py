"""Running playbooks/preflight.yml as an operator does, on inventories made by a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.plan_documents import images, lock, model

REPOSITORY = Path(__file__).resolve().parents[2]
SECRET = "sk-0123456789abcdefghijklmnopqrstuvwxyz"


def playbook(*arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook in the repository; stdout and stderr are together in `stdout`."""
    extra = ["--extra-vars", json.dumps(variables)] if variables else []
    environment = {**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), *arguments, *extra],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    print(done.stdout)  # pytest shows it when the test fails
    return done


def preflight(inventory: Path, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run preflight without asking any host, unless told otherwise."""
    return playbook("-i", str(inventory), "playbooks/preflight.yml", **{"preflight_plan_only": True, **variables})


def site() -> dict[str, Any]:
    """Return the variables of a small valid site."""
    return {
        "redoubt_models": [model()],
        "redoubt_images": images(),
        "redoubt_model_locks": {"small": lock("small")},
        "redoubt_lock_mode": "open",
        "redoubt_sources": {"images": "file:///media/redoubt/images", "models": "file:///media/redoubt/models"},
        "gateway_server_names": ["llm.example.org"],
        "gateway_allowed_cidrs": ["10.0.0.0/8"],
        "gateway_api_keys": [{"name": "demo", "key": SECRET}],
        # Nothing listens there: a test that asks a host fails at once.
        "ansible_host": "127.0.0.1",
        "ansible_port": 9,
    }


def write_inventory(
    folder: Path, variables: dict[str, Any], groups: dict[str, dict[str, dict[str, Any]]] | None = None
) -> Path:
    """Write an inventory; without groups one host `h1` that is everything."""
    chosen = groups or {group: {"h1": {}} for group in ("gateways", "inference", "monitoring")}
    document = {"all": {"vars": variables, "children": {name: {"hosts": hosts} for name, hosts in chosen.items()}}}
    path = folder / "hosts.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def certificate(*names: str, days: int = 30, age: int = 0) -> tuple[str, str]:
    """Return a certificate and its key as PEM texts; it began `age` days ago and lives for `days` days."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    start = datetime.now(UTC) - timedelta(days=age, minutes=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(serialization.Encoding.PEM).decode(), key.private_bytes(*form).decode()
