"""Rejections: the lines of a corpus that cannot be embedded, in a file; the first few also shown.

If the file cannot be written, every rejection is shown as it would be in the file, because standard
input cannot be read again.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import IO

from ..corpus import Source, stem
from ..monitor import figures
from ..types import Rejection
from .screen import Screen

SHOWN_REJECTIONS = 5


class Rejections:
    """The file with the rejections of a corpus, and the first few of them on the screen.

    Without a `path` they are only shown and counted.
    """

    def __init__(self, source: Source, path: str | None, screen: Screen, append: bool) -> None:
        self.path: str | None = None  # once there is something in it
        self._source = source
        self._destination = path
        self._screen = screen
        self._append = append
        self._file: IO[str] | None = None
        self._number = 0
        self._prints_all = False

    def __enter__(self) -> Rejections:
        """Say before the work begins if the file cannot be written."""
        if self._destination is None:
            return self
        try:
            before = os.path.exists(self._destination)
            open(self._destination, "a").close()
            if not before:
                os.unlink(self._destination)
        except OSError as error:
            self._give_up(error)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        elif kind is None and self._destination is not None and not self._append:
            with suppress(OSError):
                os.unlink(self._destination)  # of an earlier run
        if self._number > SHOWN_REJECTIONS and not self._prints_all:
            self._screen.say(f"... and {self._number - SHOWN_REJECTIONS:,} more rejected")

    def add(self, rejection: Rejection) -> None:
        """Keep a rejection."""
        self._number += 1
        if self._number <= SHOWN_REJECTIONS and not self._prints_all:
            self._screen.say(rejection_line(self._source, rejection))
        fields = rejection._asdict()
        if rejection.file is None:
            del fields["file"]
        record = json.dumps(fields)
        if self._destination is not None:
            try:
                self._write(record)
            except OSError as error:
                self._give_up(error)
        if self._prints_all:
            self._screen.say(record.replace("\x7f", "\\u007f"))

    def _write(self, record: str) -> None:
        assert self._destination is not None
        if self._file is None:
            mode = "a" if self._append else "w"
            self._file = open(self._destination, mode, encoding="utf-8")  # noqa: SIM115
            self.path = self._destination
        self._file.write(record + "\n")
        self._file.flush()  # a full disk shows now, while this record can still be shown

    def _give_up(self, error: OSError) -> None:
        assert self._destination is not None
        self._screen.say(
            f"Warning: {figures.plain(self._destination)} cannot be written ({error.strerror}): "
            "rejected lines are shown here instead, each as a line of JSON"
        )
        self._destination, self._prints_all = None, True
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None


def rejection_line(source: Source, rejection: Rejection) -> str:
    """A rejection of a corpus, as a line for the screen."""
    where = figures.source(rejection.file or source.path)
    return f"{where}:{rejection.line}: rejected: {figures.plain(rejection.reason)}"


def rejected_path(source: Source, name: str) -> str:
    """Where the rejections of a corpus go; `name` is the collection's."""
    if not source.named:
        return f"{name}.rejected.jsonl"
    directory = os.path.dirname(source.path)
    if not os.access(directory or ".", os.W_OK):
        directory = ""
    return os.path.join(directory, f"{stem(source.path)}.rejected.jsonl")
