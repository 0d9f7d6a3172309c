# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The depot's own CA and the certificate that its server shows, made by openssl on the host; keys never leave it."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.config_files import write_atomically

FOLDER = Path("/etc/redoubt/depot/tls")
CA_DAYS = 3650
DAY = 86400
SECONDS = 60
# A common name may have 64 characters.
CONFIGURATION = """
[req]
prompt = no
distinguished_name = name
[name]
CN = {name}
[ca]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
subjectAltName = {names}
"""


@dataclass(frozen=True)
class Certificate:
    """Certificates for these names and addresses, valid for so many days, and made anew so many days before the end."""

    names: Sequence[str]
    days: int = 397
    renew_days: int = 30
    folder: Path = FOLDER

    def path(self, name: str) -> Path:
        """Return the place of ``ca.key``, ``ca.crt``, ``server.key`` or ``server.crt``."""
        return self.folder / name

    def reasons(self) -> list[str]:
        """Say why something has to be made; empty when all is well.

        Raises Refusal where a CA that hosts trust would have to be replaced, OSError.
        """
        if shutil.which("openssl") is None:
            raise Refusal("openssl is not on this host; install the package openssl, then run again")
        if not self.path("ca.crt").is_file():
            return ["there is no CA yet"]
        if not self._belongs("ca"):
            raise Refusal(
                f"{self.path('ca.key')}: missing or not the key of ca.crt; restore it from the backup, or remove "
                "ca.crt to make a new CA, which every host must then be told to trust: run the playbooks depot and host"
            )
        if not self._lasts("ca", self.renew_days):
            raise Refusal(
                f"{self.path('ca.crt')}: ends within {self.renew_days} days; remove ca.crt and ca.key to make "
                "a new CA, then run the playbooks depot and host, so that every host trusts it"
            )
        found = []
        if not self.path("server.crt").is_file() or not self._belongs("server"):
            found.append("the server has no certificate, or not its key")
        else:
            if not self._lasts("server", self.renew_days):
                found.append(f"the server's certificate ends within {self.renew_days} days")
            if self._subjects() != _subjects(self.names):
                found.append(f"the server's certificate is not for {', '.join(self.names)}")
            if self._run(["verify", "-CAfile", self.path("ca.crt"), self.path("server.crt")])[0]:
                found.append("the server's certificate is not from this CA")
        return found

    def ensure(self) -> list[str]:
        """Make what is due; return why. Raises Refusal, OSError."""
        due = self.reasons()
        if due:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            with tempfile.TemporaryDirectory(prefix=".", dir=self.folder) as work:
                self._make(Path(work))
        for name in ("ca.key", "server.key"):
            self.path(name).chmod(0o600)
        return due

    def digest(self) -> str:
        """Return the SHA-256 of the server's certificate, '' where there is none: it tells whether to load it anew."""
        path = self.path("server.crt")
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""

    def _make(self, work: Path) -> None:
        configuration, request = work / "openssl.cnf", work / "server.csr"
        subjects = ",".join(_subject(name) for name in self.names)
        for name in ("ca", "server"):
            if not self.path(f"{name}.key").is_file():
                curve = "ec_paramgen_curve:P-256"
                self._do(["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", work / f"{name}.key"])
                os.replace(work / f"{name}.key", self.path(f"{name}.key"))
        if not self.path("ca.crt").is_file():
            configuration.write_text(
                CONFIGURATION.format(name=f"Redoubt depot CA {secrets.token_hex(4)}", names=subjects)
            )
            how: list[str | Path] = [
                "-new",
                "-x509",
                "-sha256",
                "-days",
                str(CA_DAYS),
                "-extensions",
                "ca",
                "-config",
                configuration,
            ]
            self._do(["req", *how, "-key", self.path("ca.key"), "-out", work / "ca.crt"])
            write_atomically(str(self.path("ca.crt")), (work / "ca.crt").read_bytes(), 0o644, os.getuid(), os.getgid())
        common = self.names[0] if len(self.names[0]) <= 64 else "redoubt"
        configuration.write_text(CONFIGURATION.format(name=common, names=subjects))
        self._do(["req", "-new", "-config", configuration, "-key", self.path("server.key"), "-out", request])
        how = ["-req", "-sha256", "-days", str(self.days), "-set_serial", f"0x{secrets.token_hex(19)}"]
        how += ["-CA", self.path("ca.crt"), "-CAkey", self.path("ca.key"), "-extfile", configuration]
        self._do(["x509", *how, "-extensions", "server", "-in", request, "-out", work / "server.crt"])
        data = (work / "server.crt").read_bytes()
        write_atomically(str(self.path("server.crt")), data, 0o644, os.getuid(), os.getgid())

    def _belongs(self, name: str) -> bool:
        of_key = self._run(["pkey", "-in", self.path(f"{name}.key"), "-pubout"])
        of_certificate = self._run(["x509", "-in", self.path(f"{name}.crt"), "-noout", "-pubkey"])
        return of_key[0] == 0 and of_key == of_certificate

    def _lasts(self, name: str, days: int) -> bool:
        return self._run(["x509", "-in", self.path(f"{name}.crt"), "-noout", "-checkend", str(days * DAY)])[0] == 0

    def _subjects(self) -> set[str]:
        text = self._run(["x509", "-in", self.path("server.crt"), "-noout", "-ext", "subjectAltName"])[1]
        return _subjects(re.findall(r"(?:DNS|IP Address):([^,\s]+)", text))

    def _do(self, arguments: Sequence[str | Path]) -> None:
        status, text = self._run(arguments)
        if status:
            raise Refusal(f"openssl {arguments[0]} failed for {self.folder}: {text.strip()}")

    def _run(self, arguments: Sequence[str | Path]) -> tuple[int, str]:
        """Return openssl's status, and what it said."""
        done = subprocess.run(
            ["openssl", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=False,
            umask=0o077,
        )
        return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def _subject(name: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def _subjects(names: Sequence[str]) -> set[str]:
    return {_subject(name.lower()).lower() for name in names}
