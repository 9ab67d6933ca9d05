"""The texts of a run, noted as they are added: their ids, and 16 bytes of each text's digest.

Above 4 MB they are in a temporary file, so memory stays flat; TMPDIR says where.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from tempfile import TemporaryFile
from typing import BinaryIO

from ..corpus.spill import Spill
from ..store.states import ASKED_AT_ONCE

Text = tuple[str, bytes]  # its id and its digest

DIGEST = 16  # bytes of a text's digest
_LENGTH = 4
_HELD_BYTES = 4_000_000  # in memory, before they are in a file
_FIRST_LOOK = 20  # texts in one look of a wait, at first
_MOST_ASKED = 40  # times in one look: 20,000 texts, some tenths of a second


class Noted:
    """Texts in the order in which they were noted; threads and forked processes may read them.

    `full`: there was no room for a temporary file, so they are not known.
    """

    def __init__(self) -> None:
        self.count = 0
        self.full = False
        self._held: list[bytes] = []  # the chunks, as long as there is no file
        self._ends = [0]  # of the chunks in the file
        self._file: BinaryIO | None = None

    def note(self, ids: Iterable[str], digests: Sequence[bytes]) -> None:
        """Note texts. Of a digest, the first 16 bytes are kept."""
        if self.full:
            return
        data = pickle.dumps((list(ids), b"".join([digest[:DIGEST] for digest in digests])))
        try:
            self._write(data)
        except OSError:
            self.give_up()
        else:
            self.count += len(digests)
            self._ends.append(self._ends[-1] + len(data))

    def give_up(self) -> None:
        """There is no room: forget the texts, and note no others."""
        self.full = True
        self.close()

    def close(self) -> None:
        """Forget the texts."""
        if self._file is not None:
            with suppress(OSError):  # of what is still to be written
                self._file.close()
        self.count, self._held, self._ends, self._file = 0, [], [0], None

    def __del__(self) -> None:
        self.close()  # a file that is left open is warned of

    def __iter__(self) -> Iterator[Text]:
        for number in range(len(self._ends) - 1):
            ids, digests = pickle.loads(self._chunk(number))
            for n, id in enumerate(ids):
                yield id, digests[n * DIGEST : (n + 1) * DIGEST]

    def latest(self) -> Iterator[Text]:
        """Each id once, with the digest of its last text. Raises OSError when the disk is full."""
        texts = Spill()
        for id, digest in self:
            name = id.encode()
            texts.add(hash(id), digest + len(name).to_bytes(_LENGTH, "little") + name)
        return chain.from_iterable(map(_last_of, texts.read()))

    def _write(self, data: bytes) -> None:
        if self._file is None and self._ends[-1] + len(data) > _HELD_BYTES:
            self._file = TemporaryFile()  # noqa: SIM115
            self._file.writelines(self._held)
            self._held = []
        if self._file is None:
            self._held.append(data)
        else:
            self._file.write(data)
            self._file.flush()

    def _chunk(self, number: int) -> bytes:
        if self._file is None:
            return self._held[number]
        begin, end = self._ends[number : number + 2]
        return os.pread(self._file.fileno(), end - begin, begin)


class Walk:
    """A walk along texts, as far as they are settled. They are worked on in about their order.

    `ask`: for the states of texts, by their ids and digests.
    """

    def __init__(
        self, texts: Iterable[Text], count: int, ask: Callable[..., Sequence[str]]
    ) -> None:
        self._texts = iter(texts)
        self._left = count
        self._ask = ask
        self._page: list[Text] = []  # the first of those that may be waiting

    def left(self) -> int:
        """How many texts there are from the first that may be waiting on; 0 if none is.

        It asks for some alone, so that whoever waits can give up before the next look.
        """
        count = _FIRST_LOOK
        for _ in range(_MOST_ASKED):
            if not self._page and not self._read():
                return 0
            states = self._ask(*zip(*self._page[:count]))
            settled = states.index("waiting") if "waiting" in states else len(states)
            del self._page[:settled]
            self._left -= settled
            if settled < len(states):
                return self._left
            count = ASKED_AT_ONCE
        return self._left

    def _read(self) -> bool:
        self._page = list(islice(self._texts, ASKED_AT_ONCE))
        return bool(self._page)


def _last_of(part: bytes) -> Iterator[Text]:
    latest: dict[str, bytes] = {}
    at = 0
    while at < len(part):
        begin = at + DIGEST + _LENGTH
        end = begin + int.from_bytes(part[at + DIGEST : begin], "little")
        latest[part[begin:end].decode()] = part[at : at + DIGEST]
        at = end
    return iter(latest.items())
