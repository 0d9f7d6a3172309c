"""Whole runs of preflight with signatures: what is refused before any host is asked, with all other mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provenance.sign import sign
from tests.support.plan_documents import lock, model
from tests.support.preflight_runs import preflight, site, write_inventory
from tests.support.signing import key, private_pem, public_pem

KEY = key()
FILES = {str(file["path"]): str(file["sha256"]) for file in lock("small")["files"]}


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """A folder with a trusted key and a good signature beside the inventory."""
    (tmp_path / "signatures").mkdir()
    (tmp_path / "signatures/small.sig").write_text(sign("small", FILES, KEY))
    (tmp_path / "release.pub").write_text(public_pem(KEY))
    return tmp_path


def run(inventory: Path, **changes: Any) -> tuple[int, str]:
    settings = {"policy": "require", "keys": ["{{ inventory_dir }}/release.pub"]}
    done = preflight(write_inventory(inventory, site() | {"redoubt_model_signatures": settings} | changes))
    return done.returncode, done.stdout


def test_a_signed_model_passes(inventory: Path) -> None:
    status, text = run(inventory)
    assert status == 0
    assert "small.sig" not in text


def test_a_model_signed_by_a_stranger_is_refused_with_every_other_mistake(inventory: Path) -> None:
    (inventory / "signatures/small.sig").write_text(sign("small", FILES, key()))
    status, text = run(inventory, gateway_https_port="443")
    assert status != 0
    assert f"{inventory}/signatures/small.sig: the signature of small is refused: it was made with the key" in text
    assert "gateway_https_port" in text
    assert "Refused: 2 problems, no host was changed." in text


def test_a_model_without_a_signature_is_refused_or_noted_in_the_plan(inventory: Path) -> None:
    (inventory / "signatures/small.sig").unlink()
    status, text = run(inventory)
    assert status != 0
    assert "model small is not signed: this file is not there" in text
    settings = {"policy": "warn", "keys": [public_pem(KEY)]}
    status, text = run(inventory, redoubt_model_signatures=settings)
    assert status == 0
    assert "model small is not signed" in text


def test_a_model_may_have_a_policy_and_a_file_of_its_own(inventory: Path) -> None:
    (inventory / "signatures/small.sig").rename(inventory / "other.sig")
    own = [model(signature={"file": "{{ inventory_dir }}/other.sig"})]
    assert run(inventory, redoubt_models=own)[0] == 0
    assert run(inventory, redoubt_models=[model(signature={"policy": "ignore"})])[0] == 0
    settings = {"policy": "ignore"}
    strict = [model(signature={"policy": "require"})]
    status, text = run(inventory, redoubt_models=strict, redoubt_model_signatures=settings)
    assert status != 0
    assert "redoubt_model_signatures: signatures are wanted, but nobody is trusted" in text


def test_words_that_do_not_exist_are_refused_and_a_private_key_is_not_shown(inventory: Path) -> None:
    settings = {"policy": "always", "keys": [private_pem(KEY)], "certificates": []}
    status, text = run(inventory, redoubt_model_signatures=settings)
    assert status != 0
    assert 'redoubt_model_signatures.policy = "always"' in text
    assert "redoubt_model_signatures.certificates: there is no such field" in text
    status, text = run(inventory, redoubt_model_signatures={"policy": "require", "keys": [private_pem(KEY)]})
    assert status != 0
    assert "it is a private key" in text
    assert private_pem(KEY).splitlines()[1] not in text


def test_a_site_without_a_word_of_signatures_is_not_asked_for_any(tmp_path: Path) -> None:
    assert preflight(write_inventory(tmp_path, site())).returncode == 0
