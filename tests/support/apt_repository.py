"""A signed APT repository in a folder: small real packages, real sums, a real key. Also runs alone on a lab host.

Usage there: apt_repository.py FOLDER JSON, with JSON {name: {version, depends, essential, …}} as `Package` has it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """What a package says of itself, and the text of its one file."""

    name: str
    version: str
    depends: str = ""
    conflicts: str = ""
    essential: bool = False
    content: str = ""

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.name}_{self.version.partition(':')[2] or self.version}_all.deb"


def build(package: Package, folder: Path) -> Path:
    """Build the package into the folder and return its file."""
    tree = folder / f"{package.name}.tree"
    control = tree / "DEBIAN/control"
    control.parent.mkdir(parents=True)
    (tree / "usr/share/stub").mkdir(parents=True)
    (tree / f"usr/share/stub/{package.name}").write_text(package.content or package.version, encoding="utf-8")
    lines = [f"Package: {package.name}", f"Version: {package.version}", "Architecture: all"]
    lines += ["Maintainer: Redoubt contributors <nobody@example.org>", "Priority: optional"]
    lines += [f"Depends: {package.depends}"] if package.depends else []
    lines += [f"Conflicts: {package.conflicts}"] if package.conflicts else []
    lines += ["Essential: yes"] if package.essential else []
    lines += ["Description: stub of a test"]
    control.write_text("\n".join([*lines, ""]), encoding="utf-8")
    path = folder / package.file
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(tree), str(path)], check=True, capture_output=True)
    subprocess.run(["rm", "-r", str(tree)], check=True)
    return path


class Repository:
    """A flat repository at `folder`/repo, signed by a key of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder / "repo", folder / "gnupg"
        self.folder.mkdir(parents=True)
        self.home.mkdir(mode=0o700)
        alone = ["--pinentry-mode", "loopback", "--passphrase", ""]
        self._gpg(*alone, "--quick-gen-key", "stub repository", "ed25519", "sign", "never")
        self.key = self._gpg("--armor", "--export").decode()
        (folder / "key.asc").write_text(self.key, encoding="utf-8")
        told = self._gpg("--with-colons", "--list-keys").decode()
        self.fingerprint = next(line.split(":")[9] for line in told.splitlines() if line.startswith("fpr:"))

    def publish(self, packages: Iterable[Package]) -> None:
        """Build these and list all packages that the folder holds; sign the lists."""
        for package in packages:
            build(package, self.folder)
        scan = ["dpkg-scanpackages", "--multiversion", "."]
        listed = subprocess.run(scan, cwd=self.folder, check=True, capture_output=True).stdout
        self.sign(listed)

    def sign(self, listed: bytes) -> None:
        """Have this as the list of packages."""
        files = {"Packages": listed, "Packages.gz": gzip.compress(listed, mtime=0)}
        rows = [f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}" for name, data in files.items()]
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        release = "\n".join(["Origin: stub", "Label: stub", "Suite: stub", "SHA256:", *rows, ""])
        (self.folder / "Release").write_text(release, encoding="utf-8")
        self._gpg("--yes", "--clearsign", "--output", str(self.folder / "InRelease"), str(self.folder / "Release"))
        (self.folder / "Release").unlink()

    def source(self, signed_by: str) -> str:
        """The repository as a deb822 source."""
        return f"Types: deb\nURIs: file://{self.folder}\nSuites: ./\nSigned-By: {signed_by}\n"

    def _gpg(self, *arguments: str) -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", *arguments]
        try:
            return subprocess.run(command, check=True, capture_output=True).stdout
        finally:
            # The agent that GnuPG starts would stay for good.
            kill = ["gpgconf", "--homedir", str(self.home), "--kill", "all"]
            subprocess.run(kill, check=False, capture_output=True)


def main() -> None:
    """Make a repository from the command line's description; its fingerprint stands beside it."""
    folder = Path(sys.argv[1])
    made = Repository(folder)
    made.publish(Package(**row) for row in json.loads(sys.argv[2]))
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in made.folder.glob("*.deb")}
    (folder / "sums.json").write_text(json.dumps(sums), encoding="utf-8")
    (folder / "stub.sources").write_text(made.source(f"{folder}/key.asc"), encoding="utf-8")


if __name__ == "__main__":
    main()
