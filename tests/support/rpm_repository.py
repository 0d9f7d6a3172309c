"""A DNF repository in a folder: small real packages, createrepo_c's lists, a real key. Also runs alone on a lab host.

Usage there: rpm_repository.py FOLDER JSON, with JSON [{name, version, requires, …}] as `Rpm` has it. FOLDER/repo is the
repository, with its lists and packages signed, FOLDER/key.asc the key.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SPEC = """\
Name: {name}
Epoch: {epoch}
Version: {version}
Release: {release}
Summary: stub of a test
License: Apache-2.0
{relations}
%description
Stub of a test.
%install
mkdir -p %{{buildroot}}/usr/share/stub
echo '{content}' > %{{buildroot}}/usr/share/stub/{name}
%files
/usr/share/stub/{name}
"""
COMPS = """\
<?xml version="1.0" encoding="UTF-8"?>
<comps><group><id>core</id><name>Core</name><description>Stub</description><default>true</default>
<uservisible>false</uservisible><packagelist>{members}</packagelist></group></comps>
"""
STREAM = """\
---
document: modulemd
version: 2
data:
  name: {name}
  stream: "{stream}"
  version: {version}
  context: {context}
  arch: x86_64
  summary: stub of a test
  description: stub of a test
  license: {{module: [Apache-2.0]}}
  dependencies:
  - requires: {{platform: [el9]}}
  artifacts:
    rpms: {rpms}
...
"""
MEMBER = '<packagereq type="mandatory">{name}</packagereq>'


@dataclass(frozen=True)
class Rpm:
    """What a package says of itself, and the text of its one file."""

    name: str
    version: str
    release: str = "1.el9"
    epoch: int = 0
    requires: tuple[str, ...] = ()
    recommends: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    core: bool = False
    architecture: str = "noarch"
    content: str = ""
    module: str = ""  # NAME:STREAM:VERSION:CONTEXT that its header names

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.name}-{self.version}-{self.release}.{self.architecture}.rpm"


def build(package: Rpm, folder: Path) -> Path:
    """Build the package into the folder and return its file."""
    relations = ["BuildArch: noarch"] if package.architecture == "noarch" else []
    relations += [f"Requires: {one}" for one in package.requires]
    relations += [f"Recommends: {one}" for one in package.recommends]
    relations += [f"ModularityLabel: {package.module}"] if package.module else []
    relations += [f"Conflicts: {one}" for one in package.conflicts]
    spec = folder / f"{package.name}.spec"
    words = {key: getattr(package, key) for key in ("name", "epoch", "version", "release")}
    text = SPEC.format(relations="\n".join(relations), content=package.content or package.version, **words)
    spec.write_text(text, encoding="utf-8")
    defined = {
        "_topdir": f"{folder}/.build",
        "_rpmdir": str(folder),
        "_rpmfilename": "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm",
        "_build_id_links": "none",
    }
    words_of = [word for key, value in defined.items() for word in ("--define", f"{key} {value}")]
    subprocess.run(
        ["rpmbuild", "--quiet", "-bb", "--target", package.architecture, *words_of, str(spec)],
        check=True,
        capture_output=True,
    )
    subprocess.run(["rm", "-rf", str(spec), f"{folder}/.build"], check=True)
    return folder / package.file


class RpmRepository:
    """A repository at `folder`/repo with a key of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder / "repo", folder / "gnupg"
        self.folder.mkdir(parents=True)
        self.home.mkdir(mode=0o700)
        alone = ["--pinentry-mode", "loopback", "--passphrase", ""]
        self._gpg(*alone, "--quick-gen-key", "stub repository", "rsa3072", "sign", "never")
        self.key = self._gpg("--armor", "--export").decode()
        (folder / "key.asc").write_text(self.key, encoding="utf-8")
        told = self._gpg("--with-colons", "--list-keys").decode()
        self.fingerprint = next(line.split(":")[9] for line in told.splitlines() if line.startswith("fpr:"))

    def publish(self, packages: Iterable[Rpm], *, signed: bool = True) -> None:
        """Build these, sign them where that is wanted, and list all packages that the folder holds."""
        made = [(package, build(package, self.folder)) for package in packages]
        if signed:
            self.sign_packages(path for _, path in made)
        members = "".join(MEMBER.format(name=package.name) for package, _ in made if package.core)
        self.list(COMPS.format(members=members) if members else "")
        streams: dict[str, list[str]] = {}
        for package in filter(lambda package: package.module, (package for package, _ in made)):
            number = f"{package.epoch}:{package.version}-{package.release}"
            streams.setdefault(package.module, []).append(f"{package.name}-{number}.{package.architecture}")
        if streams:
            self.modules(streams)

    def sign_packages(self, files: Iterable[Path]) -> None:
        """Put this repository's signature into packages."""
        # Debian 12's rpm looks for gpg2, which no package of it brings.
        defined = (f"_gpg_path {self.home}", f"_gpg_name {self.fingerprint}", f"__gpg {shutil.which('gpg')}")
        words = [word for text in defined for word in ("--define", text)]
        subprocess.run(["rpmsign", *words, "--addsign", *map(str, files)], check=True, capture_output=True)

    def list(self, comps: str = "") -> None:
        """Have createrepo_c list what is there, and sign that."""
        command = ["createrepo_c", "--quiet", "--no-database"]
        if comps:
            (self.folder.parent / "comps.xml").write_text(comps, encoding="utf-8")
            command += ["--groupfile", str(self.folder.parent / "comps.xml")]
        subprocess.run([*command, str(self.folder)], check=True, capture_output=True)
        self.sign()

    def modules(self, streams: Mapping[str, Sequence[str]]) -> None:
        """Add streams NAME:STREAM:VERSION:CONTEXT with their packages to the lists, and sign them."""
        text = ""
        for label, rpms in streams.items():
            words = dict(zip(("name", "stream", "version", "context"), label.split(":"), strict=True))
            text += STREAM.format(rpms=json.dumps(rpms), **words)
        path = self.folder.parent / "modules.yaml"
        path.write_text(text, encoding="utf-8")
        command = ["modifyrepo_c", "--mdtype=modules", str(path), str(self.folder / "repodata")]
        subprocess.run(command, check=True, capture_output=True)
        self.sign()

    def sign(self, folder: Path | None = None) -> None:
        """Sign the list of lists as it is, by default this repository's."""
        listed = (folder or self.folder) / "repodata/repomd.xml"
        self._gpg("--yes", "--armor", "--detach-sign", "--output", f"{listed}.asc", str(listed))

    def source(self, key: str, *, lists: bool = True, packages: bool = True, address: str = "") -> str:
        """The repository as a .repo file's text; `lists`, `packages`: whether their signatures are checked."""
        return (
            f"[stub]\nname=stub\nbaseurl={address or f'file://{self.folder}'}\nenabled=1\n"
            f"gpgcheck={int(packages)}\nrepo_gpgcheck={int(lists)}\ngpgkey=file://{key}\n"
        )

    def _gpg(self, *arguments: str) -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout


def main() -> None:
    """Make a repository from the command line's description; its packages' sums stand beside it."""
    folder = Path(sys.argv[1])
    made = RpmRepository(folder)
    made.publish(Rpm(**row) for row in json.loads(sys.argv[2]))
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in made.folder.glob("*.rpm")}
    (folder / "sums.json").write_text(json.dumps(sums), encoding="utf-8")
    (folder / "fingerprint").write_text(f"{made.fingerprint}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
