#!/usr/bin/python3
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Make the monitoring services use the files on disk, or say that they do not. Standard library only, Python 3.9+.

  monitoring_reload.py apply DIRECTORY      reload what has not loaded its files
  monitoring_reload.py check DIRECTORY      only look
  monitoring_reload.py password DIRECTORY   make Grafana's admin password, if there is a Grafana and no password

DIRECTORY/services.json says where they are: {prometheus: URL, alertmanager: URL, blackbox: URL, grafana: true|false}.
It is installed and put back together with their files, so that a restored configuration is asked at its own ports.

A service has loaded its files when its last good reload is newer than the last change in its directory, and no
later reload was refused. `check` ends with 1 and one line for each service that has not; `apply` reloads just those.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path

GRAFANA_UID = 472
SETTLED = 5.0  # seconds after which a service that found its port taken has ended


class State(Enum):
    """Whether a service uses the files on disk."""

    LOADED = "it does"
    STALE = "it has not read them"
    REFUSED = "it has read them and kept the older ones"
    SILENT = "it does not answer"


@dataclass(frozen=True)
class Finding:
    """A state and a line about it for the operator."""

    state: State
    text: str = ""


@dataclass(frozen=True)
class Service:
    """One service with a reload: where it answers and how its reload figures are called."""

    name: str
    url: str
    metric: str

    @property
    def container(self) -> str:
        """Name of the service's container."""
        return f"redoubt-{self.name}"


def newest_change(directory: Path) -> float:
    """When a file below `directory` last changed, came or went (seconds since the epoch); 0 for none."""
    paths = [directory, *directory.rglob("*")] if directory.is_dir() else []
    # A file's change time is also set by the rename that puts it in place; a folder's modification time by each
    # file that comes or goes, but not by setting its mode again.
    return max(
        (info.st_mtime if path.is_dir() else info.st_ctime for path in paths for info in [path.lstat()]), default=0.0
    )


