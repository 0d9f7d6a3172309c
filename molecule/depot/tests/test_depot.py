"""What hosts get from a depot, with their own tools: apt, docker, pip, curl; and what they do not get."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

from tests.support.plays import Play

testinfra_hosts = ["ansible://molecule-depot"]
FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
ROOT = "/srv/redoubt/depot"
APT = "-o Dir::Etc::sourcelist=/etc/apt/depot.sources -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0"
SOURCE = """Types: deb
URIs: {url}/bank-north/packages/debian-13-amd64/
Suites: ./
Signed-By: /etc/apt/keyrings/depot.asc
"""

ASK = (
    "import ssl,sys,urllib.request,urllib.error\n"
    "c=ssl._create_unverified_context()\n"
    "try: print(urllib.request.urlopen(sys.argv[1],context=c).status)\n"
    "except urllib.error.HTTPError as e: print(e.code)"
)


def of_host(name: str) -> Host:
    return testinfra.get_host(f"ansible://{name}", ansible_inventory=str(FOLDER / "inventory"))


@pytest.fixture(scope="module")
def locks() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "site/locks.json").read_text())
    return found


@pytest.fixture(scope="module")
def address() -> str:
    document = json.loads((FOLDER / "inventory/lab.json").read_text())
    return f"{document['all']['hosts']['molecule-depot']['ansible_host']}:8443"


@pytest.fixture(scope="module")
def client(address: str) -> Host:
    """A host that trusts the depot's CA and key, and asks nobody else."""
    depot, host = of_host("molecule-depot"), of_host("molecule-depot-client")
    ca = depot.file(f"{ROOT}/keys/ca.crt").content_string
    key = depot.file(f"{ROOT}/keys/depot.asc").content_string
    folder = f"/etc/docker/certs.d/{address}"
    host.check_output(f"mkdir -p {folder} /etc/apt/keyrings")
    files = {
        f"{folder}/ca.crt": ca,
        "/etc/depot-ca.crt": ca,
        "/etc/apt/keyrings/depot.asc": key,
        "/etc/apt/depot.sources": SOURCE.format(url=f"https://{address}"),
        "/etc/apt/apt.conf.d/90depot": f'Acquire::https::{address.partition(":")[0]}::CAInfo "/etc/depot-ca.crt";\n',
    }
    for path, text in files.items():
        host.check_output("printf %%s %s > %s", text, path)
    return host


def fetch(host: Host, url: str, more: str = "") -> tuple[int, str]:
    """Status and headers of an answer."""
    done = host.run(f"curl -sS -o /tmp/body -D - -w '%{{http_code}}' --cacert /etc/depot-ca.crt {more} {url}")
    return int(done.stdout[-3:] or 0), done.stdout.lower()


def test_it_runs_at_boot_and_as_little_as_it_can(host: Host) -> None:
    service = host.service("redoubt-depot")
    assert service.is_running and service.is_enabled
    assert not host.service("nginx").is_running
    listening = host.check_output("ss -Hltn")
    assert ":8443" in listening and ":80 " not in listening
    assert {process.user for process in host.process.filter(comm="nginx")} == {"root", "www-data"}


def test_private_keys_stay_with_root(host: Host) -> None:
    for path in ("tls/ca.key", "tls/server.key"):
        file = host.file(f"/etc/redoubt/depot/{path}")
        assert (file.mode, file.user) == (0o600, "root")
    assert host.file("/etc/redoubt/depot/gnupg").mode == 0o700
    assert host.run("pgrep gpg-agent").rc == 1, "GnuPG's agent holds the key in memory"
    assert "PRIVATE" not in host.check_output(f"cat {ROOT}/keys/*")


def test_the_depot_is_whole(host: Host, play: Play) -> None:
    done = play("verify_depot.yml")
    assert done.status == 0, done.text


