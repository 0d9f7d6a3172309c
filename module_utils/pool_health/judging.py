# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Who is taken out of a pool and who comes back, by what servers answered. Pure. Standard library only, Python 3.9+."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Dict, List, Optional

#: What is known of the servers of one pool, by host:port.
Standings = Dict[str, "Standing"]
FAILING = "max_fails=3 fail_timeout=10s"


@dataclass(frozen=True)
class Standing:
    """What is known of a server of a pool."""

    out: bool = False
    #: Answers of one kind in a row: above 0 good ones, below 0 bad ones.
    streak: int = 0
    since: str = ""
    why: str = ""
    #: It would be out if another server took requests.
    kept: bool = False

    def after(self, problem: Optional[str]) -> Standing:
        """The same after one more answer; None is a good one."""
        if problem is None:
            return replace(self, streak=max(self.streak, 0) + 1, why=self.why if self.out else "")
        return replace(self, streak=min(self.streak, 0) - 1, why=problem)


def judged(
    pool: Standings, answers: Dict[str, Optional[str]], fails: int, passes: int, now: str, least: int = 1
) -> Standings:
    """The servers of a pool after this round of answers, of those that were asked and no others.

    A server goes out after `fails` bad answers in a row and comes back after `passes` good ones. The last one stays
    (`least`), however it answers: a request that may fail is better than one that must. 0 is for pools with a backup.
    """
    found = {server: pool.get(server, Standing()).after(problem) for server, problem in answers.items()}
    for server, one in found.items():
        if one.out and one.streak >= passes:
            found[server] = Standing(False, one.streak, now)
    # The worst first, so that the last one is the one that answered the longest.
    for server in sorted(found, key=lambda name: found[name].streak):
        one = found[server]
        if one.out or -one.streak < fails:
            found[server] = replace(one, kept=False)
        elif sum(not other.out for other in found.values()) <= least:
            found[server] = replace(one, kept=True)
        else:
            found[server] = replace(one, out=True, since=now, kept=False)
    if least and found and all(one.out for one in found.values()):  # those that took requests have left the plan
        best = max(found, key=lambda name: found[name].streak)
        found[best] = replace(found[best], out=False, kept=True, since=now)
    return found


def dumped(pools: Dict[str, Standings]) -> Dict[str, Any]:
    """Plain data of all pools."""
    return {pool: {server: asdict(one) for server, one in servers.items()} for pool, servers in pools.items()}


def loaded(raw: Any) -> Dict[str, Standings]:
    """What `dumped` made. Raises ValueError, TypeError, AttributeError."""
    return {pool: {server: Standing(**one) for server, one in servers.items()} for pool, servers in raw.items()}


def pool_text(model: Dict[str, Any], standings: Standings) -> str:
    """The servers of a pool for Nginx; it avoids by itself, for 10 s, who has failed it three times."""
    lines: List[str] = ["# Written by redoubt-gateway-health: who takes requests, by what they answer."]
    out = {server: standings[server] for server in model["servers"] if server in standings and standings[server].out}
    if len(out) == len(model["servers"]) and not model["backup"]:
        out = {}  # nobody is left but them, until they were asked again
    for server in model["servers"]:
        weight = f"weight={model['weights'][server]} " if server in model["weights"] else ""
        takes = f"down; # out since {out[server].since}" if server in out else f"{FAILING};"
        lines.append(f"server {server} {weight}{takes}")
    lines += [f"server {server} down; # drained" for server in model["drained"]]
    lines += [f"server {server} backup;" for server in model["backup"]]
    return "\n".join(lines) + "\n"
