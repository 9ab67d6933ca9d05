"""Vectors: what the local API answers with.

Two engines behind one protocol. `WordLlama` gives real semantic vectors, 256 dimensions, from
weights that lie inside the wordllama wheel; nothing is downloaded. `Hashed` gives vectors that mean
nothing but are a pure function of the normalised text, at any dimension and without numpy, so that
a test can say of every stored vector whose it is: see `expected_vector`.

An engine hands out vectors packed (at most a kilobyte each), which is what the API's cache keeps;
floats and JSON are made from that when they are asked for.
"""

from __future__ import annotations

import hashlib
import math
import struct
from array import array
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import orjson

if TYPE_CHECKING:
    from wordllama import WordLlamaInference  # type: ignore[import-untyped]  # it ships no types

HASHED_MODEL = "nomic-v1.5"  # the real API's: the hash engine stands in for it, dimensions and all
WORDLLAMA_MODEL = "wordllama-256"
_CHUNK = 4  # numbers of a hashed vector that one byte of the digest decides


class Engine(Protocol):
    """Turns texts into unit vectors of one dimension."""

    @property
    def model(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    def load(self) -> None:
        """Do what takes long, once, before the first text."""

    def pack(self, texts: Sequence[str]) -> list[bytes]:
        """The vectors of `texts`, in their order, in the engine's own packing."""

    def numbers(self, packed: bytes) -> list[float]:
        """The vector as floats, each exactly a float32."""

    def row(self, packed: bytes) -> bytes:
        """The vector as a JSON array."""


def normalise(text: str) -> str:
    """The text as the cache sees it: stripped, white space collapsed, lower-cased."""
    return " ".join(text.split()).lower()


def expected_vector(text: str, dimensions: int = 768) -> list[float]:
    """The vector the hash engine gives `text`: `dimensions` floats, each a float32, of unit length.

    The same on every machine. Texts that normalise alike have the same vector; others share it with
    nobody. Raises UnicodeEncodeError for an unpaired surrogate.
    """
    engine = Hashed(dimensions)
    return engine.numbers(engine.pack([text])[0])


class Hashed:
    """Vectors from a hash of the normalised text.

    One byte of the digest picks four numbers from a table of 256 directions of equal length, so
    every vector has unit length without being measured, and its JSON is glued from ready pieces:
    100 x 768 numbers take 2 to 3 ms.
    """

    def __init__(self, dimensions: int = 768, model: str = HASHED_MODEL) -> None:
        self.dimensions = dimensions
        self.model = model
        self._whole, self._rest = divmod(dimensions, _CHUNK)
        self._table = _table(_CHUNK, dimensions)
        self._rest_table = _table(self._rest, dimensions)

    def load(self) -> None:
        """Nothing to do: the tables are small."""

    def pack(self, texts: Sequence[str]) -> list[bytes]:
        size = self._whole + bool(self._rest)
        return [hashlib.shake_256(normalise(text).encode()).digest(size) for text in texts]

    def numbers(self, packed: bytes) -> list[float]:
        found: list[float] = []
        for byte in packed[: self._whole]:
            found.extend(self._table.numbers[byte])
        for byte in packed[self._whole :]:
            found.extend(self._rest_table.numbers[byte])
        return found

    def row(self, packed: bytes) -> bytes:
        pieces = self._table.pieces
        parts = [pieces[byte] for byte in packed[: self._whole]]
        parts += [self._rest_table.pieces[byte] for byte in packed[self._whole :]]
        return b"[" + b",".join(parts) + b"]"


class WordLlama:
    """Semantic vectors: the mean of the token vectors of wordllama's smallest model."""

    model = WORDLLAMA_MODEL
    dimensions = 256

    def __init__(self) -> None:
        self._loaded: WordLlamaInference | None = None

    def load(self) -> None:
        """Read the weights: one to two seconds, most of it imports."""
        import wordllama

        package = wordllama.__file__
        assert package is not None
        model = wordllama.WordLlama.load(cache_dir=Path(package).parent, disable_download=True)
        model.tokenizer.no_padding()
        self._loaded = model

    def pack(self, texts: Sequence[str]) -> list[bytes]:
        # Pooled text by text: wordllama's own `embed` pads a batch to its longest text, and one of
        # 10,000 characters among 64 would make 200 MB of zeros.
        if self._loaded is None:
            self.load()
        model = self._loaded
        assert model is not None
        import numpy as np

        packed = []
        for encoding in model.tokenizer.encode_batch(list(texts), add_special_tokens=False):
            # A text without tokens still gets a vector, as on the server.
            ids = np.clip(encoding.ids or [0], 0, len(model.embedding) - 1)
            mean = model.embedding[ids].mean(axis=0, dtype=np.float64)
            packed.append((mean / np.linalg.norm(mean)).astype("<f4").tobytes())
        return packed

    def numbers(self, packed: bytes) -> list[float]:
        return list(struct.unpack(f"<{self.dimensions}f", packed))

    def row(self, packed: bytes) -> bytes:
        import numpy as np

        # numpy's float32 prints half the digits of the same number as a double.
        return orjson.dumps(np.frombuffer(packed, "<f4"), option=orjson.OPT_SERIALIZE_NUMPY)


class _Table(NamedTuple):
    """256 directions: as numbers, and as the inside of a JSON array."""

    numbers: list[list[float]]
    pieces: list[bytes]


@lru_cache(maxsize=16)
def _table(size: int, dimensions: int) -> _Table:
    length = math.sqrt(size / dimensions)
    numbers = []
    for byte in range(256):
        digest = hashlib.sha256(b"%d of %d" % (byte, size)).digest()
        direction = struct.unpack(f">{size}h", digest[: 2 * size])
        norm = math.sqrt(sum(part * part for part in direction)) or 1.0
        # Rounded to float32 here, so that what a worker stores equals this to the last bit.
        numbers.append(array("f", [part / norm * length for part in direction]).tolist())
    return _Table(numbers, [b",".join(repr(x).encode() for x in chunk) for chunk in numbers])
