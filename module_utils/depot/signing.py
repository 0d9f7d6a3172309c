# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The depot's own OpenPGP key: what hosts trust a repository by. GnuPG makes it and signs with it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.openpgp import fingerprints

HOME = Path("/etc/redoubt/depot/gnupg")
SECONDS = 120
# RSA, because DNF's library on older platforms knows no Ed25519; 3072 bits and SHA-512, which no policy refuses.
KIND = "rsa3072"


@dataclass(frozen=True)
class Signer:
    """A key in a GnuPG home of its own, without passphrase: root alone reads it."""

    home: Path = HOME

    @property
    def ready(self) -> bool:
        """Tell whether there is a key, and GnuPG to sign with it."""
        return shutil.which("gpg") is not None and self.home.is_dir() and bool(self._fingerprint())

    def create(self, name: str) -> bool:
        """Make the key where there is none; tell whether one was made. Raises Refusal, OSError."""
        if shutil.which("gpg") is None:
            raise Refusal("gpg is not on this host; install the package gnupg, then run again")
        if self.home.is_dir() and self._fingerprint():
            return False
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.home.chmod(0o700)
        self._gpg(["--quick-generate-key", name, KIND, "sign", "never"], b"", f"making the key {name!r}")
        return True

    def public(self) -> bytes:
        """Return the public key in armour. Raises Refusal, OSError."""
        return self._gpg(["--armor", "--export"], b"", "reading the public key")

    def fingerprint(self) -> str:
        """Return the fingerprint of the key. Raises Refusal."""
        return str(fingerprints(self.public())[0])

    def clear_signed(self, text: bytes) -> bytes:
        """Return a text with its signature around it, as InRelease is. Raises Refusal, OSError."""
        return self._gpg(["--digest-algo", "SHA512", "--clear-sign"], text, "signing a repository")

    def detached(self, data: bytes) -> bytes:
        """Return an armoured signature that stands beside its file. Raises Refusal, OSError."""
        return self._gpg(["--digest-algo", "SHA512", "--armor", "--detach-sign"], data, "signing a repository")

    def signed_text(self, document: bytes) -> bytes | None:
        """Return what a clear-signed document says if this key's signature on it is good, else None. Raises OSError."""
        try:
            return self._gpg(["--decrypt"], document, "checking a signature")
        except Refusal:
            return None

    def is_signed(self, data: Path, signature: Path) -> bool:
        """Tell whether a detached signature is good and of this key. Raises OSError."""
        try:
            self._gpg(["--verify", str(signature), str(data)], b"", "checking a signature")
        except Refusal:
            return False
        return True

    def _fingerprint(self) -> str:
        rows = self._gpg(["--with-colons", "--list-secret-keys"], b"", "looking for the key").decode().splitlines()
        return next((row.split(":")[9] for row in rows if row.startswith("fpr:")), "")

    def _gpg(self, arguments: Sequence[str], given: bytes, what: str) -> bytes:
        base = ["gpg", "--homedir", str(self.home), "--batch", "--no-tty", "--quiet", "--yes"]
        base += ["--trust-model", "always", "--pinentry-mode", "loopback", "--passphrase", ""]
        try:
            done = subprocess.run([*base, *arguments], input=given, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise Refusal(f"gpg took more than {SECONDS} s while {what}; is there entropy on this host?") from error
        finally:
            self._end_agent()
        if done.returncode:
            raise Refusal(f"gpg failed while {what} in {self.home}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def _end_agent(self) -> None:
        """GnuPG leaves a process behind that holds the key; nothing here needs it between two calls."""
        if shutil.which("gpgconf"):
            subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], capture_output=True, check=False)
