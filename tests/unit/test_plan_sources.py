"""redoubt_sources: one word or a mapping, the depot that it names, and what the lock lays over the inventory."""

from __future__ import annotations

from typing import Any

import pytest

from planner import PlanRefused, plan, sources
from planner.problems import Problem
from planner.table import lines
from tests.support.plan_documents import digest, document, host, images, lock, model

KEEPER = {"given": None, "host": "d1", "address": "10.0.0.5", "port": None, "site": "bank"}


def locked(**fields: Any) -> dict[str, Any]:
    """A lock in force that knows a site's images and models."""
    rows = {key: entry | {"digest": f"sha256:{digest(key + ' manifest')}"} for key, entry in images().items()}
    package = {"name": "curl", "version": "8.1", "architecture": "amd64", "sha256": digest("curl"), "size": 1}
    return {
        "mode": "strict",
        "folder": "lock",
        "site": "bank",
        "digest": f"sha256:{digest('lock')}",
        "platform": "debian-13-amd64",
        "packages": {"packages": [package]},
        "images": rows,
        "models": {"small": lock("small")},
    } | fields


def problems(raw: dict[str, Any]) -> dict[str, Problem]:
    """The problems of a document by their place."""
    with pytest.raises(PlanRefused) as refused:
        plan(raw)
    return {problem.where: problem for problem in refused.value.problems}


def test_one_word_is_all_of_them() -> None:
    made = plan(document(sources="depot", depot=KEEPER, lock=locked()))
    assert made["depot"] == {
        "url": "https://10.0.0.5:8443",
        "site": "bank",
        "host": "d1",
        "name": "10.0.0.5",
        "ca_file": sources.CA_FILE,
        "ca": "",
        "key": "",
    }
    assert made["sources"] == {
        "packages": "depot",
        "images": "registry://10.0.0.5:8443/bank",
        "images_ca_file": sources.CA_FILE,
        "models": "depot",
        "models_depot": {"url": "https://10.0.0.5:8443/bank/models", "ca_file": sources.CA_FILE},
        "python": "depot",
    }
    assert "  depot: packages, models, python, images from https://10.0.0.5:8443 (site bank)" in lines(made)
    assert made["packages"]["sources"] == sources.APT_SOURCES
    assert made["packages"]["mode"] == "strict"
    assert made["packages"]["packages"]["curl"] == {"version": "8.1", "architecture": "amd64", "sha256": digest("curl")}


def test_upstream_needs_no_depot() -> None:
    raw = document(sources={"images": "upstream", "models": "file:///m"}, lock=locked(mode="open"))
    made = plan(raw)
    assert made["depot"] is None
    assert made["sources"]["images"] == "registry"
    assert made["sources"]["packages"] == "upstream"
    assert made["packages"]["sources"] == ""


def test_without_lock_and_depot_nothing_is_said_about_packages() -> None:
    assert plan(document())["packages"] is None


def test_each_kind_goes_its_own_way() -> None:
    chosen = {"packages": "https://mirror.example.org/debian", "models": "depot"}
    chosen["images"] = "registry://harbor.example.org"
    made = plan(document(sources=chosen, depot=KEEPER, lock=locked()))
    assert made["sources"]["images"] == "registry://harbor.example.org"
    assert made["sources"]["images_ca_file"] == ""
    assert made["sources"]["models_depot"]["url"].endswith("/bank/models")
    assert made["packages"]["sources"] == sources.MIRROR_SOURCES


def test_an_address_of_version_6_is_bracketed() -> None:
    made = plan(document(sources="depot", depot=KEEPER | {"address": "fd00::5"}, lock=locked()))
    assert made["depot"]["url"] == "https://[fd00::5]:8443"
    assert made["sources"]["images"] == "registry://[fd00::5]:8443/bank"


@pytest.mark.parametrize(
    ("raw", "where", "why"),
    [
        ("depots", "redoubt_sources", "not a source"),
        (["depot"], "redoubt_sources", "neither a word nor a mapping"),
        ({"images": "depot"}, "redoubt_sources.models", "missing"),
        ({"images": "depot", "models": "depot", "wheels": "depot"}, "redoubt_sources.wheels", "no such kind"),
        ({"images": "depot", "models": 5}, "redoubt_sources.models", "not text"),
        ({"images": "registry://", "models": "depot"}, "redoubt_sources.images", "not a registry"),
        ({"images": "depot", "models": "depot", "packages": "http://m"}, "redoubt_sources.packages", "not a source"),
        ({"images": "https://u:p@h/x", "models": "depot"}, "redoubt_sources.images", "name or password"),
    ],
)
def test_what_is_no_source(raw: object, where: str, why: str) -> None:
    found = {problem.where: problem for problem in sources.problems(raw)}
    assert why in found[where].why
    assert found[where].fix


@pytest.mark.parametrize("raw", [None, "depot", "upstream", {"images": "registry", "models": "upstream"}])
def test_what_is_one(raw: object) -> None:
    assert sources.problems(raw) == []


@pytest.mark.parametrize(
    ("keeper", "where", "why"),
    [
        (None, "redoubt_depot.url", "no host is in the group depot"),
        (KEEPER | {"address": "127.0.0.1"}, "redoubt_private_address of d1", "another machine"),
        ({"given": {"url": "https://d:8443", "ca": "x"}, "site": "s"}, "redoubt_depot.key", "missing"),
        ({"given": {"url": "http://d:8443"}, "host": "d1", "site": "s"}, "redoubt_depot.url", "not a depot's address"),
    ],
)
def test_a_depot_that_cannot_be_reached(keeper: dict[str, Any] | None, where: str, why: str) -> None:
    assert why in problems(document(sources="depot", depot=keeper, lock=locked()))[where].why


def test_a_site_without_a_name_has_none() -> None:
    found = problems(document(sources="depot", depot=KEEPER | {"site": None}, lock=locked(site=None)))
    assert "./redoubt play lock" in found["redoubt_site"].fix


def test_the_lock_knows_digests_that_the_inventory_lacks() -> None:
    made = plan(document(sources="depot", depot=KEEPER, lock=locked()))
    assert {image["digest"] for image in made["images"]} <= {f"sha256:{digest(key + ' manifest')}" for key in images()}
    everything = plan(document(sources="depot", depot=KEEPER, lock=locked(), images={}, locks={}))
    assert everything["images"] == made["images"]
    assert everything["weights"] == made["weights"]


def test_an_image_that_the_lock_lacks_is_named_with_the_command() -> None:
    lacking = locked()
    del lacking["images"]["vllm"]
    found = problems(document(sources="depot", depot=KEEPER, lock=lacking))["redoubt_images.vllm.digest"]
    assert "./redoubt play lock" in found.fix


def test_other_bytes_than_the_locks_are_refused() -> None:
    other = images()
    other["vllm"]["config_digest"] = f"sha256:{digest('another')}"
    raw = document(sources="depot", depot=KEEPER, lock=locked(), images=other)
    assert "another image" in problems(raw)["redoubt_images.vllm.config_digest"].why
    raw = document({"h1": host(model())}, sources="depot", depot=KEEPER, lock=locked())
    raw["locks"]["small"] = lock("small", 501)
    raw["locks"]["small"]["files"][0]["sha256"] = digest("other bytes")
    assert "other files" in problems(raw)["redoubt_model_locks.small"].why
