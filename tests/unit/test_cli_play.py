"""`play` for real: ansible-playbook on this machine, through ansible-runner."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]  # publishes no types
import pytest
from rich.console import Console

from cli import play as play_module
from cli.play import PlayResult, play, run_playbook
from cli.playbooks import UsageError
from cli.runs import prune, run_folder

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ["-c", "local", "-e", "ansible_become=false", "-e", f"ansible_python_interpreter={sys.executable}"]
SECRET = "correct-horse-battery"  # what must not come out

PLAYBOOK = """
- name: First phase
  hosts: all
  gather_facts: false
  tasks:
    - name: Say something
      ansible.builtin.debug: {{msg: "hello from {{{{ greeting | default('here') }}}}"}}
    - name: Write a file
      ansible.builtin.copy: {{content: "new\\n", dest: "{folder}/written", mode: "0600"}}
    - name: Keep a secret
      ansible.builtin.command: {{argv: [echo, {secret}]}}
      changed_when: false
      no_log: true
    - name: Leave out
      ansible.builtin.command: {{argv: ["false"]}}
      when: false
- name: Second phase
  hosts: all
  gather_facts: false
  tasks:
    - name: Break on purpose
      ansible.builtin.command: {{argv: [sh, -c, "echo from stdout; echo from stderr >&2; exit 7"]}}
      changed_when: false
      when: broken | default(false) | bool
    - name: Break in secret
      ansible.builtin.command: {{argv: [sh, -c, "echo {secret}; exit 7"]}}
      changed_when: false
      no_log: true
      when: secretly | default(false) | bool
"""


@pytest.fixture
def playbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "try.yml"
    path.write_text(PLAYBOOK.format(folder=tmp_path, secret=SECRET))
    monkeypatch.setattr(play_module, "run_folder", lambda name: run_folder(name, tmp_path / "runs"))
    return path


def run(playbook: Path, *extra: str, env: Mapping[str, str] | None = None) -> tuple[PlayResult, str]:
    """The result, and what a pipe would show."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=False, markup=False, highlight=False, width=200)
    result = run_playbook(str(playbook), "here,", [*LOCAL, *extra], console, env)
    return result, screen.getvalue()


