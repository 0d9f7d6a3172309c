"""`demo`: the whole way once, from nothing to a model's answer through the gateway."""

from __future__ import annotations

import os
import secrets
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docker.errors import DockerException
from rich.console import Console
from rich.table import Table

from cli.ask import AskError, Gateway, ask, question
from cli.play import PlayResult, run_playbook, summary
from cli.processes import INTERRUPTED
from cli.progress import report_for
from cli.runs import ROOT, RUNS, shown
from cli.terminal import restored_terminal
from lab import engine, hosts, images, ssh
from lab.errors import LabError

HOST = "demo1"
INVENTORY = "inventories/demo"
MODEL = "smollm2-135m-instruct"
SERVER_NAME = "redoubt.lab"
QUESTION = "What is the capital of France?"
EXPECTED = "Paris"
FOLDER = ROOT / ".cache" / "demo"
CA_FILE = FOLDER / "ca.crt"
KEY_FILE = FOLDER / "keys" / "demo.key"
HEADER_FILE = FOLDER / "auth-header"
VERDICT = RUNS / "verdict.json"


class DemoError(RuntimeError):
    """A phase failed; the text says what, and where to look."""


class Interrupted(Exception):
    """The person stopped the demo while a playbook ran."""


class Phases:
    """Seconds by phase, in order; a phase that failed is marked."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, bool]] = []

    def add(self, name: str, seconds: float, ok: bool = True) -> None:
        """Record a phase that is over."""
        self.rows.append((name, seconds, ok))

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Record the body as a phase, also when it fails."""
        start, ok = time.monotonic(), False
        try:
            yield
            ok = True
        finally:
            self.add(name, time.monotonic() - start, ok)

    def table(self) -> Table:
        """The phases for a person."""
        table = Table("phase", box=None, pad_edge=False)
        table.add_column("seconds", justify="right")
        for name, seconds, ok in self.rows:
            table.add_row(name if ok else f"{name} (not finished)", f"{seconds:.1f}")
        table.add_row("total", f"{sum(seconds for _, seconds, _ in self.rows):.1f}")
        return table


def demo(console: Console, *, fresh: bool = False, down: bool = False) -> int:
    """The verb; its exit code. What went wrong is printed, with the place of the logs."""
    phases = Phases()
    try:
        with restored_terminal():
            if down:
                console.print(f"{HOST}: removed" if hosts.down(HOST) else f"{HOST}: there was none")
                return 0
            _demo(console, phases, fresh)
            return 0
    except (DemoError, AskError, LabError) as error:
        console.print(f"redoubt demo: {error}", style="bold red")
    except DockerException as error:
        console.print(f"redoubt demo: the container engine says: {error}", style="bold red")
    except (KeyboardInterrupt, Interrupted):
        console.print("redoubt demo: interrupted; the next call goes on from here")
        return INTERRUPTED
    finally:
        if phases.rows:
            console.print()
            console.print(phases.table())
    console.print("The host stays as it is: mend the cause and call `./redoubt demo` again, or add --fresh.")
    return 1


def make_key(path: Path) -> None:
    """The demo's API key, made once: 192 random bits, readable by this user alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    if not path.exists():
        _write_private(path, f"sk-{secrets.token_hex(24)}\n")


def curl_command(gateway: Gateway, header_file: Path) -> str:
    """The question as a command to repeat. The key is read from a file: it is in no process list and no history."""
    body = '{"model": "%s", "messages": [{"role": "user", "content": "%s"}], "temperature": 0, "max_tokens": 32}'
    words = [
        "curl",
        "-sS",
        "--resolve",
        f"{gateway.name}:{gateway.port}:{gateway.address}",
        "--cacert",
        shown(gateway.ca_file),
    ]
    words += ["-H", f"@{shown(header_file)}", "-H", "Content-Type: application/json"]
    words += ["-d", body % (MODEL, QUESTION), f"https://{gateway.name}/v1/chat/completions"]
    return shlex.join(words)


def _demo(console: Console, phases: Phases, fresh: bool) -> None:
    phases.add("Python environment", float(os.environ.get("REDOUBT_VENV_SECONDS") or 0))
    make_key(KEY_FILE)
    with report_for(console) as report:
        with phases.measure("lab images and model"):
            engine.ensure(report)
            images.build(report)
        if fresh:
            hosts.down(HOST)
            CA_FILE.unlink(missing_ok=True)
        with phases.measure("lab host"):
            host = hosts.up(HOST, report=report)
    _play(console, phases, "site")
    _play(console, phases, "verify")
    gateway = Gateway(SERVER_NAME, host.address, CA_FILE, KEY_FILE)
    with phases.measure("question"):
        _question(console, gateway)
    _write_private(HEADER_FILE, f"Authorization: Bearer {KEY_FILE.read_text(encoding='utf-8').strip()}\n")
    _links(console, gateway, host)


def _play(console: Console, phases: Phases, name: str) -> None:
    console.print()
    console.print(f"{name}.yml on {INVENTORY}" if name == "site" else f"{name}.yml: the doctor", style="bold")
    with phases.measure(f"{name}.yml"):
        result = run_playbook(name, INVENTORY, console=console)
        summary(console, result)
        _check(name, result)


def _check(name: str, result: PlayResult) -> None:
    if result.rc == INTERRUPTED:
        raise Interrupted
    if not result.ok:
        hosts_failed = ", ".join(sorted({failure.host for failure in result.failures if not failure.ignored})) or "?"
        raise DemoError(f"{name}.yml failed on {hosts_failed}; see above and {shown(result.run_dir)}/output.log")


def _question(console: Console, gateway: Gateway) -> None:
    if not gateway.ca_file.is_file():
        raise DemoError(f"{shown(gateway.ca_file)} is not there: site.yml did not fetch the gateway's CA certificate")
    console.print()
    console.print(QUESTION, style="bold")
    answer = ask(gateway, question(MODEL, QUESTION), lambda text: console.print(text, end="", style="green"))
    console.print()
    numbers = f"{answer.chunks} chunks, the first after {answer.first:.2f} s, all in {answer.seconds:.2f} s"
    console.print(f"({numbers}, through https://{gateway.name} at {gateway.address})", style="dim")
    if EXPECTED not in answer.text:
        raise DemoError(f"the answer does not contain {EXPECTED!r}: {answer.text!r}")
    if answer.chunks < 2:
        raise DemoError("the answer came in one piece: something between the model and here buffers the stream")


def _links(console: Console, gateway: Gateway, host: hosts.Host) -> None:
    login = ssh.command(host.address, host.user, host.key_file, host.known_hosts_file)
    tunnel = shlex.join([login[0], "-N", "-L", "9090:127.0.0.1:9090", *login[1:]])
    console.print()
    console.print("Ask again:", style="bold")
    console.print(f"  {curl_command(gateway, HEADER_FILE)}")
    console.print("Look around:", style="bold")
    console.print(f"  gateway     https://{gateway.name}/ (address {gateway.address}, CA {shown(gateway.ca_file)})")
    console.print(f"  Prometheus  http://127.0.0.1:9090 through: {tunnel}")
    console.print(f"  doctor      {shown(VERDICT)}")
    console.print(f"  host        ./redoubt lab shell {HOST}")


def _write_private(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
