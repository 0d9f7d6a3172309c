"""The lock's files: what is written is what is read, in a form whose diff shows what changes on the hosts."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.lock.changes import compare, lines

from locks import text
from locks.folder import load, read_index, write
from tests.support import lock_documents
from tests.support.lock_documents import AMD64, ARM64


def _written(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lock, contents = lock_documents.make()
    indexes = {
        name: {item["path"]: contents[item["sha256"]].decode() for item in row["indexes"]}
        for name, row in lock["platforms"].items()
    }
    write(tmp_path / "lock", lock, indexes)
    return tmp_path / "lock"


def test_what_is_written_is_read(folder: Path) -> None:
    lock, contents = lock_documents.make()
    assert load(folder) == lock
    row = lock["platforms"][AMD64]["indexes"][0]
    assert read_index(folder, AMD64, row) == contents[row["sha256"]]


def test_writing_it_again_changes_nothing(folder: Path) -> None:
    before = _written(folder)
    assert write(folder, load(folder), {}) == []
    assert _written(folder) == before


def test_a_new_version_is_one_line_of_one_file(folder: Path) -> None:
    lock, before = load(folder), _written(folder)

    def newer(body: dict) -> None:  # type: ignore[type-arg]  # a lock is any mapping
        row = next(row for row in body["platforms"][AMD64]["packages"] if row["name"] == "curl")
        row.update(version="8.14.1-3", sha256="0" * 64)

    after = lock_documents.changed(lock, newer)
    assert write(folder, after, {}, check=True) == [f"platforms/{AMD64}.yml", "lock.yml"]
    assert _written(folder) == before
    write(folder, after, {})
    now = _written(folder)
    assert {name for name in now if now[name] != before[name]} == {f"platforms/{AMD64}.yml", "lock.yml"}
    name = f"platforms/{AMD64}.yml"
    marked = [line for line in difflib.ndiff(before[name].splitlines(), now[name].splitlines()) if line[0] in "+-"]
    assert len(marked) == 2
    assert "curl" in marked[0]
    assert [change.text for change in compare(lock, after)] == [
        f"~ platforms.{AMD64}: curl 8.14.1-2 -> 8.14.1-3",
    ]


def test_a_platform_that_goes_takes_its_files(folder: Path) -> None:
    after = lock_documents.changed(load(folder), lambda body: body["platforms"].pop(ARM64))
    assert set(write(folder, after, {})) == {"lock.yml", f"platforms/{ARM64}.yml", f"platforms/{ARM64}.packages"}
    assert load(folder) == after


def test_no_lock_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"there is no lock .*redoubt play lock"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("lock.yml", "serial: 1", "serial: [", "lock.yml: is not YAML"),
        ("lock.yml", "schema: 1", "schema: 9", "schema is 9"),
        ("lock.yml", "site: ", "color: red\nsite: ", "color: no such field"),
        ("images.yml", "images:", "pictures:", "pictures: no such field"),
        ("images.yml", "v3.14.0", "v3.14.1", "somebody edited it by hand"),
        (f"platforms/{AMD64}.yml", "8.14.1-2", "8.14.1-3", "somebody edited it by hand"),
        ("models.yml", 'path": "config.json', 'path": "../config.json', "leaves its folder"),
        ("python.yml", "python:", "]python:", "is not YAML"),
    ],
)
def test_an_edited_file_is_told(folder: Path, file: str, old: str, new: str, said: str) -> None:
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(Refusal, match=said) as refusal:
        load(folder)
    assert str(folder) in str(refusal.value)


@pytest.mark.parametrize("file", ["images.yml", "models.yml", "python.yml", "project.yml", "keys.yml"])
def test_a_missing_file_is_told(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(Refusal, match=rf"{file} is missing"):
        load(folder)


def test_a_missing_platform_does_not_go_unseen(folder: Path) -> None:
    (folder / "platforms" / f"{ARM64}.yml").unlink()
    with pytest.raises(Refusal, match="somebody edited it by hand"):
        load(folder)


def test_an_edited_package_list_is_told(folder: Path) -> None:
    path = folder / "platforms" / f"{AMD64}.packages"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(Refusal, match="expected sha256"):
        read_index(folder, AMD64, load(folder)["platforms"][AMD64]["indexes"][0])


def test_code_in_a_file_is_not_run(folder: Path) -> None:
    (folder / "keys.yml").write_text("keys: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(Refusal, match="is not YAML"):
        load(folder)
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load((folder / "keys.yml").read_text())


def test_a_moved_tag_and_a_rebuilt_package_are_seen() -> None:
    lock, _ = lock_documents.make()

    def moved(body: dict) -> None:  # type: ignore[type-arg]  # a lock is any mapping
        body["platforms"][AMD64]["packages"][0]["sha256"] = "0" * 64
        body["images"]["vllm"]["digest"] = "sha256:" + "1" * 64
        body["images"].pop("prometheus")
        body["keys"].append({"name": "new", "fingerprint": "A" * 40})

    after = lock_documents.changed(lock, moved)
    told = "\n".join(lines(compare(lock, after)))
    assert "1 new, 1 gone, 2 other" in told
    assert "-> v0.33.0" not in told
    assert "vllm/vllm-openai:v0.33.0 (111111111111)" in told
    assert "- images: prometheus prom/prometheus:v3.14.0" in told
    assert f"+ keys: {'A' * 40} new" in told


def test_a_first_lock_is_all_new() -> None:
    lock, contents = lock_documents.make()
    changes = compare(None, lock)
    assert all(not change.before for change in changes)
    assert len(changes) > len(contents) // 2


@pytest.mark.parametrize("row", ['- {"a": 1, "a": 2}', "- !row 0", "- !row x"])
def test_a_row_that_could_mean_two_things_is_refused(folder: Path, row: str) -> None:
    (folder / "keys.yml").write_text(f"keys:\n{row}\n")
    with pytest.raises(Refusal, match="is not YAML"):
        load(folder)


def test_every_yaml_reader_reads_the_same(folder: Path) -> None:
    for path in folder.rglob("*.yml"):
        assert yaml.safe_load(path.read_text()) == text.parse(path.read_text())


def test_texts_that_look_like_rows_come_back(folder: Path) -> None:
    odd = {"keys": [{"name": "@row:0@", "version": 'a "quoted" {é} \\ name'}, "@row:1@", '{"a": 1}']}
    assert text.parse(text.dump(odd)) == odd
