# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The Docker command line as the release module needs it. Standard library only, Python 3.9+."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.programs import ask

# What Compose tells about each step, as opposed to what is wrong.
PROGRESS = re.compile(r"\s*(Container|Network|Volume|Image) \S+ +[A-Z][a-z]+\s*$")
# One line of JSON for each container, without the log of health checks.
CONTAINER_FORMAT = (
    '{"name": {{json .Name}}, "id": {{json .ID}}, "image": {{json .Image}}, "status": {{json .State.Status}},'
    ' "health": {{if .State.Health}}{{json .State.Health.Status}}{{else}}""{{end}}, "restarts": {{.RestartCount}},'
    ' "exit_code": {{.State.ExitCode}}, "labels": {{json .Config.Labels}}}'
)


class DockerError(Exception):
    """Docker refused or is not there; the text is for the operator."""


@dataclass(frozen=True)
class Container:
    """One container as Docker sees it. `health` is empty when it has no health check."""

    id: str
    image_id: str
    status: str
    health: str
    restarts: int
    exit_code: int
    digest: str


class Docker:
    """Calls to the `docker` command; each raises DockerError with Docker's own words."""

    def __init__(self, project: str) -> None:
        self.project = project
        self._compose: list[str] = []

    def available(self) -> bool:
        """Whether an engine answers."""
        asked = ["docker", "version", "--format", "{{.Server.Version}}"]
        return bool(shutil.which("docker")) and ask(asked, 30)[0] == 0

    def compose_command(self) -> list[str]:
        """`docker compose` (the plugin) or `docker-compose` (the same program by another name), version 2 or later."""
        if not self._compose:
            for words in (["docker", "compose"], ["docker-compose"]):
                status, text, _ = ask([*words, "version", "--short"], 30)
                if status == 0 and re.match(r"v?([2-9]|\d\d)\.", text.strip()):
                    self._compose = words
                    break
            else:
                raise DockerError("Docker Compose 2 or later is not on this host; run the docker role first")
        return self._compose

    def compose(self, folder: str, *words: str, timeout: float = 120) -> None:
        """Run Compose on `folder`/compose.yml under this object's project name."""
        command = [*self.compose_command(), "--project-name", self.project, "--file", f"{folder}/compose.yml", *words]
        status, output, errors = ask(command, timeout)
        if status:
            text = "\n".join(line for line in (output + errors).splitlines() if not PROGRESS.match(line))
            raise DockerError(f"docker compose {words[0]} ended with {status}: {last_lines(text, 8)}")

    def image_ids(self, refs: list[str]) -> dict[str, str]:
        """Id of each image that is on the host; the others are left out. Raises DockerError when no engine answers."""
        found: dict[str, str] = {}
        for ref in dict.fromkeys(refs):
            status, output, errors = ask(["docker", "image", "inspect", "--format", "{{.Id}}", ref], 60)
            if status == 0:
                found[ref] = output.strip()
            elif "no such" not in errors.lower():
                raise DockerError(f"docker image inspect {ref} ended with {status}: {last_lines(errors, 3)}")
        return found

    def containers(self, names: list[str]) -> dict[str, Container]:
        """The containers of these names that exist."""
        # Inspect ends with 1 when one of them is missing, and still prints the others.
        _, output, _ = ask(["docker", "container", "inspect", "--format", CONTAINER_FORMAT, *names], 60)
        rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        return {row["name"].lstrip("/"): container_of(row) for row in rows}

    def deaths(self, name: str, since: float) -> tuple[list[int], bool]:
        """Exit codes of the ends of a container since a time (seconds of the epoch), and whether memory ran out.

        The container's own state forgets both as soon as it is restarted.
        """
        command = [
            "docker",
            "events",
            "--since",
            f"{since:.3f}",
            "--until",
            f"{time.time():.3f}",
            "--format",
            "{{json .}}",
        ]
        _, output, _ = ask([*command, "--filter", f"container={name}", "--filter", "type=container"], 30)
        rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        codes = [int(row["Actor"]["Attributes"].get("exitCode", 0)) for row in rows if row["Action"] == "die"]
        return codes, any(row["Action"] == "oom" for row in rows)

    def logs(self, name: str, lines: int) -> str:
        """The last words of a container, both streams."""
        _, output, errors = ask(["docker", "logs", "--tail", str(lines), name], 30)
        return f"{output}{errors}"

    def stop(self, names: list[str], grace: float) -> None:
        """Stop containers; they stay for inspection."""
        ask(["docker", "stop", "--time", str(int(grace)), *names], grace + 60)


def container_of(row: dict[str, Any]) -> Container:
    """A container from one line of CONTAINER_FORMAT."""
    return Container(
        id=row["id"],
        image_id=row["image"],
        status=row["status"],
        health=row["health"],
        restarts=row["restarts"],
        exit_code=row["exit_code"],
        digest=(row["labels"] or {}).get("redoubt.digest", ""),
    )


def last_lines(text: str, count: int) -> str:
    """The last `count` lines that are not empty, each at most 300 characters."""
    lines = [line.rstrip()[:300] for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-count:])
