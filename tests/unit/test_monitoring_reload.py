"""Does a service use the files on disk? The script that answers, against pages that a small real server hands out."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "roles/monitoring/files/monitoring_reload.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("monitoring_reload", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


script: Any = load()
SERVICE = script.Service("alertmanager", "http://127.0.0.1:1", "alertmanager_config")


def page(successful: int, at: float) -> str:
    return (
        "# HELP alertmanager_config_last_reload_successful Whether it was good.\n"
        f"alertmanager_config_last_reload_successful {successful}\n"
        f"alertmanager_config_last_reload_success_timestamp_seconds {at:e}\n"
        'alertmanager_other{label="a b"} 3\n'
    )


@pytest.mark.parametrize(
    ("text", "changed", "state"),
    [
        (page(1, 2000.0), 1999.5, "LOADED"),
        (page(1, 2000.0), 2000.5, "STALE"),
        (page(0, 2000.0), 1999.5, "REFUSED"),
        ("", 0.0, "REFUSED"),
    ],
)
def test_judgement(text: str, changed: float, state: str) -> None:
    assert script.judge(SERVICE, text, changed).state.name == state


def test_nobody_answers() -> None:
    found = script.look(SERVICE, Path("/nonexistent"))
    assert found.state is script.State.SILENT
    assert "http://127.0.0.1:1" in found.text


def test_newest_change_sees_files_put_in_place_and_taken_away(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    rule = tmp_path / "rules/a.yml"
    rule.write_text("a")
    first = script.newest_change(tmp_path)
    time.sleep(0.02)
    old = tmp_path / "new"
    old.write_text("b")
    os.utime(old, (1, 1))  # an old modification time must not hide it
    os.replace(old, rule)
    second = script.newest_change(tmp_path)
    time.sleep(0.02)
    rule.unlink()
    assert first < second < script.newest_change(tmp_path)


def test_a_folders_mode_set_again_is_no_change(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    before = script.newest_change(tmp_path)
    time.sleep(0.02)
    tmp_path.chmod(0o755)
    assert script.newest_change(tmp_path) == before


class Pages(BaseHTTPRequestHandler):
    """Stands for three services: reports the last reload, and reloads when told to unless it is stubborn."""

    loaded = 0.0
    stubborn = False
    reloads = 0

    def do_GET(self) -> None:
        names = ("prometheus_config", "alertmanager_config", "blackbox_exporter_config")
        text = "".join(
            f"{name}_last_reload_successful 1\n{name}_last_reload_success_timestamp_seconds {type(self).loaded}\n"
            for name in names
        )
        self._answer(200, text)

    def do_POST(self) -> None:
        type(self).reloads += 1
        if type(self).stubborn:
            self._answer(500, "failed to reload config: line 7")
            return
        type(self).loaded = time.time()
        self._answer(200, "")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    Pages.loaded, Pages.stubborn, Pages.reloads = 0.0, False, 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def settings(folder: Path, url: str, grafana: bool = False) -> str:
    """Write services.json and return the folder as the script takes it."""
    document = {"prometheus": url, "alertmanager": url, "blackbox": url, "grafana": grafana}
    (folder / "services.json").write_text(json.dumps(document))
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "alertmanager").mkdir()
    (tmp_path / "alertmanager/alertmanager.yml").write_text("a")
    return tmp_path


def test_check_names_what_is_stale(url: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["check", settings(folder, url)]) == 1
    assert capsys.readouterr().out == "alertmanager has not read its files since they changed"


def test_apply_reloads_just_what_is_stale(url: str, folder: Path) -> None:
    assert script.main(["apply", settings(folder, url)]) == 0
    assert Pages.reloads == 1
    assert script.main(["apply", settings(folder, url)]) == 0
    assert Pages.reloads == 1
    assert script.main(["check", settings(folder, url)]) == 0


def test_apply_passes_a_refusal_on(
    url: str, folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub_docker = tmp_path / "bin/docker"
    stub_docker.parent.mkdir()
    stub_docker.write_text("#!/bin/sh\necho it stopped at line 7\n")
    stub_docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(stub_docker.parent), prepend=":")
    Pages.stubborn = True
    assert script.main(["apply", settings(folder, url)]) == 1
    said = capsys.readouterr().out
    assert "failed to reload config: line 7" in said
    assert "its last words: it stopped at line 7" in said


def test_a_service_that_only_begins_to_start_may_say_why_it_cannot(
    url: str, folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else has its port and answers 500, before the service itself has found that out."""
    (tmp_path / "bin").mkdir()
    state = tmp_path / "looks"
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    (tmp_path / "bin/docker").write_text(
        f"""#!/bin/sh
case "$*" in
*inspect*) echo . >> {state}; [ $(wc -l < {state}) -lt 3 ] && echo true 0 {moment}.123456789Z || echo false 1 x;;
*logs*) [ $(wc -l < {state}) -lt 3 ] && echo Starting || echo address already in use;;
esac
"""
    )
    (tmp_path / "bin/docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    Pages.stubborn = True
    assert script.main(["apply", settings(folder, url)]) == 1
    assert "its last words: address already in use" in capsys.readouterr().out


def test_the_password_is_made_once_and_only_its_user_can_read_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "GRAFANA_UID", os.getuid())
    (tmp_path / "grafana/secrets").mkdir(parents=True)
    assert script.main(["password", settings(tmp_path, url, grafana=True)]) == 0
    path = tmp_path / "grafana/secrets/admin_password"
    first = path.read_text()
    assert len(first) >= 32
    assert path.stat().st_mode & 0o777 == 0o400
    assert script.main(["password", settings(tmp_path, url, grafana=True)]) == 0
    assert path.read_text() == first


def test_without_grafana_no_password_is_made(tmp_path: Path) -> None:
    assert script.main(["password", settings(tmp_path, "http://127.0.0.1:1")]) == 0
    assert not (tmp_path / "grafana").exists()
