"""A real Nginx on loopback: static files, and the hub's protocol made of nothing but files and response headers."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support import programs
from tests.support.ports import free_port

LARGE_FILE = 1 << 20  # from here on the hub knows a file by its SHA-256, below by git's name for it
CONFIGURATION = """
{user}
worker_processes 2;
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{}}
http {{
  log_format bytes '$status $body_bytes_sent $connection $request_uri';
  access_log {root}/access.log bytes;
  sendfile on;
  keepalive_requests 1000000;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
  uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
  map_hash_max_size 65536; map_hash_bucket_size 512;
  map $uri $hub_etag {{ default ""; include {root}/etags*.map; }}
  map $uri $hub_digest {{ default ""; include {root}/digests*.map; }}
  map $uri $hub_commit {{ default ""; include {root}/commits*.map; }}
  server {{
    listen 127.0.0.1:{port};
    root {root}/www;
    location /api/ {{ default_type application/json; }}
    location / {{ {limits} }}
    location ~ /resolve/ {{
      {limits}
      etag off;
      add_header ETag $hub_etag;
      add_header X-Linked-Etag $hub_digest;
      add_header X-Repo-Commit $hub_commit;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Sent:
    """One answer, as the access log has it."""

    status: int
    body: int
    connection: int
    target: str


@dataclass(frozen=True)
class StaticNginx:
    """What is below `www` is served at `base`."""

    root: Path
    port: int

    @property
    def www(self) -> Path:
        """The folder that is served."""
        return self.root / "www"

    @property
    def base(self) -> str:
        """The address of its root."""
        return f"http://127.0.0.1:{self.port}"

    def sent(self) -> list[Sent]:
        """What was answered so far."""
        lines = (self.root / "access.log").read_text().splitlines()
        return [
            Sent(int(line[0]), int(line[1]), int(line[2]), line[3]) for line in (text.split(" ", 3) for text in lines)
        ]

    def total(self) -> int:
        """Bytes of bodies sent so far."""
        return sum(answer.body for answer in self.sent())


@contextmanager
def serving(root: Path, limits: str = "") -> Iterator[StaticNginx]:
    """Nginx over `root/www`, which is made when it is not there; `limits` are directives for every file."""
    (root / "www").mkdir(parents=True, exist_ok=True)
    made = StaticNginx(root, free_port())
    # As who started it: the files are in folders of that user's own.
    user = f"user {Path(root).owner()} {Path(root).group()};"
    configuration = CONFIGURATION.format(root=root, port=made.port, user=user, limits=limits)
    (root / "nginx.conf").write_text(configuration)
    process = subprocess.Popen(
        [programs.nginx(), "-e", root / "error.log", "-c", root / "nginx.conf", "-g", "daemon off;"]
    )
    try:
        _wait(made, process)
        yield made
    finally:
        process.terminate()
        process.wait()


def _wait(made: StaticNginx, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise AssertionError((made.root / "error.log").read_text())
        try:
            socket.create_connection(("127.0.0.1", made.port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"no answer from Nginx: {(made.root / 'error.log').read_text()}")


def write_hub(root: Path, repo: str, commit: str, files: Mapping[str, bytes | Path]) -> None:
    """Write, before Nginx starts, a repository at one commit as the hub's own protocol has it.

    A file may be given as its bytes or as where it is; the latter is only linked to, and has to be a large one.
    """
    www, maps, tree = root / "www", {"etags": "", "digests": "", "commits": ""}, []
    for path, content in sorted(files.items()):
        place = www / repo / "resolve" / commit / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            place.symlink_to(content)
        else:
            place.write_bytes(content)
        size, etag = place.stat().st_size, ""
        uri = f"/{repo}/resolve/{commit}/{path}"
        maps["commits"] += f'"{uri}" {commit};\n'
        item: dict[str, Any] = {"type": "file", "path": path, "size": size}
        if size >= LARGE_FILE:
            with place.open("rb") as stream:
                etag = hashlib.file_digest(stream, "sha256").hexdigest()
            item |= {"oid": etag[:40], "lfs": {"oid": etag, "size": size, "pointerSize": 134}}
            maps["digests"] += f'"{uri}" \'"{etag}"\';\n'
        else:
            blob = b"blob %d\0%s" % (size, place.read_bytes())
            etag = item["oid"] = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
        maps["etags"] += f'"{uri}" \'"{etag}"\';\n'
        tree.append(item)
    name = quote(repo, safe="")
    for kind, text in maps.items():
        (root / f"{kind}-{name}-{commit[:12]}.map").write_text(text)
    siblings = [{"rfilename": path} for path in sorted(files)]
    about = {"_id": "1", "id": repo, "modelId": repo, "sha": commit, "private": False, "siblings": siblings}
    for revision in (commit, "main"):
        for kind, document in (("revision", about), ("tree", tree)):
            place = www / "api/models" / repo / kind / revision
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(document))
