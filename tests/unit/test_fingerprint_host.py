"""What the module fingerprint finds on this machine, with config sets, a release and weights of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.config_transaction import install
from ansible.module_utils.fingerprint import artefacts, files, packages, system
from ansible.module_utils.fingerprint.compare import Difference, drift
from ansible.module_utils.fingerprint.document import Gathered
from ansible.module_utils.fingerprint.normal import Normal
from ansible.module_utils.release_store import Store

from library import kernel_parameters
from tests.support.care_site import ONE, TWO, Site

SECRET = "the-key-that-nobody-may-read"
ME = {"owner": str(os.getuid()), "group": str(os.getgid())}


class Place:
    """A host's folders below one folder, and the fingerprint of what is in them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.etc = root / "etc/redoubt"
        self.state = root / "state"
        self.releases = root / "opt"

    def configure(self, name: str = "app", **given: Any) -> None:
        """Run the module config_set."""
        rows: dict[str, Any] = {
            "directories": [],
            "files": [],
            "secret_files": [],
            "links": [],
            "absent": [],
            "validate": [],
        }
        more = {"units": [], "apply": [], "triggers": [], "probe": [], "timeout": 1, "command_timeout": 5}
        settings = {"lock_timeout": 1, "settle": 0.0, "state_dir": str(self.state), "name": name}
        install({**rows, **more, **settings, **given}, check=False)

    def file(self, name: str, content: str, mode: str = "0644") -> dict[str, str]:
        return {"path": str(self.etc / name), "content": content, "mode": mode, **ME}

    def gathered(self, address: str = "10.0.0.5", host: str = "gpu-1") -> Gathered:
        made = Gathered()
        found = files.Files(Normal([address], [host]), made, str(self.state), str(self.releases))
        found.gather((str(self.etc),), ())
        return made

    def drift(self) -> list[Difference]:
        rows: list[Difference] = drift(self.gathered().document("h1", ""))
        return rows

    def release(self, compose: str) -> Path:
        """Put a release into service as the module release does."""
        store = Store(str(self.releases), str(self.state))
        with store.prepared(1):
            number = store.next_number()
            texts = {"compose.yml": compose, "env/engine.env": f"TOKEN='{SECRET}'\n"}
            stated = {path: files.sha256(text.encode()) for path, text in texts.items()}
            store.stage(number, texts, {"number": number, "files": stated, "engines": []})
            store.publish(number)
            store.promote(number)
        return Path(store.path(number))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.configure(
        files=[made.file("app.conf", "listen 10.0.0.5:80; # gpu-1\n")],
        secret_files=[made.file("app.key", SECRET, "0600")],
        links=[{"path": str(made.etc / "link"), "target": "app.conf"}],
    )
    return made


def test_a_set_as_it_was_proved_has_no_drift(place: Place) -> None:
    assert place.drift() == []
    found = [Path(path).name for path in place.gathered().sections["files"]]
    assert sorted(found) == ["app.conf", "app.key", "link"]


@pytest.mark.parametrize(
    ("edit", "name", "field"),
    [
        (lambda etc: (etc / "app.conf").write_text("listen 10.0.0.5:81; # gpu-1\n"), "app.conf", "content"),
        (lambda etc: (etc / "app.conf").chmod(0o666), "app.conf", "mode"),
        (lambda etc: (etc / "app.conf").unlink(), "app.conf", ""),
        (lambda etc: (etc / "app.key").write_text("another"), "app.key", "content"),
        (lambda etc: (etc / "app.key").chmod(0o640), "app.key", "mode"),
        (lambda etc: ((etc / "link").unlink(), (etc / "link").symlink_to("/etc/passwd")), "link", "target"),
        (lambda etc: ((etc / "link").unlink(), (etc / "link").write_text("x")), "link", "kind"),
        (lambda etc: ((etc / "app.conf").unlink(), (etc / "app.conf").mkdir()), "app.conf", "content"),
    ],
)
def test_each_edit_is_named(place: Place, edit: Callable[[Path], object], name: str, field: str) -> None:
    before = place.gathered().document("h1", "")["content"]
    edit(place.etc)
    rows = [(row.name, row.field) for row in place.drift()]
    assert (str(place.etc / name), field) in rows
    assert {row[0] for row in rows} == {str(place.etc / name)}
    assert place.gathered().document("h1", "")["content"] != before


def test_the_hosts_own_name_in_the_place_of_its_address_is_told_by_the_bytes(place: Place) -> None:
    """Without the host's own values the content is the same; the record of the bytes is not."""
    place.configure(files=[place.file("app.conf", "allow gpu-1 gpu-1.lab;\n")])
    normal = Normal(["10.0.0.5"], ["gpu-1", "gpu-1.lab"])
    (place.etc / "app.conf").write_text("allow gpu-1.lab gpu-1;\n")
    made = Gathered()
    files.Files(normal, made, str(place.state), str(place.releases)).gather((str(place.etc),), ())
    rows = [(row.section, row.field) for row in drift(made.document("h1", ""))]
    assert rows == [("local files", "bytes")]


