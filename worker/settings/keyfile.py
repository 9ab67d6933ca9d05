"""The key file: a mounted API key, read again for each slice of work.

So a key can be rotated without a restart. While the file is missing or has no key, the key that was
read before stays in use.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from ..logs import logger

if TYPE_CHECKING:
    from . import Settings

MOST_BYTES = 4096


class KeyFileError(ValueError):
    """The file has no key. The message says why, and never shows what is in the file."""


def read_key(path: str) -> str:
    """The key in the file, without the white space around it. Raises KeyFileError."""
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        key = content.decode("ascii").strip()
    except UnicodeDecodeError:
        key = " "
    if not key:
        raise KeyFileError(f"{path} is empty")
    if len(content) > MOST_BYTES or not key.isprintable() or " " in key:
        raise KeyFileError(f"{path} does not hold one API key")
    return key


def current(settings: Settings) -> Settings:
    """`settings` with the API key that is valid now."""
    if settings.api_key_file is None:
        return settings
    return replace(settings, api_key=_kept(settings.api_key_file, settings.api_key).read())


@cache
def _kept(path: str, key: str | None) -> _KeptKey:
    return _KeptKey(path, key)


class _KeptKey:
    """The last key that was read from a file."""

    def __init__(self, path: str, key: str | None) -> None:
        self._path = path
        self._key = key
        self._trouble = ""

    def read(self) -> str | None:
        try:
            key = read_key(self._path)
        except KeyFileError as error:
            if not self._trouble:
                logger.warning("%s: the API key that was read before stays in use", error)
            self._trouble = str(error)
            return self._key
        if key != self._key:
            logger.info("%s holds another API key: it is used from now on", self._path)
        self._key, self._trouble = key, ""
        return key
