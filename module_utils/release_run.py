# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The transaction: stage, check, start, prove, make current; or bring the previous release back and say why.

Standard library only, Python 3.9+.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.release_docker import Docker, DockerError
from ansible.module_utils.release_gate import GateError, GateOptions, Proof, prove, reachable
from ansible.module_utils.release_spec import (
    Engine,
    SpecError,
    Wanted,
    engines_of,
    env_values,
    manifest,
)
from ansible.module_utils.release_store import Store

AT_REST = ("exited", "created", "dead")
UP = ("up", "--detach", "--pull", "never", "--remove-orphans")


class Refused(Exception):
    """The wish was not carried out; the text says what is in service now and what to do."""


@dataclass
class Outcome:
    """What a transaction did."""

    action: str
    number: int
    changed: bool = True
    reasons: list[str] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    pruned: list[int] = field(default_factory=list)


def host_problems(engines: list[Engine], docker: Docker) -> list[str]:
    """What the host lacks for these engines: images, the right content of images, weights."""
    problems = []
    ids = docker.image_ids([engine.image for engine in engines])
    for engine in engines:
        found = ids.get(engine.image)
        allowed = [digest for digest in (engine.config_digest, engine.manifest_digest) if digest]
        if found is None:
            problems.append(
                f"image {engine.image} of model {engine.name} is not on this host;"
                " run the images role (it brings it from redoubt_sources.images)"
            )
        elif found not in allowed:
            problems.append(
                f"image {engine.image} of model {engine.name} has the id {found} on this host, but the lock says"
                f" {' or '.join(allowed)}; remove it ('docker image rm --force {engine.image}') and run the images role"
            )
        if not os.path.isdir(engine.weights_path) or not os.listdir(engine.weights_path):
            problems.append(
                f"the weights of model {engine.name} are not in {engine.weights_path};"
                " run the weights role (it brings them from redoubt_sources.models)"
            )
    return problems


def drift(engines: list[Engine], digests: dict[str, str], docker: Docker) -> tuple[dict[str, str], bool]:
    """For each container that is not as its release says: what is wrong; and whether a good one still starts."""
    now = docker.containers([engine.container for engine in engines])
    ids = docker.image_ids([engine.image for engine in engines])
    wrong: dict[str, str] = {}
    for engine in engines:
        found = now.get(engine.container)
        if found is None:
            wrong[engine.container] = "does not exist"
        elif found.status != "running":
            wrong[engine.container] = f"is {found.status}"
        elif found.digest != digests[engine.container].split(":")[1][:16]:
            wrong[engine.container] = "runs with settings of another release"
        elif found.image_id != ids.get(engine.image):
            wrong[engine.container] = f"does not run the image {engine.image}"
        elif found.health == "unhealthy":
            wrong[engine.container] = "is unhealthy"
        elif found.health != "starting" and not reachable(engine):
            wrong[engine.container] = f"does not answer on {engine.address}:{engine.port}"
    starting = any(now[e.container].health == "starting" for e in engines if e.container not in wrong)
    return wrong, starting


def running_containers(store: Store, docker: Docker) -> list[str]:
    """Names of the containers of the release in service that are not at rest."""
    names = [engine.container for engine in engines_of(store.manifest(store.current()))] if store.current() else []
    found = docker.containers(names) if names else {}
    return [name for name, container in found.items() if container.status not in AT_REST]


