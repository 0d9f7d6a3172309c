"""The choice of tiers, the counting, and the jobs of `test`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from rich.console import Console

from cli import testing
from cli.jobs import Job, JobResult, run_jobs, tail_of
from cli.junit import Counts, counts_of, read
from cli.playbooks import UsageError
from cli.tiers import Choice, choose, jobs, scenarios

JUNIT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="m" name="good"/>
<testcase classname="m" name="bad"><failure message="boom">trace</failure></testcase>
<testcase classname="m" name="left"><skipped message="no GPU"/></testcase>
<testcase classname="m" name="dirty"/><testcase classname="m" name="dirty"><error message="teardown"/></testcase>
</testsuite></testsuites>"""


def test_junit_counts() -> None:
    counts, cases = read(JUNIT)
    assert counts == Counts(passed=1, failed=2, skipped=1)
    assert [(case.name, case.outcome, case.message) for case in cases] == [
        ("m::bad", "failed", "boom"),
        ("m::left", "skipped", "no GPU"),
        ("m::dirty", "failed", "teardown"),
    ]
    with pytest.raises(ValueError, match="no JUnit document"):
        read("<testsuite>")


def test_a_broken_pytest_is_a_failure(tmp_path: Path) -> None:
    xml = tmp_path / "out.xml"
    assert counts_of(xml, 3)[0] == Counts(failed=1)
    assert counts_of(xml, 5)[0] == Counts()
    xml.write_text("<testsuite><testcase name='a'/></testsuite>")
    assert counts_of(xml, 0)[0] == Counts(passed=1)
    assert counts_of(xml, 1)[0] == Counts(passed=1, failed=1)


def test_a_file_that_skips_itself_says_why() -> None:
    said = "(&#x27;/x/test_machine.py&#x27;, 30, &#x27;Skipped: no NVIDIA GPU&#x27;)"
    case = f"<testcase name='tests.gpu'><skipped message='collection skipped'>{said}</skipped></testcase>"
    counts, cases = read(f"<testsuite>{case}</testsuite>")
    assert counts == Counts(skipped=1)
    assert [(one.name, one.message) for one in cases] == [("tests.gpu", "no NVIDIA GPU")]


def test_counts_add_up_to_the_closing_line() -> None:
    assert (Counts(2, 0) + Counts(1, 1)).line() == "3 passed, 1 failed"
    assert (Counts(2) + Counts(skipped=4)).line() == "2 passed, 0 failed, 4 skipped"


