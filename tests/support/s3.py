"""A real S3 interface on loopback: moto's server, with the check of expiry that it leaves out."""

from __future__ import annotations

import calendar
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
EXPIRED = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"


@dataclass
class Bucket:
    """One bucket, and what was asked of it: (status, target)."""

    base: str
    name: str
    client: Any
    answers: list[tuple[int, str]] = field(default_factory=list)

    def put(self, files: Mapping[str, bytes], *, public: bool = False) -> None:
        """Store objects, readable by anybody or by nobody without a signature."""
        for key, data in files.items():
            access = "public-read" if public else "private"
            self.client.put_object(Bucket=self.name, Key=key, Body=data, ACL=access)

    def presigned(self, key: str, seconds: int) -> str:
        """An address of an object that is good for so long."""
        place = {"Bucket": self.name, "Key": key}
        return str(self.client.generate_presigned_url("get_object", Params=place, ExpiresIn=seconds))


class _StubExpiry:
    """moto looks at no expiry: answers for S3 what it would say to an address (signature 4) whose time is over."""

    def __init__(self, application: WsgiApp) -> None:
        self._application = application

    def __call__(self, environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        query = parse_qs(environment.get("QUERY_STRING", ""))
        if "X-Amz-Expires" in query:
            signed = time.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ")
            if time.time() > calendar.timegm(signed) + int(query["X-Amz-Expires"][0]):
                start("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(EXPIRED)))])
                return [EXPIRED]
        return self._application(environment, start)


@contextmanager
def bucket(name: str = "models") -> Iterator[Bucket]:
    """An empty bucket for the time of a test."""
    answers: list[tuple[int, str]] = []

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            answers.append((int(code), self.path))

    application = _StubExpiry(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    base = f"http://127.0.0.1:{server.port}"
    try:
        client = boto3.client(
            "s3",
            endpoint_url=base,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )
        client.create_bucket(Bucket=name)
        yield Bucket(base, name, client, answers)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
