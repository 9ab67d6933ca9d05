"""A connection to an address: a file system of fsspec, made again after a fault.

A driver may hang, raise anything, and put a password into what it says. So a question is asked in a
thread, for a bounded time and several times; an answer that it fails is one line without secrets.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from copy import copy
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import unquote

from ...logs import logger
from ..errors import BrokenOff, CorpusError, NotInstalled, one_line
from ..path import shown, without_secrets

PATIENCE = 120.0  # seconds for an answer
TRIES = 4  # until one was given
_LONGEST_WAIT = 8.0  # seconds between two
_MISSING = 'reading {}:// needs the extra remote: pip install "vector-embed-cache-client[remote]"'
_EXTRA = {"s3", "s3a", "http", "https", "sftp", "ssh"}

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # what it says, we say

_Value = TypeVar("_Value")


class Connection:
    """What reads an address: a file system of fsspec, made again after a fault.

    `wait` sleeps for some seconds between two attempts.
    """

    def __init__(self, address: str, wait: Callable[[float], object] = time.sleep) -> None:
        self.shown = shown(address)
        self.wait = wait
        self._address = address
        self._made: list[tuple[Any, str]] = []  # one at most; shared by `called`
        userinfo, _, query = re.sub(r"^[^:]*://", "", address).partition("?")
        secrets = [userinfo.rpartition("@")[0].partition(":")[2]]
        values = (field.partition("=")[2] for field in query.split("&"))
        secrets += [value for value in values if len(value) > 3]  # a shorter one is in any line
        self._secrets = [one for secret in secrets for one in (secret, unquote(secret)) if one]

    def called(self, shown: str) -> Connection:
        """The same connection, under the name of a file that is read on it."""
        other = copy(self)
        other.shown = shown
        return other

    def __repr__(self) -> str:
        return f"Connection({self.shown!r})"

    def system(self) -> tuple[Any, str]:
        """The file system, and the address as it names it."""
        made = self._made[-1:] or [_file_system(self._address)]
        self._made[:] = made
        return made[0]

    def drop(self) -> None:
        """Begin anew with the next call."""
        self._made.clear()

    def ask(self, question: Callable[[Any, str], _Value]) -> _Value:
        """The answer to a question about the address. Raises CorpusError."""
        failures = 0
        while True:
            try:
                return in_thread(lambda: question(*self.system())).result(PATIENCE)
            except Exception as error:
                failures = self.after(error, failures, TRIES)

    def after(self, error: Exception, failures: int, tries: int) -> int:
        """Wait before another attempt; count this one. Raises CorpusError if that is of no use."""
        self.drop()
        cause = _cause(error)
        failures += 1
        if _is_final(cause) or failures == tries:
            raise self.told(cause) from None
        if failures == 2:
            logger.warning("%s: trying again: %s", self.shown, self.reason(cause))
        self.wait(min(_LONGEST_WAIT, 0.1 * 2 ** (failures - 1)))
        return failures

    def reason(self, error: BaseException) -> str:
        """What a driver says of its failure, in one line without secrets."""
        error = _cause(error)
        said = one_line(error) if isinstance(error, Exception) else ""
        for secret in self._secrets:
            said = said.replace(secret, "***")
        return without_secrets(said) or type(error).__name__

    def told(self, error: BaseException) -> CorpusError:
        """The line for an address that cannot be opened."""
        if isinstance(error, CorpusError):
            return error
        if isinstance(error, FileNotFoundError) or _status(error) in (404, 410):
            return CorpusError(f"{self.shown} does not exist: check the name")
        if isinstance(error, PermissionError) or _status(error) in (401, 403):
            return CorpusError(
                f"{self.shown} may not be read: check name and credentials ({self.reason(error)})"
            )
        return BrokenOff(self.shown, f"cannot be read: {self.reason(error)}")


def in_thread(call: Callable[[], _Value]) -> Future[_Value]:
    """Begin a call that may never end; it does not keep the process from ending."""
    future: Future[_Value] = Future()

    def run() -> None:
        try:
            value = call()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(value)

    Thread(target=run, daemon=True).start()
    return future


def _file_system(address: str) -> tuple[Any, str]:
    scheme = address.partition("://")[0].lower()
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations
    except ImportError:
        raise NotInstalled(_MISSING.format(scheme)) from None
    try:
        system, path = url_to_fs(address, skip_instance_cache=True, **_options(scheme))
    except ImportError:
        if scheme in _EXTRA:
            raise NotInstalled(_MISSING.format(scheme)) from None
        hint = known_implementations.get(scheme, {}).get("err", "install its package")
        raise NotInstalled(f"reading {scheme}:// needs another package: {hint}") from None
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise
        raise CorpusError(
            f"{scheme}:// is not known: name a file, or an address as s3://bucket/texts.jsonl"
        ) from None
    return system, path


def _options(scheme: str) -> dict[str, Any]:
    """What a driver needs to be told, so that bytes come as they are stored and no call hangs."""
    if scheme in ("sftp", "ssh"):
        return {"timeout": 30, "banner_timeout": 30, "auth_timeout": 30}
    if scheme not in ("http", "https"):
        return {}
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    client = {"auto_decompress": False, "timeout": timeout, "trust_env": True}
    return {"headers": {"Accept-Encoding": "identity"}, "client_kwargs": client}


def _cause(error: BaseException) -> BaseException:
    """What is behind a FileNotFoundError that a driver makes of every failure."""
    while isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_final(error: BaseException) -> bool:
    """Whether the same request has the same end."""
    kinds = (
        CorpusError,
        FileNotFoundError,
        PermissionError,
        IsADirectoryError,
        NotImplementedError,
    )
    return isinstance(error, kinds) or _status(error) in (401, 403, 404, 405, 410, 414, 451)


def _status(error: BaseException) -> object:
    """The status of HTTP that a driver tells, if any."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # of botocore
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return getattr(error, "status", None)
