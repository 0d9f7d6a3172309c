"""A whole site for the end-to-end tests: the demo's variables on lab hosts of the tests' own."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
SERVER_NAME = "redoubt.lab"
MODEL = "smollm2-135m-instruct"
#: A shell command whose output changes when a host's packages or files do.
FINGERPRINT = "dpkg-query -W | sha256sum; find /etc /opt /srv /usr/local -xdev | sort | sha256sum"
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One ansible-playbook run: exit status, everything it printed, and the recap per host."""

    status: int
    output: str

    def recap(self) -> dict[str, dict[str, int]]:
        """`{host: {ok, changed, unreachable, failed}}` as the last lines say."""
        names = ("ok", "changed", "unreachable", "failed")
        return {m[1]: dict(zip(names, map(int, m.groups()[1:]), strict=True)) for m in RECAP.finditer(self.output)}


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Site:
    """The inventory of a test site, and how to act on it as an operator or as a client."""

    def __init__(self, folder: Path, hosts: dict[str, Any], main: str) -> None:
        self.folder = folder
        self.hosts = hosts
        self.main = main
        self.key = "sk-" + secrets.token_hex(24)
        self.logs: list[Path] = []

    @property
    def address(self) -> str:
        """Address of the host that serves."""
        return str(self.hosts[self.main].address)

    def write(
        self, hostvars: dict[str, dict[str, Any]], example: str = "demo", more: Mapping[str, Any] | None = None
    ) -> None:
        """Write the inventory: an example's group variables, this site's hosts, a key made for the run, `more`."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "demo/keys").mkdir(parents=True)
        (self.folder / "group_vars").symlink_to(REPOSITORY / f"inventories/{example}/group_vars")
        key_file = self.folder / "demo/keys/demo.key"
        key_file.touch(mode=0o600)
        key_file.write_text(self.key + "\n")
        groups = ("gateways", "inference", "monitoring")
        variables = {**hostvars[self.main], "demo_folder": str(self.folder / "demo")}
        variables |= {"redoubt_verdict_file": str(self.folder / "verdict.json"), **(more or {})}
        document = {"all": {"children": {g: {"hosts": {self.main: variables}} for g in groups}}}
        (self.folder / "hosts.json").write_text(json.dumps(document, indent=2))

    def play(self, playbook: str, *options: str, timeout: int = 1500) -> Run:
        """Run one playbook with plain ansible-playbook, as without the launcher; its output is kept in a file."""
        with self.start(playbook, *options) as process:
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
        return Run(process.returncode, self.logs[-1].read_text(errors="replace"))

    def start(self, playbook: str, *options: str) -> subprocess.Popen[bytes]:
        """Start one playbook and return its process; the output goes to the newest file in `logs`."""
        log = self.folder / f"run-{len(self.logs):02d}-{Path(playbook).stem}.log"
        self.logs.append(log)
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.folder / "hosts.json")]
        extra = ["-e", f"redoubt_verdict_file={self.folder / 'verdict.json'}"]
        environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")}
        with log.open("wb") as stream:
            return subprocess.Popen(
                [*command, playbook, *extra, *options],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def on(self, name: str, command: str, check: bool = True, timeout: int = 120) -> str:
        """Run a shell command as root on a lab host, over SSH like an operator; returns its output."""
        host = self.hosts[name]
        done = subprocess.run(
            ["ssh", *self._ssh_options(name), f"{host.user}@{host.address}", "sudo", "sh", "-s"],
            input=command.encode(),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"on {name}: {command!r} ended with {done.returncode}: {done.stderr.decode()}")
        return done.stdout.decode(errors="replace")

    def fetch(self, url: str) -> Any:
        """A JSON document that only the host itself can see, such as Prometheus' answer."""
        code = f"import urllib.request as u; print(u.urlopen('{url}').read().decode())"
        return json.loads(self.on(self.main, f'python3 -c "{code}"'))

    def send(self, name: str, file: Path, path: str) -> None:
        """Copy a file to a lab host."""
        host = self.hosts[name]
        target = f"{host.user}@{host.address}:{path}"
        subprocess.run(["scp", "-q", *self._ssh_options(name), str(file), target], check=True, timeout=300)

    def _ssh_options(self, name: str) -> list[str]:
        host = self.hosts[name]
        return ["-i", str(host.key_file), "-o", f"UserKnownHostsFile={host.known_hosts_file}", "-o", "BatchMode=yes"]

    def verdict(self) -> dict[str, Any]:
        """What the doctor wrote last."""
        document: dict[str, Any] = json.loads((self.folder / "verdict.json").read_text())
        return document

    @property
    def ca_file(self) -> Path:
        """The gateway's CA certificate as the gateway play fetched it."""
        return self.folder / "demo/ca.crt"

    def connect(self, timeout: float = 120) -> http.client.HTTPConnection:
        """A verified TLS connection to the gateway, under its own name."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        connection = http.client.HTTPConnection(SERVER_NAME, timeout=timeout)
        plain = socket.create_connection((self.address, 443), timeout=timeout)
        connection.sock = context.wrap_socket(plain, server_hostname=SERVER_NAME)
        return connection

    def ask(
        self, method: str, path: str, body: Any = None, key: str | None = "", headers: dict[str, str] | None = None
    ) -> Answer:
        """One request through the gateway. `key`: empty for the site's own key, None for no key."""
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {key or self.key}"
        connection = self.connect()
        try:
            data = json.dumps(body).encode() if body is not None else None
            connection.request(method, path, data, {"Content-Type": "application/json", **sent} if data else sent)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def stream(self, question: str, max_tokens: int = 24) -> Iterator[str]:
        """Ask the model with `stream: true`; yields each piece of text as it arrives."""
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
        }
        connection = self.connect()
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        assert answer.status == 200, (answer.status, answer.read())
        for line in answer:
            if line.startswith(b"data: ") and b"[DONE]" not in line:
                for choice in json.loads(line[6:])["choices"]:
                    if choice["delta"].get("content"):
                        yield choice["delta"]["content"]
        connection.close()
