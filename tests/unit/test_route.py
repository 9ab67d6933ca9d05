"""The proxy and the certificates that the environment names: used, or refused in one line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from vector_embed_client import AsyncClient, Client
from vector_embed_client.route import route_to

API = "https://api.example.com"
SECRET = "hunter2"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


REFUSED = [
    ("HTTPS_PROXY", "ftp://proxy.example.com"),
    ("HTTPS_PROXY", f"http://user:{SECRET}@[::bad"),
    ("https_proxy", f"http://user:{SECRET}@proxy:99999999"),
    ("ALL_PROXY", "http://"),
    ("ALL_PROXY", "http://a b:1"),
    ("all_proxy", f"nonsense://user:{SECRET}@proxy"),
    ("SSL_CERT_FILE", "/nowhere/ca.pem"),
    ("SSL_CERT_FILE", "/"),
    ("SSL_CERT_FILE", __file__),
    ("SSL_CERT_DIR", "/nowhere"),
    ("SSL_CERT_DIR", __file__),
    ("SSLKEYLOGFILE", "/nowhere/keys"),
]
if importlib.util.find_spec("socksio") is None:
    REFUSED += [("ALL_PROXY", "socks5://proxy:1080"), ("HTTPS_PROXY", "socks5h://proxy:1080")]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("name, value", REFUSED)
def test_a_variable_that_cannot_be_used_is_named_in_one_line_without_its_value(
    kind: type[Client], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^{name} ") as caught:
        kind("vec_key", API)
    said = str(caught.value)
    assert "\n" not in said
    assert SECRET not in said
    assert caught.value.__context__ is None or SECRET not in str(caught.value.__context__)


@pytest.mark.parametrize(
    "variables, url, proxy",
    [
        ({}, API, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, API, "http://proxy:3128"),
        ({"HTTPS_PROXY": "proxy:3128"}, API, "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, API, None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://api.example.com", "http://proxy:3128"),
        ({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:1"}, API, "http://b:1"),
        ({"ALL_PROXY": "http://a:1"}, API, "http://a:1"),
        *[
            ({"ALL_PROXY": "http://a:1", "NO_PROXY": names}, API, proxy)
            for names, proxy in [
                ("*", None),
                ("localhost, *", None),
                ("example.com", None),
                (".example.com", None),
                ("api.example.com", None),
                ("other.com", "http://a:1"),
                ("ample.com", "http://a:1"),
                ("[::1", "http://a:1"),
                ("http://[::bad, ,,://", "http://a:1"),
                ("10.0.0.0/8,:99999999", "http://a:1"),
            ]
        ],
        ({"ALL_PROXY": "http://a:1", "NO_PROXY": "::1"}, "http://[::1]:80", None),
        ({"ALL_PROXY": "http://a:1", "NO_PROXY": "[::1]"}, "http://[::1]:80", None),
        ({"ALL_PROXY": "http://a:1", "NO_PROXY": "127.0.0.1"}, "http://127.0.0.1:80", None),
        ({"SSL_CERT_FILE": "/nowhere"}, "http://api.example.com", None),
        ({"SSL_CERT_FILE": ""}, API, None),
    ],
)
def test_the_environment_decides_on_the_proxy(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = route_to(url).proxy
    assert (found and str(found.url)) == proxy


def test_a_password_of_a_proxy_is_used_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{SECRET}@proxy:3128")
    route = route_to(API)
    assert route.proxy is not None
    assert route.proxy.auth == ("user", SECRET)
    assert SECRET not in repr(route)


def test_a_directory_of_certificates_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert route_to(API).ssl_context is not None
