"""Asking a web server for a part of a file, and judging what it answers."""

from __future__ import annotations

import email.utils
import http.client
import re
import socket
import time
from collections.abc import Callable
from email.message import Message
from typing import Protocol

from .errors import Retry, Unusable
from .http import Client, Network, shown
from .sources import Item

OK, PARTIAL = 200, 206
EXPIRED = (401, 403, 404, 410)
LATER = (408, 425, 429, 500, 502, 503, 504)
MOST_RENEWALS = 2
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class WebSource(Protocol):
    """What a channel asks its source."""

    network: Network

    def address(self, item: Item) -> str:
        """Return the address of a file. Raises Unusable."""

    def place(self, item: Item) -> str:
        """Name the address without what may be secret in it."""

    def token_for(self, url: str) -> str:
        """Return the token if the address is on the source's own server."""

    def check(self, item: Item, headers: Message) -> None:
        """Refuse an answer whose headers say that it is about another file. Raises Unusable."""

    def final(self, item: Item) -> str | None:
        """Return the address to which the source sent us before."""

    def keep(self, item: Item, url: str | None) -> None:
        """Keep, or forget, the address to which the source sent us."""


class WebChannel:
    """One thread's connections to a web source."""

    def __init__(self, source: WebSource) -> None:
        self._source = source
        self._client = Client(source.network)

    def open(self, item: Item, start: int, stop: int) -> WebBody:
        """Ask for bytes, for all of them without a range. Raises Retry, Unusable, Dead."""
        source = self._source
        headers = {} if (start, stop) == (0, item.size) else {"Range": f"bytes={start}-{stop - 1}"}
        asked = source.address(item)
        for renewal in range(MOST_RENEWALS + 1):
            url = source.final(item) or asked
            response, final = self._client.get(
                url, headers, source.token_for(url), lambda seen: source.check(item, seen)
            )
            source.keep(item, final if final != asked else None)
            if response.status in EXPIRED and final != asked and renewal < MOST_RENEWALS:
                # A signed address that expired: the source gives a new one.
                source.keep(item, None)
                self._client.drop(final)
                continue
            break
        where = source.place(item) if final == asked else f"{source.place(item)} (at {shown(final)})"
        try:
            begin = begins_at(response.status, response.reason, response.headers, start, stop, item.size, where)
            source.check(item, response.headers)
        except (Retry, Unusable):
            self._client.drop(final)
            raise
        etag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        whole = bool(headers) and response.status == OK
        return WebBody(response, begin, whole, etag, where, lambda: self._client.drop(final))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class WebBody:
    """The body of a response."""

    def __init__(
        self,
        response: http.client.HTTPResponse,
        start: int,
        whole: bool,
        etag: str,
        where: str,
        drop: Callable[[], None],
    ) -> None:
        self.start, self.whole, self.etag = start, whole, etag
        self._response, self._where, self._drop = response, where, drop

    def read(self, count: int) -> bytes:
        """Return what one receive gives. Raises Retry."""
        try:
            return self._response.read1(count)
        except socket.timeout as error:
            raise Retry(f"{self._where}: stalled") from error
        except (OSError, http.client.HTTPException) as error:
            text = getattr(error, "strerror", None) or type(error).__name__
            raise Retry(f"{self._where}: the connection broke ({text})") from error

    def close(self) -> None:
        """Keep the connection if all was read, else close it."""
        if self._response.length == 0:
            self._response.read()  # lets go of the connection: the last read1 did not see that it was the last
        if not self._response.isclosed():
            self._drop()


def begins_at(status: int, reason: str, headers: Message, start: int, stop: int, size: int, where: str) -> int:
    """Judge a response to a request for bytes [start, stop) of a file of `size`: at which byte its body begins.

    Raises Retry or Unusable, with `where` in the text.
    """
    if status in LATER:
        raise Retry(f"{where}: the server answers {status} {reason}", retry_after(headers.get("Retry-After")))
    if status not in (OK, PARTIAL):
        hint = "; is a token needed, or a new address?" if status in (401, 403) else ""
        hint = f"; it has fewer than {size} bytes" if status == 416 else hint
        raise Unusable(f"{where}: the server answers {status} {reason}{hint}")
    encoding = headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise Unusable(f"{where}: the server sends the file encoded ({encoding}), not as it is")
    if status == OK:
        stated = headers.get("Content-Length", "")
        if stated.isdigit() and int(stated) != size:
            raise Unusable(f"{where}: expected {size} bytes, the server offers {stated}")
        return 0
    match = CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if match is None:
        raise Unusable(f"{where}: the server answers 206 without saying which bytes")
    first, last, total = int(match.group(1)), int(match.group(2)), match.group(3)
    if total != "*" and int(total) != size:
        raise Unusable(f"{where}: expected {size} bytes, the server offers {total}")
    if first != start or last >= stop:
        raise Unusable(f"{where}: asked for bytes {start}-{stop - 1}, the server sends {first}-{last}")
    return start


def retry_after(text: str | None) -> float | None:
    """Read a Retry-After header: seconds, or a date."""
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        then = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return max(0.0, then.timestamp() - time.time())
