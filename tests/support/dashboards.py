"""Grafana's dashboards without Grafana: take every query out of them and run it on a live Prometheus.

    outcomes = run(load().values(), ask_directly("http://127.0.0.1:9090"))
    assert problems(outcomes, may_be_empty={"Preemptions"}) == []

Where Prometheus listens on a host's loopback only, hand `remote_command` to that host's shell instead.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "roles/monitoring/files/dashboards"
#: Boards that are installed only where Prometheus has a job of this name.
NEEDS = {"gpu": "gpu"}

Answer = Mapping[str, Any]
# Takes PromQL expressions, returns Prometheus's answers ({status, data | error}) in the same order.
Ask = Callable[[Sequence[str]], Sequence[Answer]]

# Runs on a host with nothing but Python; its words: the base URL, then a base64 JSON list of expressions.
REMOTE = """
import base64, json, sys, urllib.error, urllib.parse, urllib.request
answers = []
for expression in json.loads(base64.b64decode(sys.argv[2])):
    url = sys.argv[1] + "/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    try:
        text = urllib.request.urlopen(url, timeout=20).read()
    except urllib.error.HTTPError as error:
        text = error.read()
    answers.append(json.loads(text))
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class Query:
    """One query of a dashboard; `place` is the panel's title, `variable NAME` or `annotation NAME`."""

    dashboard: str
    place: str
    expression: str


@dataclass(frozen=True)
class Outcome:
    """What Prometheus said to a query: an error text, or the number of series."""

    query: Query
    series: int
    error: str = ""


def load(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """All dashboards of a folder by file name without ending. Raises ValueError for a file that is no JSON."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def installed(jobs: Collection[str]) -> list[dict[str, Any]]:
    """The boards that the role installs where Prometheus has these jobs."""
    return [board for name, board in load().items() if NEEDS.get(name) is None or NEEDS[name] in jobs]


def panels(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All panels, those inside collapsed rows included, rows excluded."""
    found: list[dict[str, Any]] = []
    for panel in dashboard["panels"]:
        found += panel.get("panels", []) if panel["type"] == "row" else [panel]
    return found


def queries(dashboard: Mapping[str, Any]) -> list[Query]:
    """Every PromQL expression of a dashboard: panels, variables and annotations."""
    title = str(dashboard["title"])
    found = [
        Query(title, panel["title"], target["expr"])
        for panel in panels(dashboard)
        for target in panel.get("targets", [])
    ]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            selector = re.fullmatch(r"label_values\((.+), *\w+\)", variable["query"]["query"])
            if selector is None:
                raise ValueError(f"{title}: variable {variable['name']} is not label_values(SELECTOR, LABEL)")
            found.append(Query(title, f"variable {variable['name']}", selector[1]))
    found += [
        Query(title, f"annotation {item['name']}", item["expr"])
        for item in dashboard["annotations"]["list"]
        if "expr" in item
    ]
    return found


def variables(dashboard: Mapping[str, Any]) -> set[str]:
    """The names of the dashboard's variables."""
    return {str(variable["name"]) for variable in dashboard["templating"]["list"]}


def substitute(expression: str, values: Mapping[str, str], interval: str = "5m") -> str:
    """The expression as Grafana would send it. Raises KeyError for a variable without a value."""
    known = {"__rate_interval": interval, "__interval": interval, "__range": interval, **values}
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: known[match[1] or match[2]], expression)


def run(
    dashboards: Iterable[Mapping[str, Any]], ask: Ask, interval: str = "5m", chosen: Mapping[str, str] | None = None
) -> list[Outcome]:
    """Run every query of the dashboards with all variables on All, but for those that are `chosen`."""
    asked: list[tuple[Query, str]] = []
    for dashboard in dashboards:
        everything = {**dict.fromkeys(variables(dashboard), ".*"), **(chosen or {})}
        asked += [(query, substitute(query.expression, everything, interval)) for query in queries(dashboard)]
    answers = ask([expression for _, expression in asked])
    if len(answers) != len(asked):
        raise ValueError(f"{len(asked)} queries, {len(answers)} answers")
    return [_outcome(query, answer) for (query, _), answer in zip(asked, answers, strict=True)]


def _outcome(query: Query, answer: Answer) -> Outcome:
    if answer.get("status") != "success":
        return Outcome(query, 0, str(answer.get("error") or answer))
    return Outcome(query, len(answer["data"]["result"]))


def problems(outcomes: Iterable[Outcome], may_be_empty: Collection[str] = ()) -> list[str]:
    """One line for each query that Prometheus refused, or that found nothing outside the places in `may_be_empty`.

    Annotations mark events, so they may always be empty.
    """
    found = []
    for outcome in outcomes:
        where = f"{outcome.query.dashboard} / {outcome.query.place}: {outcome.query.expression}"
        if outcome.error:
            found.append(f"{where}: {outcome.error}")
        elif not (
            outcome.series or outcome.query.place in may_be_empty or outcome.query.place.startswith("annotation ")
        ):
            found.append(f"{where}: found no series")
    return found


def ask_directly(base_url: str) -> Ask:
    """An `Ask` over HTTP from this machine."""

    def ask(expressions: Sequence[str]) -> list[Answer]:
        answers: list[Answer] = []
        for expression in expressions:
            url = f"{base_url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
            try:
                with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - a test's own Prometheus
                    answers.append(json.loads(answer.read()))
            except urllib.error.HTTPError as error:
                answers.append(json.loads(error.read()))
        return answers

    return ask


def remote_command(base_url: str, expressions: Sequence[str]) -> str:
    """A shell command that asks on the host it runs on; its output is the JSON list of answers."""
    packed = base64.b64encode(json.dumps(list(expressions)).encode()).decode()
    return shlex.join(["python3", "-c", REMOTE, base_url, packed])


def ask_remotely(base_url: str, shell: Callable[[str], str]) -> Ask:
    """An `Ask` through a host's shell: `shell` runs a command there and returns its output."""
    return lambda expressions: json.loads(shell(remote_command(base_url, expressions)))
