"""The vectors of the local API.

`WordLlama` gives semantic vectors of 256 dimensions. Its weights are part of the wordllama package;
nothing is downloaded. An engine returns packed vectors (at most a kilobyte each), which the API's
cache keeps; it makes floats and JSON from them when they are asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import orjson

if TYPE_CHECKING:
    from wordllama import WordLlamaInference  # type: ignore[import-untyped]  # it ships no types

WORDLLAMA_MODEL = "wordllama-256"
WORDLLAMA_DIMENSIONS = 256


class Engine(Protocol):
    """Turns texts into unit vectors of one dimension."""

    @property
    def model(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    def load(self) -> None:
        """Do the slow part once, before the first text."""

    def pack(self, texts: Sequence[str]) -> list[bytes]:
        """The vectors of `texts`, in the same order, in the engine's own packing."""

    def numbers(self, packed: bytes) -> list[float]:
        """The vector as floats, each exactly a float32."""

    def row(self, packed: bytes) -> bytes:
        """The vector as a JSON array."""


def normalise(text: str) -> str:
    """The text as the cache sees it: stripped, white space collapsed, lower-cased."""
    return " ".join(text.split()).lower()


class WordLlama:
    """Semantic vectors: the mean of the token vectors of wordllama's smallest model."""

    model = WORDLLAMA_MODEL
    dimensions = WORDLLAMA_DIMENSIONS

    _loaded: WordLlamaInference

    def load(self) -> None:
        """Read the weights: one to two seconds, most of it imports."""
        import wordllama

        package = wordllama.__file__
        assert package is not None
        model = wordllama.WordLlama.load(cache_dir=Path(package).parent, disable_download=True)
        model.tokenizer.no_padding()
        self._loaded = model

    def pack(self, texts: Sequence[str]) -> list[bytes]:
        # Text by text: wordllama's own `embed` pads a batch to its longest text. With one text of
        # 10,000 characters, 64 texts would take 200 MB of zeros.
        import numpy as np

        model = self._loaded
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
