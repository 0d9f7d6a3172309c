"""Kinds of web sources, what goes through proxies and TLS, and where a token goes."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from ansible.module_utils.fetch.errors import Unusable
from ansible.module_utils.fetch.http import Network, origin, shown
from ansible.module_utils.fetch.sources import Item
from ansible.module_utils.fetch.web import Addresses, BlobStore, Depot, Hub, ModelScope, Web

from tests.support.fault_server import Asked, Fault, FaultServer, serving
from tests.support.image_archives import payload
from tests.unit.test_fetch_faults import PIECE, assert_right, bring, item

DATA = payload(9 * PIECE, 7)
LARGE = Item(**{**vars(item("sub dir/weights#1.safetensors", DATA)), "repo": "some-org/Tiny-1B"})
CONFIG = Item(**{**vars(item("config.json", b"{}")), "repo": "some-org/Tiny-1B"})
TOKEN = "hf_secret"  # a test's


class FakeHub:
    """Speaks the hub's protocol: `resolve` redirects large files to another server, with addresses that expire."""

    def __init__(self, uses: int = 1000) -> None:
        self.uses = uses
        self.signatures: dict[str, int] = {}
        self.headers: dict[str, str] = {}

    def front(self, cdn: FaultServer) -> FaultServer:
        path = f"/some-org/Tiny-1B/resolve/{LARGE.revision}"
        front = FaultServer({f"{path}/config.json": b"{}"})

        def rule(asked: Asked) -> Fault | None:
            if asked.headers.get("Authorization") != f"Bearer {TOKEN}":
                return Fault(status=401)
            if not asked.path.endswith(".safetensors"):
                return None
            signature = f"s{len(self.signatures)}"
            self.signatures[signature] = self.uses
            headers = {
                "Location": f"{cdn.base}/large?X-Signature={signature}",
                "X-Repo-Commit": LARGE.revision,
                "X-Linked-Size": str(len(DATA)),
                "X-Linked-Etag": f'"{LARGE.sha256}"',
                **self.headers,
            }
            return Fault(status=302, headers=headers)

        front.rule = rule
        return front

    def cdn_rule(self, asked: Asked) -> Fault | None:
        assert "Authorization" not in asked.headers
        signature = asked.target.partition("X-Signature=")[2]
        self.signatures[signature] -= 1
        return Fault(status=403) if self.signatures[signature] < 0 else None


@pytest.fixture
def cdn() -> Iterator[FaultServer]:
    with serving({"/large": DATA}) as made:
        yield made


def test_hub_by_commit_with_one_redirect_for_all_pieces(tmp_path: Path, cdn: FaultServer) -> None:
    hub = FakeHub()
    front = hub.front(cdn)
    cdn.rule = hub.cdn_rule
    front.start()
    try:
        jobs = bring(tmp_path, [LARGE, CONFIG], Hub(front.base, token=TOKEN), connections=1)
        assert_right(tmp_path, jobs)
        assert len(front.asked) == 2
        assert front.asked[0].target.endswith("/sub%20dir/weights%231.safetensors")
        assert cdn.total() == len(DATA)
    finally:
        front.stop()


def test_signed_address_that_expires_is_renewed_and_no_byte_comes_twice(tmp_path: Path, cdn: FaultServer) -> None:
    hub = FakeHub(uses=3)
    front = hub.front(cdn)
    cdn.rule = hub.cdn_rule
    front.start()
    try:
        jobs = bring(tmp_path, [LARGE], Hub(front.base, token=TOKEN), connections=1)
        assert_right(tmp_path, jobs)
        assert jobs[LARGE.path].received == len(DATA)
        assert 3 <= len(front.asked) <= 4
    finally:
        front.stop()


def test_hub_without_token_is_told_without_the_secret(tmp_path: Path, cdn: FaultServer) -> None:
    hub = FakeHub(uses=0)
    front = hub.front(cdn)
    cdn.rule = hub.cdn_rule
    front.start()
    try:
        jobs = bring(tmp_path, [CONFIG], Hub(front.base, token="wrong"))
        assert "the server answers 401 Unauthorized; is a token needed" in jobs["config.json"].problems[0]
        jobs = bring(tmp_path, [LARGE], Hub(front.base, token=TOKEN))
        (problem,) = jobs[LARGE.path].problems
        assert f"(at {cdn.base}/large): the server answers 403 Forbidden" in problem
        assert "Signature" not in problem
        assert TOKEN not in repr(Hub(front.base, token=TOKEN)) + problem
    finally:
        front.stop()


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"X-Linked-Etag": f'"{"0" * 64}"'}, f"expected sha256 {LARGE.sha256}, the hub has {'0' * 64}"),
        ({"X-Repo-Commit": "b" * 40}, f"is of commit {'b' * 40}, not {'a' * 40}"),
    ],
)
def test_hub_that_has_another_file_is_refused_before_a_byte_comes(
    tmp_path: Path, cdn: FaultServer, headers: dict[str, str], said: str
) -> None:
    hub = FakeHub()
    hub.headers = headers
    front = hub.front(cdn)
    front.start()
    try:
        jobs = bring(tmp_path, [LARGE], Hub(front.base, token=TOKEN))
        assert said in jobs[LARGE.path].problems[0]
        assert cdn.total() == 0
    finally:
        front.stop()


