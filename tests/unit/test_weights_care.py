"""The care of a store: re-proof in the background, damage that nothing else shows, the inventory and its figures."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.artifacts import reproof
from ansible.module_utils.artifacts.ledger import Ledger
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import present, verified
from ansible.module_utils.artifacts.reading import hash_from_disk
from ansible.module_utils.artifacts.reproof import reprove
from ansible.module_utils.artifacts.settling import Settings
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fetch.sources import Folder
from ansible.module_utils.run_lock import Busy

from tests.support.care_site import FIRST, ONE, TWO, Site
from tests.support.prometheus import until
from tests.support.weight_trees import REVISIONS, digest

REPO = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_rot_that_moves_nothing_is_found_named_and_mended_by_the_next_run(site: Site) -> None:
    site.bring(ONE, TWO)
    damaged = site.tree("one") / "shared.dat"
    site.rot(damaged)
    assert site.bring(ONE, TWO)[0] is False  # nothing shows it but its bytes
    report = site.reprove()
    assert (report.files, report.damaged) == (4, 1)
    (said,) = site.said
    for name in ("one", "two"):
        assert f"{site.tree(name)}/shared.dat" in said
    assert f"expected sha256 {digest(FIRST['shared.dat'])}" in said
    assert site.figures()['redoubt_weights_damaged_files{model="one"}'] == 1
    assert site.inventory()["models"]["two"][REVISIONS[0][:12]]["damaged"] == ["shared.dat"]
    changed, (one, two) = site.bring(ONE, TWO)
    assert (changed, one.fetched, two.state) == (True, ["shared.dat"], "mended")
    assert damaged.read_bytes() == FIRST["shared.dat"]
    assert (site.tree("two") / "shared.dat").read_bytes() == FIRST["shared.dat"]
    assert site.figures()['redoubt_weights_damaged_files{model="one"}'] == 0  # without waiting for the timer
    assert site.reprove().damaged == 0
    assert site.bring(ONE, TWO)[0] is False


def test_deep_look_writes_down_what_it_found_so_that_the_next_run_mends_it(site: Site) -> None:
    site.bring(ONE)
    site.rot(site.tree("one") / "own.dat")
    (verdict,) = verified(site.store, parse_models([ONE]), Settings(check=True), True)
    assert site.bring(ONE)[0] is False  # check mode wrote nothing
    (verdict,) = verified(site.store, parse_models([ONE]), Settings(), True)
    assert [fault["path"] for fault in verdict["faults"]] == ["own.dat"]
    assert site.bring(ONE)[1][0].fetched == ["own.dat"]
    assert verified(site.store, parse_models([ONE]), Settings(), True)[0]["ok"]


def test_file_that_the_disk_cannot_read_is_damaged_and_replaced(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.bring(ONE)
    blob = site.store.blobs.path(digest(FIRST["own.dat"]))
    broken = blob.stat().st_ino

    def unreadable(real: Callable[..., Any]) -> Callable[..., Any]:
        def read(path: Path, *rest: Any) -> Any:
            if Path(path).stat().st_ino == broken:
                raise OSError(errno.EIO, "Input/output error")
            return real(path, *rest)

        return read

    for place in ("reproof.hash_from_disk", "survey.hash_file", "staging.hash_file"):
        name = f"ansible.module_utils.artifacts.{place}"
        module, _, attribute = name.rpartition(".")
        monkeypatch.setattr(name, unreadable(getattr(sys.modules[module], attribute)))
    site.reprove()
    assert "found a read error (Input/output error)" in site.said[0]
    _, (outcome,) = site.bring(ONE)
    assert (outcome.state, outcome.fetched) == ("mended", ["own.dat"])
    assert blob.stat().st_ino != broken
    assert site.bring(ONE)[0] is False


def test_oldest_proof_is_read_first_and_a_killed_run_goes_on_where_it_stopped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.bring(ONE, TWO)
    ledger = Ledger.read(site.store.ledger_file)
    wanted = sorted(site.store.blobs.every(), key=lambda item: item.name)
    for age, item in enumerate(wanted):
        ledger.note(item.stat(), item.name, 1000.0 + age)
    ledger.write()
    order: list[str] = []

    def until_killed(path: Path, tick: Callable[[int], None]) -> tuple[str, int]:
        order.append(path.name)
        if len(order) == 3:
            raise KeyboardInterrupt
        answer: tuple[str, int] = hash_from_disk(path, tick)
        return answer

    monkeypatch.setattr(reproof, "hash_from_disk", until_killed)
    with pytest.raises(KeyboardInterrupt):
        site.reprove()
    names = [item.name for item in wanted]
    assert order == names[:3]
    assert site.inventory()["reproof"]["ended"] is None
    assert site.inventory()["oldest_proof"] == 1002
    site.reprove()
    assert order[3:] == [*names[2:], *names[:2]]
    assert site.inventory()["reproof"]["ended"]
    assert site.inventory()["oldest_proof"] > 1_700_000_000


def test_a_run_gets_the_store_while_files_are_read_and_the_result_waits_for_a_run(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.bring(ONE)
    site.rot(site.tree("one") / "own.dat", 1000.0)  # so that it is the first one
    reached, go = threading.Event(), threading.Event()

    def slow(path: Path, tick: Callable[[int], None]) -> tuple[str, int]:
        reached.set()
        assert go.wait(60)
        answer: tuple[str, int] = hash_from_disk(path, tick)
        return answer

    monkeypatch.setattr(reproof, "hash_from_disk", slow)
    site.store = Store(site.store.models, site.store.state, patience=60)
    thread = threading.Thread(target=site.reprove)
    thread.start()
    assert reached.wait(60)
    # In the middle of a file: a run with no patience at all gets the lock, makes links, and says nothing is wrong.
    quick = Store(site.store.models, site.store.state, patience=0)
    present(quick, parse_models([ONE, TWO]), [Folder(site.source)], Settings())
    with quick.locked():
        go.set()
        before = quick.ledger_file.read_bytes()
        assert until(lambda: bool(site.said), 60)
        assert quick.ledger_file.read_bytes() == before
    thread.join(60)
    assert site.inventory()["reproof"]["damaged"] == 1
    assert site.bring(ONE, TWO)[1][0].fetched == ["own.dat"]
    # The links of the second model moved ctime while the shared files were read: they are proved all the same.
    assert site.bring(ONE, TWO)[1][1].bytes_hashed == 0


def test_file_that_got_a_link_while_it_was_read_counts_as_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.bring(ONE)
    path = site.tree("one") / "shared.dat"
    ledger = Ledger.read(site.store.ledger_file)
    ledger.note(path.stat(), digest(FIRST["shared.dat"]), 1000.0)
    ledger.write()

    def linked(place: Path, tick: Callable[[int], None]) -> tuple[str, int]:
        site.bring(ONE, TWO)  # moves its ctime
        answer: tuple[str, int] = hash_from_disk(place, tick)
        return answer

    monkeypatch.setattr(reproof, "hash_from_disk", linked)
    site.reprove()
    proof = Ledger.read(site.store.ledger_file).proof(path.stat())
    assert proof is not None
    assert proof.when > 1000


def test_file_that_was_replaced_while_it_was_read_is_left_as_it_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.bring(ONE)
    blob = site.store.blobs.path(digest(FIRST["own.dat"]))

    def replaced(path: Path, tick: Callable[[int], None]) -> tuple[str, int]:
        if path == blob:
            fresh = path.with_name("fresh")
            fresh.write_bytes(FIRST["own.dat"])
            fresh.replace(path)
            return "0" * 64, 50_000
        answer: tuple[str, int] = hash_from_disk(path, tick)
        return answer

    monkeypatch.setattr(reproof, "hash_from_disk", replaced)
    site.reprove()
    ledger = Ledger.read(site.store.ledger_file)
    assert (ledger.proof(blob.stat()), ledger.damage(blob.stat())) == (None, None)


def test_a_run_that_does_not_end_is_said(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    site.bring(ONE)
    monkeypatch.setattr(reproof, "PATIENCE", 0)
    words = ["--directory", str(site.store.models), "--state-dir", str(site.store.state)]
    with site.store.locked():
        assert reproof.main(words) == 1
        with pytest.raises(Busy):
            reprove(site.store, None, None, site.said.append)
    assert "is working on the models in" in capsys.readouterr().out


def test_program_says_damage_as_an_error_and_ends_red(site: Site, capsys: Any) -> None:
    site.bring(ONE)
    words = ["--directory", str(site.store.models), "--state-dir", str(site.store.state), "--releases", "/nowhere"]
    assert reproof.main([*words, "--figures", "--metrics", str(site.metrics)]) == 0
    assert "redoubt_weights_reproof_bytes" not in site.figures()  # nothing was read
    assert reproof.main(words) == 0
    assert capsys.readouterr().out == f"3 files, {150_000 + len(FIRST['config.json'])} bytes read again, 0 damaged\n"
    site.rot(site.tree("one") / "own.dat")
    assert reproof.main(words) == 1
    assert capsys.readouterr().out.startswith(f"<3>{site.tree('one')}/own.dat: expected sha256 ")


def installed_modules() -> list[str]:
    return list(yaml.safe_load((REPO / "roles/weights/vars/main.yml").read_text())["__weights_reproof_modules"])


def test_files_that_the_role_installs_are_all_that_the_program_needs(site: Site, tmp_path: Path) -> None:
    site.bring(ONE)
    library = tmp_path / "library"
    for module in installed_modules():
        target = library / "ansible/module_utils" / module
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((REPO / "module_utils" / module).read_text())
    for folder in ("ansible", "ansible/module_utils"):
        (library / folder / "__init__.py").touch()
    command = [sys.executable, "-S", "-B", "-m", "ansible.module_utils.artifacts.reproof"]
    words = ["--directory", str(site.store.models), "--state-dir", str(site.store.state)]
    done = subprocess.run(
        [*command, *words], env={"PYTHONPATH": str(library)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3 files")
