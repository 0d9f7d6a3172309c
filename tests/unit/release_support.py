"""What the tests of the release module share: engines, the rendered template, a stub engine and the stub docker."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import ansible.module_utils
import yaml
from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

REPO = Path(__file__).resolve().parents[2]
if str(REPO / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(REPO / "module_utils"))
DIGEST = "sha256:" + "a" * 64
STUB = REPO / "tests/unit/stubs/stub_docker.py"


def load_module(name: str) -> Any:
    """A module of library/ as a Python module."""
    spec = importlib.util.spec_from_file_location(f"redoubt_{name}", REPO / f"library/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def engine(name: str = "tiny", port: int = 8101, weights: str = "/srv/models/tiny", **more: Any) -> dict[str, Any]:
    """One engine as the contract has it."""
    return {
        "name": name,
        "engine": "vllm",
        "container": f"redoubt-{name}",
        "image": {"ref": "redoubt.lab/engine:1", "config_digest": DIGEST},
        "address": "127.0.0.1",
        "port": port,
        "command": [f"/models/{name}", "--served-model-name", name],
        "environment": {"HF_HUB_OFFLINE": "1"},
        "weights": {"name": name, "revision": "b" * 40, "path": weights, "mount": f"/models/{name}"},
        "devices": [],
        "resources": {"cpus": 1.0, "memory": "1g", "shm_size": "64m"},
        "health": {"path": "/health", "start_period": 900, "timeout": 5},
        "metrics_path": "/metrics",
        "stop_grace_period": 120,
        **more,
    }


def render(engines: list[dict[str, Any]], **variables: Any) -> str:
    """The compose template as Ansible renders it, with the role's defaults."""
    values = yaml.safe_load((REPO / "roles/inference/defaults/main.yml").read_text())
    environment = SandboxedEnvironment(trim_blocks=True, undefined=StrictUndefined)  # as Ansible has it
    environment.filters["to_json"] = lambda value, **how: json.dumps(
        list(value) if hasattr(value, "__next__") else value, **how
    )
    environment.filters["regex_replace"] = lambda text, _pattern, prefix: prefix + text
    template = environment.from_string((REPO / "templates/compose.yml.j2").read_text())
    return template.render({**values, "ansible_managed": "Ansible managed", **variables, "inference_engines": engines})


class StubEngine(ThreadingHTTPServer):
    """A stand-in for an engine: health and completions over HTTP; `models` are the names it knows."""

    def __init__(self, port: int, models: list[str]) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.models = models
        self.text = " Paris."
        self.asked: list[dict[str, Any]] = []
        self.authorizations: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        """The port it got."""
        return int(self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    server: StubEngine

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""

    def _send(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._send(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        self.server.authorizations.append(self.headers.get("Authorization", ""))
        if asked["model"] not in self.server.models:
            self._send(404, {"error": {"message": f"The model `{asked['model']}` does not exist."}})
            return
        self._send(200, {"choices": [{"text": self.server.text}], "usage": {"completion_tokens": 3}})


class World:
    """A host in a folder: stub docker on PATH, weights, releases and state below `folder`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        (folder / "bin").mkdir()
        # Isolated and without site-packages: it is started a thousand times.
        (folder / "bin/docker").write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {STUB} "$@"\n')
        (folder / "bin/docker").chmod(0o755)
        self.weights = folder / "weights"
        self.weights.mkdir()
        (self.weights / "config.json").write_text("{}")
        self.state_file = folder / "docker.json"
        self.set(images={"redoubt.lab/engine:1": DIGEST}, containers={})

    def get(self) -> dict[str, Any]:
        """The stub docker's state."""
        loaded: dict[str, Any] = json.loads(self.state_file.read_text()) if self.state_file.exists() else {}
        return loaded

    def set(self, **values: Any) -> None:
        """Change the stub docker's state."""
        self.state_file.write_text(json.dumps({**self.get(), **values}))

    def environment(self) -> dict[str, str]:
        """The environment in which `docker` is the stub."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return {**os.environ, "STUB_DOCKER": str(self.state_file), "PATH": path}

    def params(self, engines: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
        """The release module's parameters."""
        rows = [engine(port=self.port, weights=str(self.weights))] if engines is None else engines
        return {
            "state": "present",
            "number": 0,
            "engines": rows,
            "compose": render(rows),
            "secret_environment": {},
            "project": "redoubt-inference",
            "root": str(self.folder / "opt"),
            "state_dir": str(self.folder / "var"),
            "keep": 5,
            "created_from": {"play": "test"},
            "prompt": "The capital of France is",
            "completion_timeout": 5,
            "crash_limit": 2,
            "lock_timeout": 900,
            **more,
        }

    def current(self) -> str:
        """What `current` points to."""
        link = self.folder / "opt/current"
        return os.readlink(link) if link.is_symlink() else ""

    def calls(self, word: str) -> list[str]:
        """Commands that the stub docker was given and that contain `word`."""
        return [call for call in self.get().get("calls", []) if word in call]


def engines_running(world: World) -> Iterator[str]:
    """Names of containers that run."""
    for name, row in world.get()["containers"].items():
        if row["status"] == "running":
            yield name
