"""A depot with a small site in it, keys of minisign, and the bundle of both, for tests."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from ansible.module_utils.bundle.building import Built, Wishes, build
from ansible.module_utils.bundle.importing import Imported, bring
from ansible.module_utils.bundle.signing import sign
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.depot.signing import Signer

from tests.support.lock_documents import Contents, changed, make
from tests.support.programs import client


def depot_at(root: Path, contents: dict[str, bytes] | None = None) -> Depot:
    """A depot without a key that holds these bytes."""
    depot = Depot(root, Signer(root.parent / f"{root.name}-gnupg"), patience=5)
    depot.prepare()
    for sha256, data in (contents or {}).items():
        depot.add_blob(BytesIO(data), sha256, len(data))
    return depot


def key_pair(folder: Path, name: str, comment: str = "") -> tuple[Path, Path]:
    """A secret key without a password, and its public key."""
    secret, public = folder / f"{name}.key", folder / f"{name}.pub"
    program = client("minisign", "minisign")
    subprocess.run([program, "-G", "-W", "-f", "-s", secret, "-p", public], check=True, capture_output=True)
    if comment:
        lines = public.read_text().splitlines()
        public.write_text(f"{lines[0]} {comment}\n{lines[1]}\n")
    return secret, public


@dataclass
class Site:
    """A connected side and a far side below one folder."""

    folder: Path
    lock: dict[str, Any]
    contents: dict[str, bytes]
    secret: Path
    public: Path
    near: Depot
    far: Depot
    wishes: Wishes = field(default_factory=Wishes)

    @property
    def bundle(self) -> Path:
        """Where the bundle is."""
        return self.folder / "medium"

    def build(self, lock: dict[str, Any] | None = None, out: Path | None = None, wishes: Wishes | None = None) -> Built:
        """Write and sign the bundle."""
        target = out or self.bundle
        built = build(self.near, lock or self.lock, target, wishes or self.wishes)
        sign(target, built.manifest, self.secret)
        return built

    def bring(self, folder: Path | None = None, **words: Any) -> Imported:
        """Import it on the far side."""
        return bring(folder or self.bundle, self.far, [self.public], **words)

    def published(self) -> dict[str, Any] | None:
        """The lock in force on the far side."""
        found: dict[str, Any] | None = self.far.lock(self.lock["site"])
        return found


def site(folder: Path, extra: dict[str, bytes] | None = None) -> Site:
    """A connected side with all bytes of a lock that has a part of every kind, and an empty far side."""
    lock, contents = make()
    secret, public = key_pair(folder, "operator")
    near = depot_at(folder / "near", {**contents, **(extra or {})})
    return Site(folder, lock, contents, secret, public, near, depot_at(folder / "far"))


def large(folder: Path) -> Site:
    """A site with a model of 5 MB, which several volumes carry."""
    made = site(folder)
    data = bytes(range(251)) * 20000
    kept = Contents()
    row = kept.keep(data)

    def add(body: dict[str, Any]) -> None:
        body["models"]["smollm2-135m-instruct"]["files"].append({"path": "zz.safetensors", **row})
        body["models"]["smollm2-135m-instruct"]["total_size"] += len(data)

    made.lock = changed(made.lock, add)
    made.contents.update(kept)
    made.near.add_blob(BytesIO(data), row["sha256"], row["size"])
    return made


VOLUMES = Wishes(volume_size=2_500_000, piece=1_000_000)


def several(folder: Path) -> Site:
    """The same with its bundle: three volumes, the model's pieces in all of them."""
    made = large(folder)
    made.build(wishes=VOLUMES)
    return made


def volumes(made: Site) -> list[str]:
    """The names of a bundle's volumes."""
    return sorted(path.name for path in made.bundle.glob("volume-*"))


def medium(made: Site, folder: Path, *names: str) -> Path:
    """A medium in this folder with the bundle's manifest and these of its volumes."""
    folder.mkdir()
    for file in made.bundle.glob("manifest*"):
        shutil.copy(file, folder)
    for name in names:
        shutil.copytree(made.bundle / name, folder / name)
    return folder
