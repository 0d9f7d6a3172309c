"""`play`: one playbook through ansible-runner, with progress, events and timing on disk."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from cli.events import Tally
from cli.failures import Failure
from cli.playbooks import UsageError, absolute, command_line, prompts, resolve
from cli.processes import INTERRUPTED, Stopper
from cli.records import HostCounts, PhaseRecord, TaskRecord
from cli.runs import ROOT, run_folder, shown
from cli.terminal import restored_terminal
from cli.views import SLOW, View, make_console, view_for

POLL = 0.25  # seconds between looks at the clock and at Ctrl-C


@dataclass
class PlayResult:
    """What a playbook run came to. `rc` is ansible-playbook's exit code, 130 when the run was interrupted."""

    rc: int
    run_dir: Path
    wall: float
    phases: list[PhaseRecord] = field(default_factory=list)
    tasks: list[TaskRecord] = field(default_factory=list)
    counts: dict[str, HostCounts] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True when everything went well."""
        return self.rc == 0

    @property
    def exit_code(self) -> int:
        """The exit code of the verb: 0, 1 failed, 2 ansible-playbook refused its options, 130 interrupted."""
        if self.rc in (0, INTERRUPTED):
            return self.rc
        return 2 if self.rc in (2, 5) and not self.phases else 1


def run_playbook(
    name: str,
    inventory: str | Sequence[str] = (),
    extra_args: Sequence[str] = (),
    console: Console | None = None,
    env: Mapping[str, str] | None = None,
) -> PlayResult:
    """Runs a playbook and waits for it; shows progress on `console`, leaves events.jsonl and timing.json.

    `name` is `site`, a file in playbooks/, or a path to a playbook; `inventory` one or more sources of hosts
    (default: inventories/demo); `extra_args` any options of ansible-playbook; `env` is added to the environment.
    Raises UsageError when the playbook, or the default inventory, does not exist.
    """
    cwd = Path.cwd()
    console = console or make_console()
    playbook = resolve(name, ROOT, cwd)
    inventories = [inventory] if isinstance(inventory, str) else list(inventory)
    arguments = absolute(command_line(playbook, inventories, extra_args, ROOT), cwd, ROOT)
    passwords = _ask(arguments)
    with run_folder(playbook.stem) as folder, restored_terminal():
        return _run(folder, arguments, passwords, dict(env or {}), console)


def play(name: str, inventory: Sequence[str], extra_args: Sequence[str], console: Console) -> int:
    """The verb: runs the playbook, prints a summary; the exit code."""
    try:
        result = run_playbook(name, inventory, extra_args, console)
    except UsageError as error:
        console.print(f"redoubt play: {error}", style="red")
        return 2
    summary(console, result)
    return result.exit_code


def summary(console: Console, result: PlayResult) -> None:
    """Counts by host, the slowest tasks, the verdict, and where the files are."""
    names = ("ok", "changed", "failed", "unreachable", "skipped", "rescued", "ignored")
    for host, counts in sorted(result.counts.items()):
        numbers = "  ".join(
            f"{name} {getattr(counts, name)}" for name in names if getattr(counts, name) or name == "ok"
        )
        console.print(f"{host}: {numbers}  (dispatched {counts.dispatched}, modules {counts.module_tasks})")
    slow = sorted((task for task in result.tasks if task.seconds > SLOW), key=lambda task: -task.seconds)[:5]
    if slow:
        console.print("slowest: " + ", ".join(f"{task.name} {task.seconds:.1f} s" for task in slow))
    verdict, style = ("ok", "green") if result.ok else ("failed", "bold red")
    if result.rc == INTERRUPTED:
        verdict = "interrupted"
    console.print(f"{verdict} in {result.wall:.1f} s; events and timing: {shown(result.run_dir)}", style=style)


def _ask(arguments: Sequence[str]) -> dict[str, str]:
    """Passwords that Ansible will ask for, asked here because its questions do not reach the terminal."""
    questions = prompts(arguments)
    if questions and not sys.stdin.isatty():
        raise UsageError(
            f"these options ask for a password ({', '.join(questions)}), and there is no terminal to ask on;"
            " use the option that names a file, such as --vault-password-file"
        )
    return {pattern: getpass.getpass(f"{text}: ") for text, pattern in questions.items()}


def _run(
    folder: Path, arguments: Sequence[str], passwords: dict[str, str], env: dict[str, str], console: Console
) -> PlayResult:
    tally = Tally(time.time())
    began = time.monotonic()
    view = view_for(console, tally)
    with (folder / "events.jsonl").open("w", encoding="utf-8") as log, Stopper() as stopper, view:
        handler = _Handler(tally, view, log, stopper)
        rc = _execute(folder, arguments, passwords, env, handler)
        for notice in tally.finish(time.time()):
            view.show(notice)
    if stopper.caught is not None:
        rc = INTERRUPTED
    result = PlayResult(rc, folder, time.monotonic() - began, tally.phases, tally.tasks, tally.counts, tally.failures)
    timing = {**tally.document(), "wall": round(result.wall, 3), "rc": rc}
    (folder / "timing.json").write_text(json.dumps(timing, indent=1) + "\n", encoding="utf-8")
    if handler.error is not None:
        console.print(
            f"warning: the progress display failed ({handler.error!r}); the run itself went on",
            style="yellow",
        )
    return result


class _Handler:
    """ansible-runner's callbacks. A fault of the display must not end a deployment, so it is only kept."""

    def __init__(self, tally: Tally, view: View, log: IO[str], stopper: Stopper) -> None:
        self._tally, self._view, self._log, self._stopper = tally, view, log, stopper
        self.error: Exception | None = None

    def event(self, event: dict[str, Any]) -> bool:
        """Takes one event; False: ansible-runner need not write a file for it."""
        if self._stopper.pid is None and event.get("pid"):
            self._stopper.pid = int(event["pid"])
        self._log.write(json.dumps(event, ensure_ascii=False, default=str) + "\n")
        self._log.flush()
        try:
            for notice in self._tally.feed(event):
                self._view.show(notice)
        except Exception as error:
            self.error = self.error or error
        return False

    def cancel(self) -> bool:
        """Asked a few times a second; True: kill ansible-playbook."""
        try:
            self._view.tick()
        except Exception as error:
            self.error = self.error or error
        return self._stopper.poll()


