"""A lock says what is wrong with it, all at once, and its digest stands for its content alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.lock.document import checked, digest, problems, sealed
from ansible.module_utils.lock.parts import parts

from tests.support import lock_documents
from tests.support.lock_documents import AMD64

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def lock() -> dict[str, Any]:
    return lock_documents.make()[0]


def test_a_whole_lock_has_no_problem_and_all_its_bytes() -> None:
    lock, contents = lock_documents.make()
    assert problems(lock) == []
    assert {part.sha256 for part in parts(lock)} == set(contents)


def test_the_digest_does_not_depend_on_the_order_of_keys(lock: dict[str, Any]) -> None:
    turned = json.loads(json.dumps(dict(reversed(list(lock.items())))))
    assert digest(turned) == lock["digest"]


def test_a_change_counts_the_serial_up_and_none_does_not(lock: dict[str, Any]) -> None:
    body = {key: value for key, value in lock.items() if key not in ("schema", "serial", "digest")}
    assert sealed(body, lock["site"], lock) == lock
    after = lock_documents.changed(lock, lambda body: body["images"].pop("prometheus"))
    assert (after["serial"], after["digest"] != lock["digest"]) == (2, True)
    assert problems(after) == []


def test_the_same_packages_at_another_site_are_another_lock() -> None:
    assert lock_documents.make("bank-north")[0]["digest"] != lock_documents.make("bank-south")[0]["digest"]


def _package(lock: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = lock["platforms"][AMD64]["packages"][0]
    return row


FAULTS: list[tuple[Change, str]] = [
    (lambda lock: lock.update(site="Bank North"), "site is 'Bank North'"),
    (lambda lock: lock.update(site="a..b"), "site is 'a..b'"),
    (lambda lock: lock.update(serial=0), "serial is 0"),
    (lambda lock: lock.update(serial=True), "serial is True"),
    (lambda lock: lock.update(schema=2), "schema is 2"),
    (lambda lock: lock.update(digest=""), "digest is ''"),
    (lambda lock: lock.pop("images"), "images is missing"),
    (lambda lock: lock.update(keys={}), "keys is dict, not a list"),
    (lambda lock: lock.update(packags={}), "packags: no such part"),
    (
        lambda lock: lock["platforms"].update({"../x": {"packages": [], "indexes": []}}),
        "../x: is no platform",
    ),
    (lambda lock: _package(lock).update(path="../../etc/passwd"), "leaves its folder"),
    (lambda lock: _package(lock).update(path="/etc/passwd"), "is absolute"),
    (lambda lock: _package(lock).update(sha256="A" * 64), "is not 64 lower-case hex digits"),
    (lambda lock: _package(lock).update(size=-1), "is not a number of bytes"),
    (lambda lock: _package(lock).update(size=True), "is not a number of bytes"),
    (lambda lock: _package(lock).pop("version"), "version is missing"),
    (lambda lock: _package(lock).update(origin="https://me:secret@mirror.example/x"), "holds a name, password"),
    (lambda lock: _package(lock).update(origin="https://mirror.example/x?token=1"), "holds a name, password"),
    (lambda lock: lock["platforms"][AMD64]["packages"].append(_package(lock)), "is listed 2 times"),
    (lambda lock: lock["images"]["vllm"].update(tag="latest"), "images.vllm: tag 'latest'"),
    (lambda lock: lock["images"]["vllm"].update(digest=""), "images.vllm: digest ''"),
    (lambda lock: lock["images"]["vllm"].update(digest="sha256:" + "0" * 64), "is not among its blobs"),
    (lambda lock: lock["images"]["vllm"].update(name="a/../b"), "images.vllm: name 'a/../b'"),
    (lambda lock: lock["images"]["vllm"]["blobs"][0].update(role="../x"), "role '../x'"),
    (lambda lock: lock["models"]["smollm2-135m-instruct"].update(revision="main"), "not a commit"),
    (lambda lock: lock["models"].update({"../m": {"revision": "a" * 40, "files": []}}), "name must begin with"),
    (lambda lock: lock["python"]["files"][0].update(file="a/b.whl"), "has a folder"),
    (lambda lock: lock["project"].update(file="../redoubt.tar"), "project: file '../redoubt.tar' leaves its folder"),
    (lambda lock: lock["keys"][0].update(fingerprint="2643E131"), "is not a fingerprint"),
    (lambda lock: lock["python"]["files"][0].update(size=1), "digest is sha256:"),
]


@pytest.mark.parametrize(("change", "said"), FAULTS, ids=[said for _, said in FAULTS])
def test_a_fault_is_named(lock: dict[str, Any], change: Change, said: str) -> None:
    change(lock)
    assert any(said in problem for problem in problems(lock)), problems(lock)


def test_all_faults_are_told_at_once_and_name_their_file(lock: dict[str, Any]) -> None:
    for change, _ in FAULTS[9:20]:
        change(lock)
    with pytest.raises(Refusal) as refusal:
        checked(lock, "lock/lock.yml")
    assert len(refusal.value.problems) >= 10
    assert all(problem.startswith("lock/lock.yml: ") for problem in refusal.value.problems)


@pytest.mark.parametrize("junk", [None, [], "text", {}, {"schema": 1}, 3])
def test_junk_is_refused_and_not_tripped_over(junk: object) -> None:
    assert problems(junk)


@pytest.mark.parametrize("junk", [None, [], "text", 3, [None], {"x": None}, {"x": []}, [{"name": {}}]])
@pytest.mark.parametrize("section", ["platforms", "images", "models", "python", "project", "keys"])
def test_junk_in_a_section_is_refused_and_not_tripped_over(lock: dict[str, Any], section: str, junk: object) -> None:
    lock[section] = copy.deepcopy(junk)
    assert problems(lock)


def test_one_place_has_one_content(lock: dict[str, Any]) -> None:
    files = lock["python"]["files"]
    lock["project"] = {**lock["project"], "sha256": files[0]["sha256"]}
    assert any("is listed with" in problem and "bytes" in problem for problem in problems(lock))