def test_apt_installs_from_it_alone_with_the_signature_checked(client: Host) -> None:
    text = client.check_output(f"apt-get {APT} update 2>&1")
    assert "InRelease" in text and not re.search(r"^(W|E|Err|Ign):", text, re.M), text
    client.check_output(f"apt-get {APT} install -y stub-depot")
    assert client.check_output("cat /usr/share/stub/stub-depot /usr/share/stub/stub-depot-data") == (
        "stub-depot 1.0\nstub-depot-data 1.0"
    )
    assert "by-hash/SHA" in of_host("molecule-depot").check_output("journalctl -u redoubt-depot -o cat")


@pytest.mark.parametrize(
    "change",
    ["s/^Label: bank-north/Label: bank-nort/", "s/^ [0-9a-f]{64} /&0/", "s/^([A-Za-z0-9+\\/]{20})./\\1A/"],
    ids=["text", "size", "signature"],
)
def test_apt_refuses_a_release_that_was_changed(host: Host, client: Host, change: str) -> None:
    file = f"{ROOT}/sites/bank-north/packages/debian-13-amd64/InRelease"
    host.check_output("cp -p %s /tmp/InRelease && sed -E -i %s %s", file, change, file)
    try:
        assert host.run("cmp -s %s /tmp/InRelease", file).rc == 1, "nothing was changed"
        client.check_output("rm -rf /var/lib/apt/lists/*depot* /var/lib/apt/lists/*8443*")
        done = client.run(f"apt-get {APT} -o APT::Update::Error-Mode=any update 2>&1")
        assert done.rc != 0
        assert re.search(r"not signed|invalid|could not be verified|Malformed|Clearsigned", done.stdout, re.I), (
            done.stdout
        )
    finally:
        host.check_output("cp -p /tmp/InRelease %s", file)


def test_apt_refuses_another_key(host: Host, client: Host) -> None:
    """A repository that somebody else signed, however well."""
    how = "gpg --homedir /tmp/other --batch --passphrase ''"
    host.check_output(f"rm -rf /tmp/other; mkdir -m 700 /tmp/other; {how} --quick-generate-key other rsa3072")
    file = f"{ROOT}/sites/bank-north/packages/debian-13-amd64/InRelease"
    host.check_output("cp -p %s /tmp/InRelease", file)
    host.check_output(f"{how} --yes --clear-sign -o {file} {file.replace('InRelease', 'Release')}")
    try:
        client.check_output("rm -rf /var/lib/apt/lists/*8443*")
        done = client.run(f"apt-get {APT} -o APT::Update::Error-Mode=any update 2>&1")
        assert done.rc != 0 and re.search(r"NO_PUBKEY|Missing key|not signed", done.stdout), done.stdout
    finally:
        host.check_output("cp -p /tmp/InRelease %s; gpgconf --homedir /tmp/other --kill all", file)


def test_dnf_installs_from_it_with_the_signature_checked(host: Host, client: Host, address: str) -> None:
    base = f"https://{address}/bank-north/packages/rocky-9-amd64/"
    dnf = f"dnf -q -y --installroot /opt/el --releasever 9 --repofrompath depot,{base} --repo depot"
    dnf += " --setopt depot.repo_gpgcheck=1 --setopt depot.gpgkey=file:///etc/apt/keyrings/depot.asc"
    dnf += " --setopt depot.sslcacert=/etc/depot-ca.crt --setopt depot.gpgcheck=0 --setopt depot.skip_if_unavailable=0"
    dnf += " --setopt depot.module_hotfixes=1"
    client.check_output(f"rm -rf /opt/el && {dnf} install engine")
    assert client.check_output("rpm --root /opt/el -q engine addon").startswith("engine-2.0-1.el9.noarch\naddon-3.0")
    file = f"{ROOT}/sites/bank-north/packages/rocky-9-amd64/repodata/repomd.xml.asc"
    host.check_output("cp -p %s /tmp/asc && sed -i 's/^iQ/iR/;s/A/B/' %s", file, file)
    try:
        done = client.run(f"rm -rf /opt/el && {dnf} install engine")
        assert done.rc != 0 and re.search("GPG|signature", done.stderr + done.stdout), done
    finally:
        host.check_output("cp -p /tmp/asc %s", file)