def test_model_without_repository_is_told(tmp_path: Path) -> None:
    plain = item("config.json", b"{}")
    for source in (Hub("http://127.0.0.1:9"), ModelScope("http://127.0.0.1:9")):
        assert "set its source.repo" in str(source.problem(plain))
        assert "set its source.repo" in bring(tmp_path, [plain], source)["config.json"].problems[0]


def test_modelscope_asks_for_revision_and_path(tmp_path: Path) -> None:
    with serving({"/api/v1/models/some-org/Tiny-1B/repo": DATA}) as server:
        assert_right(tmp_path, bring(tmp_path, [LARGE], ModelScope(server.base, revision="v1")))
        assert server.asked[0].target.endswith("repo?Revision=v1&FilePath=sub+dir%2Fweights%231.safetensors")


def test_blobs_by_digest_as_a_depot_or_another_host_has_them(tmp_path: Path) -> None:
    path = f"/blobs/sha256/{LARGE.sha256[:2]}/{LARGE.sha256}"
    with serving({path: DATA}) as server:
        assert_right(tmp_path, bring(tmp_path, [LARGE], BlobStore(f"{server.base}/blobs")))


def test_a_depot_shows_revisions_by_their_first_digits(tmp_path: Path) -> None:
    path = f"/bank/models/tiny/{LARGE.revision[:12]}/{LARGE.path}"
    with serving({path: DATA}) as server:
        assert_right(tmp_path, bring(tmp_path, [LARGE], Depot(f"{server.base}/bank/models")))


def test_presigned_addresses_and_their_absence(tmp_path: Path) -> None:
    with serving({"/bucket/key": DATA}) as server:
        url = f"{server.base}/bucket/key?X-Amz-Signature=secret"
        assert_right(tmp_path, bring(tmp_path, [LARGE], Addresses({LARGE.label: url})))
        assert server.asked[0].target == "/bucket/key?X-Amz-Signature=secret"
        server.rule = lambda asked: Fault(status=403)
        (tmp_path / LARGE.sha256).unlink()
        (problem,) = bring(tmp_path, [LARGE], Addresses({LARGE.label: url}))[LARGE.path].problems
        assert "403" in problem
        assert "secret" not in problem
    (problem,) = bring(tmp_path, [CONFIG], Addresses({}))["config.json"].problems
    assert problem == "the given addresses: no address was given for tiny/config.json"


def test_token_goes_to_its_own_server_only(tmp_path: Path) -> None:
    with serving({"/x": DATA}) as other, serving({}) as home:
        home.rule = lambda asked: Fault(status=307, headers={"Location": f"{other.base}/x"})
        assert_right(tmp_path, bring(tmp_path, [LARGE], Web(home.base, token=TOKEN)))
        assert all(asked.headers["Authorization"] == f"Bearer {TOKEN}" for asked in home.asked)
        assert other.asked
        assert not [asked for asked in other.asked if "Authorization" in asked.headers]