def test_hosts_with_other_addresses_and_keys_have_the_same_digest(tmp_path: Path) -> None:
    digests = []
    for number, (address, host) in enumerate((("10.0.0.5", "gpu-1"), ("10.0.0.17", "gpu-2"))):
        made = Place(tmp_path)  # the same paths, one after the other
        made.configure(
            files=[
                made.file("app.conf", f"listen {address}:80; # {host}\n"),
                made.file("tls.crt", f"-----BEGIN X{number}"),
            ],
            secret_files=[made.file("app.key", f"secret {number}", "0600")],
        )
        digests.append(made.gathered(address, host).document(host, "")["content"])
    assert digests[0] == digests[1]


def test_nothing_of_a_secret_leaves_the_host(place: Place) -> None:
    place.release("services: {}\n")
    text = json.dumps(place.gathered().document("h1", ""))
    assert SECRET not in text
    for secret in (SECRET, f"TOKEN='{SECRET}'\n"):
        assert files.sha256(secret.encode()).removeprefix("sha256:") not in text
    row = place.gathered().sections["files"][str(place.etc / "app.key")]
    assert (row["mode"], row["content"]) == ("0600", "secret")


def test_a_file_that_nobody_recorded_counts_and_a_set_never_proved_is_drift(place: Place) -> None:
    before = place.gathered().document("h1", "")["content"]
    (place.etc / "added.conf").write_text("x")
    assert place.gathered().document("h1", "")["content"] != before
    (place.state / "app.json").unlink()
    assert [(row.section, row.name, row.right) for row in place.drift()] == [("sets", "app", "no")]
    (place.state / "app.good.json").write_text("{")
    assert [(row.section, row.name, row.right) for row in place.drift()] == [("sets", "app", "its record is damaged")]


def test_what_programs_keep_for_themselves_does_not_count(place: Place) -> None:
    before = place.gathered().document("h1", "")["content"]
    (place.etc / "depot/gnupg").mkdir(parents=True)
    (place.etc / "depot/gnupg/pubring.kbx").write_text("random")
    assert place.gathered().document("h1", "")["content"] == before


def test_sets_record_their_units_and_secrets(place: Place) -> None:
    assert files.secret_paths(place.state / "app.proof.json") == [str(place.etc / "app.key")]
    (place.state / "old.proof.json").write_text('{"probe": [{"unit": "old.service"}]}')  # of an earlier version
    (place.state / "new.proof.json").write_text('{"probe": [{"unit": "new.service"}], "units": ["new.service"]}')
    assert files.recorded_units(place.state) == ["new.service"]
    assert files.probed_units(place.state) == ["new.service", "old.service"]


# -- releases


def test_a_release_is_known_by_what_is_in_it_and_not_by_its_number(place: Place) -> None:
    place.release('labels:\n  redoubt.release: "1"\n')
    first = place.gathered().document("h1", "")
    place.release('labels:\n  redoubt.release: "2"\n')
    second = place.gathered().document("h1", "")
    assert first["content"] == second["content"]
    assert first["local"]["system"]["release"] != second["local"]["system"]["release"]
    assert place.drift() == []


@pytest.mark.parametrize(("name", "field"), [("compose.yml", "bytes"), ("env/engine.env", "content")])
def test_a_release_edited_by_hand_is_named(place: Place, name: str, field: str) -> None:
    folder = place.release("services: {}\n")
    (folder / name).write_text("services: {x: {}}\n")
    assert [(row.name, row.field) for row in place.drift()] == [(f"{place.releases}/current/{name}", field)]


def test_a_file_added_to_a_release_counts(place: Place) -> None:
    folder = place.release("services: {}\n")
    before = place.gathered().document("h1", "")["content"]
    (folder / "override.yml").write_text("x")
    assert place.gathered().document("h1", "")["content"] != before


# -- weights


def _weights(site: Site, deep: bool = False) -> Gathered:
    made = Gathered()
    artefacts.gather_weights(made, site.store.models, site.store.state, site.releases, deep)
    return made