def test_a_dnf_host_installs_what_its_lock_lists_and_nothing_else(host: Host, client: Host, play: Play) -> None:
    """The whole way: locked on Debian, fetched, published, installed by package_set in strict mode."""
    installed = "rpm -q --qf '%{EPOCHNUM} %{NAME} %{VERSION}\\n' engine engine-libs addon"
    try:
        for refused, said in (
            ({"wanted": ["engine", "unwanted"]}, "not in the lock: unwanted"),
            ({"wanted": ["engine=1.0-*"]}, "engine=1.0-* (locked: 1:2.0-1.el9)"),
            ({"without": ["addon"]}, "not in the lock: addon=3.0-1.el9"),
            ({"forged": {"engine-libs": {"sha256": "0" * 64}}}, "does not have the bytes of the lock"),
        ):
            run = play("strict_dnf.yml", **refused)
            assert run.status != 0 and said in run.words, run.text
            assert client.run(installed).rc != 0
        assert play("strict_dnf.yml").status == 0
        assert client.check_output(installed).splitlines() == [
            "1 engine 2.0",
            "0 engine-libs 2.0",
            "0 addon 3.0",
        ]
        assert play("strict_dnf.yml").changed == 0
        client.check_output("rpm -e engine engine-libs addon")
        file = f"{ROOT}/sites/bank-north/packages/rocky-9-amd64/repodata/repomd.xml.asc"
        host.check_output("cp -p %s /tmp/asc && sed -i 's/^iQ/iR/;s/A/B/' %s", file, file)
        try:
            run = play("strict_dnf.yml")
        finally:
            host.check_output("cp -p /tmp/asc %s", file)
        assert run.status != 0 and re.search("GPG|signature", run.words), run.text
    finally:
        client.run("rpm -e engine engine-libs addon")


def test_docker_pulls_by_digest(client: Host, address: str, locks: dict[str, Any]) -> None:
    image = locks["first"]["images"]["probe"]
    name = f"{address}/bank-north/{image['name']}@{image['digest']}"
    client.check_output(f"docker pull {name}")
    assert client.check_output(f"docker image inspect --format {{{{.Id}}}} {name}") == image["config_digest"]
    client.check_output(f"docker create --name probe {name} x && docker cp probe:/etc/probe /tmp/probe")
    assert client.check_output("cat /tmp/probe; docker rm probe >/dev/null; docker rmi %s >/dev/null", name) == "1"


def test_docker_finds_no_tag_and_no_other_digest(client: Host, address: str) -> None:
    for reference in (":1.0", f"@sha256:{'0' * 64}"):
        done = client.run(f"docker pull {address}/bank-north/redoubt/probe{reference}")
        assert done.rc != 0
        assert "the lock of this site has no such image" in done.stderr or "manifest unknown" in done.stderr, (
            done.stderr
        )


def test_pip_installs_from_it_alone(client: Host, address: str) -> None:
    """By a name: pip cannot check the certificate of a bare address (its urllib3 hands the address to nobody)."""
    bare, _, port = address.partition(":")
    client.check_output("grep -q depot.lab /etc/hosts || echo %s depot.lab >> /etc/hosts", bare)
    client.check_output("python3 -m venv /opt/venv")
    how = f"--no-cache-dir --disable-pip-version-check --cert /etc/depot-ca.crt --index-url https://depot.lab:{port}"
    client.check_output(f"/opt/venv/bin/pip install {how}/bank-north/python/simple/ Stub-Probe==1.0")
    assert client.check_output("/opt/venv/bin/python -c 'import stub_probe; print(stub_probe.VERSION)'") == "1.0"


