"""Sources on web servers. A further kind is one more class with `address`."""

from __future__ import annotations

import re
import threading
import urllib.parse
from collections.abc import Mapping
from email.message import Message

from .channel import WebChannel
from .errors import Unusable
from .http import Network, origin, shown
from .sources import Item


class Web:
    """A tree behind an HTTP(S) address: BASE/MODEL/PATH. A web server, an anonymous S3 bucket."""

    def __init__(self, base: str, network: Network | None = None, token: str = "") -> None:
        self.base = base.rstrip("/")
        self.network = network or Network()
        self.token = token
        self.name = shown(self.base)
        self._final: dict[str, str] = {}
        self._lock = threading.Lock()

    def address(self, item: Item) -> str:
        """Return the address of a file. Raises Unusable."""
        return f"{self.base}/{urllib.parse.quote(item.label)}"

    def place(self, item: Item) -> str:
        """Name the address without what may be secret in it."""
        try:
            return shown(self.address(item))
        except Unusable:
            return self.name

    def problem(self, item: Item) -> str | None:
        """Only say what is known without a request."""
        try:
            self.address(item)
        except Unusable as error:
            return str(error)
        return None

    def channel(self) -> WebChannel:
        """Make a way to it for one thread."""
        return WebChannel(self)

    def token_for(self, url: str) -> str:
        """Return the token if the address is on the source's own server."""
        return self.token if self.token and origin(url) == origin(self.base) else ""

    def check(self, item: Item, headers: Message) -> None:
        """Refuse an answer whose headers say that it is about another file. Raises Unusable."""

    def final(self, item: Item) -> str | None:
        """Return the address to which the source sent us before."""
        with self._lock:
            return self._final.get(item.label)

    def keep(self, item: Item, url: str | None) -> None:
        """Keep, or forget, the address to which the source sent us."""
        with self._lock:
            self._final.pop(item.label, None)
            if url is not None:
                self._final[item.label] = url


class Hub(Web):
    """The Hugging Face hub or a mirror: BASE/REPO/resolve/REVISION/PATH, mostly redirected to signed addresses."""

    def address(self, item: Item) -> str:
        """Return the address of a file at the model's commit."""
        if not item.repo:
            raise Unusable(f"{self.name}: nobody said which repository has {item.model}; set its source.repo")
        path = urllib.parse.quote(item.path)
        return f"{self.base}/{urllib.parse.quote(item.repo)}/resolve/{item.revision}/{path}"

    def check(self, item: Item, headers: Message) -> None:
        """The hub says which commit and which SHA-256 (of large files) it sends. Raises Unusable."""
        commit = headers.get("X-Repo-Commit", "")
        if commit and commit != item.revision:
            raise Unusable(f"{self.place(item)}: is of commit {commit}, not {item.revision}")
        etag = headers.get("X-Linked-Etag", "").strip('W/"')
        if re.fullmatch(r"[0-9a-f]{64}", etag) and etag != item.sha256:
            raise Unusable(f"{self.place(item)}: expected sha256 {item.sha256}, the hub has {etag}")


class ModelScope(Web):
    """ModelScope: BASE/api/v1/models/REPO/repo?Revision=…&FilePath=…; its commits are not the hub's."""

    def __init__(self, base: str, network: Network | None = None, token: str = "", revision: str = "master") -> None:
        super().__init__(base, network, token)
        self.revision = revision

    def address(self, item: Item) -> str:
        """Return the address of a file; the lock's SHA-256, not the revision, says what is right."""
        if not item.repo:
            raise Unusable(f"{self.name}: nobody said which repository has {item.model}; set its source.repo")
        query = urllib.parse.urlencode({"Revision": self.revision, "FilePath": item.path})
        return f"{self.base}/api/v1/models/{urllib.parse.quote(item.repo)}/repo?{query}"

    def place(self, item: Item) -> str:
        """Name repository and file: the address has them in its query."""
        return f"{self.name}/{item.repo}: {item.path}"


class BlobStore(Web):
    """Blobs by digest: BASE/sha256/ab/abcd…, as a depot has them, or another host's store."""

    def address(self, item: Item) -> str:
        """Return the address of a blob."""
        return f"{self.base}/sha256/{item.sha256[:2]}/{item.sha256}"


class Depot(Web):
    """The models of a site in a depot: BASE/MODEL/REVISION/PATH, with the first 12 digits of the revision."""

    def address(self, item: Item) -> str:
        """Return the address of a file."""
        path = urllib.parse.quote(f"{item.model}/{item.revision[:12]}/{item.path}")
        return f"{self.base}/{path}"


class Addresses(Web):
    """One address per file, such as presigned ones of S3: {MODEL/PATH: URL}."""

    def __init__(self, urls: Mapping[str, str], network: Network | None = None) -> None:
        super().__init__("", network)
        self.name = "the given addresses"
        self._urls = dict(urls)

    def address(self, item: Item) -> str:
        """Return the address that was given for a file."""
        if item.label not in self._urls:
            raise Unusable(f"no address was given for {item.label}")
        return self._urls[item.label]

    def token_for(self, url: str) -> str:
        """No token: what is needed is in the address."""
        return ""
