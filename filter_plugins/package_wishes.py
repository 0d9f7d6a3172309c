# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters of the lock: what the hosts' roles wish, put together for one platform. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def package_wishes(noted: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return {wishes: {role: [packages]}, repositories, streams: [...]} of several hosts' fact `redoubt_wishes`.

    A repository that several hosts name stands there once. Raises ValueError where two of one name differ.
    """
    wishes: dict[str, set[str]] = {}
    repositories: dict[str, Any] = {}
    streams: set[str] = set()
    for host in noted:
        for role, row in host.items():
            wishes.setdefault(role, set()).update(row["packages"])
            streams.update(row["streams"])
            for one in row["repositories"]:
                if repositories.setdefault(one["name"], one) != one:
                    raise ValueError(f"two repositories are called {one['name']}: {repositories[one['name']]}, {one}")
    return {
        "wishes": {role: sorted(names) for role, names in sorted(wishes.items())},
        "repositories": [repositories[name] for name in sorted(repositories)],
        "streams": sorted(streams),
    }


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"package_wishes": package_wishes}