def test_redirect_within_the_server_keeps_the_token(tmp_path: Path) -> None:
    with serving({"/x": DATA}) as server:
        server.rule = lambda asked: None if asked.path == "/x" else Fault(status=302, headers={"Location": "/x"})
        assert_right(tmp_path, bring(tmp_path, [LARGE], Web(server.base, token=TOKEN)))
        assert all("Authorization" in asked.headers for asked in server.asked)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def served_by(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_private_authority_is_trusted_when_named_and_refused_else(tmp_path: Path, authority: trustme.CA) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with serving({f"/{LARGE.label}": DATA}, served_by(authority)) as server:
        jobs = bring(tmp_path, [LARGE], Web(server.base))
        assert "its certificate is not trusted" in jobs[LARGE.path].problems[0]
        assert "see weights_ca_file" in jobs[LARGE.path].problems[0]
        assert len(server.asked) == 0
        assert_right(tmp_path, bring(tmp_path, [LARGE], Web(server.base, Network(ca_file=str(tmp_path / "ca.pem")))))


def test_redirect_from_https_to_http_is_refused(tmp_path: Path, authority: trustme.CA) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with serving({"/x": DATA}) as plain, serving({}, served_by(authority)) as server:
        server.rule = lambda asked: Fault(status=302, headers={"Location": f"{plain.base}/x"})
        jobs = bring(tmp_path, [LARGE], Web(server.base, Network(ca_file=str(tmp_path / "ca.pem"))))
        assert "redirects from https to http" in jobs[LARGE.path].problems[0]
        assert plain.asked == []


def test_http_goes_through_the_proxy_with_its_password_and_https_by_connect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving({f"/{LARGE.label}": DATA}) as proxy:
        address = proxy.base.replace("http://", "http://user:p%40ss@")
        source = Web("http://files.example", Network(proxy=address))
        assert_right(tmp_path, bring(tmp_path, [LARGE], source, connections=1))
        assert proxy.asked[0].target.startswith("http://files.example/tiny/sub%20dir/")
        expected = "Basic " + base64.b64encode(b"user:p@ss").decode()
        assert proxy.asked[0].headers["Proxy-Authorization"] == expected
        assert "p%40ss" not in repr(Network(proxy=address))

        (tmp_path / LARGE.sha256).unlink()
        proxy.rule = lambda asked: Fault(status=407) if "files.example:443" in asked.target else None
        jobs = bring(tmp_path, [LARGE], Web("https://files.example", Network(proxy=address)))
        assert "Tunnel connection failed: 407" in jobs[LARGE.path].problems[0]

        monkeypatch.setenv("http_proxy", address)
        assert_right(tmp_path, bring(tmp_path, [LARGE], Web("http://files.example")))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with serving({f"/{LARGE.label}": DATA}) as server:
            (tmp_path / LARGE.sha256).unlink()
            before = len(proxy.asked)
            assert_right(tmp_path, bring(tmp_path, [LARGE], Web(server.base)))
            assert len(proxy.asked) == before


def test_https_goes_through_the_proxys_tunnel_and_the_proxy_sees_nothing_of_it(
    tmp_path: Path, authority: trustme.CA
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with serving({}) as proxy, serving({f"/{LARGE.label}": DATA}, served_by(authority)) as server:
        address = proxy.base.replace("http://", "http://user:secret@")
        network = Network(ca_file=str(tmp_path / "ca.pem"), proxy=address)
        assert_right(tmp_path, bring(tmp_path, [LARGE], Web(server.base, network, TOKEN), connections=2))
        assert {asked.target for asked in proxy.asked} == {f"127.0.0.1:{server.port}"}
        assert 1 <= proxy.tunnels <= 2
        assert not [asked for asked in proxy.asked if "Authorization" in asked.headers]
        assert not [asked for asked in server.asked if "Proxy-Authorization" in asked.headers]


@pytest.mark.parametrize(
    ("network", "environment", "expected"),
    [
        (Network(), {}, ""),
        (Network(), {"https_proxy": "http://p:1"}, "http://p:1"),
        (Network(), {"all_proxy": "http://p:2"}, "http://p:2"),
        (Network(), {"https_proxy": "http://p:1", "no_proxy": ".example"}, ""),
        (Network(no_proxy="files.example"), {"https_proxy": "http://p:1"}, ""),
        (Network(proxy="http://q:3"), {"https_proxy": "http://p:1", "no_proxy": "*"}, "http://q:3"),
        (Network(proxy="http://q:3", no_proxy="files.example"), {}, ""),
    ],
)
def test_which_proxy(
    monkeypatch: pytest.MonkeyPatch, network: Network, environment: dict[str, str], expected: str
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert network.proxy_for("https", "files.example") == expected


def test_addresses_are_shown_without_secrets() -> None:
    assert shown("https://user:pw@host:8443/a/b?X-Amz-Signature=1#f") == "https://host:8443/a/b"
    assert origin("https://host/a") == ("https", "host", 443)
    for bad in ("ftp://host/a", "https:///a", "http://host:port/"):
        with pytest.raises(Unusable):
            origin(bad)


def test_wrong_bytes_under_the_right_etag_are_not_accepted(tmp_path: Path, cdn: FaultServer) -> None:
    hub = FakeHub()
    front = hub.front(cdn)
    cdn.files["/large"] = payload(len(DATA), 99)
    front.start()
    try:
        (problem,) = bring(tmp_path, [LARGE], Hub(front.base, token=TOKEN))[LARGE.path].problems
        assert f"{front.base}/some-org/Tiny-1B/resolve/" in problem
        assert f"expected sha256 {LARGE.sha256}, found " in problem
    finally:
        front.stop()