def _execute(
    folder: Path, arguments: Sequence[str], passwords: dict[str, str], env: dict[str, str], handler: _Handler
) -> int:
    """ansible-playbook under ansible-runner; its exit code."""
    from ansible_runner import Runner, RunnerConfig  # noqa: PLC0415  # half a second, which --help need not pay

    config = RunnerConfig(
        private_data_dir=str(folder),
        project_dir=str(ROOT),
        binary=str(Path(sys.executable).with_name("ansible-playbook")),
        cmdline=shlex.join(arguments),
        envvars=_environment(env),
        passwords=passwords,
        ident="run",
        fact_cache_type="",
        quiet=True,
        suppress_env_files=True,
    )
    config.prepare()
    config.pexpect_timeout = POLL
    if "ANSIBLE_HOST_KEY_CHECKING" not in {**os.environ, **env}:
        # ansible-runner turns the check of host keys off; ansible.cfg is to decide that.
        config.env.pop("ANSIBLE_HOST_KEY_CHECKING", None)
    artifacts = Path(config.artifact_dir)

    def started(status: dict[str, Any], runner_config: object) -> None:
        if status.get("status") == "running":  # by then ansible-runner has written the whole environment to a file
            (artifacts / "command").unlink(missing_ok=True)

    runner = Runner(config, cancel_callback=handler.cancel, event_handler=handler.event, status_handler=started)
    try:
        runner.run()
    finally:
        with suppress(OSError):
            (artifacts / "stdout").replace(folder / "output.log")
        shutil.rmtree(folder / "artifacts", ignore_errors=True)
    return runner.rc if isinstance(runner.rc, int) else 1


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """What ansible-playbook needs beside the present environment: its tools, its settings, UTF-8, no colours."""
    added = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
        # ansible-runner puts its own folder before that of ansible.cfg; see there for who asks for our display.
        "ANSIBLE_CALLBACK_PLUGINS": os.environ.get("ANSIBLE_CALLBACK_PLUGINS", str(ROOT / "callback_plugins")),
        "REDOUBT_DISPLAY": "1",
    }
    if "ANSIBLE_CONFIG" not in os.environ and (ROOT / "ansible.cfg").is_file():
        added["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or ""
    if "utf" not in locale.lower():
        added["LC_ALL"] = "C.UTF-8"
    return {**added, **env}