class Transaction:
    """One run on one host."""

    def __init__(self, store: Store, docker: Docker, options: GateOptions, keep: int) -> None:
        self.store = store
        self.docker = docker
        self.options = options
        self.keep = keep

    def present(self, wanted: Wanted, about: dict[str, Any]) -> Outcome:
        """Make the wanted release the one in service. Raises Refused."""
        self._require(wanted.engines)
        current = self.store.current()
        document = self.store.manifest(current)
        if document.get("digest") == wanted.digest:
            return self._keep(wanted, current, document)
        number = self.store.leftover(wanted.digest) or self._stage(wanted, document, about)
        return self._switch(number, "released")

    def roll_back(self, number: int) -> Outcome:
        """Bring an earlier release back (0: the one before the current). Raises Refused."""
        current = self.store.current()
        number = number or int(self.store.state()["previous"])
        if number == current and number:
            return Outcome("unchanged", current, changed=False)
        if number not in self.store.numbers() or number not in self.store.state()["proved"]:
            known = [n for n in self.store.numbers() if n != current]
            raise Refused(f"there is no proved release {number or 'before the current one'} here; there are {known}")
        bad = self.store.damaged(number)
        if bad:
            raise Refused(f"release {number} was changed by hand ({', '.join(bad)}), so it is not what was proved")
        self._require(engines_of(self.store.manifest(number)))
        return self._switch(number, "rolled_back")

    def stop(self) -> Outcome:
        """Stop the containers of the release in service, each with its own grace. Raises Refused."""
        number = self.store.current()
        running = running_containers(self.store, self.docker)
        if not running:
            return Outcome("unchanged", number, changed=False)
        engines = engines_of(self.store.manifest(number))
        patience = 60 + max(engine.stop_grace for engine in engines)
        self.store.progress(f"stopping {', '.join(running)}, for at most {patience:.0f} s")
        self.docker.compose(str(self.store.path(number)), "stop", timeout=patience)
        left = running_containers(self.store, self.docker)
        if left:
            raise Refused(f"{', '.join(left)} did not stop; read 'docker ps' on the host")
        return Outcome("stopped", number)

    def _require(self, engines: list[Engine]) -> None:
        problems = host_problems(engines, self.docker)
        if problems:
            raise Refused("; ".join(problems))

    def _stage(self, wanted: Wanted, current: dict[str, Any], about: dict[str, Any]) -> int:
        number = self.store.next_number()
        since = wanted.since(current, number)
        folder = self.store.stage(number, wanted.files(since), manifest(wanted, number, since, about))
        try:
            self.docker.compose(str(folder), "config", "--quiet")
        except DockerError as error:
            shutil.rmtree(folder)
            raise Refused(f"the compose file is refused, nothing was changed: {error}") from error
        self.store.publish(number)
        return int(number)

    def _keep(self, wanted: Wanted, number: int, document: dict[str, Any]) -> Outcome:
        reasons = []
        damaged = self.store.damaged(number)
        if damaged:
            since = {row["container"]: int(row["since"]) for row in document["engines"]}
            self.store.put_back(number, wanted.files(since), damaged)
            reasons.append(f"put back what was changed by hand: {', '.join(damaged)}")
        newest = self.store.numbers()[-1]
        if newest > number and not self._proved(newest):
            reasons.append("an earlier run was interrupted while it started another release")
        wrong, starting = drift(wanted.engines, wanted.digests, self.docker)
        reasons += [f"{container} {why}" for container, why in wrong.items()]
        if not reasons and not starting:
            return Outcome("unchanged", number, changed=False)
        before = self.docker.containers([engine.container for engine in wanted.engines])
        # Compose starts what has ended; anything else that is wrong (paused, unhealthy, foreign) it takes for running.
        ended = ("exited", "created")
        stale = [container for container in wrong if container in before and before[container].status not in ended]
        try:
            if stale:
                self._up(number, wanted.engines, "--force-recreate", *stale)
            if reasons:
                self._up(number, wanted.engines)
            proofs = self._prove(number, before)
        except (DockerError, GateError) as error:
            raise Refused(f"release {number} is in service, but {error}{_log_of(error)}") from error
        self.store.leftover("")
        self.store.promote(number)
        return Outcome("repaired" if reasons else "unchanged", number, bool(reasons), reasons, proofs)

    def _proved(self, number: int) -> bool:
        return number in self.store.state()["proved"]

    def _up(self, number: int, engines: list[Engine], *more: str) -> None:
        # Old containers get their grace before Compose comes back.
        patience = 300 + sum(engine.stop_grace for engine in engines)
        self.docker.compose(str(self.store.path(number)), *UP, *more, timeout=patience)

    def _prove(self, number: int, before: dict[str, Any]) -> list[Proof]:
        folder = self.store.path(number)
        engines = engines_of(self.store.manifest(number))
        keys = {}
        for engine in engines:
            values = env_values((folder / "env" / f"{engine.container}.env").read_text())
            keys[engine.container] = values.get("VLLM_API_KEY", "")
        return list(prove(engines, self.docker, before, self.options, keys, self.store.progress))

    def _switch(self, number: int, action: str) -> Outcome:
        engines = engines_of(self.store.manifest(number))
        self.store.progress(f"starting release {number}")
        before = self.docker.containers([engine.container for engine in engines])
        try:
            self._up(number, engines)
            proofs = self._prove(number, before)
        except (DockerError, GateError) as error:
            raise Refused(self._go_back(number, error)) from error
        self.store.promote(number)
        self.store.progress(f"release {number} is in service")
        return Outcome(action, number, True, [], proofs, self.store.prune(self.keep))

    def _go_back(self, number: int, error: Exception) -> str:
        current = self.store.current()
        text = f"release {number} was refused: {error}. {self._restore(current, number, error)}."
        if self._proved(number):  # a rollback that failed: it stays a good release
            return text + _log_of(error)
        place = self.store.reject(number)
        return (
            f"{text} Correct the model's settings (redoubt_models: engine_args, resources, image) and run again;"
            f" the refused files are in {place}{_log_of(error)}"
        )

    def _restore(self, current: int, number: int, error: Exception) -> str:
        if not current:
            names = [e.container for e in engines_of(self.store.manifest(number))]
            culprits = [error.container] if isinstance(error, GateError) else names
            self.docker.stop(culprits, 30)
            return f"There is no earlier release to go back to; stopped: {', '.join(culprits)}"
        bad = self.store.damaged(current)
        if bad:
            return f"Release {current} cannot be brought back: its files were changed by hand ({', '.join(bad)})"
        try:
            engines = engines_of(self.store.manifest(current))
            before = self.docker.containers([engine.container for engine in engines])
            self._up(current, engines)
            proofs = self._prove(current, before)
        except (DockerError, GateError, SpecError) as second:
            return f"Release {current} could not be brought back either: {second}"
        said = ", ".join(f"{p.name} answers again after {p.ready_after:.0f} s" for p in proofs)
        return f"Release {current} is in service again ({said})"


def _log_of(error: Exception) -> str:
    log = error.log if isinstance(error, GateError) else ""
    return f"\nLast lines of {error.container}:\n{log}" if isinstance(error, GateError) and log else ""
