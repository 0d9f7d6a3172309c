#!/usr/bin/env python3
"""A stand-in for the `docker` command in unit tests of the release module: it keeps containers in a JSON file.

The real Docker Engine is used in molecule/inference. STUB_DOCKER is the state file:
{"images": {ref: id}, "containers": {name: {…}}, "crash": [names], "refuse_config": bool,
"kill_at": word, "calls": [...]}
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

STATE = Path(os.environ["STUB_DOCKER"])


def services(compose: str) -> dict[str, dict[str, str]]:
    """Container name → image, digest label and env file, from the template's form."""
    found = {}
    for block in re.split(r'\n  (?=")', compose):
        name = re.search(r"container_name: \"([^\"]+)\"", block)
        if name:
            image = re.search(r"image: \"([^\"]+)\"", block)
            digest = re.search(r"redoubt.digest: \"([^\"]+)\"", block)
            found[name.group(1)] = {
                "image": image.group(1) if image else "",
                "digest": digest.group(1) if digest else "",
            }
    return found


def up(state: dict[str, Any], words: list[str]) -> None:
    """Create what is new or differs, start what is stopped, remove what the file does not list."""
    compose = services(Path(words[words.index("--file") + 1]).read_text())
    forced = words[words.index("--force-recreate") + 1 :] if "--force-recreate" in words else []
    old = state["containers"]
    new = {}
    for name, service in compose.items():
        kept = old.get(name)
        same = kept and kept["labels"].get("redoubt.digest") == service["digest"] and name not in forced
        state["serial"] = state.get("serial", 0) + 1
        container = kept if same else {"id": f"id{state['serial']}", "image": state["images"][service["image"]]}
        crashes = name in state.get("crash", []) or service["digest"] in state.get("crash_digests", [])
        health = "starting" if crashes else state.get("health", "healthy")
        container.update(name=f"/{name}", status="running", health=health, exit_code=2 if crashes else 0)
        container["restarts"] = container.get("restarts", 0)
        container["crashing"] = crashes
        container["labels"] = {"redoubt.digest": service["digest"]}
        new[name] = container
    state["containers"] = new


def inspect(state: dict[str, Any], names: list[str]) -> int:
    """Print each container as the module's format asks; a crashing one has restarted once more each time."""
    status = 0
    for name in names:
        container = state["containers"].get(name)
        if container is None:
            status = 1
            continue
        container["restarts"] += 1 if container["crashing"] else 0
        print(json.dumps(container))
    return status


def main(words: list[str]) -> int:
    """Do one command."""
    state = json.loads(STATE.read_text())
    compose = words[0] == "compose"
    verbs = ("version", "config", "up", "stop")
    verb = next((w for w in words[1:] if w in verbs), "") if compose else " ".join(words[:2])
    state.setdefault("calls", []).append(" ".join(words))
    status = 0
    if words[0] == "version":
        print("26.1.5")
    elif verb == "version":
        print("2.26.1")
    elif verb == "config" and state.get("refuse_config"):
        print("services.x: additional properties are not allowed", file=sys.stderr)
        status = 15
    elif verb == "up":
        up(state, words)
    elif compose and verb == "stop":
        for container in state["containers"].values():
            container["status"] = state.get("after_stop", "exited")
    elif verb == "image inspect":
        if words[-1] in state["images"]:
            print(state["images"][words[-1]])
        else:
            print(f"Error: No such image: {words[-1]}", file=sys.stderr)
            status = 1
    elif verb == "container inspect":
        status = inspect(state, words[4:])
    elif words[0] == "events":
        print(json.dumps({"Action": "die", "Actor": {"Attributes": {"exitCode": "2"}}}))
        print(json.dumps({"Action": "oom", "Actor": {"Attributes": {}}}))
    elif words[0] == "logs":
        print("vllm: error: unrecognized arguments: --no-such-flag", file=sys.stderr)
    elif words[0] == "stop":
        for name in words[3:]:
            state["containers"][name]["status"] = "exited"
    kill = state.get("kill_at") == verb
    if kill:
        state["kill_at"] = ""
    STATE.write_text(json.dumps(state))
    if kill:
        os.kill(os.getppid(), signal.SIGKILL)
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
