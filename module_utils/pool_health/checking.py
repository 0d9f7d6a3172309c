# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""One round: ask all servers, take out or bring back, and let Nginx know. Standard library only, Python 3.9+.

Runs on the gateway from plain copies of this code, by a timer: `python3 -m ansible.module_utils.pool_health.checking`.
What pools there are is written by the gateway role; who of them is down, here and nowhere else, so that neither takes
back what the other did. With `--write` nobody is asked: the files are written as they should be, for the role's own
check and reload.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, Optional

from ansible.module_utils.run_lock import Busy, only_run

from .judging import Standing, Standings, dumped, judged, loaded, pool_text

STATE = "state.json"
CHECK = ["nginx", "-t", "-q"]
RELOAD = ["systemctl", "reload", "nginx.service"]
MOST = 64  # servers that are asked at a time
Wanted = Dict[str, Any]


class Refused(Exception):
    """Nginx does not take the pools; the text says why."""


def problem_of(server: str, model: Wanted, timeout: float) -> Optional[str]:
    """Why a server does not take requests; None when it does."""
    # Straight to it, whatever proxy the environment names.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{server}{model['path']}", timeout=timeout) as answer:
            answer.read(1 << 16)
        if model["generation"]:
            body = {"model": model["name"], "prompt": "1", "messages": [{"role": "user", "content": "1"}]}
            del body["messages" if model["generation"] == "/v1/completions" else "prompt"]
            request = urllib.request.Request(
                f"http://{server}{model['generation']}",
                json.dumps({**body, "max_tokens": 1}).encode(),
                {"Content-Type": "application/json"},
            )
            with opener.open(request, timeout=timeout) as answer:
                json.loads(answer.read(1 << 20))["choices"][0]
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return None


def asked(wanted: Wanted) -> Dict[str, Dict[str, Optional[str]]]:
    """What all servers answer, by pool and server."""
    pairs = [(model, server) for model in wanted["models"] for server in model["servers"]]
    with ThreadPoolExecutor(MOST) as pool:
        problems = list(pool.map(lambda pair: problem_of(pair[1], pair[0], wanted["timeout"]), pairs))
    found: Dict[str, Dict[str, Optional[str]]] = {model["pool"]: {} for model in wanted["models"]}
    for (model, server), problem in zip(pairs, problems):
        found[model["pool"]][server] = problem
    return found


def remembered(path: Path) -> Dict[str, Standings]:
    """What the last round knew; nothing when that cannot be read, so that all servers begin as good ones."""
    try:
        return loaded(json.loads(path.read_text())["pools"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def run_before(path: Path) -> int:
    """When the last round ended well; 0 for never."""
    try:
        return int(json.loads(path.read_text())["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def texts(wanted: Wanted, pools: Dict[str, Standings]) -> Dict[str, str]:
    """What the file of each pool should hold."""
    return {model["pool"]: pool_text(model, pools.get(model["pool"], {})) for model in wanted["models"]}


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file as a whole. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.chmod(mode)
    with temporary.open() as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)


def write_pools(folder: Path, wanted: Dict[str, str]) -> Dict[str, str]:
    """Write the files that differ, and tell what stood there before. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    before: Dict[str, str] = {}
    for name, text in wanted.items():
        path = folder / f"{name}.conf"
        old = path.read_text() if path.exists() else ""
        if old != text:
            before[name] = old
            write(path, text)
    return before


def _run(command: List[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise Refused(f"{' '.join(command)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")


def apply(folder: Path, wanted: Dict[str, str]) -> bool:
    """Let Nginx load the pools where they differ; what it refuses is put back. Raises Refused, OSError."""
    before = write_pools(folder, wanted)
    if not before:
        return False
    try:
        _run(CHECK)
        _run(RELOAD)
    except (Refused, subprocess.SubprocessError, OSError):
        write_pools(folder, before)
        raise
    return True


def metrics_text(wanted: Wanted, pools: Dict[str, Standings], now: float) -> str:
    """The figures in Prometheus' text format."""
    rows = [
        "# HELP redoubt_gateway_server_out Whether a server was taken out of its pool, as it answers no checks",
        "# TYPE redoubt_gateway_server_out gauge",
    ]
    kept = [
        "# HELP redoubt_gateway_server_kept Whether a server answers no checks, but is the last one of its pool",
        "# TYPE redoubt_gateway_server_kept gauge",
    ]
    for model in wanted["models"]:
        for server, one in pools.get(model["pool"], {}).items():
            labels = f'{{model="{model["name"]}",server="{server}"}}'
            rows.append(f"redoubt_gateway_server_out{labels} {int(one.out)}")
            kept.append(f"redoubt_gateway_server_kept{labels} {int(one.kept)}")
    run = "redoubt_gateway_health_run_timestamp_seconds"
    told = [f"# HELP {run} When the servers were last asked", f"# TYPE {run} gauge", f"{run} {int(now)}"]
    return "\n".join([*rows, *kept, *told]) + "\n"


def one_round(options: argparse.Namespace) -> None:
    """Ask, judge, apply, remember. Raises Refused, OSError, ValueError."""
    wanted = json.loads(options.wanted.read_text())
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    before = remembered(options.state_dir / STATE)
    least = {model["pool"]: 0 if model["backup"] else 1 for model in wanted["models"]}
    pools = {
        pool: judged(before.get(pool, {}), answers, wanted["fails"], wanted["passes"], stamp, least[pool])
        for pool, answers in asked(wanted).items()
    }
    # First what is known, so that a run that is killed is made up for by the next one.
    state = {"run": run_before(options.state_dir / STATE), "pools": dumped(pools)}
    write(options.state_dir / STATE, json.dumps(state, indent=1) + "\n")
    apply(options.pools, texts(wanted, pools))
    for pool, servers in pools.items():
        for server, one in servers.items():
            if one.out != before.get(pool, {}).get(server, Standing()).out:
                print(f"<4>{server} of {pool} {'is out: ' + one.why if one.out else 'is back'}")  # a warning
    write(options.state_dir / STATE, json.dumps({**state, "run": int(now)}, indent=1) + "\n")
    if options.metrics and options.metrics.parent.is_dir():
        write(options.metrics, metrics_text(wanted, pools, now))


def main(arguments: Optional[List[str]] = None) -> int:
    """Entry point; 1 when the pools could not be brought up to date."""
    parser = argparse.ArgumentParser(prog="checking")
    parser.add_argument("--wanted", type=Path, required=True, help="the pools as the gateway role wrote them")
    parser.add_argument("--pools", type=Path, required=True, help="folder of the files that Nginx includes")
    parser.add_argument("--state-dir", type=Path, required=True, help="what is known of the servers")
    parser.add_argument("--lock", type=Path, help="held by whoever changes the gateway's configuration")
    parser.add_argument("--metrics", type=Path, help="*.prom file in node exporter's folder")
    parser.add_argument("--write", action="store_true", help="write the files, ask nobody, leave Nginx alone")
    options = parser.parse_args(arguments)
    try:
        if options.write:
            wanted = json.loads(options.wanted.read_text())
            write_pools(options.pools, texts(wanted, remembered(options.state_dir / STATE)))
            return 0
        with only_run(options.lock, "the gateway's pools", 0):
            one_round(options)
    except Busy:
        return 0  # the configuration is being changed: the next round sees the new one
    except (Refused, subprocess.SubprocessError, OSError, ValueError, KeyError) as error:
        print(f"<3>the pools stay as they were: {error}")  # an error in the journal
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
