"""The route to the server: the proxy and the certificates that the environment names.

httpx reads the same variables, but its errors do not name a variable that cannot be used, and some
are not errors at all. Here each is a ValueError of one line. It never shows the variable's value: a
proxy's URL may have a password.
"""

from __future__ import annotations

import importlib.util
import os
import re
import ssl
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx


class Route(NamedTuple):
    """How connections are made. `ssl_context` is None without TLS."""

    proxy: httpx.Proxy | None
    ssl_context: ssl.SSLContext | None


def route_to(base_url: str) -> Route:
    """The route that the environment says. Raises ValueError, which names the variable at fault."""
    parts = urlsplit(base_url)
    context = _ssl_context() if parts.scheme == "https" else None
    return Route(_proxy_to(parts.scheme, parts.hostname or ""), context)


def _proxy_to(scheme: str, host: str) -> httpx.Proxy | None:
    """The proxy that the environment names for this host, or None."""
    proxies = getproxies()
    excepted = [name.strip() for name in proxies.get("no", "").split(",")]
    kind = next((kind for kind in (scheme, "all") if proxies.get(kind)), None)
    if kind is None or "*" in excepted or f"[{host}]" in excepted or proxy_bypass(host):
        return None
    name = _name_of(f"{kind}_proxy")
    address = proxies[kind]
    try:
        proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
    except (ValueError, httpx.InvalidURL):
        proxy = None  # no `raise` here: the error shows the address
    if proxy is None or not _is_address(proxy.url):
        raise ValueError(
            f"{name} is not the address of a proxy: "
            "write it like http://proxy.example.com:3128, or unset it"
        )
    if proxy.url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ValueError(
            f"{name} names a SOCKS proxy, which needs a package more: "
            "pip install 'httpx[socks]', or unset it"
        )
    return proxy


def _is_address(url: httpx.URL) -> bool:
    """Whether a server can have this address. httpx accepts a host with a blank, and any port."""
    return bool(re.fullmatch(r"[^\s%]+", url.host)) and (url.port or 80) <= 65_535


def _ssl_context() -> ssl.SSLContext:
    """The certificates that the environment names, or those that httpx brings."""
    log = os.environ.get("SSLKEYLOGFILE")  # which Python's `ssl` writes to
    if log:
        try:
            open(log, "ab").close()
        except OSError:
            raise ValueError(
                "SSLKEYLOGFILE names a file that cannot be written: correct it, or unset it"
            ) from None
    name = next(filter(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR")), None)
    if name is None:
        return httpx.create_ssl_context()
    is_there = os.path.isfile if name == "SSL_CERT_FILE" else os.path.isdir
    fault = "does not exist" if not is_there(os.environ[name]) else None
    if fault is None:
        try:
            return httpx.create_ssl_context()
        except OSError as error:  # ssl.SSLError is one
            fault = f"cannot be read as certificates ({type(error).__name__})"
    kind = "file" if name == "SSL_CERT_FILE" else "directory"
    raise ValueError(f"{name} names a {kind} that {fault}: correct it, or unset it")


def _name_of(variable: str) -> str:
    """The variable as it is set in the environment. The lower-case name comes first."""
    for name in (variable, variable.upper()):
        if os.environ.get(name):
            return name
    return f"the system's setting of {variable}"
