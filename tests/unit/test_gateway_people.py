"""Pages for people: bad ones are refused by name, and no seeded breach of the policy passes."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from filter_plugins.gateway_people import people_traces
from policy import breaches
from policy.people import people_problems, people_rows
from policy.routes import gateway_routes
from tests.support.gateway_render import MODELS, VARIABLES, Rendered, render

KEYS = "../redoubt/gateway/keys.conf"
ROUTES = ["/", "/page.css", "/page.js", "/ca.crt"]


def hashed(word: str) -> str:
    """As the documentation says to make one."""
    made = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=word, capture_output=True, text=True, check=True)
    return made.stdout.strip()


ANNA = {"name": "anna", "hash": hashed("a word")}
BEN = {"name": "ben", "hash": "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"}
USERS = [ANNA, BEN]
GRAFANA: dict[str, Any] = {
    "path": "/grafana/",
    "upstream": "127.0.0.1:3000",
    "users": ["anna"],
    "addresses": ["10.1.0.0/16"],
    "methods": ["GET", "POST", "DELETE"],
}
PROMETHEUS = {"path": "/ops/prometheus/", "upstream": "[::1]:9090"}
WIKI = {"path": "/wiki/", "upstream": "10.0.0.9:80", "login": "oidc", "groups": ["ops", "team-1"]}
PAGES = [GRAFANA, PROMETHEUS, WIKI]
PROXY = "127.0.0.1:4180"


def test_good_pages_have_no_problem() -> None:
    assert people_problems(PAGES, USERS, gateway_routes(MODELS, ROUTES), PROXY) == []
    assert people_problems([], [], gateway_routes(MODELS, ROUTES)) == []


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ({**GRAFANA, "path": "/grafana"}, "must be a folder"),
        ({**GRAFANA, "path": "/"}, "must be a folder"),
        ({**GRAFANA, "path": "/../x/"}, "must be a folder"),
        ({**GRAFANA, "path": "/-/"}, "must be a folder"),
        ({**GRAFANA, "path": "/a b/"}, "must be a folder"),
        ({**GRAFANA, "path": "/v1/"}, "would stand over the route /v1/chat/completions"),
        ({**GRAFANA, "path": "/small/"}, "would stand over the route /small/v1/chat/completions"),
        ({**GRAFANA, "upstream": "127.0.0.1"}, "write ADDRESS:PORT"),
        ({**GRAFANA, "upstream": "localhost:3000"}, "write an IP address"),
        ({**GRAFANA, "upstream": "127.0.0.1:3000/x"}, "write ADDRESS:PORT"),
        ({**GRAFANA, "upstream": "unix:/run/docker.sock"}, "write ADDRESS:PORT"),
        ({**GRAFANA, "users": []}, "nobody could come in"),
        ({**GRAFANA, "users": ["eve"]}, "'eve' is not in gateway_people_users"),
        ({**GRAFANA, "addresses": []}, "leave it out for all"),
        ({**GRAFANA, "addresses": ["10.0.0.1/8"]}, "host bits"),
        ({**GRAFANA, "methods": ["TRACE"]}, "methods ['TRACE']"),
        ({**GRAFANA, "user": ["anna"]}, "user is not known"),
        ({**GRAFANA, "login": "none"}, "login 'none' must be password or oidc"),
        ({**GRAFANA, "groups": ["ops"]}, "groups are for pages with login: oidc"),
        ({**WIKI, "users": ["anna"]}, "users are for pages with a password"),
        ({**WIKI, "groups": []}, "groups: []"),
        ({**WIKI, "groups": ["a&b=c"]}, "groups: ['a&b=c']"),
        ({**WIKI, "groups": ["a,b"]}, "groups: ['a,b']"),
        ("x", "must have path and upstream"),
    ],
)
def test_bad_page_is_refused_by_name(page: Any, wanted: str) -> None:
    problems = people_problems([page], USERS, gateway_routes(MODELS, ROUTES), PROXY)
    assert any(wanted in line for line in problems), problems
    assert all(line.startswith("gateway_people_pages[0]: ") for line in problems)


@pytest.mark.parametrize(
    ("user", "wanted"),
    [
        ({"name": "a:b", "hash": ANNA["hash"]}, "the name 'a:b'"),
        ({"name": "", "hash": ANNA["hash"]}, "the name ''"),
        ({"name": "eve", "hash": "secret-word"}, "SHA-512"),
        ({"name": "eve", "hash": "$apr1$abcdefgh$secret-word0000000000"}, "SHA-512"),
        ({"name": "eve", "hash": "{PLAIN}secret-word"}, "SHA-512"),
        ({"name": "eve", "hash": ANNA["hash"] + "\nroot:x"}, "SHA-512"),
        ({"name": "eve", "password": "secret-word"}, "must have name and hash"),
        (ANNA, "'anna' is given twice"),
    ],
)
def test_bad_user_is_refused_and_no_hash_is_told(user: dict[str, str], wanted: str) -> None:
    problems = people_problems(PAGES, [*USERS, user], gateway_routes(MODELS, ROUTES), PROXY)
    assert any(wanted in line for line in problems), problems
    assert "secret-word" not in "\n".join(problems)
    assert ANNA["hash"] not in "\n".join(problems)


def test_pages_do_not_overlap() -> None:
    within = {**PROMETHEUS, "path": "/grafana/x/"}
    assert "lies within another page" in people_problems([GRAFANA, within], USERS, [])[0]
    assert "given twice" in people_problems([GRAFANA, dict(GRAFANA, path="".join(["/graf", "ana/"]))], USERS, [])[0]


def test_oidc_needs_a_proxy_and_its_place() -> None:
    assert "nobody to ask" in people_problems([WIKI], [], [])[0]
    assert "write an IP address" in people_problems([WIKI], [], [], "proxy:4180")[0]
    assert "where people sign in" in people_problems([{**WIKI, "path": "/oauth2/x/"}], [], [], PROXY)[0]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return render(
        tmp_path_factory.mktemp("render"),
        gateway_people_pages=PAGES,
        gateway_people_users=USERS,
        gateway_people_oidc=PROXY,
    )


def check(text: str) -> list[str]:
    rows = people_rows(PAGES, USERS, PROXY)
    routes = gateway_routes(MODELS, ROUTES)
    return breaches(text, routes, MODELS, VARIABLES["gateway_allowed_cidrs"], [KEYS], people=rows)


def test_what_the_role_renders_passes(rendered: Rendered) -> None:
    assert (rendered.problems, rendered.breaches) == ([], [])
    assert check(rendered.text) == []
    assert [(file["path"], file["mode"], file["group"]) for file in rendered.people] == [
        (f"/etc/nginx/redoubt_people_{index}.htpasswd", "0640", "www-data") for index in (0, 1)
    ]
    assert [file["content"].count(":$") for file in rendered.people] == [1, 2]
    assert ANNA["hash"] not in rendered.text
    assert len(people_traces(people_rows(PAGES, USERS, PROXY))) == 14
    assert "proxy_pass http://redoubt_people_oidc/oauth2/auth?allowed_groups=ops,team-1;" in rendered.text
    assert "return 302 /oauth2/start?rd=/wiki/;" in rendered.text


BREACHES = {
    "no password": ("            auth_basic people;\n", "", "than the plan says ('auth_basic people')"),
    "password turned off": (
        "auth_basic people;",
        "auth_basic off;",
        "than the plan says ('auth_basic people')",
    ),
    "other passwords": (
        "redoubt_people_1.htpasswd;",
        "redoubt_people_0.htpasswd;",
        "('auth_basic_user_file redoubt_people_1",
    ),
    "passwords of a client's choice": (
        "redoubt_people_1.htpasswd;",
        "$http_x_file;",
        "('auth_basic_user_file redoubt_people_1",
    ),
    "any of both": ("auth_basic people;", "auth_basic people; satisfy any;", "directive 'satisfy' is not known"),
    "address not asked": (
        "if ($gateway_people_from_0 = 0)",
        "if ($gateway_admitted = 0)",
        "does not check the address",
    ),
    "addresses wider": ("        10.1.0.0/16 1;", "        10.0.0.0/8 1;", "must be 1 for the addresses of /grafana/"),
    "method not asked": (
        "if ($gateway_people_method_1 = 0)",
        "if ($gateway_admitted = 0)",
        "does not check the method",
    ),
    "more methods": ("        DELETE 1;", "        DELETE 1;\n        PUT 1;", "for the methods of /grafana/ alone"),
    "tries without end": ("            limit_req zone=gateway_people burst=200 nodelay;\n", "", "tried without end"),
    "password handed on": ('proxy_set_header Authorization "";', "", "the header Authorization must be empty"),
    "key handed on": ('proxy_set_header X-API-Key "";', "", "the header X-API-Key must be empty"),
    "name of one's choice": (
        "proxy_set_header X-WEBAUTH-USER $remote_user;",
        "proxy_set_header X-WEBAUTH-USER $http_x_webauth_user;",
        "the header X-WEBAUTH-USER must be $remote_user",
    ),
    "other upstream": (
        "proxy_pass http://redoubt_people_1/;",
        "proxy_pass http://redoubt_0/;",
        "is not what the plan says",
    ),
    "upstream of one's choice": (
        "proxy_pass http://redoubt_people_1/;",
        "proxy_pass http://$host/;",
        "is not what the plan",
    ),
    "other server": ("server [::1]:9090;", "server 10.9.9.9:9090;", "not in the plan"),
    "exact path only": ("location ^~ /grafana/ {", "location = /grafana/ {", "stands at '^~ /grafana/'"),
    "other folder": ("location ^~ /grafana/ {", "location ^~ /graphs/ {", "is no exact route"),
    "answered before": (
        "if ($gateway_people_method_1 = 0)",
        "return 200 x; if ($gateway_people_method_1 = 0)",
        "does not check the method",
    ),
    "engine without a key": (
        "proxy_pass http://redoubt_people_1/;",
        "proxy_pass http://redoubt_people_1/; } location = /x { auth_basic people; proxy_pass http://redoubt_0/v1/models;",
        "without an API key",
    ),
    "password in place of a key": (
        'set $gateway_model "small";',
        'auth_basic people; set $gateway_model "small";',
        "auth_basic has no place here",
    ),
    "page's policy on a route": (
        'set $gateway_model "small";',
        'set $gateway_people x; set $gateway_model "small";',
        "must be set in pages for people only",
    ),
    "password in the log": ('"path":"$gateway_path"', '"path":"$http_authorization"', "$http_authorization"),
    "nobody asked": ("            auth_request /-/people/2;\n", "", "('auth_request /-/people/2')"),
    "asked and let through": ("auth_request /-/people/2;", "auth_request off;", "('auth_request /-/people/2')"),
    "asked of something else": ("auth_request /-/people/2;", "auth_request /healthz;", "('auth_request /-/people/2')"),
    "asked of nobody's": ("$upstream_http_x_auth_request_user;", "$http_x_user;", "('auth_request_set"),
    "name of one's choice at a page of OIDC": (
        "proxy_set_header X-WEBAUTH-USER $gateway_people_user;",
        "proxy_set_header X-WEBAUTH-USER $remote_user;",
        "the header X-WEBAUTH-USER must be $gateway_people_user",
    ),
    "question open to all": (
        "            internal;\n            # A question",
        "            # A",
        "own questions only",
    ),
    "question without the groups": ("auth?allowed_groups=ops,team-1;", "auth;", "is not the question of /wiki/"),
    "question to somebody else": (
        "http://redoubt_people_oidc/oauth2/auth",
        "http://redoubt_people_0/x",
        "is not the question",
    ),
    "bodies handed on": ("proxy_pass_request_body off;", "", "hands bodies on"),
    "question on a route": ("set $gateway_route", "auth_request /-/people/2; set $gateway_route", "has no place here"),
    "more than the proxy's pages": ("location ^~ /oauth2/ {", "location ^~ /oauth {", "is no exact route"),
    "proxy elsewhere": ("server 127.0.0.1:4180;", "server 10.9.9.9:4180;", "not in the plan"),
    "headers added": (
        "auth_basic people;",
        "auth_basic people; add_header X-A b;",
        "drops the server's security headers",
    ),
}


@pytest.mark.parametrize("name", BREACHES)
def test_breach_is_refused(rendered: Rendered, name: str) -> None:
    old, new, wanted = BREACHES[name]
    assert old in rendered.text, f"the seed of {name!r} no longer fits the template"
    found = check(rendered.text.replace(old, new))
    assert any(wanted in line for line in found), found


def test_default_configuration_has_nothing_of_them(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = render(tmp_path_factory.mktemp("render"))
    assert (made.people, "gateway_people" in made.text, "auth_basic" in made.text) == ([], False, False)
