"""playbooks/import.yml as an operator runs it, and what --check says of it; the module's state `verified`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.bundle.building import Wishes
from ansible.module_utils.bundle.importing import Incomplete
from ansible.module_utils.bundle.planning import against

from library import bundle as module
from tests.support.bundles import Site, several, site, volumes
from tests.support.depot_plays import files, play, told
from tests.support.lock_documents import changed
from tests.support.plays import Run


@pytest.fixture
def made(tmp_path: Path) -> Site:
    small = site(tmp_path)
    small.build()
    return small


def run_import(made: Site, medium: Path, *options: str, **variables: Any) -> Run:
    """Import what is on a medium, as with `redoubt play import`."""
    given = {"bundle_path": str(medium), "bundle_keys": str(made.public), **variables}
    return play(made.folder, "import", made.far.root, *options, **given)


def ask(made: Site, state: str, medium: Path, check: bool = False, **more: Any) -> dict[str, Any]:
    """Ask the module itself."""
    params = {
        "state": state,
        "path": str(medium),
        "directory": str(made.far.root),
        "gnupg": str(made.folder / "gnupg"),
        "keys": [str(made.public)],
        "signatures": 1,
        "site": None,
        "allow_older": False,
        "partial": False,
        "progress_file": str(made.folder / "progress.json"),
        "lock_timeout": 0,
    }
    return module.run(params | more, check)


def spoil(medium: Path) -> Path:
    """Change a byte of a piece; return its file."""
    path = next(path for path in sorted(medium.glob("volume-001/*")) if path.name != "volume.json")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return path


def test_an_import_says_before_what_it_will_do_and_is_done_once(made: Site) -> None:
    before = files(made.far.root)
    forecast = run_import(made, made.bundle, "--check")
    assert (forecast.status, forecast.changed) == (0, 1)
    assert told(forecast).endswith("would be brought; it would be published")
    assert files(made.far.root) == before
    first = run_import(made, made.bundle)
    assert (first.status, first.changed) == (0, 1)
    assert told(first) == told(forecast).replace("would be brought", "were brought").replace("it would be", "it is")
    assert made.published() == made.lock
    assert made.far.verify(deep=True) == []
    kept = {name: files(made.far.root / name) for name in ("blobs", "views", "sites", "keys")}
    for options in (("--check",), ()):
        again = run_import(made, made.bundle, *options)
        assert (again.status, again.changed) == (0, 0)
        assert told(again).endswith("brought; it is published")
    assert {name: files(made.far.root / name) for name in kept} == kept
    assert made.published() == made.lock


def test_an_older_bundle_is_refused_unless_the_operator_says_so(made: Site, tmp_path: Path) -> None:
    second = changed(made.lock, lambda body: body.update(keys=[]))
    made.build(second, tmp_path / "second")
    made.bring(tmp_path / "second")
    for options in (("--check",), ()):
        refused = run_import(made, made.bundle, *options)
        assert refused.status != 0
        assert f"lock {second['serial']} of this site was published here before" in refused.words
        assert "-e bundle_allow_older=true" in refused.words
        assert made.published() == second
    assert run_import(made, made.bundle, bundle_allow_older=True).status == 0
    assert made.published() == made.lock


def test_volumes_come_one_by_one_with_partial(tmp_path: Path) -> None:
    made = several(tmp_path)
    names = volumes(made)
    assert len(names) > 2
    stick = tmp_path / "stick"
    for count, name in enumerate(names, 1):
        shutil.copytree(made.bundle, stick, ignore=lambda _, found, name=name: {*names} & {*found} - {name})
        last, rest = count == len(names), ", ".join(names[count:])
        for options, state in ((("--check",), "would be"), ((), "is")) if count == 1 else ():
            alone = run_import(made, stick, *options)
            assert alone.status != 0
            assert f"{name} {state} in the depot now" in alone.words
            assert f"still to come: {rest}" in alone.words
        words = {"--check": "it would be published", "--diff": "it is published"}
        for option, published in words.items():
            some = run_import(made, stick, option, bundle_partial=True)
            assert some.status == 0
            assert told(some).endswith(published if last else f"still to come: {rest}")
        assert made.published() == (made.lock if last else None)
        shutil.rmtree(stick)
    assert made.far.verify(deep=True) == []


def test_a_damaged_file_is_named_with_what_to_do(made: Site) -> None:
    path = spoil(made.bundle)
    for options in (("--check",), ()):
        failed = run_import(made, made.bundle, *options)
        assert failed.status != 0
        assert str(path) in failed.words
        assert "Copy these files again from where the bundle was built, then import again" in failed.words
        assert made.published() is None


def test_who_signs_and_for_which_site_is_the_operators_word(made: Site) -> None:
    asked = play(made.folder, "import", made.far.root, bundle_path=str(made.bundle))
    assert asked.status != 0
    assert "bundle_path or bundle_keys is not set" in asked.words
    alone = run_import(made, made.bundle, bundle_signatures=2)
    assert alone.status != 0
    assert "2 signatures needed, there is 1 by a key of yours" in alone.words
    other = run_import(made, made.bundle, redoubt_site="other")
    assert other.status != 0
    assert "site other was asked for" in other.words
    assert made.published() is None


@pytest.mark.parametrize("check", [True, False])
def test_a_forecast_refuses_what_the_import_refuses(made: Site, tmp_path: Path, check: bool) -> None:
    with pytest.raises(Refusal, match="site other was asked for"):
        ask(made, "imported", made.bundle, check, site="other")
    made.bring()
    shutil.rmtree(made.far.root)
    wishes = Wishes(against=against((made.bundle / "manifest.json").read_bytes(), "manifest.json"))
    made.build(changed(made.lock, lambda body: body.update(keys=[])), tmp_path / "delta", wishes)
    with pytest.raises(Refusal, match=r"lacks .* that it leaves out"):
        ask(made, "imported", tmp_path / "delta", check)
    shutil.rmtree(made.bundle / "volume-001")
    with pytest.raises(Incomplete, match="still to come: volume-001"):
        ask(made, "imported", made.bundle, check)


def test_a_first_import_is_foreseen_where_there_is_no_depot_yet(made: Site) -> None:
    shutil.rmtree(made.far.root)
    forecast = ask(made, "imported", made.bundle, check=True)
    assert forecast["changed"] and not made.far.root.exists()
    done = ask(made, "imported", made.bundle)
    assert done == forecast
    assert not ask(made, "imported", made.bundle, check=True)["changed"]


@pytest.mark.parametrize("check", [True, False])
def test_verified_changes_nothing_and_names_what_is_bad(made: Site, check: bool) -> None:
    before = files(made.folder / "medium")
    good = ask(made, "verified", made.bundle, check)
    assert (good["changed"], good["digest"], good["bytes"] > 0) == (False, made.lock["digest"], True)
    assert files(made.folder / "medium") == before
    path = spoil(made.bundle)
    with pytest.raises(Refusal, match=rf"{path}: its bytes have the sha256 .*; copy it again"):
        ask(made, "verified", made.bundle, check)
    shutil.rmtree(made.bundle / "volume-001")
    with pytest.raises(Refusal, match="this volume is not here"):
        ask(made, "verified", made.bundle, check)
    assert ask(made, "verified", made.bundle, check, partial=True)["bytes"] == 0
