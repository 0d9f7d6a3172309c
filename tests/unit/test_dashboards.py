"""The dashboards as Grafana reads them, without Grafana. Their queries are run in molecule and in the e2e test."""

from __future__ import annotations

import itertools
import re
from typing import Any

import jsonschema
import pytest

from tests.support import dashboards, metrics

BOARDS = dashboards.load()
SOURCE = {"type": "prometheus", "uid": "redoubt-prometheus"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["uid", "title", "description", "tags", "schemaVersion", "templating", "annotations", "panels", "time"],
    "properties": {
        "uid": {"type": "string", "pattern": "^[a-z0-9-]{1,40}$"},
        "title": {"type": "string", "minLength": 1},
        # What Grafana 11 reads without converting, and later versions convert by themselves.
        "schemaVersion": {"type": "integer", "minimum": 39, "maximum": 41},
        "id": False,
        "__inputs": False,
        "editable": {"const": False},
        "panels": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["id", "type", "title", "gridPos"],
                "properties": {
                    "type": {"enum": ["row", "stat", "timeseries"]},
                    "gridPos": {
                        "type": "object",
                        "required": ["h", "w", "x", "y"],
                        "properties": {"w": {"minimum": 1, "maximum": 24}, "x": {"minimum": 0, "maximum": 23}},
                    },
                    "targets": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["refId", "expr", "datasource", "legendFormat"],
                            "properties": {"expr": {"type": "string", "minLength": 1}, "datasource": {"const": SOURCE}},
                        },
                    },
                },
                "if": {"properties": {"type": {"const": "row"}}},
                "then": {"required": ["collapsed", "panels"]},
                "else": {
                    "required": ["description", "datasource", "fieldConfig", "options", "targets"],
                    "properties": {
                        "description": {"type": "string", "minLength": 10},
                        "datasource": {"const": SOURCE},
                        "fieldConfig": {
                            "required": ["defaults", "overrides"],
                            "properties": {"defaults": {"required": ["unit"]}},
                        },
                    },
                },
            },
        },
        "templating": {
            "properties": {
                "list": {
                    "items": {
                        "required": ["name", "type", "query", "datasource", "refresh", "includeAll", "allValue"],
                        "properties": {"datasource": {"const": SOURCE}, "allValue": {"const": ".*"}},
                    }
                }
            }
        },
    },
}
# Units that Grafana knows; a wrong one is shown as text behind the number.
UNITS = {"short", "s", "d", "percentunit", "bytes", "Bps", "reqps", "ops", "celsius", "watt", "hertz"}

each = pytest.mark.parametrize("name", sorted(BOARDS))


def test_there_are_the_three_boards() -> None:
    assert sorted(BOARDS) == ["gpu", "host", "serving"]


def test_the_gpu_board_is_installed_only_where_gpus_are_watched() -> None:
    assert [board["uid"] for board in dashboards.installed({"engine", "host"})] == ["redoubt-host", "redoubt-serving"]
    assert "redoubt-gpu" in {board["uid"] for board in dashboards.installed({"gpu"})}


@each
def test_form(name: str) -> None:
    jsonschema.validate(BOARDS[name], SCHEMA)


def test_the_schema_sees_a_foreign_data_source() -> None:
    broken = dashboards.load()["host"]
    dashboards.panels(broken)[0]["targets"][0]["datasource"] = {"uid": "${DS_PROMETHEUS}"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


@each
def test_numbers_of_panels_are_unique(name: str) -> None:
    numbers = [panel["id"] for panel in BOARDS[name]["panels"]]
    assert len(numbers) == len(set(numbers))


@each
def test_panels_do_not_overlap(name: str) -> None:
    def cells(place: dict[str, int]) -> set[tuple[int, int]]:
        return set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )

    taken: set[tuple[int, int]] = set()
    for panel in BOARDS[name]["panels"]:
        mine = cells(panel["gridPos"])
        assert not mine & taken, panel["title"]
        assert max(x for x, _ in mine) < 24, panel["title"]
        taken |= mine


@each
def test_units_are_known(name: str) -> None:
    assert {panel["fieldConfig"]["defaults"]["unit"] for panel in dashboards.panels(BOARDS[name])} <= UNITS


@each
def test_each_query_can_be_filled_in(name: str) -> None:
    board = BOARDS[name]
    values = dict.fromkeys(dashboards.variables(board), ".*")
    for query in dashboards.queries(board):
        assert "$" not in dashboards.substitute(query.expression, values), query


@each
def test_each_variable_is_used(name: str) -> None:
    board = BOARDS[name]
    text = " ".join(query.expression for query in dashboards.queries(board) if not query.place.startswith("variable"))
    assert {variable for variable in dashboards.variables(board) if f"${variable}" not in text} == set()


@each
def test_engine_metrics_exist_in_the_engine(name: str) -> None:
    used = {metric for query in dashboards.queries(BOARDS[name]) for metric in metrics.vllm_names(query.expression)}
    assert used - metrics.VLLM == set()


def test_links_lead_to_boards() -> None:
    uids = {board["uid"] for board in BOARDS.values()}
    for board in BOARDS.values():
        for link in board["links"]:
            assert re.fullmatch(r"/d/(.+)", link["url"])[1] in uids  # type: ignore[index]  # a None fails the test too


def test_substitution() -> None:
    assert (
        dashboards.substitute('x{a=~"$a"}[$__rate_interval] + ${b}', {"a": ".*", "b": "1"}, "2m")
        == 'x{a=~".*"}[2m] + 1'
    )
    with pytest.raises(KeyError):
        dashboards.substitute("$unknown", {})


def test_problems_name_errors_and_empty_answers() -> None:
    def ask(expressions: Any) -> list[dict[str, Any]]:
        good = {"status": "success", "data": {"result": [{}]}}
        empty = {"status": "success", "data": {"result": []}}
        return [{"status": "error", "error": "parse error"}, empty, *[good] * (len(expressions) - 2)]

    outcomes = dashboards.run([BOARDS["host"]], ask)
    found = dashboards.problems(outcomes)
    assert len(found) == 2
    assert "parse error" in found[0]
    assert "found no series" in found[1]
    assert len(dashboards.problems(outcomes, may_be_empty={outcomes[1].query.place})) == 1
