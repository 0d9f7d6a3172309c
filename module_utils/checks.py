# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks: each looks at one thing and says (ok, detail). Standard library only, Python 3.9+.

A check is data, `{id, kind, remedy, ...}`: the list for a host is computed by a pure filter on the control
host, so that the code here decides nothing. Checks of the gateway's policy are in `gateway_checks`, of the weights in
`weights_checks`.
"""

from __future__ import annotations

import glob
import http.client
import json
import os
import shutil
import ssl
import stat
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Dict, Tuple
from urllib.parse import urlencode

from ansible.module_utils.audit.checks import AUDIT_KINDS
from ansible.module_utils.config_files import load_snapshots, snapshot
from ansible.module_utils.gateway_checks import GATEWAY_KINDS
from ansible.module_utils.gpu import figures
from ansible.module_utils.gpu.checks import GPU_KINDS
from ansible.module_utils.jwks.checks import JWKS_KINDS
from ansible.module_utils.pool_health.checks import POOL_KINDS
from ansible.module_utils.probes import ask, http_request, run
from ansible.module_utils.weights_checks import WEIGHTS_KINDS

Check = Dict[str, Any]
Answer = Tuple[bool, str]

ENABLED = ("enabled", "enabled-runtime", "static", "alias", "indirect")

# Docker asks an engine every 10 s, for at most 10 s (healthcheck in templates/compose.yml.j2): until then an engine
# that serves already is still "starting".
HEALTH_ROUND = 20.0
HEALTH_PAUSE = 1.0


def _unit(check: Check) -> Answer:
    problem = ask({"unit": check["unit"]})
    if problem:
        return False, problem
    _, enabled = run(["systemctl", "is-enabled", check["unit"]], 20)
    word = enabled.splitlines()[-1] if enabled else "unknown"
    return word in ENABLED, f"active, {word} at boot"


def _docker_json(arguments: list[str]) -> Any:
    """What a docker command prints as JSON; None when it fails."""
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, timeout=60, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    try:
        return json.loads(done.stdout) if done.stdout.strip() else None
    except ValueError:
        return None


def _health(state: Any) -> str:
    """Docker's verdict on a container as `docker inspect` shows it, `none` without a health check."""
    return str((state.get("Health") or {}).get("Status", "none"))


def _loads(state: Any) -> bool:
    return bool(state["Running"]) and not state.get("Restarting") and _health(state) == "starting"


def _inspected(container: str) -> Any:
    """What Docker says of a container, with its verdict where one comes within a round of the health check."""
    deadline = time.monotonic() + HEALTH_ROUND
    while True:
        found = _docker_json(["inspect", "--type", "container", container])
        if not found or not _loads(found[0]["State"]) or time.monotonic() > deadline:
            return found
        time.sleep(HEALTH_PAUSE)


def _container(check: Check) -> Answer:
    found = _inspected(check["container"])
    if not found:
        return False, f"container {check['container']} does not exist"
    item = found[0]
    state = item["State"]
    if not state["Running"] or state.get("Restarting"):
        return False, f"container {check['container']} is {state['Status']} (exit {state['ExitCode']})"
    health = _health(state)
    if health == "starting":
        return False, f"container {check['container']} has run since {state['StartedAt'][:19]}Z and is still starting"
    if health not in ("healthy", "none"):
        return False, f"container {check['container']} runs but is {health}"
    digest = check.get("config_digest")
    if digest and item["Image"] != digest:
        return False, f"container {check['container']} runs image {item['Image']}, the plan says {digest}"
    allowed = check.get("addresses")
    bound = {
        f"{row['HostIp']}:{row['HostPort']}"
        for rows in (item["NetworkSettings"].get("Ports") or {}).values()
        for row in rows or []
    }
    if allowed is not None and not bound <= set(allowed):
        return False, f"container {check['container']} listens on {sorted(bound - set(allowed))}"
    return True, f"running, {health}, restarted {item.get('RestartCount', 0)} times"


def _completion(check: Check) -> Answer:
    body = json.dumps({"model": check["model"], "prompt": "1, 2, 3,", "max_tokens": 4, "temperature": 0})
    started = time.monotonic()
    status, _, answer = http_request(
        check["url"],
        "POST",
        {"Content-Type": "application/json"},
        body.encode(),
        timeout=check.get("timeout", 60),
    )
    if status != 200:
        return False, f"{check['url']} answers {status}: {answer[:200].decode(errors='replace')}"
    text = json.loads(answer)["choices"][0]["text"]
    return bool(text.strip()), f"completed {text!r} in {time.monotonic() - started:.1f} s"


def _answers(check: Check) -> Answer:
    problem = ask({"http": check["url"]})
    return not problem, problem or f"{check['url']} answers"


def _gpu_figures(check: Check) -> Answer:
    """Whether Prometheus is told the truth about the GPUs, and that truth is good."""
    status, _, body = http_request(check["url"], timeout=20)
    if status != 200:
        return False, f"{check['url']} answers {status}"
    found = figures.parse(body.decode(errors="replace"))
    wrong = figures.faults(found, check["expected"], time.time())
    return not wrong, "; ".join(wrong) or f"all {check['expected']} GPUs were there a short while ago"


def _firewall(check: Check) -> Answer:
    """The host's own program compares what the kernel has loaded with the file."""
    status, output = run(["/usr/bin/python3", check["program"], "check"], 60)
    return status == 0, output


def _told(check: Check) -> Answer:
    """Nothing to look at: the plan knows it, and the verdict shall say it."""
    return True, check["detail"]


