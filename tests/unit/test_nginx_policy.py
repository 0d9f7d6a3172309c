"""The policy on the gateway's configuration: what the role renders passes, each seeded breach is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from policy import breaches
from policy.routes import gateway_routes
from tests.support.gateway_render import KEY, MODELS, VARIABLES, Rendered, render

KEYS = "../redoubt/gateway/keys.conf"
PAGES = ["/", "/page.css", "/page.js", "/ca.crt"]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return render(tmp_path_factory.mktemp("render"))


def check(text: str) -> list[str]:
    return breaches(text, gateway_routes(MODELS, PAGES), MODELS, VARIABLES["gateway_allowed_cidrs"], [KEYS])


def test_what_the_role_renders_passes(rendered: Rendered) -> None:
    assert rendered.problems == []
    assert rendered.breaches == []
    assert check(rendered.text) == []
    assert KEY not in rendered.text
    assert KEY not in rendered.keys
    assert hashlib.sha256(KEY.encode()).hexdigest() in rendered.keys


PROXY = "proxy_pass http://redoubt_0/v1/chat/completions;"
UNAUTHORISED = "if ($gateway_verdict != pass) {\n                return 500;\n            }"
VERDICT = "js_set $gateway_verdict keys.verdict;"
KNOWN = "if ($gateway_known != pass) {\n                return 401;\n            }"
PATH = "if ($request_uri != $uri$is_args$args) {\n                return 404;\n            }"
METHOD = "if ($gateway_method_known = 0) {\n                return 405;\n            }"
ADDRESS = "if ($gateway_admitted = 0) {\n            return 403;\n        }"
NEW_SERVER = "    # For this host's own eyes.\n"
BREACHES = {
    "no key asked for": (UNAUTHORISED, "", "without an API key"),
    "key asked for, then let through": (UNAUTHORISED, UNAUTHORISED.replace("500", "200"), "without an API key"),
    "verdict of another program": (
        VERDICT,
        "js_set $gateway_verdict usage.count;",
        "only $gateway_verdict keys",
    ),
    "verdict set by hand": (UNAUTHORISED, "set $gateway_verdict pass;\n" + UNAUTHORISED, "must not be set"),
    "another program": ("js_import keys.js;", "js_import other.js;", "other.js is none of "),
    "answered before the key": (UNAUTHORISED, "return 200 x;\n" + UNAUTHORISED, "without an API key"),
    "body read for anybody": (KNOWN, "", "if ($gateway_known != pass)"),
    "inner path open to all": ("            internal;\n", "", "chosen requests only"),
    "path written in other ways": (PATH, "", "may be written in other ways"),
    "choice of another program": ("js_content models.choose;", "js_content usage.count;", "not what the plan says"),
    "engine where a choice belongs": ("js_content models.choose;", PROXY, "no exact route"),
    "page by another program": ("js_content page.show;", "js_content models.list;", "not what the plan says"),
    "page where a choice belongs": ("js_content models.choose;", "js_content page.show;", "not what the plan says"),
    "engine where the page belongs": ("js_content page.show;", PROXY, "no exact route"),
    "methods open": (METHOD, "", "does not check the method"),
    "no allowlist in the servers": (ADDRESS, "", "without the address allowlist"),
    "answered before the allowlist": (ADDRESS, "return 200 x;\n" + ADDRESS, "without the address allowlist"),
    "allowlist open": (
        "        default 0;\n    }\n    # The host itself",
        "        default 1;\n    }\n    #",
        "default 0",
    ),
    "allowlist wider": ("        10.0.0.0/8 1;", "        10.0.0.0/8 1;\n        0.0.0.0/0 1;", "0.0.0.0/0"),
    "everybody admitted": ("        00 0;", "        00 1;", "$gateway_admitted must be 0"),
    "health open": ("/healthz $gateway_local;", "/healthz 1;", "$gateway_local_health"),
    "more open to local addresses": ("/healthz $gateway_local;", "/v1/models $gateway_local;", "$gateway_local_health"),
    "admission set by hand": (ADDRESS, "set $gateway_admitted 1;\n" + ADDRESS, "must not be set"),
    "client set by hand": (UNAUTHORISED, "set $gateway_client x;\n" + UNAUTHORISED, "must not be set"),
    "header decides the address": (
        "    geo $gateway_local {",
        "    real_ip_header X-Forwarded-For;\n    geo $gateway_local {",
        "real_ip_header",
    ),
    "server without TLS": (
        NEW_SERVER,
        "server { listen 0.0.0.0:8080; server_name x; location / { return 404; } }\n",
        "a server without TLS",
    ),
    "engine on a plain port": (
        NEW_SERVER,
        "server { listen 127.0.0.1:81; location = /v1/models { proxy_pass http://redoubt_0/v1/models; } }\n",
        "a server without TLS",
    ),
    "unknown names answered": ("listen 0.0.0.0:443 ssl default_server so_keepalive=60s::;", "", "no default server"),
    "prefix in place of a route": ("location = /large/v1/chat/completions {", "location /large/ {", "no exact route"),
    "pattern in place of a route": (
        "location = /large/v1/chat/completions {",
        "location ~ ^/v1/ {",
        "regular expression",
    ),
    "route outside the plan": ("location = /large/v1/chat/completions {", "location = /metrics {", "no exact route"),
    "engine outside the plan": (PROXY, "proxy_pass http://10.9.9.9:80/v1/chat/completions;", "outside the plan"),
    "engine from a variable": (PROXY, "proxy_pass http://$host/v1/chat/completions;", "outside the plan"),
    "other path at the engine": (PROXY, "proxy_pass http://redoubt_0/invocations;", "not what the plan says"),
    "other model's engine": (PROXY, "proxy_pass http://redoubt_1/v1/chat/completions;", "not what the plan says"),
    "server outside the plan": ("server 127.0.0.1:8101 ", "server 10.9.9.9:8101 ", "not in the plan"),
    "buffering": ("proxy_buffering off;", "", "proxy_buffering must be off"),
    "buffering in one route": (PROXY, "proxy_buffering on; " + PROXY, "proxy_buffering must be off"),
    "compression": ("gzip off;", "gzip on;", "gzip must be off"),
    "HTTP/1.0 to the engine": ("proxy_http_version 1.1;", "", "proxy_http_version must be 1.1"),
    "short reads": ("proxy_read_timeout 3600s;", "proxy_read_timeout 1m;", "proxy_read_timeout must be 600s"),
    "short sends": ("send_timeout 3600s;\n    keepalive", "\n    keepalive", "send_timeout must be 600s"),
    "streams that end bare": ("js_body_filter usage.count buffer_type=buffer;", "", "end bare when an engine dies"),
    "streams passed by another program": ("js_body_filter usage.count", "js_body_filter usage.path", "end bare"),
    "client's leave ignored": ("proxy_cache off;", "proxy_cache off; proxy_ignore_client_abort on;", "is not known"),
    "cache": ("proxy_cache off;", "proxy_cache x;", "no proxy_cache"),
    "repeated requests": ("next_upstream error timeout;", "next_upstream error non_idempotent;", "repeat requests"),
    "key handed on": ("proxy_pass_request_headers off;", "", "hands the client's key on"),
    "key in the log": ('"path":"$gateway_path"', '"path":"$http_authorization"', "$http_authorization"),
    "query in the log": ('"path":"$gateway_path"', '"path":"$request_uri"', "$request_uri"),
    "arguments in the log": ('"path":"$gateway_path"', '"path":"${args}"', "$args"),
    "body in the log": ('"path":"$gateway_path"', '"path":"$request_body"', "$request_body"),
    "request line in the log": ('"path":"$gateway_path"', '"path":"$request"', "$request"),
    "Nginx's own log format": ("gateway-audit.jsonl gateway;", "gateway-audit.jsonl;", "without a format of ours"),
    "log left to Nginx": ("    access_log /var/log/nginx/gateway-audit.jsonl gateway;\n", "", "no access_log"),
    "no body limit": ("client_max_body_size 32m;", "", "no limit: client_max_body_size"),
    "body limit lifted": (PROXY, "client_max_body_size 0; " + PROXY, "client_max_body_size 0"),
    "slow headers": ("client_header_timeout 15s;", "", "no limit: client_header_timeout"),
    "slow bodies": ("client_body_timeout 30s;", "", "no limit: client_body_timeout"),
    "no request rate": ("limit_req zone=gateway_requests burst=200 nodelay;", "", "has no limit_req"),
    "no concurrency limit": ("limit_conn gateway_concurrent 256;", "", "has no limit_conn"),
    "regex map": ("        default 0;\n        /healthz", "        ~^/health 1;\n        /healthz", "in a map"),
    "regex condition": ("if ($request_uri != $uri$is_args$args)", "if ($request_uri !~ x)", "regular expression"),
    "regex name": ("server_name redoubt.lab;", "server_name ~.*;", "a pattern as server name"),
    "work inside an if": (METHOD, 'if ($uri = x) { set $gateway_model ""; }', "only a return may stand in an if"),
    "everything else open": (
        "location / {\n            return 404;\n        }\n    }\n\n    #",
        "location / {\n            return 200;\n        }\n    }\n\n    #",
        "must return 404",
    ),
    "files served": (
        "location = /healthz {\n            return 200",
        "location /f {\n            #",
        "would serve files",
    ),
    "files by root": ("gzip off;", "gzip off; root /srv;", "directive 'root' is not known"),
    "other gateways": (PROXY, "fastcgi_pass 127.0.0.1:9;", "fastcgi_pass"),
    "scripts": ("gzip off;", "gzip off; js_import x from x.js;", "js_import"),
    "foreign files": ("gzip off;", "gzip off; include /etc/nginx/conf.d/*.conf;", "could bring in anything"),
    "version shown": ("server_tokens off;", "", "server_tokens must be off"),
    "old TLS": ("ssl_protocols TLSv1.2 TLSv1.3;", "ssl_protocols TLSv1.1 TLSv1.2;", "ssl_protocols must be"),
    "TLS versions left to Nginx": ("ssl_protocols TLSv1.2 TLSv1.3;", "", "ssl_protocols must be"),
    "security headers dropped": (PROXY, "add_header X-A b; " + PROXY, "drops the server's security headers"),
    "not closed": ("    # For this host's own eyes.", "    {", "nginx.conf"),
}


@pytest.mark.parametrize("name", BREACHES)
def test_breach_is_refused(rendered: Rendered, name: str) -> None:
    old, new, wanted = BREACHES[name]
    assert old in rendered.text, f"the seed of {name!r} no longer fits the template"
    found = check(rendered.text.replace(old, new))
    assert any(wanted in line for line in found), found


def test_breaches_name_the_line(rendered: Rendered) -> None:
    text = rendered.text.replace("server_tokens off;", "server_tokens off; root /srv;")
    line = 1 + text[: text.index("root /srv")].count("\n")
    assert check(text) == [f"nginx.conf line {line}: directive 'root' is not known to the policy"]


@pytest.mark.parametrize(
    ("nginx", "openssl", "there", "not_there"),
    [
        ("1.26.3", "3.5.1", ["http2 on;", "ssl_reject_handshake on;", "X25519MLKEM768:X25519"], [" ssl http2;"]),
        ("1.22.1", "3.0.17", [" ssl http2;", "ssl_reject_handshake on;"], ["http2 on;", "X25519MLKEM768"]),
        ("1.18.0", "3.0.2", [" ssl http2;"], ["http2 on;", "ssl_reject_handshake", "X25519MLKEM768"]),
    ],
)
def test_old_versions_get_what_they_understand(
    tmp_path: Path, nginx: str, openssl: str, there: list[str], not_there: list[str]
) -> None:
    result = render(tmp_path, nginx=nginx, openssl=openssl)
    assert result.breaches == []
    assert [text for text in there if text not in result.text] == []
    assert [text for text in not_there if text in result.text] == []


def test_given_files_modern_profile_and_other_ports(tmp_path: Path) -> None:
    result = render(
        tmp_path,
        gateway_tls_mode="files",
        gateway_tls_profile="modern",
        gateway_https_port=8443,
        gateway_listen_addresses=["10.0.0.1", "fd00::1"],
    )
    assert result.breaches == []
    assert "ssl_protocols TLSv1.3;" in result.text
    assert "ssl_ciphers" not in result.text
    assert "ssl_certificate ../redoubt/gateway/server.crt;" in result.text
    assert "listen [fd00::1]:8443 ssl;" in result.text
    assert "return 308 https://$host:8443$request_uri;" in result.text


def test_drained_servers_are_down(tmp_path: Path) -> None:
    large = {**MODELS[1], "servers": ["10.0.0.5:8101"], "drained": ["10.0.0.6:8101"]}
    gone = [{**MODELS[0], "servers": [], "drained": ["127.0.0.1:8101"]}, large]
    made = render(tmp_path, gateway_models=gone)
    assert (made.breaches, made.problems) == ([], [])
    assert "server 127.0.0.1:8101 down;" in made.text
    assert "server 10.0.0.6:8101 down;" in made.text
    up = made.text.replace("server 10.0.0.6:8101 down;", "server 10.0.0.6:8101;")
    found = breaches(up, gateway_routes(gone, PAGES), gone, VARIABLES["gateway_allowed_cidrs"], [KEYS])
    assert len(found) == 1
    assert "server 10.0.0.6:8101 of redoubt_1 is drained, so it must be down" in found[0]
