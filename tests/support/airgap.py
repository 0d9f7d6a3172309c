"""A site behind an air gap: this machine is the connected side, a control host and a target are behind the gap."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import engine, hosts, images, inventory
from lab.gap import Watch, watched
from lab.record import Host
from lab.report import PlainReport
from tests.support.bundles import key_pair
from tests.support.site import MODEL, REPOSITORY, SERVER_NAME, Run, Site

NAME = "lab-gap"
PLATFORM = "debian-13-amd64"
MEDIUM = "/media/bundle"
CONTROL_FOLDER = "/opt/redoubt/control"
FAR_SITE = "/srv/site"
FAR_DEPOT = "/srv/redoubt/depot"
FAR_KEY = "/root/redoubt.pub"

Known = Mapping[str, Any]


class GapSite(Site):
    """Both sides of a site: what is done on this machine, and what is done behind the gap."""

    def __init__(self, folder: Path, control: Host, target: Host) -> None:
        super().__init__(folder, {control.name: control, target.name: target}, target.name)
        self.control = control
        self.watch: Watch | None = None
        self.medium = folder / "medium"
        self.lock = folder / "lock"
        self.depot = folder / "depot"
        self.keys = folder / "keys"
        self.concurrency = 4
        self.changes: dict[str, Any] = {}

    def variables(self) -> dict[str, Any]:
        """What both sides say of the site: the operator's own inventory, which is carried like any other text."""
        network = ".".join(self.address.split(".")[:3])
        return {
            "redoubt_site": NAME,
            "redoubt_lock_mode": "strict",
            "redoubt_platforms": [PLATFORM],
            "redoubt_models": [
                {
                    "name": MODEL,
                    "engine": "vllm",
                    "gpus": 0,
                    "context": 2048,
                    "concurrency": self.concurrency,
                    "resources": {"cpus": 2, "memory": "8g", "shm_size": "1g", "kv_cache_gib": 1},
                }
            ],
            "nvidia_driver_manage": False,
            "gateway_server_names": [SERVER_NAME],
            "gateway_tls_mode": "private_ca",
            # The doctor asks from the control host, the probe from the gateway itself.
            "gateway_allowed_cidrs": ["127.0.0.0/8", f"{network}.0/24"],
            "gateway_api_keys": [{"name": "demo", "key": self.key}],
            "monitoring_gateway_ca": (
                "{{ lookup('ansible.builtin.file', gateway_fetch_ca_to)"
                " if gateway_fetch_ca_to is ansible.builtin.file else '' }}"
            ),
            "depot_allowed_cidrs": [f"{network}.0/24"],
            **self.changes,
        }

    def document(self, control: Known, target: Known, more: Known, served: Host | None = None) -> dict[str, Any]:
        """An inventory of two hosts: the control host has the depot, the target (or `served` instead) all else."""
        host = served or self.hosts[self.main]
        machines = {
            self.control.name: {**control, "redoubt_private_address": self.control.address},
            host.name: {**target, "redoubt_private_address": host.address},
        }
        groups = {"depot": self.control.name, "gateways": host.name, "inference": host.name, "monitoring": host.name}
        children = {group: {"hosts": {name: machines[name]}} for group, name in groups.items()}
        return {"all": {"vars": {**self.variables(), **more}, "children": children}}

    def write_near(self, hostvars: Mapping[str, Mapping[str, Any]], medium: Mapping[str, Any]) -> None:
        """Write the inventory of the connected side; `medium`: the images and models that the lab has built."""
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.is_dir() and path != self.medium:
                shutil.rmtree(path)
        self.wipe()
        self.keys.mkdir(parents=True)
        self.write_wishes(hostvars, medium)
        key_pair(self.keys, "redoubt")

    def wipe(self) -> None:
        """Empty the medium; the folder itself stays, since the control host sees it."""
        for path in self.medium.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def write_wishes(self, hostvars: Mapping[str, Known], medium: Known) -> None:
        """Write the inventory alone, as after a change."""
        more = {
            **medium,
            "redoubt_sources": {
                "images": f"file://{REPOSITORY}/.cache/lab/media/images",
                "models": f"file://{REPOSITORY}/.cache/lab/media/models",
            },
            "redoubt_lock": str(self.lock),
            "gateway_fetch_ca_to": str(self.folder / "ca.crt"),
        }
        control, target = hostvars[self.control.name], hostvars[self.main]
        text = json.dumps(self.document(control, target, more), indent=2)
        (self.folder / "hosts.json").write_text(text)

    def write_online(self, host: Host, hostvars: Mapping[str, Known], medium: Known) -> Path:
        """Write the inventory of a host that has the network: the far target's wishes and lock, other sources.

        Returns its folder. The control host behind the gap stays in it, since the target is told of it too.
        """
        folder = self.folder / "online"
        folder.mkdir(exist_ok=True)
        more = {
            **medium,
            "redoubt_sources": {kind: f"file:///media/redoubt/{kind}" for kind in ("images", "models")},
            "redoubt_lock": str(self.lock),
            "gateway_fetch_ca_to": str(folder / "ca.crt"),
            "redoubt_verdict_file": str(folder / "verdict.json"),
            "redoubt_fingerprints": str(folder),
        }
        document = self.document(hostvars[self.control.name], hostvars[host.name], more, host)
        (folder / "hosts.json").write_text(json.dumps(document, indent=2))
        return folder

    def write_far(self) -> None:
        """Put the inventory of the far side on the control host, with the key that opens the target."""
        more = {
            "gateway_fetch_ca_to": f"{FAR_SITE}/ca.crt",
            "redoubt_verdict_file": f"{FAR_SITE}/verdict.json",
            "redoubt_fingerprints": f"{FAR_SITE}/fingerprints",
        }
        target = {
            "ansible_host": self.address,
            "ansible_user": "operator",
            "ansible_ssh_private_key_file": f"{FAR_SITE}/key",
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={FAR_SITE}/known_hosts",
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        control = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        files = {
            "hosts.json": json.dumps(self.document(control, target, more), indent=2),
            "key": self.hosts[self.main].key_file.read_text(),
            "known_hosts": self.hosts[self.main].known_hosts_file.read_text(),
        }
        for name, text in files.items():
            script = f"umask 077; mkdir -p {FAR_SITE}; cat > {FAR_SITE}/{name} <<'EOF'\n{text}\nEOF\n"
            self.on(self.control.name, script)

    def near(self, *words: str, timeout: int = 1200) -> Run:
        """Run a verb of the launcher on this machine, as the operator of the connected side."""
        return _run([sys.executable, str(REPOSITORY / "redoubt"), *words], self.folder / "near.log", timeout)

    def build(self, out: Path, delta: Path | None = None) -> None:
        """Gather what the lock lists, and write and sign its bundle; with `delta` only what that inventory lacks."""
        said = {"gather_depot": self.depot, "bundle_path": out, "bundle_sign_key": self.keys / "redoubt.key"}
        said |= {"bundle_against": delta} if delta else {}
        extra = [word for name, value in said.items() for word in ("-e", f"{name}={value}")]
        run = self.near("play", "bundle", "-i", str(self.folder / "hosts.json"), *extra)
        assert run.status == 0, run.output[-6000:]

    def bring_key(self, name: str) -> None:
        """Put a public key on the far control host; in life it comes by another way than the medium."""
        text = (self.keys / f"{name}.pub").read_text()
        self.on(self.control.name, f"cat > {FAR_KEY} <<'EOF'\n{text}EOF\n")

    def far(self, command: str, timeout: int = 1800) -> Run:
        """Run a shell command as root on the control host behind the gap."""
        control = self.control
        options = ["-i", str(control.key_file), "-o", f"UserKnownHostsFile={control.known_hosts_file}"]
        login = f"{control.user}@{control.address}"
        words = ["ssh", *options, "-o", "BatchMode=yes", login, "sudo", "sh", "-c", shlex.quote(command)]
        return _run(words, self.folder / "far.log", timeout)

    def far_play(self, playbook: str, *options: str) -> Run:
        """Run a playbook on the far control host through the launcher."""
        words = ["./redoubt", "play", playbook, "-i", f"{FAR_SITE}/hosts.json", "-e", "redoubt_sources=depot", *options]
        return self.far(f"cd {CONTROL_FOLDER} && {' '.join(words)}")

    def fetch_ca(self) -> None:
        """Take the gateway's certificate authority to this machine, where the client of the tests is."""
        self.ca_file.parent.mkdir(parents=True, exist_ok=True)
        self.ca_file.write_text(self.on(self.control.name, f"cat {FAR_SITE}/ca.crt"))

    def answered(self, seconds: float) -> str:
        """The model's answer to a question, asked until the engine is up, at most so long."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return "".join(self.stream("What is the capital of France?"))
            except (AssertionError, OSError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(2)


@contextmanager
def opened(control: str, target: str, folder: Path, *, keep: bool = False) -> Iterator[GapSite]:
    """Two bare hosts of these names behind the gap, watched; the connected side is this machine, in `folder`.

    With `keep` hosts and folder are taken as they are found, and stay.
    """
    report = PlainReport()
    built = images.build(report, images.TESTS)
    medium = folder / "medium"
    medium.mkdir(parents=True, exist_ok=True)
    try:
        if not keep:
            for name in (control, target):
                hosts.down(name)
        near = hosts.up(control, gap=True, media=False, folders={MEDIUM: medium}, report=report)
        far = hosts.up(target, gap=True, media=False, reboots=True, report=report)
        site = GapSite(folder, near, far)
        if not keep or not (folder / "hosts.json").exists():
            known = inventory.document([near, far])["_meta"]["hostvars"]
            site.write_near(known, built.document())
        with watched(engine.ensure(report), report) as watch:
            site.watch = watch
            yield site
    finally:
        if not keep:
            for name in (control, target):
                hosts.down(name)


def _run(command: list[str], log: Path, timeout: int) -> Run:
    """Run a command; what it prints is returned and added to a log."""
    with log.open("ab") as stream:
        stream.write(f"\n$ {' '.join(command)}\n".encode())
        stream.flush()
        begin = stream.tell()
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            timeout=timeout,
            check=False,
        )
    with log.open("rb") as stream:
        stream.seek(begin)
        return Run(done.returncode, stream.read().decode(errors="replace"))
