"""While packages are installed none starts its service; afterwards the host is as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ansible.module_utils.package_services import services_off


@pytest.fixture
def _policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "policy-rc.d"
    monkeypatch.setattr(sys.modules[services_off.__module__], "POLICY", path)
    return path


def test_the_answer_is_no_and_goes_away(_policy: Path) -> None:
    with services_off(True):
        assert subprocess.run([str(_policy), "nginx", "start"], check=False).returncode == 101
    assert not _policy.exists()
    with services_off(False):
        assert not _policy.exists()


def test_the_hosts_own_answer_comes_back_also_after_a_failure(_policy: Path) -> None:
    _policy.write_text("#!/bin/sh\nexit 104\n")
    with pytest.raises(OSError, match="full"), services_off(True):
        raise OSError("full")
    assert _policy.read_text() == "#!/bin/sh\nexit 104\n"


def test_what_a_killed_run_left_goes_away(_policy: Path) -> None:
    with services_off(True):
        left = _policy.read_bytes()
    _policy.write_bytes(left)
    with services_off(True):
        pass
    assert not _policy.exists()
