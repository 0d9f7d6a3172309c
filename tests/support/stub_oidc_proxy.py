"""stub_oidc_proxy: answers as an OIDC proxy for auth_request would. Standard library only, Python 3.9+.

Argument: port. Who has the cookie `session=NAME` is NAME, of the groups that the cookie `groups=A.B` names; any other
way to say so counts for nothing. GET /oauth2/start?rd=PATH sets such a cookie and leads back; GET /oauth2/seen tells
the last question as it came.
"""

from __future__ import annotations

import json
import sys
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

seen: dict[str, object] = {}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def _answer(self, status: int, *headers: tuple[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _judge(self, wanted: list[str]) -> None:
        cookies = SimpleCookie(self.headers.get("Cookie", ""))
        name = cookies["session"].value if "session" in cookies else ""
        groups = cookies["groups"].value.split(".") if "groups" in cookies else []
        seen.update(line=self.requestline, headers={key.lower(): value for key, value in self.headers.items()})
        if name == "broken":
            self._answer(500)
        elif not name:
            self._answer(401)
        elif wanted and not set(wanted) & set(groups):
            self._answer(403)
        else:
            self._answer(202, ("X-Auth-Request-User", name))

    def do_GET(self) -> None:
        """Answer by the path."""
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if parts.path == "/oauth2/auth":
            self._judge(",".join(query.get("allowed_groups", [])).split(",") if "allowed_groups" in query else [])
        elif parts.path == "/oauth2/start":
            self._answer(302, ("Location", query["rd"][0]), ("Set-Cookie", "session=anna; Path=/; Secure; HttpOnly"))
        elif parts.path == "/oauth2/seen":
            self._answer(200, body=json.dumps(seen).encode())
        else:
            self._answer(404)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
