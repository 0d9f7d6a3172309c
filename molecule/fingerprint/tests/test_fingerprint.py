"""Two hosts that were given the same, and what somebody does to one of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.fingerprint.compare import Difference, differences, drift
from ansible.module_utils.fingerprint.document import parse
from ansible.module_utils.fingerprint.packages import against_lock
from testinfra import get_host
from testinfra.host import Host

from tests.support.plays import run_play

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
SMALL, LARGE = "redoubt.test/small:1", "redoubt.test/large:1"
WEIGHTS = "/srv/redoubt/models/tiny/aaaaaaaaaaaa"
OWN = "/etc/redoubt/own"
CONTAINER = (
    f"docker create --name redoubt-one --label com.docker.compose.project.config_files=/opt/redoubt/x {SMALL} /x"
)

# What is done to the second host, in the order of the list; what the drift then says: section, name, field.
SEEDED: dict[str, tuple[str, tuple[str, str, str]]] = {
    "edited file": (f"echo '# mine' >> {OWN}/listen.conf", ("files", f"{OWN}/listen.conf", "content")),
    "edited secret": (f"echo x > {OWN}/key", ("files", f"{OWN}/key", "content")),
    "opened file": ("chmod 0666 /etc/sysusers.d/redoubt.conf", ("files", "/etc/sysusers.d/redoubt.conf", "mode")),
    "unit off at boot": ("systemctl disable docker.service", ("units", "docker.service", "boot")),
    "kernel parameter": ("sysctl -w net.core.somaxconn=77", ("kernel", "net.core.somaxconn", "value")),
    "kernel at boot": (
        "sed -i 's/^net.ipv4.tcp_syncookies = 1/net.ipv4.tcp_syncookies = 0/' /etc/sysctl.d/60-redoubt.conf",
        ("kernel", "net.ipv4.tcp_syncookies", "at_boot"),
    ),
    "shell": ("usermod -s /bin/bash redoubt", ("users", "redoubt", "shell")),
    "password": ("usermod -p '$y$j9T$x$y' redoubt", ("users", "redoubt", "password")),
    "image retagged": (f"docker tag {LARGE} {SMALL}", ("images", SMALL, "digest")),
    "weight byte": (
        f"chmod u+w {WEIGHTS}/shards/2.dat && printf x | dd of={WEIGHTS}/shards/2.dat bs=1 seek=4242 conv=notrunc",
        ("weights", "tiny/aaaaaaaaaaaa/shards/2.dat", "sha256"),
    ),
}
# Nothing on the host says how many packages there should be without a lock: only another fingerprint does.
BETWEEN: dict[str, tuple[str, tuple[str, str, str]]] = {
    "package held": ("apt-mark hold curl", ("packages", "curl", "held")),
    "package gone": ("dpkg --purge --force-depends redoubt-extra", ("packages", "redoubt-extra", "")),
    "added file": (f"touch {OWN}/added", ("files", f"{OWN}/added", "")),
    "who may use the engine": ("gpasswd -a daemon docker", ("groups", "docker", "members")),
}
# A package of no content, made on the host.
PACKAGE = r"""
mkdir -p /tmp/extra/DEBIAN
printf 'Package: redoubt-extra\nVersion: {0}\nArchitecture: all\n' > /tmp/extra/DEBIAN/control
printf 'Maintainer: x <x@example.org>\nDescription: nothing\n' >> /tmp/extra/DEBIAN/control
dpkg-deb --build /tmp/extra /tmp/extra.deb && dpkg -i /tmp/extra.deb
"""


def connect(name: str) -> Host:
    return get_host(f"ansible://{name}?ansible_inventory={FOLDER / 'inventory'}")


def taken() -> dict[str, dict[str, Any]]:
    """Take the fingerprints of both hosts."""
    assert run_play("take.yml").status == 0
    return {name: read(name) for name in ("fingerprint-1", "fingerprint-2")}


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = parse(json.loads((FOLDER / f"{name}.json").read_text()), name)
    return document


def named(rows: list[Difference]) -> set[tuple[str, str, str]]:
    return {(row.section, row.name, row.field) for row in rows}


@pytest.fixture(scope="module")
def before() -> dict[str, dict[str, Any]]:
    for name in ("fingerprint-1", "fingerprint-2"):
        connect(name).check_output(PACKAGE.format("1.0"))
        connect(name).check_output(CONTAINER)
    return taken()


@pytest.fixture(scope="module")
def after(before: dict[str, dict[str, Any]]) -> Iterator[dict[str, dict[str, Any]]]:
    host = connect("fingerprint-2")
    for command, _ in (SEEDED | BETWEEN).values():
        host.check_output(command)
    yield taken()


def test_hosts_that_were_given_the_same_have_the_same_digest(before: dict[str, dict[str, Any]]) -> None:
    one, two = before.values()
    assert named(differences(one, two)) == set()
    assert one["content"] == two["content"]
    assert (one["local"]["system"]["names"], one["local"]["files"]) != (
        two["local"]["system"]["names"],
        two["local"]["files"],
    )


def test_nothing_drifted_by_itself(before: dict[str, dict[str, Any]]) -> None:
    assert [named(drift(document)) for document in before.values()] == [set(), set()]


def test_everything_that_redoubt_controls_is_in_it(before: dict[str, dict[str, Any]]) -> None:
    sections = before["fingerprint-1"]["sections"]
    assert sections["packages"]["docker.io"]["version"]
    assert sections["units"]["docker.service"] == {
        "boot": "enabled",
        "drop_ins": "",
        "load": "loaded",
        "runs": "active",
    }
    assert sections["containers"]["redoubt-one"]["image"] == sections["images"][SMALL]["digest"]
    assert sections["users"]["redoubt"]["shell"] == "none"
    assert sections["kernel"]["net.core.somaxconn"] == {"value": "4096", "at_boot": "4096"}
    assert len(sections["weights"]) == 3
    assert {"common", "docker", "own"} <= set(sections["sets"])


def test_the_host_keeps_its_own_for_root_alone(before: dict[str, dict[str, Any]]) -> None:
    file = connect("fingerprint-1").file("/var/lib/redoubt/fingerprint.json")
    assert (file.mode, file.user) == (0o600, "root")
    assert json.loads(file.content_string)["content"] == before["fingerprint-1"]["content"]


def test_a_secret_is_there_and_nothing_more(before: dict[str, dict[str, Any]]) -> None:
    secret = connect("fingerprint-1").file(f"{OWN}/key")
    text = json.dumps(before["fingerprint-1"])
    assert before["fingerprint-1"]["sections"]["files"][f"{OWN}/key"]["content"] == "secret"
    assert secret.content_string not in text
    assert secret.sha256sum not in text


@pytest.mark.parametrize("name", SEEDED)
def test_drift_is_named_without_an_earlier_fingerprint(after: dict[str, dict[str, Any]], name: str) -> None:
    assert SEEDED[name][1] in named(drift(after["fingerprint-2"]))


def test_nothing_else_is_named(after: dict[str, dict[str, Any]]) -> None:
    wanted = {row for _, row in SEEDED.values()}
    # The image's container has the bytes that the plan wants, but an image that no name says so of.
    assert named(drift(after["fingerprint-2"])) - wanted <= {("containers", "redoubt-one", "image")}
    assert drift(after["fingerprint-1"]) == []


@pytest.mark.parametrize("name", SEEDED | BETWEEN)
def test_what_was_done_shows_between_the_hosts(after: dict[str, dict[str, Any]], name: str) -> None:
    assert (SEEDED | BETWEEN)[name][1] in named(differences(after["fingerprint-1"], after["fingerprint-2"]))
    assert after["fingerprint-1"]["content"] != after["fingerprint-2"]["content"]


def test_another_version_and_a_masked_unit_show_between_two_times(after: dict[str, dict[str, Any]]) -> None:
    host, earlier = connect("fingerprint-1"), after["fingerprint-1"]
    host.check_output(PACKAGE.format("2.0"))
    host.check_output("systemctl stop docker.socket docker.service && systemctl mask docker.service")
    rows = differences(earlier, taken()["fingerprint-1"])
    host.check_output("systemctl unmask docker.service && systemctl start docker.service")
    texts = [row.text("before", "now") for row in rows]
    assert "packages redoubt-extra: version 1.0 before, 2.0 now" in texts
    assert "units docker.service: load loaded before, masked now" in texts
    assert ("units", "docker.service", "runs") in named(rows)


def test_a_lock_in_force_is_compared_with_the_packages(after: dict[str, dict[str, Any]]) -> None:
    host = connect("fingerprint-1")
    rows = {name: dict(row) for name, row in taken()["fingerprint-1"]["sections"]["packages"].items()}
    rows["curl"]["version"] = "1"
    del rows["redoubt-extra"]
    text = json.dumps({"mode": "strict", "packages": rows})
    host.check_output("printf '%%s' %s > /etc/redoubt/packages.json", text)
    now = taken()["fingerprint-1"]
    host.check_output("rm /etc/redoubt/packages.json")
    # The operating system's own packages are in no lock; an addition shows against it or an earlier fingerprint.
    assert named(drift(now)) == {("packages", "curl", "version")}
    assert against_lock(now["sections"]["packages"], rows)["redoubt-extra"] is None
