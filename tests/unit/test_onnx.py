"""ONNX files are walked to their end: what a runtime could not load is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.artifacts.inspection import inspect
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.onnx import read_onnx
from ansible.module_utils.artifacts.safetensors import BadFile
from hypothesis import given
from hypothesis import strategies as st

from tests.support.weight_trees import model, write_tree


def varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def figure(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def part(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(location: str = "", offset: int = 0, length: int = 0) -> bytes:
    if not location:
        return part(5, figure(1, 4) + figure(2, 1) + part(8, b"w") + part(9, bytes(16)))
    pairs = {"location": location, "offset": str(offset), "length": str(length)}
    external = b"".join(part(13, part(1, key.encode()) + part(2, value.encode())) for key, value in pairs.items())
    return part(5, figure(1, 4) + part(8, b"w") + external + figure(14, 1))


def onnx(*tensors: bytes, nodes: int = 2, version: int = 10) -> bytes:
    graph = b"".join(part(1, part(4, b"Add")) for _ in range(nodes)) + part(2, b"main") + b"".join(tensors)
    return figure(1, version) + part(2, b"stub") + part(7, graph) + part(8, figure(2, 20))


def test_good_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(onnx(tensor(), tensor("x.data", 100, 28), tensor("x.data", 0, 100)))
    found = read_onnx(tmp_path / "x")
    assert (found.version, found.nodes, found.tensors, found.external) == (10, 2, 3, {"x.data": 128})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "lacks a version or a graph"),
        (onnx(tensor())[:-3], "needs 3 bytes|ends in the middle"),
        (onnx(tensor())[:60], r"needs \d+ bytes at byte \d+, and has"),
        (onnx(tensor()) + b"\x00" * 40, r"needs|begins no field"),
        (onnx(tensor(), nodes=0), "its graph has no operation"),
        (onnx(tensor(), version=0), "lacks a version"),
        (b"PK\x03\x04" + bytes(100), "needs|begins no field|ends in"),
        (b"\x08" + b"\xff" * 20, "figure without an end"),
    ],
)
def test_bad_file_is_told(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(BadFile, match=said):
        read_onnx(tmp_path / "x")


@given(st.binary(max_size=200), st.integers(0, 150))
def test_whatever_a_file_holds_only_one_kind_of_error_comes(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, cut: int
) -> None:
    place = tmp_path_factory.mktemp("onnx") / "x"
    for data in (noise, onnx(tensor())[:cut] + noise):
        place.write_bytes(data)
        try:
            assert read_onnx(place).nodes
        except BadFile as error:
            assert str(error)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"x.onnx": onnx(tensor("x.data", 0, 9)), "x.data": bytes(9)}, []),
        ({"sub/x.onnx": onnx(tensor("x.data", 0, 9)), "sub/x.data": bytes(9)}, []),
        (
            {"x.onnx": onnx(tensor("x.data", 0, 9)), "x.data": bytes(8)},
            ["x.onnx: its tensors need 9 bytes of x.data, which has 8"],
        ),
        (
            {"sub/x.onnx": onnx(tensor("x.data", 0, 9)), "x.data": bytes(9)},
            ["sub/x.onnx: its tensors lie in x.data, which is not among the model's files"],
        ),
    ],
)
def test_files_that_tensors_lie_in_must_be_there(tmp_path: Path, files: dict[str, bytes], said: list[str]) -> None:
    write_tree(tmp_path, files)
    (made,) = parse_models([model(files)])
    facts, problems = inspect(made, lambda entry: tmp_path / entry.path)
    assert problems == said
    assert facts["tensors"] == 1
