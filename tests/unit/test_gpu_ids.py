"""What the table of PCI ids says, and what it leaves open."""

from __future__ import annotations

import itertools

import pytest

from module_utils.gpu.ids import OPEN_ONLY, PRODUCTS, RANGES, UNKNOWN, identify


def test_every_product_is_of_a_generation_and_in_a_range() -> None:
    for device, product in PRODUCTS.items():
        number = int(device, 16)
        chips = [generation for first, last, generation in RANGES if first <= number <= last]
        assert len(chips) == 1, device
        assert product.generation in (chips[0], f"Grace-{chips[0]}"), device
        assert product.form in ("SXM", "PCIe", "superchip"), device


def test_ranges_do_not_overlap() -> None:
    assert all(first <= last for first, last, _ in RANGES)
    assert all(left[1] < right[0] for left, right in itertools.pairwise(RANGES))


@pytest.mark.parametrize(
    ("device", "supports", "needs"),
    [("1db5", False, False), ("1eb8", True, False), ("2330", True, False), ("2342", True, True), ("2901", True, True)],
)
def test_open_modules(device: str, supports: bool, needs: bool) -> None:
    product = identify(device)
    assert (product.supports_open_module, product.needs_open_module) == (supports, needs)


def test_open_only_generations_are_those_of_blackwell_and_grace() -> None:
    assert OPEN_ONLY == ("Blackwell", "Grace-Hopper", "Grace-Blackwell")


def test_one_id_of_two_products() -> None:
    assert identify("25b6", "14a9").product == "NVIDIA A16"
    assert identify("25b6", "157e").product == "NVIDIA A2"
    assert identify("25b6").product == "NVIDIA A2 or A16"
    assert identify("2330", "16c1") == identify("2330")


def test_a_geforce_has_its_generation_only() -> None:
    geforce = identify("2684")
    assert (geforce.product, geforce.generation, geforce.memory_mib, geforce.mig_capable) == (None, "Ada", None, None)
    assert geforce.supports_open_module is True


@pytest.mark.parametrize("device", ["0fff", "3021", "ffff"])
def test_an_id_outside_of_all_ranges_is_unknown(device: str) -> None:
    unknown = identify(device)
    assert unknown == UNKNOWN
    assert (unknown.supports_open_module, unknown.needs_open_module) == (None, None)
