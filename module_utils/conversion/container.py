"""The container of a conversion: started once, watched until it ends, always removed; its words are kept."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.programs import ask
from ansible.module_utils.release_docker import Container, Docker, DockerError, last_lines

PAUSE = 1.0
LAST_LINES = 8
# A container that has one of these has ended.
ENDED = ("exited", "dead")

# What may stop a container that works: a text for the operator, or None. It gets the container's last line.
Watch = Callable[[str], "str | None"]


class OneShot:
    """One container by its name; `log` is the file that gets its words."""

    def __init__(self, docker: Docker, name: str, log: Path) -> None:
        self._docker, self._name, self._log = docker, name, log

    def run(self, folder: Path, watch: Watch, timeout: float, pause: float = PAUSE) -> None:
        """Start it from `folder`/compose.yml and wait for its end. Raises Refusal unless it ends well."""
        start = time.time()
        try:
            self._docker.compose(str(folder), "up", "--detach", "--no-build", "--pull", "never")
            self._judge(self._wait(watch, time.monotonic() + timeout, timeout, pause), start)
        except DockerError as error:
            raise Refusal(str(error)) from None
        finally:
            self.remove()

    def _wait(self, watch: Watch, deadline: float, timeout: float, pause: float) -> Container:
        while True:
            found = self._docker.containers([self._name]).get(self._name)
            if found is None:
                raise Refusal(f"container {self._name} was removed by somebody while it worked")
            if found.status in ENDED:
                return found
            problem = watch(last_lines(self._docker.logs(self._name, 1), 1))
            if time.monotonic() > deadline:
                problem = f"it has not ended in {timeout:.0f} s (convert_timeout)"
            if problem:
                self._keep_words()
                raise Refusal(f"{problem}; it was stopped. Log: {self._log}")
            time.sleep(pause)

    def _judge(self, ended: Container, start: float) -> None:
        self._keep_words()
        if ended.exit_code == 0:
            return
        codes, no_memory = self._docker.deaths(self._name, start)
        code = codes[-1] if codes else ended.exit_code
        why = " for lack of memory (resources.memory, or the host's)" if no_memory else ""
        words = last_lines(self._docker.logs(self._name, LAST_LINES), LAST_LINES)
        raise Refusal(f"the job ended with {code}{why}. Log: {self._log}, which ends:\n{words}")

    def remove(self) -> None:
        """Remove the container, working or not; what it said is kept. Raises Refusal where Docker does not obey."""
        found = self._docker.containers([self._name])
        if self._name not in found:
            return
        self._keep_words()
        status, output, errors = ask(["docker", "rm", "--force", "--volumes", self._name], 120)
        if status and self._name in self._docker.containers([self._name]):
            raise Refusal(f"container {self._name} cannot be removed: {errors or output}")

    def _keep_words(self) -> None:
        self._log.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        with open(descriptor, "wb") as log, contextlib.suppress(FileNotFoundError, subprocess.TimeoutExpired):
            words = ["docker", "logs", self._name]
            subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, timeout=120, check=False
            )
