"""Bookmarks: a run of several files skips those that an earlier run had queued before a kill."""

from __future__ import annotations

import json
from functools import partial
from uuid import uuid4

from ..corpus import Corpus, File, Source, files
from ..monitor import figures
from ..settings import Settings
from ..store.adder import Adder
from ..store.bookmark import Bookmark
from ..store.connection import connect
from ..store.keys import CollectionKeys
from .asked import Asked
from .screen import Screen


def adder_of(asked: Asked, name: str, settings: Settings, screen: Screen) -> Adder:
    """What adds to a collection. Says how many files are skipped, if any are."""
    client, keys = connect(settings), CollectionKeys(settings.prefix, name)
    model = asked.model or settings.model
    layout = asked.layout(model)
    if not asked.many:
        return Adder(client, keys, model, layout=layout, priority=asked.priority)
    way = f"{asked.way} {model}"
    bookmark = Bookmark(client, keys, way, reads=asked.prune, documents=asked.documents)
    adder = Adder(client, keys, model, bookmark, layout, asked.priority)
    sources = [source for source, its in zip(asked.corpora, asked.names) if its == name]
    adder.resume(_version(source, file) for source in sources for file in files(source))
    if bookmark.files:
        screen.say(
            f"{name}: {figures.count(bookmark.files, 'file')} skipped: an earlier run had queued "
            "all texts of them before it was stopped, and they have not changed"
        )
    return adder


def opened(asked: Asked, source: Source, bookmark: Bookmark | None) -> Corpus:
    """A corpus, opened. A file that is skipped is not."""
    if bookmark is None:
        return asked.open(source)
    return asked.open(source, begin=partial(_begin, bookmark, source))


def _begin(bookmark: Bookmark, source: Source, file: File) -> bool:
    return bookmark.begin(_version(source, file))


def _version(source: Source, file: File) -> str:
    """What changes when a file of a corpus does, or what is read of it."""
    said = [source.name, file.path, file.id, file.size, file.version or uuid4().hex]
    return json.dumps(said)
