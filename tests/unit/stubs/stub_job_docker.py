#!/usr/bin/env python3
"""A stand-in for the `docker` command in unit tests of conversions: what a job would do is written in a JSON file.

The real Docker Engine is used in molecule/convert. STUB_DOCKER is the state file: {"id": image Id, "containers": {…},
"calls": […], "job": {"files": {path: hex}, "links": {path: target}, "tools": {…}, "exit": 0, "runs": polls until it
ends or -1, "oom": bool, "kill_at": verb}}
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


def up(state: dict[str, Any], words: list[str]) -> None:
    """Do the job's work at once; it ends when it was asked about often enough."""
    compose = Path(words[words.index("--file") + 1]).read_text()
    name = re.findall(r'container_name: "([^"]+)"', compose)[0]
    places = {target: Path(source) for source, target in re.findall(r'source: "([^"]+)", target: "?([^",}]+)', compose)}
    job = state["job"]
    for path, data in job.get("files", {}).items():
        target = places["/output"] / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(bytes.fromhex(data))
    for path, text in job.get("links", {}).items():
        (places["/output"] / path).symlink_to(text)
    (places["/scratch"] / "tools.json").write_text(json.dumps(job.get("tools", {"stub": "1"})))
    state["read"] = {path.name: path.read_text() for path in places["/programs"].iterdir()}
    state["containers"][name] = {"polls": job.get("runs", 1), "image": re.findall(r'image: "([^"]+)"', compose)[0]}


def inspect(state: dict[str, Any], name: str) -> int:
    """Print the container as asked; each time it is nearer to its end."""
    container = state["containers"].get(name)
    if container is None:
        return 1
    ended = container["polls"] == 0
    container["polls"] -= 0 if container["polls"] <= 0 else 1
    row = {"name": f"/{name}", "id": "id1", "image": container["image"], "health": "", "restarts": 0, "labels": {}}
    row |= {"status": "exited" if ended else "running", "exit_code": state["job"].get("exit", 0) if ended else 0}
    print(json.dumps(row))
    return 0


def main(words: list[str]) -> int:
    """Do one command."""
    state = json.loads(STATE.read_text())
    verbs = ("version", "up")
    verb = next((w for w in words[1:] if w in verbs), "") if words[0] == "compose" else " ".join(words[:2])
    state["calls"].append(" ".join(words))
    status = 0
    if verb == "version":
        print("2.26.1")
    elif verb == "up":
        up(state, words)
    elif verb == "image inspect":
        print(json.dumps([{"Id": state["id"], "RepoDigests": [], "RootFS": {}}]))
    elif verb == "container inspect":
        status = inspect(state, words[-1])
    elif words[0] == "logs":
        print("Loading weights\nsomething is wrong with layer 7" if state["job"].get("exit") else "Loading weights")
    elif words[0] == "rm":
        state["containers"].pop(words[-1], None)
    elif words[0] == "events" and state["job"].get("oom"):
        print(json.dumps({"Action": "oom", "Actor": {"Attributes": {}}}))
        print(json.dumps({"Action": "die", "Actor": {"Attributes": {"exitCode": "137"}}}))
    kill = state["job"].get("kill_at") == verb
    if kill:
        state["job"]["kill_at"] = ""
    STATE.write_text(json.dumps(state))
    if kill:
        os.kill(os.getppid(), signal.SIGKILL)
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
