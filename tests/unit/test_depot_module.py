"""The module `depot`: each state, in check mode too, and what an operator reads."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.depot.signing import Signer

from library import depot as module
from tests.support import programs
from tests.support.depots import small


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path, since GnuPG's socket has one."""
    programs.client("gpg", "gpg")
    with TemporaryDirectory(prefix="depot-", dir="/tmp") as folder:
        yield Path(folder)


def ask(place: Path, state: str, check: bool = False, **more: Any) -> dict[str, Any]:
    params = {
        "state": state,
        "directory": str(place / "depot"),
        "gnupg": str(place / "gnupg"),
        "tls": str(place / "tls"),
        "names": ["127.0.0.1"],
        "certificate_days": 397,
        "renew_days": 30,
        "lock": None,
        "site": None,
        "deep": True,
        "strict": True,
        "set_aside": False,
        "workers": 0,
        "progress_file": str(place / "progress.json"),
        "lock_timeout": 0,
    }
    return module.run(params | more, check)


def test_from_nothing_to_a_published_lock_and_away_again(place: Path) -> None:
    made = small()
    lock = made.lock()
    assert ask(place, "present", check=True)["changed"] and not (place / "depot").exists()
    first = ask(place, "present")
    assert first["changed"] and first["ca"].startswith("-----BEGIN CERTIFICATE") and len(first["fingerprint"]) == 40
    assert first["key"].encode() == (place / "depot/keys/depot.asc").read_bytes()
    assert first["ca"].encode() == (place / "depot/keys/ca.crt").read_bytes()
    for check in (False, True):
        assert not ask(place, "present", check)["changed"]
    depot = Depot(place / "depot", Signer(place / "gnupg"))
    planned = ask(place, "published", check=True, lock=lock)
    assert planned == {"changed": True, "missing": 11}
    for sha256, data in made.contents.items():
        depot.add_blob(io.BytesIO(data), sha256, len(data))
    assert ask(place, "published", lock=lock)["changed"]
    assert (
        not ask(place, "published", lock=lock)["changed"]
        and not ask(place, "published", check=True, lock=lock)["changed"]
    )
    assert (place / "depot/sites/bank-north/packages/debian-13-amd64/InRelease").is_file()
    assert ask(place, "verified")["faults"] == []
    listed = ask(place, "inventory")["inventory"]
    assert listed == json.loads((place / "depot/inventory.json").read_text()) and len(listed["blobs"]) == 11
    assert ask(place, "withdrawn", check=True, site="bank-north")["changed"] and depot.lock("bank-north") == lock
    assert ask(place, "withdrawn", site="bank-north")["changed"]
    total = sum(listed["blobs"].values())
    assert ask(place, "collected", check=True)["freed_bytes"] == total
    assert ask(place, "collected")["freed_bytes"] == total
    assert not ask(place, "collected")["changed"]


def test_damage_fails_with_the_files_name_and_what_to_do(place: Path) -> None:
    ask(place, "present")
    made = small()
    lock = made.lock()
    depot = Depot(place / "depot", Signer(place / "gnupg"))
    for sha256, data in made.contents.items():
        depot.add_blob(io.BytesIO(data), sha256, len(data))
    ask(place, "published", lock=lock)
    sha256 = lock["project"]["sha256"]
    blob = depot.blobs.path(sha256)
    blob.chmod(0o644)
    blob.write_bytes(b"x" * lock["project"]["size"])
    found = ask(place, "verified")
    assert found["failed"] and f"blobs/sha256/{sha256[:2]}/{sha256}: its bytes have" in found["msg"]
    assert "with the playbook gather, or with a bundle" in found["msg"]
    assert "failed" not in ask(place, "verified", strict=False) and "failed" not in ask(place, "verified", deep=False)
    assert ask(place, "verified", check=True, set_aside=True)["set_aside"] == [] and blob.exists()
    assert ask(place, "verified", set_aside=True)["set_aside"] == [sha256] and not blob.exists()


def test_there_is_no_depot_to_prove(place: Path) -> None:
    with pytest.raises(Refusal, match="there is no depot; run the playbook depot"):
        ask(place, "verified")
