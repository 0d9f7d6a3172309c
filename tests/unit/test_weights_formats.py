"""Headers of model files: what an engine could not load is refused before it is published, with the tensor's name."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts import settling
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.gguf import read_gguf
from ansible.module_utils.artifacts.inspection import inspect
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import present
from ansible.module_utils.artifacts.safetensors import BadFile, read_safetensors
from ansible.module_utils.artifacts.settling import Settings
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fetch.sources import Folder
from hypothesis import given
from hypothesis import strategies as st

from tests.support.weight_trees import REVISIONS, model, write_tree

SHAPES: dict[str, Any] = {"a": ("BF16", [2, 3]), "b": ("F32", [5]), "c": ("I8", []), "d": ("F4", [2, 4])}
SIZES = {"a": 12, "b": 20, "c": 1, "d": 4}


def header_of(shapes: dict[str, Any] = SHAPES) -> dict[str, Any]:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    here = 0
    for name, (dtype, shape) in shapes.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [here, here + SIZES[name]]}
        here += SIZES[name]
    return header


def safetensors(header: object, room: int = 37) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(room)


def test_good_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(safetensors(header_of()))
    found = read_safetensors(tmp_path / "x")
    assert {name: (tensor.dtype, tensor.size) for name, tensor in found.items()} == {
        name: (SHAPES[name][0], SIZES[name]) for name in SHAPES
    }


def changed(name: str, **fields: Any) -> bytes:
    header = header_of()
    header[name] = {**header[name], **fields}
    return safetensors({key: value for key, value in header.items() if value is not None})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "too few"),
        (struct.pack("<Q", 1 << 60) + b"{}", "header has 1152921504606846976 bytes"),
        (safetensors(b"{not json"), "not JSON"),
        (safetensors(b"[" * 100_000), "not JSON"),
        (safetensors([1]), "not a JSON object"),
        (safetensors(b'{"a": 1, "a": 2}'), "'a' is there twice"),
        (safetensors({"a": {"dtype": "F32"}}), "lacks dtype, shape or data_offsets"),
        (changed("a", shape=[2, 4]), "'a' of BF16 [2, 4] needs 16 bytes, it has 12"),
        (changed("a", shape=[-2, -3]), "odd dtype, shape or place"),
        (changed("a", shape=[True, 6]), "odd dtype, shape or place"),
        (changed("b", data_offsets=[13, 33]), "a gap or an overlap"),
        (changed("b", data_offsets=[0, 20]), "a gap or an overlap"),
        (safetensors(header_of(), 36), "its tensors need 37 bytes, 36 are behind"),
        (safetensors(header_of(), 38), "its tensors need 37 bytes, 38 are behind"),
    ],
)
def test_bad_file_is_told(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(BadFile) as caught:
        read_safetensors(tmp_path / "x")
    assert said in str(caught.value)


@given(st.binary(max_size=200), st.integers(0, 250), st.integers(0, 60))
def test_whatever_a_file_holds_only_one_kind_of_error_comes(
    tmp_path_factory: Any, noise: bytes, at: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("formats") / "x"
    for data, read in ((safetensors(header_of()), read_safetensors), (gguf(), read_gguf)):
        spoiled = data[:at] + noise + data[at:]
        path.write_bytes(spoiled[: len(spoiled) - cut])
        try:
            read(path)
        except BadFile:
            continue


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(alignment: int = 32, tensors: int = 2, room: int | None = None, kind: int = 2) -> bytes:
    pairs = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.alignment") + struct.pack("<II", 4, alignment),
        text("llama.context_length") + struct.pack("<II", 4, 4096),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 100) + b"".join(text(f"t{n}") for n in range(100)),
        text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 100) + bytes(400),
    ]
    infos = [
        text("token_embd.weight") + struct.pack("<IQQIQ", 2, 32, 4, kind, 0),
        text("norm.weight") + struct.pack("<IQIQ", 1, 8, 0, 96),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, tensors, len(pairs)) + b"".join(pairs) + b"".join(infos)
    return head + bytes(-len(head) % 32) + bytes(96 + 32 if room is None else room)


def test_good_gguf_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(gguf())
    found = read_gguf(tmp_path / "x")
    assert found.types == {"Q4_0": 72, "F32": 32}
    assert found.metadata["llama.context_length"] == 4096
    assert found.metadata["tokenizer.ggml.tokens"] == "100 items"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GGML" + bytes(50), "does not begin as a GGUF file does"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0), "more than any file has"),
        (gguf(room=127), "tensor 'norm.weight' ends at byte"),
        (gguf(room=60), "tensor 'token_embd.weight' ends at byte"),
        (gguf(alignment=64), "tensor 'norm.weight' ends at byte"),
        (gguf(alignment=0), "its alignment is 0"),
        (gguf(kind=12), "has 128 elements, not a multiple of 256"),
        (gguf()[:300], "its header needs"),
    ],
)
def test_bad_gguf_is_told(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(BadFile) as caught:
        read_gguf(tmp_path / "x")
    assert said in str(caught.value)


def look(tmp_path: Path, files: dict[str, bytes]) -> tuple[dict[str, Any], list[str]]:
    write_tree(tmp_path, files)
    (parsed,) = parse_models([model(files)], allow_code=["tiny"])
    result: tuple[dict[str, Any], list[str]] = inspect(parsed, lambda entry: tmp_path / entry.path)
    return result


def index(weight_map: object) -> bytes:
    return json.dumps({"metadata": {}, "weight_map": weight_map}).encode()


def test_facts_of_a_whole_model(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 64, "auto_map": {"AutoModel": "modeling_x.X"}, "other": 1}
    files = {
        "config.json": json.dumps(config).encode(),
        "modeling_x.py": b"pass",
        "model-00001-of-00002.safetensors": safetensors(header_of()),
        "model-00002-of-00002.safetensors": safetensors(header_of({"a": ("F16", [6])}), 12),
        "model.safetensors.index.json": index({"b": "model-00001-of-00002.safetensors"}),
        "small.gguf": gguf(),
    }
    facts, problems = look(tmp_path, files)
    assert problems == []
    assert facts["tensors"] == 7
    assert facts["dtypes"] == {"BF16": 12, "F32": 52, "I8": 1, "F4": 4, "F16": 12, "Q4_0": 72}
    assert facts["tensor_bytes"] == sum(facts["dtypes"].values())
    assert facts["config"] == {"model_type": "llama", "hidden_size": 64}
    assert facts["code"] == ["config.json: modeling_x.X", "modeling_x.py"]
    assert facts["gguf"]["small.gguf"] == {"general.architecture": "llama", "llama.context_length": 4096}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"model-00001-of-00003.safetensors": safetensors(header_of())},
            "model-00002-of-00003.safetensors is not among",
        ),
        ({"model.safetensors.index.json": index({"a": "x.safetensors"})}, "names x.safetensors, which is not among"),
        (
            {"x.safetensors": safetensors(header_of()), "model.safetensors.index.json": index({"z": "x.safetensors"})},
            "says that x.safetensors has tensor 'z', which it has not",
        ),
        ({"model.safetensors.index.json": b"{}"}, "it has no weight_map"),
        ({"model.safetensors.index.json": b"{"}, "is not JSON"),
        ({"config.json": b"[]"}, "config.json: is not a JSON object"),
        ({"sub/x.safetensors": b"junk"}, "sub/x.safetensors: has 4 bytes"),
        ({"x.gguf": b"junk"}, "x.gguf: does not begin"),
    ],
)
def test_what_an_engine_could_not_load_is_told(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    _, problems = look(tmp_path, files)
    assert [problem for problem in problems if said in problem], problems


def publish(tmp_path: Path, files: dict[str, bytes], **settings: Any) -> Any:
    write_tree(tmp_path / "source/tiny", files)
    store = Store(tmp_path / "models", tmp_path / "state")
    _, (outcome,) = present(store, parse_models([model(files)]), [Folder(tmp_path / "source")], Settings(**settings))
    return outcome


def test_model_that_no_engine_could_load_is_not_published_though_its_digests_are_right(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "model.safetensors": safetensors(header_of(), 36)}
    with pytest.raises(Refusal) as caught:
        publish(tmp_path, files)
    assert "model tiny: model.safetensors: its tensors need 37 bytes, 36 are behind the header" in str(caught.value)
    assert "the lock is of a broken model" in str(caught.value)
    assert not (tmp_path / "models/tiny").exists()


def test_facts_are_kept_and_cost_no_second_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"config.json": b'{"hidden_size": 8}', "model.safetensors": safetensors(header_of())}
    first = publish(tmp_path, files)
    assert (first.facts["tensor_bytes"], first.facts["config"]) == (37, {"hidden_size": 8})
    monkeypatch.setattr(settling, "inspect", lambda *_: pytest.fail("looked again"))
    assert publish(tmp_path, files).facts == first.facts


def test_published_model_of_an_earlier_version_is_only_warned_about(tmp_path: Path) -> None:
    files = {"model.safetensors": safetensors(header_of(), 36)}
    tree = tmp_path / "models/tiny" / REVISIONS[0][:12]
    write_tree(tree, files)
    outcome = publish(tmp_path, files)
    assert outcome.state == "mended"  # its modes
    assert "its tensors need 37 bytes" in outcome.warnings[0]


@pytest.mark.parametrize("allowed", [[], ["tiny/other.py"], ["tiny"], ["tiny/sub/modeling.py"]])
def test_programs_come_only_when_allowed(allowed: list[str]) -> None:
    wanted = [model({"sub/modeling.py": b"pass"})]
    if allowed in (["tiny"], ["tiny/sub/modeling.py"]):
        assert parse_models(wanted, allow_code=allowed)
    else:
        with pytest.raises(Refusal, match=r"add 'tiny/sub/modeling\.py' to weights_allow_code"):
            parse_models(wanted, allow_code=allowed)
