"""stub_issuer: hands out public keys over TLS, as an identity provider would. Standard library only, Python 3.9+.

Arguments: port, folder with `server.pem` (key and certificate) and what is served.
"""

from __future__ import annotations

import functools
import ssl
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

if __name__ == "__main__":
    port, folder = int(sys.argv[1]), sys.argv[2]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/server.pem")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=f"{folder}/www")
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
