# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The health gate: an engine is good when it stays up, answers its health path and completes a real prompt.

Compose's own `up --wait` is not used: with a restart policy it waits out the whole time on an engine that crashes
again and again. Standard library only, Python 3.9+.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ansible.module_utils.probes import http_request
from ansible.module_utils.release_docker import Container, last_lines
from ansible.module_utils.release_spec import Engine

Say = Callable[[str], None]


class Watched(Protocol):
    """What the gate asks of Docker."""

    def containers(self, names: list[str]) -> dict[str, Container]:
        """Containers by name."""

    def deaths(self, name: str, since: float) -> tuple[list[int], bool]:
        """Exit codes since a time, and whether memory ran out."""

    def logs(self, name: str, lines: int) -> str:
        """Last words of a container."""


@dataclass(frozen=True)
class GateOptions:
    """How patient the gate is and what it asks."""

    prompt: str = "The capital of France is"
    completion_timeout: float = 120
    crash_limit: int = 2
    log_lines: int = 15
    interval: float = 1.0


class GateError(Exception):
    """An engine is not good. The text says why, `container` is the culprit and `log` its last lines."""

    def __init__(self, engine: Engine, why: str, log: str = "") -> None:
        super().__init__(f"{engine.container} (model {engine.name}) {why}")
        self.container = engine.container
        self.log = log


@dataclass(frozen=True)
class Proof:
    """One real completion of one engine."""

    name: str
    text: str
    tokens: int
    seconds: float
    ready_after: float


def answers(engine: Engine, timeout: float = 5) -> bool:
    """Whether the health path answers 200 over the published port."""
    try:
        return bool(http_request(engine.url(engine.health_path), timeout=timeout)[0] == 200)
    except (OSError, http.client.HTTPException):
        return False


def reachable(engine: Engine) -> bool:
    """Whether the published port leads to a good engine; a slow answer is a busy engine, not a broken one."""
    try:
        return bool(http_request(engine.url(engine.health_path), timeout=5)[0] == 200)
    except socket.timeout:  # TimeoutError only from Python 3.10 on
        return True
    except (OSError, http.client.HTTPException):
        return False


def completion(engine: Engine, options: GateOptions, key: str = "") -> tuple[str, int]:
    """Ask for a few tokens; returns (text, number of tokens). Raises ValueError with what was wrong instead."""
    body = {"model": engine.name, "prompt": options.prompt, "max_tokens": 8, "temperature": 0}
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        status, _, raw = http_request(
            engine.url("/v1/completions"),
            "POST",
            headers,
            json.dumps(body).encode(),
            timeout=options.completion_timeout,
        )
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(f"did not complete a prompt: {error or type(error).__name__}") from error
    if status != 200:
        words = raw[:300].decode(errors="replace").strip()
        raise ValueError(f"answered {status} to a completion for model {engine.name!r}: {words}")
    return read_completion(raw)


def read_completion(raw: bytes) -> tuple[str, int]:
    """Text and number of tokens of a completion document. Raises ValueError when either is missing or empty."""
    try:
        document = json.loads(raw)
        text, tokens = document["choices"][0]["text"], document["usage"]["completion_tokens"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        words = raw[:200].decode(errors="replace")
        raise ValueError(f"gave no completion document but: {words!r}") from error
    if not isinstance(text, str) or not text or not isinstance(tokens, int) or tokens < 1:
        raise ValueError(f"completed nothing (text {text!r}, tokens {tokens!r})")
    return text, tokens


def trouble(now: Container | None, restarts_before: int, crash_limit: int) -> str:
    """Why a container cannot become good any more; empty as long as it may."""
    if now is None:
        return "does not exist"
    crashes = now.restarts - restarts_before
    if crashes >= crash_limit:
        return f"crash-loops: it ended {crashes} times"
    if now.status in ("exited", "dead", "paused", "removing"):
        return f"is {now.status}"
    # Docker also calls a container unhealthy that has just ended; that is counted as a crash above.
    if now.health == "unhealthy" and now.status == "running" and not crashes:
        return "runs, but its own health check fails"
    return ""


def prove(
    engines: list[Engine],
    docker: Watched,
    before: dict[str, Container],
    options: GateOptions,
    keys: dict[str, str],
    say: Say = lambda text: None,
) -> list[Proof]:
    """Wait until every engine is good. `before` are the containers as they were before the last `up`.

    Raises GateError for the first engine that cannot become good or needs longer than its own timeout.
    """
    start, since = time.monotonic(), time.time()
    proofs: dict[str, Proof] = {}
    pending = list(engines)
    while pending:
        now = docker.containers([engine.container for engine in engines])
        for engine in engines:
            _check(engine, now.get(engine.container), before, docker, options, since)
        for engine in list(pending):
            waited = time.monotonic() - start
            if engine.container not in proofs and answers(engine):
                proofs[engine.container] = _proof(engine, docker, options, keys, waited)
            # Docker's own verdict comes a little later; without it a next run would find the engine "starting".
            if engine.container in proofs and now[engine.container].health in ("healthy", ""):
                pending.remove(engine)
            elif waited > engine.timeout:
                why = f"was not ready after {engine.timeout:.0f} s (health.timeout of this model)"
                raise GateError(engine, why, _log(docker, engine, options))
            else:
                say(f"waiting for {engine.container}: {waited:.0f} of at most {engine.timeout:.0f} s")
        if pending:
            time.sleep(options.interval)
    return [proofs[engine.container] for engine in engines]


def _check(
    engine: Engine,
    now: Container | None,
    before: dict[str, Container],
    docker: Watched,
    options: GateOptions,
    since: float,
) -> None:
    earlier = before.get(engine.container)
    same = now is not None and earlier is not None and earlier.id == now.id
    why = trouble(now, earlier.restarts if same and earlier else 0, options.crash_limit)
    if why:
        codes, out_of_memory = docker.deaths(engine.container, since)
        if codes:
            why += f", exit code {codes[-1]}"
        if out_of_memory:
            why += ", out of memory (raise resources.memory of this model)"
        raise GateError(engine, why, _log(docker, engine, options))


def _proof(engine: Engine, docker: Watched, options: GateOptions, keys: dict[str, str], waited: float) -> Proof:
    asked = time.monotonic()
    try:
        text, tokens = completion(engine, options, keys.get(engine.container, ""))
    except ValueError as error:
        raise GateError(engine, str(error), _log(docker, engine, options)) from error
    return Proof(engine.name, text, tokens, round(time.monotonic() - asked, 2), round(waited, 1))


def _log(docker: Watched, engine: Engine, options: GateOptions) -> str:
    return str(last_lines(docker.logs(engine.container, options.log_lines), options.log_lines))