def test_weights_are_known_by_their_digests_and_a_flipped_byte_is_named(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.bring(ONE)
    made = _weights(site)
    listed = {f"one/{ONE['revision'][:12]}/{row['path']}": row["sha256"] for row in ONE["files"]}
    assert {name: row["sha256"] for name, row in made.sections["weights"].items()} == listed
    assert drift(made.document("h1", "")) == []
    victim = site.tree("one") / "own.dat"
    data = bytearray(victim.read_bytes())
    data[777] ^= 1
    victim.chmod(0o644)
    victim.write_bytes(data)
    (row,) = drift(_weights(site).document("h1", ""))
    assert (row.name.rpartition("/")[2], row.field, row.left) == ("own.dat", "sha256", listed[row.name])


def test_rot_that_moves_nothing_is_seen_when_all_is_read_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.bring(ONE)
    site.rot(site.tree("one") / "own.dat")
    assert drift(_weights(site).document("h1", "")) == []
    assert [row.name.rpartition("/")[2] for row in drift(_weights(site, deep=True).document("h1", ""))] == ["own.dat"]


def test_a_file_put_in_the_place_of_one_is_named(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.bring(ONE)
    victim = site.tree("one") / "own.dat"
    victim.parent.chmod(0o755)
    victim.unlink()
    victim.write_bytes(b"strange")
    (row,) = drift(_weights(site).document("h1", ""))
    assert (row.name.rpartition("/")[2], row.left) == ("own.dat", artefacts.UNKNOWN)


def test_only_what_the_release_serves_is_part_of_the_digest(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.bring(ONE, TWO)
    site.release(1, site.tree("one"))
    (site.releases / "current").symlink_to("releases/1")
    made = _weights(site)
    assert {name.partition("/")[0] for name in made.sections["weights"]} == {"one"}
    assert {name.partition("/")[0] for name in made.local["weights"]} == {"two"}


# -- the system


def test_packages_of_this_machine_against_a_lock(tmp_path: Path) -> None:
    made = Gathered()
    locked = tmp_path / "packages.json"
    packages.gather(made, locked)
    assert made.sections["packages"]["dpkg"]["version"]
    assert made.recorded["packages"] == {}
    rows = {name: dict(row) for name, row in made.sections["packages"].items()}
    rows["dpkg"]["version"] = "0"
    del rows["bash"]  # as what the operating system brought along
    for mode, expected in (("open", set()), ("strict", {("dpkg", "version")})):
        locked.write_text(json.dumps({"mode": mode, "packages": rows}))
        again = Gathered()
        packages.gather(again, locked)
        assert {(row.name, row.field) for row in drift(again.document("h1", ""))} == expected


def test_kernel_parameters_are_those_that_the_module_recorded(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "net/core").mkdir(parents=True)
    (proc / "net/core/somaxconn").write_text("128\n")
    drop_in, record = tmp_path / "60.conf", tmp_path / "record.json"
    wanted = {"net.core.somaxconn": 4096, "net.no.such": 1}
    arguments: dict[str, Any] = {"path": str(drop_in), "header": "# x", "container": False}
    arguments |= {"parameters": wanted, "record": str(record)}

    def found() -> list[tuple[str, str, str]]:
        made = Gathered()
        system.gather_kernel(made, record, str(proc))
        return [(row.name, row.field, row.right) for row in drift(made.document("h1", ""))]

    kernel_parameters.apply(arguments, True, str(proc))
    assert not record.exists()
    kernel_parameters.apply(arguments, False, str(proc))
    assert found() == []  # what the kernel refused is no drift
    assert kernel_parameters.apply(arguments, False, str(proc))["changed"] is False
    (proc / "net/core/somaxconn").write_text("64\n")
    assert found() == [("net.core.somaxconn", "value", "64")]
    drop_in.write_text("net.core.somaxconn = 1\n")
    assert ("net.core.somaxconn", "at_boot", "1") in found()


def test_accounts_are_known_by_what_they_may(tmp_path: Path) -> None:
    sysusers, shadow = tmp_path / "redoubt.conf", tmp_path / "shadow"
    sysusers.write_text('# x\nu daemon - "Redoubt services" /usr/sbin\nu nobody-here - - /x\n')
    shadow.write_text("daemon:*:1::::::\n")

    def rows() -> dict[str, tuple[str, str]]:
        made = Gathered()
        system.gather_accounts(made, str(sysusers), str(shadow))
        return {f"{row.name} {row.field}": (row.left, row.right) for row in drift(made.document("h1", ""))}

    assert rows() == {"nobody-here ": ("there", "absent")}
    shadow.write_text("daemon:$y$hash:1::::::\n")
    sysusers.write_text('u daemon - "Redoubt services" /usr/sbin /bin/bash\n')
    assert rows() == {"daemon password": ("none", "set"), "daemon shell": ("/bin/bash", "/usr/sbin/nologin")}
    assert "hash" not in str(rows())


def test_a_set_that_only_says_where_things_come_from_is_the_hosts_own(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SOURCES", (str(place.etc / "certs.d/*"),))
    (place.etc / "certs.d").mkdir()
    place.configure("registry", files=[place.file("certs.d/ca.crt", "x")])
    made = place.gathered()
    assert list(made.sections["sets"]) == ["app"]
    assert made.local["sources"]["set registry"] == {"proved": "yes"}
    (place.state / "registry.json").unlink()
    assert [(row.section, row.name, row.right) for row in place.drift()] == [("local sources", "set registry", "no")]
