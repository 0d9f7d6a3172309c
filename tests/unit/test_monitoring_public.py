"""The monitoring's pages behind a gateway: their links, and that nothing listens elsewhere than before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment, StrictUndefined

ROLE = Path(__file__).resolve().parents[2] / "roles/monitoring"
IMAGES = dict.fromkeys(("prometheus", "alertmanager", "blackbox_exporter", "grafana"), "name:tag")


def services(url: str) -> dict[str, Any]:
    """The services of the stack, rendered without Ansible."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True, autoescape=False)  # noqa: S701 - no page
    environment.filters["to_json"] = json.dumps
    variables = {**yaml.safe_load((ROLE / "defaults/main.yml").read_text()), "ansible_managed": "x"}
    text = environment.from_string((ROLE / "templates/compose.yml.j2").read_text()).render(
        {**variables, "monitoring_images": IMAGES, "monitoring_public_url": url}
    )
    found: dict[str, Any] = yaml.safe_load(text)["services"]
    return found


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
def test_pages_know_where_they_are_seen_and_stay_at_their_root(name: str) -> None:
    before, after = services("")[name]["command"], services("https://llm.lab")[name]["command"]
    more = [f"--web.external-url=https://llm.lab/{name}/", "--web.route-prefix=/"]
    assert sorted(after) == sorted([*before, *more])
    assert [word for word in after if "listen-address=127.0.0.1:" in word]


def test_grafana_knows_too() -> None:
    before, after = (services(url)["grafana"]["environment"] for url in ("", "https://llm.lab"))
    assert after == {**before, "GF_SERVER_ROOT_URL": "https://llm.lab/grafana/"}
    assert after["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
