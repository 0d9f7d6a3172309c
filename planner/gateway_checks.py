"""What the doctor looks at of a gateway's audit log."""

from __future__ import annotations

from typing import Any


def audit() -> list[dict[str, Any]]:
    """Return the checks that the log is sealed, now and from now on."""
    return [
        {
            "id": "unit.audit_seal",
            "kind": "unit",
            "unit": "redoubt-audit-seal.timer",
            "remedy": "Run the gateway playbook: it installs and starts the timer.",
        },
        {
            "id": "gateway.audit",
            "kind": "audit",
            "state_dir": "/var/lib/redoubt/audit",
            "max_minutes": 30,
            "remedy": "Read 'journalctl -u redoubt-audit-seal' on the host, then run the audit playbook: it names"
            " what is wrong with the log.",
        },
    ]
