"""Serving proved files to the other hosts of a run: a certificate for the run, and an Nginx that only they may ask.

Nginx serves files as they are; nothing of ours listens. It runs as a unit of its own that systemd ends at the latest
after `lifetime`, and everything is below /run, so that a reboot leaves nothing.
"""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible.module_utils.artifacts.errors import Refusal

UNIT = "redoubt-fanout"
KEY_DAYS = 2
WORKER = "nobody"

CONFIGURATION = """\
# Made by the module weights_fanout for one run.
{user}worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1000; }}
http {{
  access_log off;
  server_tokens off;
  sendfile on;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  default_type application/octet-stream;
  keepalive_timeout 300s;
  keepalive_requests 100000;
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_certificate {folder}/own.pem;
  ssl_certificate_key {folder}/own.pem;
  ssl_client_certificate {folder}/peers.pem;
  ssl_verify_client on;
  ssl_session_tickets off;
  server {{
    listen {listen} ssl;
{allowed}
    deny all;
    location = /word.json {{ root {folder}/www; default_type application/json; }}
    location ~ "^/sha256/[0-9a-f]{{2}}/[0-9a-f]{{64}}$" {{ root {blobs}; disable_symlinks on; }}
    location / {{ return 404; }}
  }}
}}
"""


def search() -> str:
    """Where programs are looked for: a module's PATH may lack the folders of administration."""
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def lacking() -> list[str]:
    """Return the programs that are not on this host."""
    return [name for name in ("nginx", "openssl") if shutil.which(name, path=search()) is None]


def make_identity(folder: Path, address: str) -> str:
    """Make key and certificate of this run; return the certificate. The key never leaves the host. Raises Refusal."""
    _empty(folder)
    (folder / "www").mkdir()
    (folder / "www").chmod(0o755)
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    how = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(KEY_DAYS)]
    extensions = [
        f"subjectAltName=IP:{address}",
        "keyUsage=critical,digitalSignature,keyCertSign",
        "extendedKeyUsage=serverAuth,clientAuth",
    ]
    added = [word for text in extensions for word in ("-addext", text)]
    places = ["-subj", f"/CN=redoubt-fanout {address}"[:64], "-keyout", str(key), "-out", str(certificate)]
    run(["openssl", "req", *how, *added, *places], "the certificate of this run")
    text = certificate.read_text()
    _write(folder / "own.pem", text + key.read_text())
    key.unlink()
    return text


def configuration(folder: Path, blobs: Path, address: str, port: int, peers: Sequence[str], user: str = "") -> str:
    """Return Nginx' configuration: only these addresses, only with a certificate of this run, only these paths."""
    own = ipaddress.ip_address(address)
    return CONFIGURATION.format(
        folder=folder,
        blobs=blobs,
        user=f"user {user};\n" if user else "",
        listen=f"[{address}]:{port}" if own.version == 6 else f"{address}:{port}",
        allowed="\n".join(f"    allow {ipaddress.ip_address(peer)};" for peer in peers),
    )


def prepare(folder: Path, blobs: Path, address: str, port: int, peers: Mapping[str, str]) -> None:
    """Write what Nginx needs, peers being {address: certificate}, and let Nginx check it. Raises Refusal."""
    if not (folder / "own.pem").is_file():
        raise Refusal(f"{folder / 'own.pem'} is not there; the state `identity` makes it")
    _write(folder / "peers.pem", "".join(f"{peers[name].strip()}\n" for name in sorted(peers)))
    user = ""
    if os.geteuid() == 0:
        account = pwd.getpwnam(WORKER)
        user = f"{WORKER} {grp.getgrgid(account.pw_gid).gr_name}"
        folder.chmod(0o711)  # its workers read www; key and certificates are root's
    _write(folder / "nginx.conf", configuration(folder, blobs, address, port, sorted(peers), user))
    run(["nginx", "-t", "-q", "-c", str(folder / "nginx.conf")], "the configuration of Nginx")


def start(folder: Path, lifetime: int) -> None:
    """Start Nginx as a unit that ends by itself after `lifetime` seconds. Raises Refusal."""
    nginx = shutil.which("nginx", path=search()) or "nginx"
    properties = [
        f"RuntimeMaxSec={lifetime}",
        "ProtectSystem=strict",
        f"ReadWritePaths={folder}",
        "ProtectHome=true",
        "PrivateTmp=true",
        "NoNewPrivileges=true",
        f"ExecStopPost=find {folder} -mindepth 1 -delete",
    ]
    unit = ["systemd-run", f"--unit={UNIT}", "--collect", "--quiet", *(f"--property={item}" for item in properties)]
    run([*unit, nginx, "-c", str(folder / "nginx.conf"), "-g", "daemon off;"], f"the unit {UNIT}")


def stop(folder: Path) -> bool:
    """End Nginx and remove what belongs to the run; tell whether there was anything. Raises OSError."""
    ran = subprocess.run(["systemctl", "is-active", "--quiet", UNIT], check=False).returncode == 0
    if ran:
        run(["systemctl", "stop", UNIT], f"the unit {UNIT}")
    was = folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    return ran or was


def run(command: Sequence[str], what: str) -> None:
    """Run a command to its end. Raises Refusal with what it said."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": search()},
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Refusal(f"{what}: {command[0]} ends with {done.returncode}: {' '.join(said[-3:])}")


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
