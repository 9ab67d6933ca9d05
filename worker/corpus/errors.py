"""The errors: why a corpus, or one line of it, cannot be read."""

from __future__ import annotations

from ..types import Job, Rejection

_RAW_CHARACTERS = 1000


class CorpusError(ValueError):
    """The corpus cannot be read at all. One line: what, which file, what to do."""


class NotInstalled(CorpusError):
    """A library is missing that the format needs."""


class BrokenOff(CorpusError):
    """What is at an address cannot be read, or not to its end."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class MissingColumn(CorpusError):
    """A table lacks a wanted column."""


class Unfit(Exception):
    """A line cannot become a job: the reason in one line, and its id if that could be read."""

    def __init__(self, reason: str, id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.id = id

    def rejection(self, line: int, raw: bytes) -> Rejection:
        """The rejection of what begins on that line."""
        return Rejection(line, self.id, self.reason, _cut(raw))


class Missing(Unfit):
    """A line has no such field."""


class TooLong(Unfit):
    """A text is longer than the API takes, and nothing else is wrong with the job."""

    def __init__(self, reason: str, id: str | None, job: Job) -> None:
        super().__init__(reason, id)
        self.job = job

    def rejection(self, line: int, raw: bytes) -> Rejection:
        """The rejection of what begins on that line; it holds the job for who can shorten it."""
        return LongText(super().rejection(line, raw), self.job)


class LongText(Rejection):
    """The rejection of a job for the length of its text alone."""

    job: Job

    def __new__(cls, rejection: Rejection, job: Job) -> LongText:
        made = super().__new__(cls, *rejection)
        made.job = job
        return made


def one_line(error: Exception) -> str:
    """A library's error message, in one line of a sensible length."""
    return " ".join(str(error).split())[:200]


def _cut(raw: bytes) -> str:
    """A line for a person to recognise, cut to a sensible length."""
    characters = raw[: 4 * _RAW_CHARACTERS].decode(errors="replace")
    return characters.removesuffix("\r")[:_RAW_CHARACTERS]
