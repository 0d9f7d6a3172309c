"""What the doctor looks at of a gateway: its audit log, keys that it fetches, the health of its servers."""

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


def fetched_keys(issuers: list[str]) -> list[dict[str, Any]]:
    """Return the checks that the keys of these issuers of tokens are fetched, now and from now on."""
    if not issuers:
        return []
    return [
        {
            "id": "unit.jwks",
            "kind": "unit",
            "unit": "redoubt-jwks.timer",
            "remedy": "Run the gateway playbook: it installs and starts the timer.",
        },
        {
            "id": "gateway.jwks",
            "kind": "jwks",
            "state_dir": "/var/lib/redoubt/jwks",
            "issuers": issuers,
            "max_minutes": 120,
            "remedy": "Read 'journalctl -u redoubt-jwks' on the host: it says why an issuer's keys were not had."
            " The last good ones are still used, so keys that the issuer has withdrawn are, too.",
        },
    ]


def pools() -> list[dict[str, Any]]:
    """Return the check that all servers take requests, where the gateway asks them."""
    return [
        {
            "id": "gateway.servers",
            "kind": "pool_health",
            "wanted": "/etc/redoubt/gateway/pools.json",
            "state_dir": "/var/lib/redoubt/gateway_health",
            "max_seconds": 900,
            "remedy": "Read the log of the engine that is named, and 'journalctl -u redoubt-gateway-health' on the"
            " gateway; drain its host meanwhile.",
        }
    ]
