"""An address: where a Redis is, as a URL for each library that connects to it.

redis-py and kombu read options from a URL by themselves. redis-py prefers them to our arguments,
and both find an unknown option only when they connect. So the URL is read here, and each library
gets its own. Options that would break our promises (how replies are decoded, timeouts, repeated
commands, the size of the pool) are ignored: we set them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

Option = Union[str, bool]

REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+socket", "redis+cluster", "rediss+cluster")
_TLS_SCHEMES = ("rediss", "rediss+cluster")
_SOCKET_SCHEMES = ("unix", "redis+socket")
# The options of a URL's query, beside the spellings of `db`.
_OPTIONS = ("username", "password", "client_name")
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_OPTIONS = ("ssl_cert_reqs", "ssl_check_hostname", "ssl_ca_path", "ssl_password", *_TLS_FILES)
# Options of redis-py that only we set.
OURS = {
    *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_read_size"),
    *("timeout", "retry_on_timeout", "retry_on_error", "health_check_interval"),
    *("max_connections", "single_connection_client"),
    *("protocol", "legacy_responses", "decode_responses", "encoding", "encoding_errors"),
}
_CERT_REQS = {"none": "none", "optional": "optional", "required": "required"}
_CERT_REQS.update({f"cert_{name}": name for name in list(_CERT_REQS)})
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class AddressError(ValueError):
    """The URL cannot be used. The message contains neither the URL nor its password."""


@dataclass(frozen=True)
class Address:
    """What the URL of a Redis says."""

    scheme: str
    host: str = "localhost"
    port: int | None = None
    path: str = ""  # of a Unix socket
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    client_name: str | None = None
    tls: Mapping[str, Option] = field(default_factory=dict, repr=False)
    ignored: tuple[str, ...] = ()  # options that only we set

    @property
    def is_cluster(self) -> bool:
        """Whether it names a Redis Cluster, by one of its nodes."""
        return self.scheme.endswith("+cluster")

    @property
    def is_socket(self) -> bool:
        """Whether it is a Unix domain socket."""
        return self.scheme in _SOCKET_SCHEMES

    @property
    def is_tls(self) -> bool:
        """Whether connections use TLS."""
        return self.scheme in _TLS_SCHEMES

    def for_redis(self) -> tuple[str, dict[str, Option]]:
        """A URL and options for redis-py."""
        options = dict(self.tls)
        if self.client_name is not None:
            options["client_name"] = self.client_name
        if self.is_socket:
            return f"unix://{self._login}{quote(self.path)}?db={self.db}", options
        return f"{self.scheme.partition('+')[0]}://{self._server}", options

    def for_kombu(self) -> str:
        """A URL for kombu."""
        if self.is_socket:
            return f"redis+socket://{self._login}{quote(self.path)}?virtual_host={self.db}"
        if not self.is_tls:
            return f"redis://{self._server}"
        # Without this option kombu does not check certificates.
        tls = {"ssl_cert_reqs": "required", **self.tls}
        tls["ssl_cert_reqs"] = f"CERT_{str(tls['ssl_cert_reqs']).upper()}"
        query = urlencode({name: str(value) for name, value in tls.items()})
        return f"rediss://{self._server}?{query}"

    @property
    def _login(self) -> str:
        if self.username is None and self.password is None:
            return ""
        password = "" if self.password is None else f":{quote(self.password, safe='')}"
        return f"{quote(self.username or '', safe='')}{password}@"

    @property
    def _server(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else quote(self.host)
        port = "" if self.port is None else f":{self.port}"
        database = "" if self.is_cluster else f"/{self.db}"
        return f"{self._login}{host}{port}{database}"


def is_redis(url: str) -> bool:
    """Whether the URL names a Redis."""
    return url.partition("://")[0].lower() in REDIS_SCHEMES


def is_cluster(url: str) -> bool:
    """Whether the URL names a Redis Cluster, by any of its nodes."""
    return is_redis(url) and url.partition("://")[0].lower().endswith("+cluster")


def read_address(url: str) -> Address:
    """Read `url`. Raises AddressError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise AddressError(
            "it cannot be read: it is like redis://:PASSWORD@HOST:PORT/0, special characters of "
            "the password written as %XX"
        )
    scheme = parts.scheme
    if "sentinel" in scheme:
        raise AddressError(
            "Redis Sentinel is not supported: name the primary itself, or a proxy or host name "
            "that follows it, with redis:// or rediss://"
        )
    if scheme not in REDIS_SCHEMES:
        raise AddressError("it must begin with redis://, rediss:// or unix://")
    if parts.fragment:
        raise AddressError("it has a # in it: write that as %23")
    said = dict(parse_qsl(parts.query, keep_blank_values=True))
    is_socket = scheme in _SOCKET_SCHEMES
    if is_socket and not parts.path.strip("/"):
        raise AddressError("it names no socket: it is like unix:///run/redis.sock?db=0")
    db = said.pop("db", None) or said.pop("virtual_host", None)
    if db is None and not is_socket:
        db = unquote(parts.path).strip("/")
    known = {name: said.pop(name) for name in _OPTIONS if name in said}
    tls = {name: _tls_option(name, said.pop(name)) for name in _TLS_OPTIONS if name in said}
    ignored = tuple(sorted(OURS & set(said)))
    unknown = sorted(set(said) - OURS)
    if unknown:
        raise AddressError(
            f"it has an option {unknown[0]!r} that is not known here: leave it out; known are db, "
            f"{', '.join(_OPTIONS)} and, with rediss://, {', '.join(_TLS_OPTIONS)}"
        )
    if tls and scheme not in _TLS_SCHEMES:
        raise AddressError(f"{sorted(tls)[0]} is about TLS: begin the URL with rediss://")
    return Address(
        scheme,
        host=unquote(parts.hostname or "") or "localhost",
        port=port,
        path=unquote(parts.path) if is_socket else "",
        db=_database(db),
        username=unquote(parts.username) if parts.username else known.get("username"),
        password=unquote(parts.password) if parts.password else known.get("password"),
        client_name=known.get("client_name"),
        tls=tls,
        ignored=ignored,
    )


def broker_url(url: str) -> str:
    """The URL of a broker as kombu takes it."""
    return read_address(url).for_kombu() if is_redis(url) else url


def _database(said: str | None) -> int:
    if not said:
        return 0
    if not (said.isascii() and said.isdigit()):
        raise AddressError(f"its database must be a number from 0, not {said!r}")
    return int(said)


def _tls_option(name: str, value: str) -> Option:
    if name == "ssl_cert_reqs":
        if value.lower() not in _CERT_REQS:
            raise AddressError(f"{name} is none, optional or required, not {value!r}")
        return _CERT_REQS[value.lower()]
    if name == "ssl_check_hostname":
        if value.lower() not in _BOOLEANS:
            raise AddressError(f"{name} is true or false, not {value!r}")
        return _BOOLEANS[value.lower()]
    if name in _TLS_FILES and not os.access(value, os.R_OK):
        raise AddressError(f"{name} names {value!r}, which cannot be read")
    return value
