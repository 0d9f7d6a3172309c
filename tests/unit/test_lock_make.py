"""Making a lock: the project's tree, the wheels that a Python needs, images and models, and what changes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.gather.wheels import platforms

from locks import folder as files
from locks import project
from locks.make import Wishes, make
from locks.wheels import pins_for, resolve
from tests.support import image_archives, lock_documents, stub_registry
from tests.support.depot_site import wheel
from tests.support.fault_server import serving
from tests.support.lock_documents import AMD64

DEBIAN_13 = {"python": "3.13", "platform": "manylinux_2_41_x86_64"}


def git(root: Path, *words: str) -> str:
    """Run git as somebody."""
    names = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
    done = subprocess.run(
        ["git", "-C", str(root), "-c", "commit.gpgsign=false", *words],
        env={**os.environ, **dict.fromkeys(names, "tester@example.org"), "GIT_CONFIG_GLOBAL": "/dev/null"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "playbooks").mkdir(parents=True)
    (root / "lock").mkdir()
    (root / "redoubt").write_text("#!/bin/sh\n")
    (root / "redoubt").chmod(0o755)
    (root / "playbooks/é.yml").write_text("---\n")
    (root / "link").symlink_to("redoubt")
    (root / "lock/lock.yml").write_text("serial: 0\n")
    (root / "requirements.txt").write_text("")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "One")
    return root


def tree(root: Path) -> project.Tree:
    """What goes into the tar now."""
    found = project.tree_of(root, [root / "lock"])
    assert found is not None
    return found


def test_the_tree_has_every_tracked_file_but_the_lock(checkout: Path) -> None:
    (checkout / "untracked").write_text("no")
    found = tree(checkout)
    with tarfile.open(fileobj=io.BytesIO(project.tar(found))) as tar:
        members = {member.name.partition("/")[2]: member for member in tar}
    assert set(members) == {"redoubt", "link", "playbooks/é.yml", "requirements.txt"}
    assert (members["redoubt"].mode, members["link"].linkname) == (0o755, "redoubt")
    assert {(member.uid, member.uname, member.mtime) for member in members.values()} == {(0, "", project.EPOCH)}


def test_another_clone_gives_the_same_bytes_at_another_time(checkout: Path, tmp_path: Path) -> None:
    locked = project.row(tree(checkout), project.tar(tree(checkout)))
    git(tmp_path, "clone", "-q", str(checkout), str(tmp_path / "clone"))
    (tmp_path / "clone/redoubt").write_text("edited since\n")
    again = project.locked_tree(tmp_path / "clone", locked)
    assert project.row(again, project.tar(again)) == locked


def test_a_committed_lock_is_no_change_of_the_project(checkout: Path) -> None:
    before = tree(checkout)
    (checkout / "lock/lock.yml").write_text("serial: 1\n")
    assert tree(checkout) == before
    git(checkout, "commit", "-qam", "Lock")
    assert tree(checkout) == before


def test_uncommitted_changes_count_and_touch_no_index(checkout: Path) -> None:
    (checkout / "redoubt").write_text("changed\n")
    (checkout / "lock/lock.yml").write_text("serial: 1\n")
    dirty = tree(checkout)
    assert dirty.version.endswith("-dirty")
    assert b"changed" in project.tar(dirty)
    (checkout / "lock/lock.yml").write_text("serial: 2\n")
    assert tree(checkout) == dirty
    assert git(checkout, "diff", "--cached", "--name-only") == ""


def test_a_file_that_was_only_added_is_there_and_a_removed_one_is_not(checkout: Path) -> None:
    (checkout / "new").write_text("new text\n")
    git(checkout, "add", "new")
    git(checkout, "rm", "-q", "link")
    with tarfile.open(fileobj=io.BytesIO(project.tar(tree(checkout)))) as out:
        names = {name.partition("/")[2] for name in out.getnames()}
    assert "new" in names
    assert "link" not in names
    assert git(checkout, "status", "--porcelain").splitlines() == ["D  link", "A  new"]


def test_a_commit_that_git_does_not_have_is_told(checkout: Path) -> None:
    locked = {"commit": "0" * 40, "version": "x"}
    with pytest.raises(Refusal, match="git has no commit or tree 0000"):
        project.tar(project.locked_tree(checkout, locked))


def test_a_folder_that_is_no_checkout_has_no_tree(tmp_path: Path) -> None:
    assert project.tree_of(tmp_path, []) is None


def test_wheels_are_chosen_for_the_other_machine() -> None:
    pin = "--hash=sha256:" + "0" * 64
    text = "\n".join(
        [
            f"old==1 ; python_version < '3.12' \\\n    {pin}",
            f"new==2 ; python_version >= '3.12' {pin}",
            f"arm==3 ; platform_machine == 'aarch64' {pin}",
            f"windows==4 ; sys_platform == 'win32' {pin}",
            f"both==5 {pin} {pin}  # a comment",
        ]
    )
    assert [str(requirement) for requirement, _ in pins_for(DEBIAN_13, text)] == ["new==2", "both==5"]
    arm = {"python": "3.11", "platform": "manylinux_2_36_aarch64"}
    assert [str(requirement) for requirement, _ in pins_for(arm, text)] == ["old==1", "arm==3", "both==5"]


@pytest.mark.parametrize("line", ["loose>=1 --hash=sha256:00", "bare==1", "star==1.* --hash=sha256:00"])
def test_a_requirement_that_is_not_pinned_is_refused(line: str) -> None:
    with pytest.raises(Refusal, match="is not pinned"):
        pins_for(DEBIAN_13, line)


def test_older_platform_tags_run_on_a_newer_one() -> None:
    found = platforms("manylinux_2_28_x86_64")
    assert found[0] == "manylinux_2_28_x86_64"
    assert "manylinux_2_17_x86_64" in found
    assert "manylinux2014_x86_64" in found
    assert "manylinux_2_29_x86_64" not in found


# The lock as a whole


def wishes(root: Path, **changes: Any) -> Wishes:
    """Wishes for one platform, one image from an archive, one model; no wheels."""
    lock, contents = lock_documents.make()
    (root / "images").mkdir(exist_ok=True)
    built = image_archives.build(root / "images/small.tar", ["redoubt.test/small:1"])
    platform = lock["platforms"][AMD64]
    index = contents[platform["indexes"][0]["sha256"]].decode()
    given: dict[str, Any] = {
        "site": "bank-north",
        "platforms": {AMD64: {"platform": platform, "indexes": {"Packages": index}}},
        "images": {"small": built.entry("redoubt.test/small")},
        "source": f"file://{root}/images",
        "models": {"small": lock["models"]["smollm2-135m-instruct"]},
        "models_source": "a hub",
    }
    return Wishes(**{**given, **changes})


def test_a_lock_is_made_written_and_made_again_without_a_change(checkout: Path, tmp_path: Path) -> None:
    folder = checkout / "lock"
    (folder / "lock.yml").unlink()
    made = make(wishes(tmp_path), checkout, folder)
    assert (made.lock["serial"], made.lock["project"]["file"]) == (1, tree(checkout).file)
    assert made.lock["keys"] == [{"name": "debian-trixie", "fingerprint": lock_documents.FINGERPRINT}]
    files.write(folder, made.lock, made.indexes)
    assert files.load(folder) == made.lock
    again = make(wishes(tmp_path), checkout, folder)
    assert (again.lock, again.changes) == (made.lock, [])
    assert files.write(folder, again.lock, again.indexes, check=True) == []


def test_what_is_newer_is_said_and_counts_the_serial(checkout: Path, tmp_path: Path) -> None:
    folder = checkout / "lock"
    (folder / "lock.yml").unlink()
    made = make(wishes(tmp_path), checkout, folder)
    files.write(folder, made.lock, made.indexes)
    newer = wishes(tmp_path)
    row = next(row for row in newer.platforms[AMD64]["platform"]["packages"] if row["name"] == "nginx")
    row.update(version="1.28.0-1", sha256="0" * 64)
    after = make(newer, checkout, folder)
    assert after.lock["serial"] == 2
    assert [change.text for change in after.changes] == [
        f"~ platforms.{AMD64}: nginx 1.26.3-3+deb13u1 -> 1.28.0-1",
    ]


def test_a_broken_lock_is_made_anew_and_its_serial_counts_on(checkout: Path, tmp_path: Path) -> None:
    folder = checkout / "lock"
    (folder / "lock.yml").unlink()
    made = make(wishes(tmp_path), checkout, folder)
    files.write(folder, {**made.lock, "serial": 41}, made.indexes)
    (folder / "images.yml").write_text("images: [")
    assert make(wishes(tmp_path), checkout, folder).lock["serial"] == 42


def test_all_that_cannot_be_locked_is_told_at_once(checkout: Path, tmp_path: Path) -> None:
    good = wishes(tmp_path)
    images = {
        "example": {"name": "a/b", "tag": "1", "digest": "sha256:" + "1" * 64},
        "bare": {"name": "a/c", "tag": "1"},
        "other": {**good.images["small"], "config_digest": "sha256:" + "0123456789abcdef" * 4},
    }
    sums = {"files": [{"path": "config.json", "size": 2, "sha256": "1" * 64}]}
    models = {"small": {**good.models["small"], **sums}}
    with pytest.raises(Refusal) as refusal:
        make(wishes(tmp_path, images=images, models=models), checkout, checkout / "lock")
    text = str(refusal.value)
    assert "redoubt_images.example: its digest is a placeholder" in text
    assert "redoubt_images.bare: redoubt_sources.images is file://" in text
    assert "redoubt_images.other: " in text
    assert "expected config digest" in text
    assert "redoubt_model_locks.small: its sums are placeholders" in text


def test_a_newer_commit_of_a_model_is_said_and_the_locked_one_stays(checkout: Path, tmp_path: Path) -> None:
    (checkout / "lock/lock.yml").unlink()
    good = wishes(tmp_path)
    entry = {**good.models["small"], "repo": "org/small"}
    about = {"/api/models/org/small/revision/main": json.dumps({"sha": "5" * 40}).encode()}
    with serving(about) as hub:
        chosen = wishes(tmp_path, models={"small": entry, "gone": {**entry, "repo": "org/gone"}}, hub=hub.base)
        made = make(chosen, checkout, checkout / "lock")
    assert made.lock["models"]["small"]["revision"] == entry["revision"]
    gone, small = made.newer
    assert small == f"models: small org/small main is {'5' * 40} now"
    assert gone.startswith("models: gone was not asked for: ")
    with serving({"/api/models/org/small/revision/main": json.dumps({"sha": entry["revision"]}).encode()}) as hub:
        assert make(wishes(tmp_path, models={"small": entry}, hub=hub.base), checkout, checkout / "lock").newer == []


def test_wheels_come_from_the_index_that_the_site_names(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name, version in (("example", "1.0"), ("pip", "25.3")):
        file, data = wheel(name, version)
        (mirror / file).write_bytes(data)
    sha256 = hashlib.sha256((mirror / "example-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    (tmp_path / "requirements.txt").write_text(f"example==1.0 --hash=sha256:{sha256}\n")
    section = resolve(tmp_path / "requirements.txt", [DEBIAN_13], tmp_path / "cache", f"file://{mirror}")
    assert [(row["name"], row["version"]) for row in section["files"]] == [("example", "1.0"), ("pip", "25.3")]
    (mirror / "example-1.0-py3-none-any.whl").unlink()
    with pytest.raises(Refusal, match="cannot be had"):
        resolve(tmp_path / "requirements.txt", [DEBIAN_13], tmp_path / "other", f"file://{mirror}")


def test_a_tag_that_moved_is_said_and_the_digest_stays(checkout: Path, tmp_path: Path) -> None:
    with stub_registry.running() as stub:
        old = stub.push("app", "1", ("amd64",))
        new = stub.push("app", "1", ("amd64",), b"newer")
        images = {"app": {"name": f"{stub.host}/app", "tag": "1", "digest": old}}
        chosen = wishes(tmp_path, images=images, source="registry", image_platforms=["linux/amd64"])
        (checkout / "lock/lock.yml").unlink()
        made = make(chosen, checkout, checkout / "lock")
    assert made.lock["images"]["app"]["digest"] == old
    assert made.newer == [f"images: app {stub.host}/app:1 is {new} now"]