def figures(text: str) -> dict[str, float]:
    """The samples without labels of a metrics page."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and not line.startswith("#") and "{" not in words[0]:
            found[words[0]] = float(words[1])
    return found


def judge(service: Service, text: str, changed: float) -> Finding:
    """What a metrics page says about `service` having loaded files that changed at `changed`."""
    values = figures(text)
    if values.get(f"{service.metric}_last_reload_successful") != 1:
        return Finding(
            State.REFUSED, f"{service.name} refuses the files on disk; see `docker logs {service.container}`"
        )
    loaded = values.get(f"{service.metric}_last_reload_success_timestamp_seconds", 0.0)
    if loaded < changed:
        return Finding(State.STALE, f"{service.name} has not read its files since they changed")
    return Finding(State.LOADED)


def look(service: Service, directory: Path) -> Finding:
    """Ask a running service whether it has loaded `directory`."""
    try:
        with urllib.request.urlopen(f"{service.url}/metrics", timeout=10) as answer:  # noqa: S310 - loopback, from the play
            text = answer.read().decode()
    except OSError as error:
        return Finding(State.SILENT, f"{service.name} does not answer at {service.url}: {error}")
    return judge(service, text, newest_change(directory))


def look_until(service: Service, directory: Path, seconds: float, passing: tuple[State, ...]) -> Finding:
    """Look again and again while the service is in a `passing` state, at most for `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = look(service, directory)
        if found.state not in passing or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def grafana_problem(directory: Path) -> str | None:
    """Grafana reads its provisioning once, at its start; its password file must exist then."""
    if not password_file(directory).exists():
        return "grafana has no admin password"
    form = "{{.State.StartedAt}}"
    done = subprocess.run(
        ["docker", "container", "inspect", "--format", form, "redoubt-grafana"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return "grafana has no container"
    started = _seconds(done.stdout.strip()) + 1
    changed = newest_change(directory / "provisioning")
    return "grafana has not been started since its provisioning changed" if started < changed else None


def password_file(directory: Path) -> Path:
    """Where Grafana's admin password lies."""
    return directory / "secrets" / "admin_password"


def make_password(directory: Path) -> None:
    """Make Grafana's admin password on this host, readable for Grafana's user only, unless there is one."""
    path = password_file(directory)
    if path.exists():
        return
    temporary = path.with_name(".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as stream:
        stream.write(secrets.token_urlsafe(24))
        stream.flush()
        os.fchown(stream.fileno(), GRAFANA_UID, GRAFANA_UID)
        os.fsync(stream.fileno())
    temporary.rename(path)


def reload(service: Service) -> None:
    """Tell a service to read its files again. Raises OSError or CalledProcessError when it cannot be told."""
    if service.name == "prometheus":
        # Its HTTP reload would come with HTTP shutdown and is therefore off.
        subprocess.run(["docker", "kill", "--signal", "HUP", service.container], check=True, capture_output=True)
        return
    request = urllib.request.Request(f"{service.url}/-/reload", data=b"", method="POST")  # noqa: S310 - as above
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - as above
        return


def apply(services: list[Service], directory: Path, with_grafana: bool, seconds: float) -> list[str]:
    """Reload what has not loaded its files; returns the problems that are left."""
    problems = []
    for service in services:
        files = directory / service.name
        # A service that was just started answers a little later, and has read its files then.
        found = look_until(service, files, seconds, (State.SILENT,))
        if found.state in (State.STALE, State.REFUSED):
            try:
                reload(service)
            except (OSError, subprocess.CalledProcessError) as error:
                problems.append(f"{service.name} does not take the new files: {_reason(error)}; {_last_words(service)}")
                continue
            # A signal takes a moment, and until then the outcome of the reload before it is shown.
            found = look_until(service, files, 10, (State.SILENT, State.STALE, State.REFUSED))
        if found.state is not State.LOADED:
            problems.append(f"{found.text}; {_last_words(service)}")
    if with_grafana and grafana_problem(directory / "grafana"):
        subprocess.run(["docker", "restart", "redoubt-grafana"], check=True, capture_output=True)
    return problems


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return error.read(2000).decode(errors="replace").strip()
    if isinstance(error, subprocess.CalledProcessError):
        return bytes(error.stderr).decode(errors="replace").strip()
    return str(error)


def _last_words(service: Service) -> str:
    """What a service last wrote, which says why it does not run or what it refuses.

    Who answers at its address may be somebody else, while the service itself has only begun to start: it may finish.
    """
    deadline = time.monotonic() + SETTLED
    while _is_starting(service) and time.monotonic() < deadline:
        time.sleep(0.2)
    command = ["docker", "logs", "--tail", "3", service.container]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return f"its last words: {done.stdout.decode(errors='replace').strip()[-1200:] or 'none'}"


def _is_starting(service: Service) -> bool:
    """Whether a container runs for the first time, and not long enough to have failed."""
    form = "{{.State.Running}} {{.RestartCount}} {{.State.StartedAt}}"
    command = ["docker", "container", "inspect", "--format", form, service.container]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    words = done.stdout.split()
    if done.returncode or len(words) != 3 or words[:2] != ["true", "0"]:
        return False
    return time.time() - _seconds(words[2]) < SETTLED


def _seconds(moment: str) -> float:
    """A moment as Docker writes it, rounded down: its nanoseconds are more than older versions of Python can parse."""
    return datetime.strptime(moment[:19] + "+0000", "%Y-%m-%dT%H:%M:%S%z").timestamp()


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("apply", "check", "password"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seconds", type=float, default=60, help="how long a service may take to answer")
    options = parser.parse_args(arguments)
    settings = json.loads((options.directory / "services.json").read_text())
    with_grafana = bool(settings["grafana"])
    services = [
        Service("prometheus", settings["prometheus"], "prometheus_config"),
        Service("alertmanager", settings["alertmanager"], "alertmanager_config"),
        Service("blackbox", settings["blackbox"], "blackbox_exporter_config"),
    ]
    if options.verb == "password":
        if with_grafana:
            make_password(options.directory / "grafana")
        return 0
    if options.verb == "apply":
        problems = apply(services, options.directory, with_grafana, options.seconds)
    else:
        findings = [look(service, options.directory / service.name) for service in services]
        problems = [found.text for found in findings if found.state is not State.LOADED]
        grafana = grafana_problem(options.directory / "grafana") if with_grafana else None
        problems += [grafana] if grafana else []
    print("\n".join(problems), end="")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
