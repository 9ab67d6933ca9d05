"""Pages: how many bytes the pages of a Parquet column unpack to.

A page is decoded as a whole, so one of a gigabyte takes several gigabytes of memory. Here only the
heads of pages are read, which are structs of Thrift's compact protocol.
"""

from __future__ import annotations

from typing import BinaryIO

_HEAD_BYTES = (8 * 1024, 16 * 1024 * 1024)  # most are short
_UNPACKED, _PACKED = 2, 3  # fields of a head: the bytes of its page


def largest_page(file: BinaryIO, begin: int, end: int) -> int:
    """The unpacked bytes of the largest page in a part of the file, as far as it is in order."""
    largest = 0
    try:
        while begin < end:
            fields, size = _head(file, begin)
            largest = max(largest, fields[_UNPACKED])
            begin += size + max(0, fields[_PACKED])
    except (IndexError, KeyError, OSError, ValueError, RecursionError):
        pass  # it is damaged: reading it tells where
    return largest


def _head(file: BinaryIO, begin: int) -> tuple[dict[int, int], int]:
    """The numbers in the head that begins there, and the bytes of the head."""
    for most in _HEAD_BYTES:
        file.seek(begin)
        head = _Thrift(file.read(most))
        try:
            return head.struct(), head.at
        except IndexError:
            continue
    raise IndexError


class _Thrift:
    """Values of Thrift's compact protocol. Raises IndexError at the end of the data."""

    def __init__(self, data: bytes) -> None:
        self.at = 0
        self._data = data

    def struct(self) -> dict[int, int]:
        """The whole numbers of a struct, by field; the others are skipped."""
        numbers, field = {}, 0
        while kind := self._byte():
            field = field + (kind >> 4) if kind >> 4 else self._signed()
            kind &= 15
            if kind in (4, 5, 6):
                numbers[field] = self._signed()
            elif kind not in (1, 2):  # true and false have no bytes of their own
                self._skip(kind)
        return numbers

    def _skip(self, kind: int) -> None:
        if kind in (1, 2, 3):
            self._byte()
        elif kind in (4, 5, 6):
            self._number()
        elif kind == 7:
            self.at += 8
        elif kind == 8:
            size = self._number()
            self.at += size
        elif kind in (9, 10):
            head = self._byte()
            for _ in range(self._number() if head >> 4 == 15 else head >> 4):
                self._skip(head & 15)
        elif kind == 12:
            self.struct()
        else:
            raise ValueError(kind)

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _number(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7

    def _signed(self) -> int:
        number = self._number()
        return number >> 1 ^ -(number & 1)