def _log_limits(check: Check) -> Answer:
    ids = run(["docker", "ps", "--quiet"], 30)[1].split()
    rows = (_docker_json(["inspect", "--type", "container", *ids]) if ids else []) or []
    bad = []
    for item in rows:
        config = item["HostConfig"]["LogConfig"]
        limited = config["Type"] in ("local", "none", "journald") or "max-size" in (config["Config"] or {})
        if not limited:
            bad.append(item["Name"].lstrip("/"))
    if bad:
        return False, f"no log limit on {', '.join(sorted(bad))}: made before the limit was set"
    return True, f"{len(ids)} running containers, all with a log limit"


def _disk(check: Check) -> Answer:
    path = Path(check["path"])
    while not path.exists():
        path = path.parent
    usage = shutil.disk_usage(path)
    percent = 100 * usage.free / usage.total
    text = f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.1f} GB ({percent:.0f} %)"
    return percent >= check["min_free_percent"], text


def _drift(check: Check) -> Answer:
    directory = Path(check["state_dir"])
    goods = sorted(directory.glob("*.good.json")) if directory.is_dir() else []
    bad = []
    for good in goods:
        name = good.name[: -len(".good.json")]
        if not (directory / f"{name}.json").exists():
            bad.append(f"{name}: its last change was never proved")
        for item in load_snapshots(good.read_text()):
            if snapshot(item.path) != item:
                bad.append(f"{item.path} was changed by hand")
    return not bad, "; ".join(bad) or f"{len(goods)} configuration sets are as they were proved"


def _secrets(check: Check) -> Answer:
    found = sorted({place for pattern in check["patterns"] for place in glob.glob(pattern, recursive=True)})
    files = [place for place in found if stat.S_ISREG(os.lstat(place).st_mode)]
    bad = [place for place in files if os.lstat(place).st_mode & 0o077]
    return not bad, f"others may read {', '.join(bad)}" if bad else f"{len(files)} secrets, none readable by others"


def _certificate(check: Check) -> Answer:
    # The standard library reads a certificate's dates only through this helper of the ssl module.
    path = Path(check["path"])
    if not path.exists():
        return False, f"{path} does not exist"
    decoded = ssl._ssl._test_decode_cert(str(path))  # type: ignore[attr-defined]  # no public equivalent
    days = (ssl.cert_time_to_seconds(decoded["notAfter"]) - time.time()) / 86400
    return days >= check["min_days"], f"{path} is valid for another {days:.0f} days"


def _prometheus_json(url: str, query: str | None = None) -> Any:
    full = url + (f"?{urlencode({'query': query})}" if query else "")
    status, _, body = http_request(full, timeout=15)
    if status != 200:
        raise OSError(f"{url} answers {status}")
    return json.loads(body)["data"]


def _targets(check: Check) -> Answer:
    # What Prometheus says of a target is as old as its last scrape: one that was not asked yet, or that was down then
    # and may be up again, is judged by the next scrape.
    deadline = time.monotonic() + check.get("patience", 60)
    before: dict[str, str] | None = None
    while True:
        active = _prometheus_json(check["url"] + "/api/v1/targets?state=active")["activeTargets"]
        # The engines of a drained host may be stopped; that is no news, and nothing to wait for.
        watched = [t for t in active if t.get("labels", {}).get("host") not in check.get("drained", ())]
        if before is None:
            before = {t["scrapeUrl"]: t["lastScrape"] for t in watched if t["health"] == "down"}
        pending = [t for t in watched if t["health"] == "unknown" or before.get(t["scrapeUrl"]) == t["lastScrape"]]
        if (active and not pending) or time.monotonic() >= deadline:
            break
        time.sleep(2)
    down = [
        f"{t['scrapePool']} {t['scrapeUrl']}: {t['lastError'] or t['health']}" for t in watched if t["health"] != "up"
    ]
    resting = sum(t["health"] != "up" for t in active if t not in watched)
    failed = _prometheus_json(check["url"] + "/api/v1/query", "probe_success == 0")["result"]
    down += [f"probe of {row['metric'].get('instance')} fails" for row in failed]
    good = f"{len(active)} targets, all up" + (f" except {resting} of drained hosts" if resting else "")
    return bool(active) and not down, "; ".join(down) or good


def _rules(check: Check) -> Answer:
    groups = _prometheus_json(check["url"] + "/api/v1/rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    broken = [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] == "err"]
    return bool(rules) and not broken, "; ".join(broken) or f"{len(rules)} rules, none with an error"


def _release(check: Check) -> Answer:
    current = Path(check["path"])
    if not current.is_symlink() or not current.exists():
        return False, f"{current} does not lead to a release"
    return True, f"release {current.resolve().name}"


KINDS: Dict[str, Callable[[Check], Answer]] = {
    "unit": _unit,
    "container": _container,
    "completion": _completion,
    "answers": _answers,
    "told": _told,
    "firewall": _firewall,
    "gpu_figures": _gpu_figures,
    "log_limits": _log_limits,
    "disk": _disk,
    "drift": _drift,
    "secrets": _secrets,
    "certificate": _certificate,
    "targets": _targets,
    "rules": _rules,
    "release": _release,
    **GATEWAY_KINDS,
    **GPU_KINDS,
    **WEIGHTS_KINDS,
    **AUDIT_KINDS,
    **JWKS_KINDS,
    **POOL_KINDS,
}


def examine(check: Check) -> dict[str, Any]:
    """Carry out one check; returns {id, ok, detail, remedy, seconds}. Never raises for what it finds."""
    started = time.monotonic()
    try:
        ok, detail = KINDS[check["kind"]](check)
    except (OSError, http.client.HTTPException, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        ok, detail = False, f"{type(error).__name__}: {error}"
    return {
        "id": check["id"],
        "ok": ok,
        "detail": detail,
        "remedy": "" if ok else check.get("remedy", ""),
        "seconds": round(time.monotonic() - started, 3),
    }
