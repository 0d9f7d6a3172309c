# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What a release of engines is, and which input is refused: pure functions. Standard library only, Python 3.9+.

A release is a directory with `compose.yml`, `env/<container>.env` and `manifest.json`. Its digest covers everything
that decides what runs, and nothing else: two runs with the same wishes have the same digest.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from dataclasses import dataclass
from typing import Any

CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PRIVATE = [ipaddress.ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")]


class SpecError(Exception):
    """The input is refused; `problems` has one line for each reason (what, where, why, fix)."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Engine:
    """What the transaction needs to know of one engine; the compose file has the rest."""

    name: str
    container: str
    image: str
    config_digest: str
    manifest_digest: str
    address: str
    port: int
    health_path: str
    timeout: float
    stop_grace: float
    weights_name: str
    weights_revision: str
    weights_path: str

    def url(self, path: str) -> str:
        """The address at which the host itself reaches this engine."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}{path}"


def parse_engines(rows: list[dict[str, Any]]) -> list[Engine]:
    """Engines from the role's list. Raises SpecError with every problem found, not only the first."""
    problems: list[str] = []
    engines: list[Engine] = []
    if not rows:
        problems.append("inference_engines is empty: name at least one engine, or take the host out of this play")
    for index, row in enumerate(rows):
        where = f"inference_engines[{index}] ({row.get('name', 'no name')})"
        try:
            engines.append(_engine(row))
        except (KeyError, TypeError, ValueError) as error:
            problems.append(f"{where}: {_missing(error)}")
            continue
        problems += [f"{where}: {text}" for text in _engine_problems(engines[-1])]
    problems += _duplicates(engines)
    if problems:
        raise SpecError(problems)
    return engines


def _missing(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)


def _engine(row: dict[str, Any]) -> Engine:
    image, weights = row["image"], row["weights"]
    health = row.get("health") or {}
    return Engine(
        name=str(row["name"]),
        container=str(row["container"]),
        image=str(image["ref"]),
        config_digest=str(image.get("config_digest") or ""),
        manifest_digest=str(image.get("digest") or ""),
        address=str(row["address"]),
        port=int(row["port"]),
        health_path=str(health.get("path", "/health")),
        timeout=float(health.get("timeout", 600)),
        stop_grace=float(row.get("stop_grace_period", 120)),
        weights_name=str(weights["name"]),
        weights_revision=str(weights["revision"]),
        weights_path=str(weights["path"]),
    )


def _engine_problems(engine: Engine) -> list[str]:
    problems = []
    if not CONTAINER.fullmatch(engine.container):
        problems.append(
            f"container {engine.container!r} is no name that Docker takes; use letters, digits, '_', '.' and '-'"
        )
    if not 1 <= engine.port <= 65535:
        problems.append(f"port {engine.port} does not exist; choose one from 1 to 65535")
    if not address_allowed(engine.address):
        problems.append(
            f"address {engine.address!r} is neither loopback nor private, so the engine would be open to others without"
            " a key; use 127.0.0.1, or set redoubt_private_address to the host's address on the private network"
        )
    if not any(DIGEST.fullmatch(d) for d in (engine.config_digest, engine.manifest_digest)):
        problems.append(
            f"image {engine.image} has no digest, so its content could not be checked; set config_digest (or digest)"
            " of this image in redoubt_images"
        )
    if not engine.weights_path.startswith("/"):
        problems.append(f"weights.path {engine.weights_path!r} is not an absolute path")
    return problems


def address_allowed(address: str) -> bool:
    """Whether an engine may listen there: loopback and private networks only, never all addresses."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_loopback or any(parsed in net for net in PRIVATE if net.version == parsed.version)


def _duplicates(engines: list[Engine]) -> list[str]:
    problems = []
    for what in ("name", "container", "port"):
        seen: dict[Any, str] = {}
        for engine in engines:
            value = getattr(engine, what)
            if value in seen:
                problems.append(
                    f"inference_engines: {what} {value!r} is used by both {seen[value]!r} and {engine.name!r};"
                    f" give one of them another {what} in redoubt_models"
                )
            seen.setdefault(value, engine.name)
    return problems


def env_text(values: dict[str, Any]) -> str:
    """An environment file. Single quotes keep Compose from expanding `$`; ValueError for what they cannot hold."""
    lines = ["# Written by Ansible; part of an immutable release."]
    for key in sorted(values):
        value = str(values[key])
        if not VARIABLE.fullmatch(key):
            raise ValueError(f"{key!r} is no name of an environment variable")
        if "'" in value or "\n" in value:
            raise ValueError(f"the value of {key} holds a single quote or a line break, which an env file cannot carry")
        lines.append(f"{key}='{value}'")
    return "\n".join(lines) + "\n"


def env_values(text: str) -> dict[str, str]:
    """The inverse of `env_text`, for its own output only."""
    pairs = (line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {key: value[1:-1] for key, value in pairs}


def split_services(compose: str) -> tuple[str, dict[str, str]]:
    """A compose text as (what belongs to every service, text of each service), without lines of comment.

    Volumes belong to one service each, so a new engine's volume does not concern the others: they are left out.

    Relies on the template's form: top-level keys in column 0, each service's name alone on a line, two spaces in.
    """
    rest: list[str] = []
    blocks: dict[str, list[str]] = {}
    section, current = "", ""
    for line in compose.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue  # better words are no reason to restart an engine
        if not line.startswith(" "):
            section, current = line.rstrip(), ""
        if section == "volumes:":
            continue
        name = re.fullmatch(r'  "?([A-Za-z0-9_.-]+)"?:\s*', line) if section == "services:" else None
        if name:
            current = name.group(1)
            blocks[current] = []
        (blocks[current] if current else rest).append(line)
    return "\n".join(rest), {key: "\n".join(lines) for key, lines in blocks.items()}


def sha256(text: str) -> str:
    """Digest of a text in the `sha256:…` form."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Wanted:
    """The release that the inventory asks for, before it has a number."""

    engines: list[Engine]
    template: str
    env: dict[str, str]
    digests: dict[str, str]
    digest: str

    def files(self, since: dict[str, int]) -> dict[str, str]:
        """Content by path below the release; `since` says for each container in which release its settings came."""
        text = self.template
        for container, digest in self.digests.items():
            text = text.replace(f"@release:{container}@", str(since[container]))
            text = text.replace(f"@digest:{container}@", digest.split(":")[1][:16])
        return {"compose.yml": text, **{f"env/{name}.env": body for name, body in self.env.items()}}

    def env_digests(self) -> dict[str, str]:
        """Digest of each container's environment file."""
        return {name: sha256(body) for name, body in self.env.items()}

    def since(self, current: dict[str, Any], number: int) -> dict[str, int]:
        """Number of the release in which each engine's settings first appeared, so that unchanged ones keep running."""
        old = {row["container"]: row for row in current.get("engines", [])}
        return {
            container: int(old[container]["since"]) if old.get(container, {}).get("digest") == digest else number
            for container, digest in self.digests.items()
        }


def wanted_release(
    rows: list[dict[str, Any]], compose: str, secrets: dict[str, dict[str, Any]] | None = None
) -> Wanted:
    """The wanted release from the role's engines, the rendered compose template and secret environment by model name.

    Raises SpecError.
    """
    engines = parse_engines(rows)
    secrets = secrets or {}
    problems = [
        f"inference_secret_environment: no engine is called {name!r}; the names here are"
        f" {', '.join(e.name for e in engines)}"
        for name in sorted(set(secrets) - {e.name for e in engines})
    ]
    rest, blocks = split_services(compose)
    env: dict[str, str] = {}
    for engine, row in zip(engines, rows):
        try:
            env[engine.container] = env_text({**(row.get("environment") or {}), **secrets.get(engine.name, {})})
        except ValueError as error:
            problems.append(f"environment of {engine.name}: {error}")
        if engine.container not in blocks:
            problems.append(f"the compose file has no service {engine.container!r} for {engine.name}")
    if problems:
        raise SpecError(problems)
    # The networks and volumes (`rest`) belong to every service.
    digests = {e.container: sha256("\0".join([rest, blocks[e.container], env[e.container]])) for e in engines}
    return Wanted(engines, compose, env, digests, sha256(json.dumps([compose, env, digests], sort_keys=True)))


def manifest(wanted: Wanted, number: int, since: dict[str, int], about: dict[str, Any]) -> dict[str, Any]:
    """The document that says what is in a release; `about` (when, from what) is no part of its digest."""
    return {
        "schema": 1,
        "number": number,
        "digest": wanted.digest,
        **about,
        "files": {path: sha256(text) for path, text in wanted.files(since).items()},
        "engines": [
            {
                **vars(engine),
                "digest": wanted.digests[engine.container],
                "since": since[engine.container],
            }
            for engine in wanted.engines
        ],
    }


def engines_of(document: dict[str, Any]) -> list[Engine]:
    """The engines that a manifest lists. Raises SpecError when it was not written by `manifest`."""
    names = list(Engine.__dataclass_fields__)
    try:
        return [Engine(**{name: row[name] for name in names}) for row in document["engines"]]
    except (KeyError, TypeError) as error:
        raise SpecError([f"manifest.json is not one of ours: {error}"]) from error
