"""The doctor: which checks a plan needs, what answers mean, and that each check can say no."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible.module_utils.checks import KINDS, examine
from ansible.module_utils.config_files import dump_snapshots, snapshot

from filter_plugins.doctor import (
    doctor_inside_checks,
    doctor_outside_checks,
    doctor_site_verdict,
    doctor_table,
    doctor_verdict,
)
from library import doctor
from planner import weights_checks

SETTINGS: dict[str, Any] = {
    "deep": True,
    "min_free_percent": 5,
    "prometheus_url": "http://127.0.0.1:9090",
    "certificate": "/c",
    "secret_patterns": ["/s/*.key"],
}
OUTSIDE: dict[str, Any] = {
    "url": "https://redoubt.lab:443",
    "server_name": "redoubt.lab",
    "connect_to": "127.0.0.1",
    "port": 443,
    "ca": "",
    "page": True,
    "closed_addresses": ["192.0.2.1:22"],
}
PLAN: dict[str, Any] = {
    "engines": [
        {
            "name": "m",
            "address": "127.0.0.1",
            "port": 8101,
            "container": "redoubt-m",
            "image": {"config_digest": "sha256:1"},
            "weights": {"name": "m", "path": "/srv/redoubt/models/m/0123456789ab"},
        }
    ],
    "weights": [{"name": "m", "revision": "0" * 40, "files": []}],
    "gateway": {"models": [{"name": "m", "servers": ["127.0.0.1:8101"]}]},
    "monitoring": {"images": {}},
}
EMPTY: dict[str, Any] = {"engines": [], "weights": [], "gateway": None, "monitoring": None}


def test_what_judges_the_others_notes_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def answer(check: dict[str, Any]) -> list[dict[str, Any]]:
        if check["id"] == "late":
            begun.set()
            return [{"id": "late"}]
        return [{"id": check["id"], "too early": begun.wait(0.3)}]

    monkeypatch.setattr(doctor, "answer", answer)
    answers = doctor.carry_out([{"id": "late", "last": True}, {"id": "one"}, {"id": "two"}])
    assert answers == [{"id": "late"}, {"id": "one", "too early": False}, {"id": "two", "too early": False}]


def test_proofs_are_judged_when_all_is_read() -> None:
    assert weights_checks.proofs()["last"] is True
    assert "last" not in weights_checks.model(PLAN["engines"][0], {"m": {}}, deep=True)


def test_every_kind_that_the_filters_ask_for_exists() -> None:
    checks = doctor_inside_checks(PLAN, SETTINGS) + doctor_outside_checks(PLAN, OUTSIDE)
    assert {c["kind"] for c in checks} <= set(KINDS)
    assert len({c["id"] for c in checks}) == len(checks)
    assert all(c["remedy"] for c in checks)


def test_a_host_without_parts_gets_no_checks_for_them() -> None:
    kinds = {c["kind"] for c in doctor_inside_checks(EMPTY, SETTINGS)}
    assert kinds == {"unit", "log_limits", "drift", "secrets", "disk"}
    assert doctor_outside_checks(EMPTY, OUTSIDE) == []


def test_ports_on_loopback_must_be_closed_to_clients() -> None:
    closed = next(c for c in doctor_outside_checks(PLAN, OUTSIDE) if c["kind"] == "closed")
    assert {"127.0.0.1:8101", "127.0.0.1:9090", "192.0.2.1:22"} <= set(closed["addresses"])


def test_the_first_path_is_a_page_or_closed() -> None:
    asked = {c["id"]: c for c in doctor_outside_checks(PLAN, OUTSIDE)}
    assert "/" not in asked["gateway.closed_routes"]["paths"]
    assert [asked["gateway.page"][key] for key in ("paths", "status", "anonymous")] == [["/"], 200, True]
    without = {c["id"]: c for c in doctor_outside_checks(PLAN, {**OUTSIDE, "page": False})}
    assert "/" in without["gateway.closed_routes"]["paths"]
    assert "gateway.page" not in without


def test_the_key_is_not_among_the_checks() -> None:
    assert "api_key" not in str(doctor_outside_checks(PLAN, OUTSIDE))


def test_a_verdict_without_checks_is_not_ok() -> None:
    assert doctor_verdict([], "h")["ok"] is False
    assert doctor_site_verdict({}, [])["ok"] is False


def test_one_bad_check_and_one_missing_host_make_the_site_not_ok() -> None:
    good = doctor_verdict([{"id": "a", "ok": True, "detail": "", "remedy": ""}], "h1")
    bad = doctor_verdict([{"id": "b", "ok": False, "detail": "broken", "remedy": "mend it"}], "h2")
    assert doctor_site_verdict({"h1": good}, ["h1"])["ok"] is True
    assert doctor_site_verdict({"h1": good, "h2": bad}, ["h1", "h2"])["ok"] is False
    site = doctor_site_verdict({"h1": good, "h3": None}, ["h1", "h3"])
    assert site["ok"] is False
    assert site["hosts"]["h3"]["checks"][0]["id"] == "host.reached"
    text = "\n".join(doctor_table(doctor_site_verdict({"h2": bad}, ["h2"])))
    assert "broken" in text
    assert "mend it" in text
    assert text.endswith("verdict: NOT OK")


def ask(kind: str, **more: Any) -> dict[str, Any]:
    """Carry out one check."""
    answer: dict[str, Any] = examine({"id": "x", "kind": kind, "remedy": "mend it", **more})
    return answer


def test_a_secret_that_others_may_read_is_named(tmp_path: Path) -> None:
    secret = tmp_path / "a/b/server.key"
    secret.parent.mkdir(parents=True)
    secret.write_text("k")
    secret.chmod(0o600)
    assert ask("secrets", patterns=[f"{tmp_path}/**/*.key"])["ok"] is True
    secret.chmod(0o640)
    answer = ask("secrets", patterns=[f"{tmp_path}/**/*.key"])
    assert answer["ok"] is False
    assert str(secret) in answer["detail"]
    assert answer["remedy"] == "mend it"


def test_a_file_changed_by_hand_is_named(tmp_path: Path) -> None:
    file = tmp_path / "app.conf"
    file.write_text("good\n")
    state = tmp_path / "state"
    state.mkdir()
    (state / "app.good.json").write_text(dump_snapshots([snapshot(str(file))]))
    (state / "app.json").write_text("{}")
    assert ask("drift", state_dir=str(state))["ok"] is True
    file.write_text("by hand\n")
    assert str(file) in ask("drift", state_dir=str(state))["detail"]
    file.write_text("good\n")
    (state / "app.json").unlink()
    assert "never proved" in ask("drift", state_dir=str(state))["detail"]


def test_a_port_that_answers_is_not_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert address in ask("closed", addresses=[address])["detail"]
        assert ask("closed", addresses=[address])["ok"] is False
    assert ask("closed", addresses=[address])["ok"] is True


def test_a_full_disk_is_seen(tmp_path: Path) -> None:
    assert ask("disk", path=str(tmp_path / "not/yet"), min_free_percent=0)["ok"] is True
    assert ask("disk", path=str(tmp_path), min_free_percent=101)["ok"] is False


def test_a_certificate_near_its_end_is_seen(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    file = tmp_path / "server.crt"
    trustme.CA().issue_cert("redoubt.lab").cert_chain_pems[0].write_to_path(str(file))
    assert ask("certificate", path=str(file), min_days=1)["ok"] is True
    assert ask("certificate", path=str(file), min_days=400_000)["ok"] is False
    assert ask("certificate", path=str(tmp_path / "none"), min_days=1)["ok"] is False


def test_a_release_link_that_leads_nowhere_is_seen(tmp_path: Path) -> None:
    link = tmp_path / "current"
    assert ask("release", path=str(link))["ok"] is False
    link.symlink_to("releases/1")
    assert ask("release", path=str(link))["ok"] is False
    (tmp_path / "releases/1").mkdir(parents=True)
    assert ask("release", path=str(link)) | {"seconds": 0} == {
        "id": "x",
        "ok": True,
        "detail": "release 1",
        "remedy": "",
        "seconds": 0,
    }


class StubPrometheus(http.server.BaseHTTPRequestHandler):
    """stub: answers with the healths (HEALTH@SCRAPE) of one target, one after another, then with the last for ever."""

    healths: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        if "targets" in self.path:
            health, scrape = (self.healths.pop(0) if len(self.healths) > 1 else self.healths[0]).split("@")
            target = {"health": health, "scrapePool": "engine", "scrapeUrl": "http://e/metrics", "lastError": ""}
            data: dict[str, Any] = {"activeTargets": [{**target, "lastScrape": scrape}]}
        else:
            data = {"result": []}
        body = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.mark.parametrize(
    ("healths", "ok"),
    [
        (["up@1"], True),
        (["unknown@0", "up@1"], True),
        (["unknown@0"], False),
        (["unknown@0", "down@1"], False),
        (["down@1", "down@1", "up@2"], True),
        (["down@1", "down@2", "up@3"], False),
        (["down@1"], False),
    ],
)
def test_a_target_is_judged_by_a_scrape_that_is_not_older_than_the_question(healths: list[str], ok: bool) -> None:
    StubPrometheus.healths = list(healths)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), StubPrometheus) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        answer = ask("targets", url=f"http://127.0.0.1:{server.server_port}", patience=3)
        server.shutdown()
    assert answer["ok"] is ok, answer


def test_what_cannot_be_asked_is_not_ok() -> None:
    answer = ask("targets", url="http://127.0.0.1:1")
    assert answer["ok"] is False
    assert "refused" in answer["detail"].lower()
