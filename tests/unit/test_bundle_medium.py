"""A worn medium ends with exit code 2, the installer is proved too, and sizes of volumes are what was typed."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts import reading as disk
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.bundle import reading
from ansible.module_utils.bundle.building import Wishes
from ansible.module_utils.bundle.packing import parse_size

from cli import bundle
from installer import pack
from tests.support.bundles import Site, site


@pytest.fixture
def made(tmp_path: Path) -> Site:
    """A site with its bundle, the installer in it."""
    small = site(tmp_path)
    small.build(wishes=Wishes(installer=tmp_path / str(pack.write(tmp_path)["file"])))
    return small


def verify(made: Site) -> int:
    return bundle.main(["verify", str(made.bundle), "--key", str(made.public)])


@pytest.mark.parametrize(
    "name", ["manifest.json", "*.minisig", "install.pyz", "volume-001/volume.json", "volume-001/*"]
)
def test_a_read_error_ends_with_2_and_names_the_file(
    made: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    worn = next(path for path in sorted(made.bundle.glob(name)) if path.name != "volume.json" or "*" not in name)

    class Worn(io.FileIO):
        def _judge(self) -> None:
            if os.path.sameopenfile(self.fileno(), os.open(worn, os.O_RDONLY)):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        def read(self, size: int | None = -1, /) -> Any:
            self._judge()
            return super().read(size)

        def readinto(self, buffer: Any, /) -> int:
            self._judge()
            return super().readinto(buffer)

    assert verify(made) == 0
    for module in (disk, reading):
        monkeypatch.setattr(module, "open", lambda descriptor, *_, **__: Worn(descriptor), raising=False)
    assert verify(made) == 2
    done = capsys.readouterr()
    assert f"{worn.relative_to(made.bundle)}: Input/output error" in done.out + done.err


def test_a_flipped_byte_of_the_installer_is_found_and_named(made: Site, capsys: pytest.CaptureFixture[str]) -> None:
    path = made.bundle / "install.pyz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert verify(made) == 1
    assert "bad        install.pyz: its bytes have the sha256" in capsys.readouterr().out


def test_an_extra_file_is_named_and_an_import_leaves_it_behind(made: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (made.bundle / "volume-001/notes.txt").write_text("hello")
    (made.bundle / f"volume-001/{'e' * 64}").write_text("looks like a piece")
    assert verify(made) == 1
    told = capsys.readouterr().out
    for name in ("notes.txt", "e" * 64):
        assert f"extra      volume-001/{name}: is no part of this bundle; take it away" in told
    made.bring()
    assert made.published() == made.lock
    assert {item.name for item in made.far.blobs.every()} == set(made.contents)
    assert list(made.far.root.rglob("notes.txt")) == list(made.far.blobs.partial.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4 * 10**9), ("25G", 25 * 10**9), ("700Mi", 700 * 2**20), ("25 gb", 25 * 10**9), ("1GiB", 2**30), ("9", 9)],
)
def test_a_size_is_what_a_label_says(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0G", "-4G", "4.5G", "G", "4X", "4i", "4iB", "4GG", "1e9", "4G 5"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="is no size such as 4G, 25G or 700Mi"):
        parse_size(text)
