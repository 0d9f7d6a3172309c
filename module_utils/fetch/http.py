"""A small HTTP client for ranges: kept connections, proxies, private CA, redirects that do not carry the token away."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message

from .errors import Dead, Retry, Unusable

MOST_REDIRECTS = 8
REDIRECTS = (301, 302, 303, 307, 308)
LONGEST_CONNECT = 15.0  # seconds until a server that does not answer at all is left
AGENT = "redoubt-weights/1"


@dataclass(frozen=True)
class Network:
    """How to reach servers: CA file ('' for the system's), seconds without a byte, proxy and its exceptions.

    An empty proxy means what the environment says (https_proxy, http_proxy, no_proxy). `certificate` is a PEM file with
    certificate and key that this side shows, if any; `own_address` is the one that it calls from.
    """

    ca_file: str = ""
    timeout: float = 60
    proxy: str = field(default="", repr=False)
    no_proxy: str = ""
    certificate: str = ""
    own_address: str = ""

    def proxy_for(self, scheme: str, host: str) -> str:
        """Return the proxy's address for a server, or ''."""
        if self.proxy:
            skip = urllib.request.proxy_bypass(host, {"no": self.no_proxy})
            return "" if skip else self.proxy
        found = urllib.request.getproxies_environment()
        if self.no_proxy:
            found["no"] = self.no_proxy
        if urllib.request.proxy_bypass(host, found):
            return ""
        return str(found.get(scheme, found.get("all", "")))


def shown(url: str) -> str:
    """Return an address without what may be secret in it: user, password, query."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, _host(parts), parts.path, "", ""))


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address. Raises Unusable."""
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (KeyError, ValueError):
        raise Unusable(f"{shown(url)}: not an http(s) address") from None
    if not parts.hostname:
        raise Unusable(f"{shown(url)}: not an http(s) address")
    return parts.scheme, parts.hostname, port


class Client:
    """The connections of one thread."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._kept: dict[tuple[str, str, int], http.client.HTTPConnection] = {}
        self._context: ssl.SSLContext | None = None

    def get(
        self,
        url: str,
        headers: Mapping[str, str],
        token: str = "",
        on_redirect: Callable[[Message], None] = lambda _: None,
    ) -> tuple[http.client.HTTPResponse, str]:
        """Send a GET, follow redirects; return the response, whatever its status, and the address that gave it.

        The token goes to the address's own origin only. `on_redirect` sees the headers of each redirect.
        Raises Retry, Unusable, Dead.
        """
        home = origin(url)
        for _ in range(MOST_REDIRECTS):
            here = origin(url)
            sent = {"Accept-Encoding": "identity", "User-Agent": AGENT, **headers}
            if token and here == home:
                sent["Authorization"] = f"Bearer {token}"
            response = self._exchange(url, here, sent)
            if response.status not in REDIRECTS:
                return response, url
            location = response.getheader("Location") or ""
            self.drop(url)
            on_redirect(response.headers)
            target = urllib.parse.urljoin(url, location)
            if not location or origin(target)[0] not in ("http", "https"):
                raise Unusable(f"{shown(url)}: redirects to nowhere")
            if here[0] == "https" and origin(target)[0] == "http":
                raise Unusable(f"{shown(url)}: redirects from https to http ({shown(target)}), which anybody may read")
            url = target
        raise Unusable(f"{shown(url)}: redirects more than {MOST_REDIRECTS} times")

    def drop(self, url: str) -> None:
        """Close the connection to an address's server: what is left to read on it is not wanted."""
        kept = self._kept.pop(origin(url), None)
        if kept is not None:
            kept.close()

    def close(self) -> None:
        """Close all connections."""
        for kept in self._kept.values():
            kept.close()
        self._kept.clear()

    def _exchange(self, url: str, here: tuple[str, str, int], headers: Mapping[str, str]) -> http.client.HTTPResponse:
        proxy = self.network.proxy_for(here[0], here[1])
        parts = urllib.parse.urlsplit(url)
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        sent = dict(headers)
        if proxy and here[0] == "http":
            target = urllib.parse.urlunsplit((parts.scheme, _host(parts), parts.path or "/", parts.query, ""))
            sent.update(_proxy_headers(proxy))
        kept = self._kept.pop(here, None)
        connection = kept or self._connect(here, proxy)
        try:
            if kept is None:
                connection.connect()
                connection.sock.settimeout(self.network.timeout)
            connection.request("GET", target, headers=sent)
            response = connection.getresponse()
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            # A connection that was kept may have been closed by the server since: then a new one.
            if kept is not None and not isinstance(error, socket.timeout):
                return self._exchange(url, here, headers)
            raise _trouble(url, error, self.network.timeout) from error
        self._kept[here] = connection
        return response

    def _connect(self, here: tuple[str, str, int], proxy: str) -> http.client.HTTPConnection:
        scheme, host, port = here
        address, way = (host, port), {}
        if proxy:
            via = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
            if via.scheme not in ("", "http") or not via.hostname:
                raise Dead(f"the proxy {shown(proxy)} is not an http:// address; see weights_proxy")
            address, way = (via.hostname, via.port or 3128), _proxy_headers(proxy)
        timeout = min(self.network.timeout, LONGEST_CONNECT)
        if scheme == "http":
            return http.client.HTTPConnection(*address, timeout=timeout)
        if self._context is None:
            self._context = ssl.create_default_context(cafile=self.network.ca_file or None)
            if self.network.certificate:
                self._context.load_cert_chain(self.network.certificate)
        own = (self.network.own_address, 0) if self.network.own_address else None
        made = http.client.HTTPSConnection(*address, timeout=timeout, context=self._context, source_address=own)
        if proxy:
            made.set_tunnel(host, port, way)
        return made


def _host(parts: urllib.parse.SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _proxy_headers(proxy: str) -> dict[str, str]:
    via = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    if not via.username:
        return {}
    pair = f"{urllib.parse.unquote(via.username)}:{urllib.parse.unquote(via.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _trouble(url: str, error: Exception, timeout: float) -> Exception:
    """Say what an error of the network means."""
    where = shown(url)
    if isinstance(error, ssl.SSLCertVerificationError):
        return Dead(f"{where}: its certificate is not trusted ({error.verify_message}); see weights_ca_file")
    if isinstance(error, ssl.SSLError):
        return Retry(f"{where}: TLS failed ({error.reason or error})")
    if isinstance(error, socket.timeout):
        return Retry(f"{where}: no answer within {timeout:g} s")
    if isinstance(error, http.client.HTTPException):
        return Retry(f"{where}: closed the connection or does not speak HTTP ({type(error).__name__})")
    text = getattr(error, "strerror", None) or str(error)
    return Retry(f"{where}: {text}; is the address right and reachable from this host?")
