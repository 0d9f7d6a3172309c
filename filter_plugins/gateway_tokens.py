# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters of the gateway role about tokens (JWT): refuse bad issuers, and lay out what Nginx reads of good ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# Ansible loads this file on its own; the project's packages lie beside filter_plugins.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from policy.token_sources import sources
from policy.tokens import concurrencies, issuer_document, issuer_problems


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Names of the filters."""
        return {
            "gateway_issuer_problems": issuer_problems,
            "gateway_issuer_document": issuer_document,
            "gateway_jwks_sources": sources,
            "gateway_issuer_concurrencies": concurrencies,
        }