def everything_in(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


def test_a_good_run(playbook: Path) -> None:
    result, screen = run(playbook, "-e", "greeting=there", "--diff", env={"REDOUBT_TRIED": "marker-in-environment"})
    assert (result.rc, result.ok, result.exit_code) == (0, True, 0)
    assert result.counts["here"].document() == {
        **dict.fromkeys(("failed", "unreachable", "rescued", "ignored"), 0),
        **{"dispatched": 6, "ok": 3, "changed": 1, "skipped": 3, "module_tasks": 2},
    }
    lines = screen.splitlines()
    assert "  here: hello from there" in lines
    assert "+new" in lines
    tasks = [
        line
        for line in lines
        if re.fullmatch(r"\[\d\d:\d\d\] .* \| .* \| ok \d changed \d failed \d.* \| [\d.]+s", line)
    ]
    assert [line.split(" | ")[1] for line in tasks] == [task.name for task in result.tasks]
    assert " | Write a file | ok 1 changed 1 failed 0 | " in screen

    timing = json.loads((result.run_dir / "timing.json").read_text())
    assert [phase["name"] for phase in timing["phases"]] == ["First phase", "Second phase"]
    assert timing["counts"]["here"]["dispatched"] == 6
    assert timing["wall"] >= sum(phase["seconds"] for phase in timing["phases"]) > 0
    events: list[dict[str, Any]] = [json.loads(x) for x in (result.run_dir / "events.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events if e["event"].startswith("runner_on_ok")] == ["runner_on_ok"] * 3
    output = (result.run_dir / "output.log").read_text()
    assert "PLAY RECAP" in output
    assert "still_running" not in output, "Ansible found the callback, and did not warn"

    assert SECRET not in screen + everything_in(result.run_dir)
    assert "hidden due to the fact that 'no_log: true'" in everything_in(result.run_dir)
    assert "marker-in-environment" not in everything_in(result.run_dir), "the environment must not lie on the disk"
    assert result.run_dir.stat().st_mode & 0o777 == 0o700
    assert not (result.run_dir / "artifacts").exists()


def test_the_environment_is_not_on_the_disk_while_the_run_goes_on(playbook: Path) -> None:
    """ansible-runner writes it there; a run that is killed would leave it."""
    playbook.write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n    - name: Look\n      changed_when: false\n"
        f"      ansible.builtin.command: {{argv: [grep, -rl, tried-marker, {playbook.parent / 'runs'}]}}\n"
        "      register: found\n      failed_when: found.rc != 1\n"
    )
    result, screen = run(playbook, env={"REDOUBT_TRIED": "tried-marker"})
    assert result.ok, screen


def test_a_failing_run_says_what_where_and_why(playbook: Path) -> None:
    result, screen = run(playbook, "-e", "broken=true")
    assert (result.rc, result.exit_code, result.counts["here"].failed) == (2, 1, 1)
    lines = screen.splitlines()
    at = lines.index("FAILED here | Second phase | Break on purpose")
    report = "\n".join(lines[at : at + 12])
    assert re.search(rf"at {re.escape(str(playbook))}:\d+", report)
    for text in ("exit code: 7", "from stderr", "from stdout", "command: sh -c"):
        assert text in report


def test_a_secret_failure_stays_secret(playbook: Path) -> None:
    result, screen = run(playbook, "-e", "secretly=true", "-vvv")
    assert result.exit_code == 1
    assert "FAILED here | Second phase | Break in secret" in screen
    assert "no_log: true" in screen
    assert SECRET not in screen + everything_in(result.run_dir)


def test_check_mode_changes_nothing_and_shows_the_difference(playbook: Path) -> None:
    result, screen = run(playbook, "--check", "--diff")
    assert result.ok
    assert "+new" in screen.splitlines()
    assert not (playbook.parent / "written").exists()


def test_list_tasks_and_syntax_check_print_what_ansible_prints(playbook: Path) -> None:
    result, screen = run(playbook, "--list-tasks")
    assert result.ok
    assert "Keep a secret" in screen
    assert result.counts == {}
    playbook.write_text("- hosts: all\n  nonsense: true\n")
    result, screen = run(playbook, "--syntax-check")
    assert result.exit_code == 1
    assert "'nonsense' is not a valid attribute for a Play" in screen


def test_options_that_ansible_does_not_know(playbook: Path) -> None:
    result, screen = run(playbook, "--no-such-option")
    assert result.exit_code == 2
    assert "unrecognized arguments: --no-such-option" in screen


def test_an_unreachable_host_is_named_and_the_others_go_on(playbook: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(
        "here ansible_connection=local\ngone ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1\n"
    )
    playbook.write_text(PLAYBOOK.format(folder=tmp_path, secret=SECRET))
    screen = io.StringIO()
    result = run_playbook(str(playbook), str(hosts), LOCAL[2:], Console(file=screen, width=200))
    assert result.exit_code == 1
    assert (result.counts["gone"].unreachable, result.counts["here"].failed) == (1, 0)
    assert "UNREACHABLE gone | First phase | " in screen.getvalue()


def test_host_keys_are_checked(playbook: Path, tmp_path: Path) -> None:
    """ansible-runner switches that off by itself."""
    playbook.write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n    - name: Look\n      ansible.builtin.debug:\n"
        "        msg: \"checking {{ lookup('ansible.builtin.config', 'HOST_KEY_CHECKING') }}\"\n"
    )
    assert "checking True" in run(playbook)[1]
    assert "checking False" in run(playbook, env={"ANSIBLE_HOST_KEY_CHECKING": "False"})[1]


def test_a_vault_password_file_is_passed_on(playbook: Path, tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("open sesame\n")
    variables = tmp_path / "vars.yml"
    variables.write_text("greeting: from the vault\n")
    vault = [str(Path(sys.executable).with_name("ansible-vault")), "encrypt", "--vault-password-file"]
    assert pexpect.run(" ".join([*vault, str(tmp_path / "pass"), str(variables)]), withexitstatus=True)[1] == 0
    options = ["-e", f"@{variables}", "--vault-password-file", str(tmp_path / "pass")]
    result, screen = run(playbook, *options)
    assert result.ok, screen
    assert "hello from from the vault" in screen


def test_questions_need_a_terminal(playbook: Path) -> None:
    with pytest.raises(UsageError, match=r"BECOME password.*--vault-password-file"):
        run(playbook, "-K")


def test_the_verb_refuses_an_unknown_name() -> None:
    screen = io.StringIO()
    assert play("no-such-playbook", [], [], Console(file=screen, width=200)) == 2
    assert "there is no playbook `no-such-playbook`" in screen.getvalue()


def test_only_the_last_runs_are_kept_and_those_in_use(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"20250101-00000{number}-old").mkdir()
    (tmp_path / "e2e").mkdir()  # not a run: stays
    with run_folder("new", tmp_path, keep=3) as folder:
        kept = sorted(path.name for path in tmp_path.iterdir() if path.is_dir() and not path.is_symlink())
        assert kept == ["20250101-000003-old", "20250101-000004-old", folder.name, "e2e"]
        assert (tmp_path / "latest").resolve() == folder
        assert prune(tmp_path, 0) != []
        assert folder.exists(), "a run in use is not removed"
        with run_folder("new", tmp_path) as second:
            assert second != folder


SLOW = """
- name: Slow phase
  hosts: all
  gather_facts: false
  tasks:
    - name: Take long
      ansible.builtin.command: {argv: [sh, -c, "echo $$ > PIDFILE; exec sleep 97"]}
      changed_when: false
"""


def _hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def spawn(arguments: list[str], tmp_path: Path) -> pexpect.spawn[str]:
    env = {name: value for name, value in os.environ.items() if name != "CI"}
    env |= {"PYTHONPATH": str(ROOT), "REDOUBT_RUNS": str(tmp_path / "runs"), "TERM": "xterm-256color"}
    words = ["-P", "-m", "cli", "play", *arguments, *LOCAL]
    return pexpect.spawn(
        sys.executable,
        words,
        env=env,
        encoding="utf-8",
        timeout=60,
        dimensions=(30, 120),
        # A terminal's shell gives every program the default; a test run in the background has Ctrl-C ignored.
        preexec_fn=_hear_ctrl_c,
    )


def ended(pid: int) -> bool:
    for _ in range(50):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.1)
    return False


def test_ctrl_c_stops_the_run_and_restores_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "slow.yml").write_text(SLOW.replace("PIDFILE", str(tmp_path / "pid")))
    child = spawn([str(tmp_path / "slow.yml"), "-i", "here,"], tmp_path)
    seen = io.StringIO()
    child.logfile_read = seen
    modes = termios.tcgetattr(child.child_fd)
    child.expect(r"Slow phase.*\r?\n.*Take long.*hosts 0/1.*6 s")  # live: phase, task, hosts, seconds of a slow task
    child.sendintr()
    child.expect(pexpect.EOF)
    after = termios.tcgetattr(child.child_fd)
    child.close()
    screen = seen.getvalue()
    assert child.exitstatus == 130, screen
    assert "interrupted in" in screen
    assert "User interrupted execution" in screen, "Ansible was asked to stop, not killed"
    assert "\x1b[?25l" in screen, "the display hid the cursor"
    assert screen.rindex("\x1b[?25h") > screen.rindex("\x1b[?25l"), "the cursor is there again"
    assert after == modes
    assert modes[3] & termios.ECHO
    assert ended(int((tmp_path / "pid").read_text())), "the command goes with the run"
    (run_dir,) = (path for path in (tmp_path / "runs").iterdir() if not path.is_symlink())
    timing = json.loads((run_dir / "timing.json").read_text())
    assert (timing["rc"], timing["phases"][0]["complete"]) == (130, False)
    assert "still running" not in (run_dir / "output.log").read_text(), "said once, by the display"


def test_a_question_is_asked_on_the_terminal_and_answered_to_ansible(tmp_path: Path) -> None:
    variables = tmp_path / "vars.yml"
    variables.write_text("greeting: opened\n")
    (tmp_path / "pass").write_text("open sesame\n")
    vault = Path(sys.executable).with_name("ansible-vault")
    pexpect.run(f"{vault} encrypt --vault-password-file {tmp_path}/pass {variables}")
    (tmp_path / "try.yml").write_text(PLAYBOOK.format(folder=tmp_path, secret=SECRET))
    child = spawn([str(tmp_path / "try.yml"), "-i", "here,", "--ask-vault-pass", "-e", f"@{variables}"], tmp_path)
    child.expect("Vault password: ")
    child.sendline("open sesame")
    child.expect("hello from opened")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "open sesame" not in everything_in(tmp_path / "runs")
