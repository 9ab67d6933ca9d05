"""The name of a file or an address: its stem, its format, how it is packed, and how it is shown."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

from .errors import CorpusError

PACKINGS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstandard"}
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_USERS = [
    re.compile(r"://[^/?#\s]*@"),
    # A password may have a slash that should be written as %2F; a port has none behind it.
    re.compile(r"://[^:@/?#\s]*:(?!\d+(?:/|$))\S*@"),
]
_QUERIES = [
    (re.compile(r"(?i)(https?://[^\s?#'\"]*)[?#][^\s'\"]*"), r"\1"),
    (re.compile(r"\?[^\s?'\"]*=[^\s'\"]*"), ""),
]


def is_address(path: str) -> bool:
    """Whether it begins with `SCHEME://` and is no file of that name."""
    return _ADDRESS.match(path) is not None and not os.path.exists(path)


def without_secrets(text: str) -> str:
    """`text` with `***` for user and password in its addresses, and without their queries."""
    text = _without_users(text)
    for query, kept in _QUERIES:
        text = query.sub(kept, text)
    return text


def stem(path: str) -> str:
    """The file's name without its directory and suffixes: `wiki` of `data/wiki.jsonl.gz`."""
    return split(path)[0]


def collection_name(path: str) -> str:
    """The default collection of a corpus. Raises CorpusError if its name has no usable letter."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", stem(path))[:100]
    if not re.search(r"[A-Za-z0-9]", name):
        raise CorpusError(
            f"{shown(path)}: no letter of its name can be in the name of a collection: "
            "name one with --collection"
        )
    return name


def split(path: str) -> tuple[str, str, str]:
    """Stem, and in lower case the suffix of the format and of the packing, each maybe empty."""
    if path == "-":
        return "stdin", ".jsonl", ""
    if is_address(path):
        path = shown(path)
        path = unquote(path, errors="replace") if is_http(path) else path
    stem, suffix = os.path.splitext(os.path.basename(path))
    packing = ""
    if suffix.lower() in PACKINGS:
        packing = suffix.lower()
        stem, suffix = os.path.splitext(stem)
    return stem, suffix.lower(), packing


def shown(path: str) -> str:
    """The path in characters that every terminal can show."""
    if path == "-":
        return "standard input"
    path = path.encode(errors="replace").decode()
    if not is_address(path):
        return path
    path = _without_users(path)
    return re.split("[?#]", path, maxsplit=1)[0] if is_http(path) else path


def _without_users(text: str) -> str:
    for user in _USERS:
        text = user.sub("://***@", text)
    return text


def is_http(path: str) -> bool:
    """Whether it is the address of a web server."""
    return path.lower().startswith(("http://", "https://"))