def test_tiers() -> None:
    assert [c.tier for c in choose([], quick=True, slow=False)] == ["lint", "unit"]
    assert [c.tier for c in choose([], quick=False, slow=False)] == ["lint", "unit", "molecule", "e2e", "gpu"]
    assert [c.tier for c in choose([], quick=False, slow=True)][-1] == "bench"
    only = ["unit:b", "lint:mypy", "unit:a", "lint"]
    assert choose(only, quick=False, slow=False) == [Choice("lint"), Choice("unit", ("b", "a"))]
    with pytest.raises(UsageError, match="did you mean `molecule`"):
        choose(["molecul"], quick=False, slow=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {
        "molecule/one/molecule.yml": "---\n",
        "molecule/two/molecule.yml": "---\n# slow: builds an image\n",
        "molecule/shared/create.yml": "---\n",
        "tests/unit/test_a.py": "",
        "tests/unit/deep/test_b.py": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_scenarios_and_slow_ones(root: Path) -> None:
    assert scenarios(root, slow=False) == ["one"]
    assert scenarios(root, slow=True) == ["one", "two"]
    named = jobs(Choice("molecule", ("two",)), root, root, slow=False, expression=None)
    assert [job.argv[-2:] for job in named] == [("-s", "two")]
    with pytest.raises(UsageError, match="did you mean `two`"):
        jobs(Choice("molecule", ("tow",)), root, root, slow=False, expression=None)


def test_pytest_jobs(root: Path) -> None:
    (job,) = jobs(Choice("unit", ("b",)), root, root, slow=False, expression="x and y")
    assert job.argv[3:] == (
        *("-v", "tests/unit/deep/test_b.py", "-m", "not slow", "-k", "x and y"),
        f"--junitxml={root}/unit.xml",
    )
    assert job.xml == root / "unit.xml"
    assert jobs(Choice("e2e"), root, root, slow=False, expression=None) == []
    (job,) = jobs(Choice("unit"), root, root, slow=True, expression=None)
    assert "not slow" not in job.argv


def test_each_site_of_e2e_is_a_job(root: Path) -> None:
    for name in ("site/test_1_install.py", "site/test_2_gateway.py", "test_killed.py", "test_newest.py"):
        path = root / "tests/e2e" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = jobs(Choice("e2e"), root, root, slow=False, expression=None)
    assert {job.name: job.argv[4] for job in found} == {
        "site": "tests/e2e/site",
        "killed": "tests/e2e/test_killed.py",
        "newest": "tests/e2e/test_newest.py",
    }
    assert [job.log.name for job in found] == ["e2e-site.log", "e2e-killed.log", "e2e-newest.log"]
    newest, chosen = jobs(Choice("e2e", ("newest", "2_gateway")), root, root, slow=False, expression=None)
    assert (newest.name, newest.argv[4]) == ("newest", "tests/e2e/test_newest.py")
    assert (chosen.name, chosen.argv[4]) == ("e2e", "tests/e2e/site/test_2_gateway.py")
    (whole,) = jobs(Choice("e2e", ("site",)), root, root, slow=False, expression=None)
    assert (whole.name, whole.argv[4]) == ("site", "tests/e2e/site")


def job(tmp_path: Path, name: str, script: str, limit: float = 20) -> Job:
    return Job(name, (sys.executable, "-c", script), tmp_path / f"{name}.log", limit, {"FROM_JOB": name})


def run(jobs: list[Job], width: int, cwd: Path) -> tuple[dict[str, JobResult], int]:
    most = 0

    def tick(running: object) -> None:
        nonlocal most
        assert isinstance(running, list)
        most = max(most, len(running))

    results = run_jobs(jobs, width, cwd, tick, lambda _: None)
    return {result.job.name: result for result in results}, most


def test_jobs_run_side_by_side_and_tell_how_they_ended(tmp_path: Path) -> None:
    scripts = {
        "a": "import os; print(os.environ['FROM_JOB'])",
        "b": "raise SystemExit(3)",
        "c": "import time; time.sleep(.3)",
    }
    results, most = run([job(tmp_path, name, script) for name, script in scripts.items()], 2, tmp_path)
    assert {name: result.rc for name, result in results.items()} == {"a": 0, "b": 3, "c": 0}
    assert tail_of(tmp_path / "a.log", 5) == ["a"]
    assert most == 2


GRANDCHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def gone(pid: int) -> bool:
    """True when the process has ended, at the latest after some seconds."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_a_job_over_its_limit_is_stopped_with_all_it_started_and_nothing_else(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        results, _ = run([job(tmp_path, "slow", GRANDCHILD, limit=1)], 1, tmp_path)
        assert results["slow"].timed_out
        assert not results["slow"].ok
        assert gone(int(tail_of(tmp_path / "slow.log", 1)[0]))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_an_interrupt_stops_the_jobs(tmp_path: Path) -> None:
    ticks = 0

    def tick(running: object) -> None:
        nonlocal ticks
        ticks += 1
        if (tmp_path / "slow.log").exists() and tail_of(tmp_path / "slow.log", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs([job(tmp_path, "slow", GRANDCHILD)], 1, tmp_path, tick, lambda _: None)
    assert gone(int(tail_of(tmp_path / "slow.log", 1)[0]))


def redoubt_test(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "cli", "test", *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "CI": "true", **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_verb_counts_and_closes_with_one_line(tmp_path: Path) -> None:
    env = {"REDOUBT_RUNS": str(tmp_path)}
    done = redoubt_test("--only", "unit:cli_playbooks", "-k", "nearest", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "4 passed, 0 failed"


def test_the_verb_fails_when_nothing_ran(tmp_path: Path) -> None:
    done = redoubt_test("--only", "unit:cli_playbooks", "-k", "no_such_test", env={"REDOUBT_RUNS": str(tmp_path)})
    assert done.returncode == 1
    assert done.stdout.splitlines()[-2:] == ["nothing was run", "0 passed, 0 failed"]


def test_the_verb_refuses_an_unknown_name(tmp_path: Path) -> None:
    done = redoubt_test("--only", "unit:cli_playbook", env={"REDOUBT_RUNS": str(tmp_path)})
    assert done.returncode == 2
    assert "did you mean `cli_playbooks`?" in done.stdout


@pytest.mark.parametrize(
    ("tiers", "order"),
    [
        (("lint", "unit", "e2e"), ["lint", "lab", "unit", "e2e"]),
        (("lint", "unit"), ["lint", "unit"]),
    ],
)
def test_the_lab_is_there_before_the_unit_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiers: tuple[str, ...], order: list[str]
) -> None:
    seen: list[str] = []

    def tier(name: str) -> testing.TierResult:
        seen.append(name)
        return testing.TierResult(name, Counts(passed=1))

    monkeypatch.setattr(testing, "_prepare_lab", lambda _console: tier("lab"))
    monkeypatch.setattr(testing, "_tier", lambda choice, *_: tier(choice.tier))
    monkeypatch.setattr(testing, "_lab_left_as_found", lambda _console: nullcontext())
    planned = [(Choice(name), [job(tmp_path, name, "")]) for name in tiers]
    assert testing._test(planned, tmp_path, Console(quiet=True)) == 0
    assert seen == order