def test_models_are_had_by_path_and_by_digest_in_pieces(client: Host, address: str, locks: dict[str, Any]) -> None:
    row = locks["first"]["models"]["smol"]["files"][1]
    for path in (f"models/smol/{'b' * 12}/{row['path']}", f"blobs/sha256/{row['sha256'][:2]}/{row['sha256']}"):
        status, headers = fetch(client, f"https://{address}/bank-north/{path}", "-r 0-99")
        assert status == 206 and f"bytes 0-99/{row['size']}" in headers
        assert fetch(client, f"https://{address}/bank-north/{path}")[0] == 200
        assert client.check_output("sha256sum < /tmp/body").split()[0] == row["sha256"]


def test_nothing_else_is_shown(client: Host, address: str) -> None:
    for path in (
        "", "bank-north", "bank-north/", "bank-north/packages/", "bank-north/models/smol/", "locks/bank-north.json",
        "inventory.json", "state/serials.json", "keys/ca.crt", "blobs/", "../locks/bank-north.json",
        "bank-north/packages/../../../locks/bank-north.json", "bank-north/%2e%2e/%2e%2e/inventory.json",
        "v2/_catalog", "v2/bank-north/redoubt/probe/tags/list", "v2/bank-north/redoubt/probe/manifests/1.0",
    ):  # fmt: skip
        status, _ = fetch(client, f"https://{address}/{path}", "--path-as-is")
        assert status in (400, 403, 404), f"{path}: {status}"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nobody_writes(client: Host, address: str, method: str) -> None:
    for path in ("v2/bank-north/redoubt/probe/blobs/uploads/", "bank-north/python/simple/"):
        assert fetch(client, f"https://{address}/{path}", f"-X {method}")[0] == 405


def test_a_foreign_address_gets_nothing(host: Host, address: str) -> None:
    stranger = of_host("molecule-depot-stranger")
    for path in ("v2/", "bank-north/packages/debian-13-amd64/InRelease"):
        done = stranger.run(f'python3 -c "{ASK}" https://{address}/{path}')
        assert done.stdout.strip() == "403", done


def test_two_sites_share_their_bytes(host: Host, locks: dict[str, Any]) -> None:
    row = locks["first"]["models"]["smol"]["files"][1]
    paths = [f"{ROOT}/sites/{site}/models/smol/{'b' * 12}/{row['path']}" for site in ("bank-north", "bank-south")]
    blob = f"{ROOT}/blobs/sha256/{row['sha256'][:2]}/{row['sha256']}"
    inodes = host.check_output(f"stat -L -c %i {' '.join([*paths, blob])}").split()
    assert len(inodes) == 3 and len(set(inodes)) == 1


def test_an_update_arrives_and_an_older_lock_again(client: Host, play: Play) -> None:
    assert play(published_locks=["second", "other"]).status == 0
    client.check_output(f"apt-get {APT} update && apt-get {APT} install -y stub-depot")
    assert client.check_output("cat /usr/share/stub/stub-depot") == "stub-depot 1.1"
    assert play(published_locks=["first", "other"]).status == 0
    text = client.check_output(
        f"apt-get {APT} update && apt-get {APT} install -y --allow-downgrades stub-depot=1.0 2>&1"
    )
    assert client.check_output("cat /usr/share/stub/stub-depot") == "stub-depot 1.0", text


def test_a_damaged_blob_is_named_and_mended(host: Host, locks: dict[str, Any], play: Play) -> None:
    row = locks["first"]["models"]["smol"]["files"][1]
    blob = f"{ROOT}/blobs/sha256/{row['sha256'][:2]}/{row['sha256']}"
    host.check_output(f"cp {blob} /tmp/good && chmod u+w {blob} && printf X | dd of={blob} bs=1 seek=777 conv=notrunc")
    try:
        done = play("verify_depot.yml")
        assert done.status != 0 and row["sha256"] in done.words and "its bytes have the sha256" in done.words
    finally:
        host.check_output(f"dd if=/tmp/good of={blob} conv=notrunc && chmod 444 {blob}")
    assert play("verify_depot.yml").status == 0
