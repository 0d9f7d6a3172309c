"""Where bytes come from. A new kind of source is one more class with ``open`` and ``problem``."""

from __future__ import annotations

import errno
import http.client
import os
import ssl
import stat
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Protocol, cast

from .errors import Refusal
from .transfer import Reader

CONTROLLER = "controller"
FORMS = "file:///folder on the host, controller:///folder on the control host, or https://address"


class Source(Protocol):
    """A folder of files, wherever it is."""

    def describe(self, path: str) -> str:
        """Name the place of a file for the operator."""

    def problem(self, path: str, size: int | None) -> str | None:
        """Say, naming the place, why a file of this size cannot be had, or None if it may be there."""

    def open(self, path: str, size: int | None) -> Reader:
        """Open a file for reading; size None means any. Raises Refusal or OSError."""


class FolderSource:
    """A folder on this host, such as a mounted medium. Symbolic links below it are refused."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def describe(self, path: str) -> str:
        """Name the place of a file for the operator."""
        return str(self.root / path)

    def problem(self, path: str, size: int | None) -> str | None:
        """Look at the file's kind and size."""
        if not self.root.is_dir():
            return f"the folder {self.root} is not there; is the medium mounted?"
        try:
            descriptor = open_beneath(self.root, path)
        except Refusal as refusal:
            return str(refusal)
        try:
            found = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        return f"{self.root / path}: expected {size} bytes, found {found}" if size not in (None, found) else None

    def open(self, path: str, size: int | None) -> Reader:
        """Open a file for reading. Raises Refusal."""
        descriptor = open_beneath(self.root, path)
        return cast(Reader, open(descriptor, "rb", buffering=0))


class HttpSource:
    """A folder behind an HTTP(S) address. The digests in the lock, not the server, say what is right."""

    def __init__(self, base: str, ca_file: str | None = None, timeout: float = 60) -> None:
        self.base = base.rstrip("/")
        self.timeout = timeout
        self._context = ssl.create_default_context(cafile=ca_file) if self.base.startswith("https:") else None

    def describe(self, path: str) -> str:
        """Name the address of a file for the operator."""
        return f"{self.base}/{urllib.parse.quote(path)}"

    def problem(self, path: str, size: int | None) -> str | None:
        """Nothing is known before the request."""
        return None

    def open(self, path: str, size: int | None) -> Reader:
        """Send the request. Raises Refusal when the server has no such file of this size."""
        url = self.describe(path)
        # identity: bytes as they are stored, because those are what the lock describes
        request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})  # noqa: S310 - see make_source
        try:
            response = urllib.request.urlopen(request, timeout=self.timeout, context=self._context)  # noqa: S310 - see make_source
        except urllib.error.HTTPError as error:
            error.close()
            raise Refusal(f"{url}: the server answers {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Refusal(f"{url}: {reason}; is the address right and reachable from this host?") from error
        stated = response.headers.get("Content-Length")
        if size is not None and stated is not None and stated.isdigit() and int(stated) != size:
            response.close()
            raise Refusal(f"{url}: expected {size} bytes, the server offers {stated}")
        return cast(Reader, response)


def make_source(text: str, variable: str, ca_file: str | None = None, timeout: float = 60) -> Source:
    """Turn an operator's ``file:///…`` or ``https://…`` into a source. Raises Refusal naming ``variable``."""
    scheme, value = parse_address(text, variable)
    if scheme == "file":
        return FolderSource(Path(value))
    if ca_file and not os.path.isfile(ca_file):
        raise Refusal(f"the certificate authority {ca_file} for {variable} is not on the host")
    return HttpSource(value, ca_file or None, timeout)


def parse_address(text: str, variable: str) -> tuple[str, str]:
    """Return ('file', folder) or ('http', address). Raises Refusal naming ``variable``."""
    parts = urllib.parse.urlsplit(text)
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/") or parts.query or parts.fragment:
            raise Refusal(f"{variable} is '{text}'; write file:///absolute/folder (three slashes)")
        return "file", urllib.parse.unquote(parts.path)
    if parts.scheme in ("http", "https"):
        if not parts.netloc or parts.query or parts.fragment:
            there = urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
            raise Refusal(f"{variable} is '{there}…'; write the address of a folder, without '?' and '#'")
        return "http", text
    raise Refusal(f"{variable} is '{text}'; write {FORMS}")


def open_beneath(root: Path, path: str) -> int:
    """Open a regular file below root without ever following a symbolic link; return its descriptor. Raises Refusal."""
    *folders, name = path.split("/")
    directory = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        here = os.open(root, directory)
        try:
            for segment in folders:
                there = os.open(segment, directory | os.O_NOFOLLOW, dir_fd=here)
                os.close(here)
                here = there
            # NONBLOCK: a FIFO put in the file's place must not make the run wait for ever
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=here)
        finally:
            os.close(here)
    except OSError as error:
        raise Refusal(f"{root / path}: {_open_problem(root, path, error)}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refusal(f"{root / path}: is not a regular file")
    return descriptor


def _open_problem(root: Path, path: str, error: OSError) -> str:
    """Say what an open failed on; with O_DIRECTORY, a link gives ENOTDIR, so look again."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        here = root
        for segment in path.split("/"):
            here = here / segment
            if here.is_symlink():
                return f"{here} is a symbolic link, which could lead anywhere; put the file itself there (cp -L)"
    if error.errno == errno.ENOENT:
        return "is missing there"
    return error.strerror or str(error)
