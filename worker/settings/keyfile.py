"""The key file: mounted API keys, read again while the process runs.

So a key can be rotated without a restart. `VECTOR_EMBED_API_KEY_FILE` names a file with one key.
`VECTOR_EMBED_KEYS_FILE` names one with several, one on a line:

    # a comment
    vec_first_key
    vec_second_key  https://api-eu.example.com

After white space a line may name the endpoint of its key; without one it is that of
`VECTOR_EMBED_BASE_URL`. While a file is missing, empty or wrong, the keys that were read before
stay in use. A file with several keys is taken once it has said the same for a second: someone may
be writing it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from vector_embed_client.http import checked_base_url, checked_key

from ..logs import logger
from .errors import SettingsError

if TYPE_CHECKING:
    from . import Settings

MOST_BYTES = 4096  # of a file with one key
MOST_KEYS = 100
SETTLED_SECONDS = 1.0  # for which a file with several keys says the same


class KeyFileError(SettingsError):
    """The file has no key. The message says why, and never shows what is in the file."""


@dataclass(frozen=True)
class ApiKey:
    """A key, and its endpoint if the file names one."""

    key: str = field(repr=False)
    base_url: str | None = None


Keys = tuple[ApiKey, ...]


def read_key(path: str) -> str:
    """The key in the file, without the white space around it. Raises KeyFileError."""
    key = _content(path, MOST_BYTES, "one API key").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise KeyFileError(f"{path} does not hold one API key")
    return key


def read_keys(path: str) -> Keys:
    """The keys in the file, each once, in its order. Raises KeyFileError, which names the line."""
    found: dict[ApiKey, None] = {}
    content = _content(path, MOST_BYTES * MOST_KEYS, "API keys")
    for number, line in enumerate(content.splitlines(), 1):
        try:
            one = _parse(line)
        except ValueError as error:
            raise KeyFileError(f"line {number} of {path}: {error}") from None
        if one is not None:
            found[one] = None
    if not found:
        raise KeyFileError(f"{path} has no API key in it")
    if len(found) > MOST_KEYS:
        raise KeyFileError(f"{path} has more than {MOST_KEYS} API keys")
    return tuple(found)


def each_key(settings: Settings) -> tuple[Settings, ...]:
    """`settings` once for each API key that is valid now, with the key and its endpoint.

    Raises KeyFileError where no key could be read yet.
    """
    try:
        kept = _kept(settings)
    except KeyFileError as error:
        name = "API_KEY_FILE" if settings.keys_file is None else "KEYS_FILE"
        raise KeyFileError(f"VECTOR_EMBED_{name}: {error}") from None
    return (settings,) if kept is None else _with_keys(settings, kept.look(time.monotonic()))


def count_endpoints(settings: Settings) -> int:
    """How many endpoints the keys lead to; 1 where no key could be read yet."""
    if settings.keys_file is None or unread(settings) is not None:
        return 1
    return len({one.base_url for one in each_key(settings)})


def unread(settings: Settings) -> str | None:
    """Why no key could be read from a file yet; None if one was, or there is no file."""
    try:
        each_key(settings)
    except KeyFileError as error:
        return str(error)
    return None


def misfit(settings: Settings) -> str | None:
    """Why no request can be sent with a key or to its address, with the variable's name."""
    key = "API_KEY" if settings.api_key_file is None else "API_KEY_FILE"
    for one in each_key(settings):
        try:
            name = key
            if one.api_key:
                checked_key(one.api_key)
            name = "BASE_URL"
            checked_base_url(one.base_url)
        except ValueError as error:
            return f"VECTOR_EMBED_{name}: {error}"
    return None


def fault(settings: Settings) -> str | None:
    """Why the key file was not read when it was last looked at; None if it was."""
    kept = _kept(settings)
    return None if kept is None else kept.fault


class KeptKeys:
    """The keys that a file held when it was last well. Any thread may call anything.

    `settled`: seconds for which it has to say the same before that is taken; it is read no more
    often. `first`: what was read before; without them the file is read now, or KeyFileError raised.
    """

    def __init__(
        self,
        path: str,
        read: Callable[[str], Keys],
        settled: float = SETTLED_SECONDS,
        first: Keys | None = None,
    ) -> None:
        self.fault: str | None = None
        self._path = path
        self._read = read
        self._settled = settled
        self._keys = first or read(path)
        self._next: Keys | None = None  # what it says now, and not yet for long enough
        self._looked = float("-inf")
        self._lock = threading.Lock()

    def look(self, now: float) -> Keys:
        """The keys that are valid now, by a clock that only grows."""
        with self._lock:
            if now - self._looked >= self._settled:
                self._looked = now
                self._look()
            return self._keys

    def _look(self) -> None:
        try:
            found = self._read(self._path)
        except KeyFileError as error:
            if self.fault is None:
                one = len(self._keys) == 1
                kept = "key that was read before stays" if one else "keys read before stay"
                logger.warning("%s: the API %s in use", error, kept)
            self.fault, self._next = str(error), None
            return
        if self.fault is not None:
            logger.warning("%s can be read again", self._path)
        self.fault = None
        if found == self._keys:
            self._next = None
        elif not self._settled or found == self._next:
            self._say(found)
            self._keys, self._next = found, None
        else:
            self._next = found

    def _say(self, found: Keys) -> None:
        gone, new = (len({*a} - {*b}) for a, b in ((self._keys, found), (found, self._keys)))
        if gone == new == len(found) == 1:
            logger.info("%s holds another API key: it is used from now on", self._path)
        else:
            said = "%s holds %d API keys now, %d of them new; %d are not used any more"
            logger.info(said, self._path, len(found), new, gone)


def _kept(settings: Settings) -> KeptKeys | None:
    if settings.keys_file is not None:
        return _kept_keys(settings.keys_file)
    if settings.api_key_file is not None:
        return _kept_key(settings.api_key_file, settings.api_key)
    return None


@cache
def _kept_keys(path: str) -> KeptKeys:
    return KeptKeys(path, read_keys)


@cache
def _kept_key(path: str, key: str | None) -> KeptKeys:
    first = None if key is None else (ApiKey(key),)
    return KeptKeys(path, lambda path: (ApiKey(read_key(path)),), 0, first)


@lru_cache(16)
def _with_keys(settings: Settings, keys: Keys) -> tuple[Settings, ...]:
    every = (
        replace(
            settings,
            api_key=one.key,
            base_url=one.base_url or settings.base_url,
            api_key_file=None,
            keys_file=None,
        )
        for one in keys
    )
    return tuple(dict.fromkeys(every))  # an endpoint may be named, and be the usual one as well


def _content(path: str, most: int, what: str) -> str:
    """What is in a file that is not empty. Raises KeyFileError."""
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise KeyFileError(f"cannot read {path}: {error.strerror or error}") from None
    if not content.strip():
        raise KeyFileError(f"{path} is empty")
    try:
        if len(content) <= most:
            return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    raise KeyFileError(f"{path} does not hold {what}")


def _parse(line: str) -> ApiKey | None:
    """The key of a line; None of a comment. Raises ValueError, which does not show the line."""
    words = line.split()
    for place, word in enumerate(words):
        if word.startswith("#"):
            del words[place:]
            break
    if not words:
        return None
    if len(words) > 2 or "://" in words[0]:
        raise ValueError("a line is a key, or a key, a space and the address of its API")
    checked_key(words[0])
    return ApiKey(words[0], checked_base_url(words[1]) if len(words) == 2 else None)
