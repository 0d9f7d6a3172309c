# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The gateway's route table: the exact allowlist of paths. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from policy.balance import upstream_name

MODEL_LIST = "/v1/models"
#: Routes by which one token can be asked for, the plainest first.
GENERATIONS = ("/v1/completions", "/v1/chat/completions")


def _row(index: int, model: dict[str, Any], route: dict[str, Any], path: str, kind: str) -> dict[str, Any]:
    return {
        "path": path,
        "kind": kind,
        "upstream": upstream_name(index, model),
        "target": route["path"],
        "methods": list(route["methods"]),
        "stream": bool(route.get("stream", False)),
        "model": model["name"],
        "concurrent_requests": model.get("concurrent_requests", 0),
    }


def _chosen(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The plain paths of several models: the body of a POST names the model, GET /v1/models lists all."""
    table: list[dict[str, Any]] = []
    targets: dict[str, list[dict[str, str]]] = {}
    for index, model in enumerate(models):
        for route in model["routes"]:
            plain = route["path"]
            if route["methods"] == ["POST"]:
                inner = f"/-/{model['name']}{plain}"
                table.append(_row(index, model, route, inner, "inner"))
                rows = targets.setdefault(plain, [])
                if index == 0:
                    rows.append({"wanted": f":{plain}", "path": inner})
                rows.append({"wanted": f"{model['name']}:{plain}", "path": inner})
            elif index == 0 and plain != MODEL_LIST:
                table.append(_row(index, model, route, plain, "model"))
    table += [{"path": path, "kind": "choose", "methods": ["POST"], "targets": rows} for path, rows in targets.items()]
    listed = {"path": MODEL_LIST, "methods": ["GET"]}
    return [*table, {**_row(0, {"name": ""}, listed, MODEL_LIST, "list"), "upstream": ""}]


def gateway_routes(models: list[dict[str, Any]], pages: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The exact allowlist, one row for each path; `pages` are paths of the people's page (kind `page`).

    Each model is reached below `/<name>` (kind `model`: path, upstream, target, methods, stream, model,
    concurrent_requests; `upstream` is the name of the group of servers, `target` the path at the engine). A single
    model is also reached at its own paths. Of several, the body says which one is wanted: kinds `choose` (path,
    methods, targets [{wanted, path}]) and `inner` (as `model`, but for requests that were chosen), and `list`.
    """
    several = len(models) > 1
    table = _chosen(models) if several else []
    for index, model in enumerate(models):
        for prefix in [f"/{model['name']}"] if several else ["", f"/{model['name']}"]:
            table += [_row(index, model, route, prefix + route["path"], "model") for route in model["routes"]]
    return [*table, *({"path": path, "kind": "page", "methods": ["GET", "HEAD"]} for path in pages)]


def gateway_model_list(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The models as OpenAI's clients expect them of GET /v1/models."""
    return [{"id": model["name"], "object": "model", "created": 0, "owned_by": "redoubt"} for model in models]
