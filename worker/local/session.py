"""A session: a program's own use of the local stack, without a Redis server and without a key."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from vector_embed_client import Client

from ..collection import Collection
from ..producer import enqueue
from ..settings import DEFAULT_REDIS_URL, Settings, read_settings
from ..types import default_id
from .keeper import LOCAL_KEY
from .stack import local_stack
from .vectors import WORDLLAMA_DIMENSIONS

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

LOOK_SECONDS = 0.2  # between two looks at what is left


class Local:
    """A private Redis, an API with a small model, and a worker, for the length of a `with` block.

        with Local() as local:
            vectors = local.embed(["first text", "second text"])

    It is the stack of `vec-enqueue --local`: what is stored in `directory` (a path; default: that
    of `--local`) is there again the next time. Inside the block, `settings` lead `enqueue` and
    `Collection` to it, and `client` is a Client of its API.

    Raises StackError if it cannot start, and ModuleNotFoundError without the `local` extra.
    """

    settings: Settings
    client: Client

    def __init__(self, directory: str | Path | None = None) -> None:
        self._directory = None if directory is None else Path(directory)
        self._exits = ExitStack()

    def __enter__(self) -> Local:
        settings = read_settings(redis_url=DEFAULT_REDIS_URL, keys=False)
        with ExitStack() as exits:
            stack = exits.enter_context(local_stack(directory=self._directory))
            self.settings = stack.settings(settings)
            # No proxy that the environment names leads to this machine.
            http_client = exits.enter_context(httpx.Client(trust_env=False))
            self.client = exits.enter_context(
                Client(LOCAL_KEY, stack.base_url, model=stack.model, http_client=http_client)
            )
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def embed(
        self,
        texts: Sequence[str],
        collection: str = "texts",
        *,
        dimensions: int | None = None,
        dtype: str | None = None,
    ) -> NDArray[numpy.float32]:
        """The vectors of `texts`: a row of 256 numbers, of length 1, for each text in its order.

        The worker embeds them as texts of `collection`; those that are stored there already cost
        nothing. `dimensions` (256, 128 or 64) and `dtype` (float32, float16 or int8): what a new
        collection stores of each vector. A terminal or a notebook shows a bar. Raises ValueError
        for a text that cannot be embedded.
        """
        import numpy

        settings = self.settings
        receipt = enqueue(texts, collection, dimensions=dimensions, dtype=dtype, settings=settings)
        if receipt.rejected:
            first = receipt.rejections[0]
            raise ValueError(f"text {first.line} cannot be embedded: {first.reason}")
        stored = Collection(collection, settings=self.settings)
        self._wait(stored, receipt.new)
        records = stored.get_many([default_id(text) for text in texts]) if texts else []
        rows = [record.tobytes() for record in records if record is not None]
        if len(rows) < len(records):
            number = records.index(None) + 1
            raise ValueError(f"text {number} was refused: see Collection({collection!r}).dead()")
        matrix = numpy.frombuffer(b"".join(rows), dtype="<f4")
        return matrix.reshape(len(rows), stored.dimensions() or WORDLLAMA_DIMENSIONS)

    def _wait(self, collection: Collection, texts: int) -> None:
        """Show how far the worker is, until nothing is left to do."""
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        hidden = not (console.is_terminal or console.is_jupyter)
        with Progress(console=console, transient=True, disable=hidden) as bars:
            bar = bars.add_task(collection.name, total=texts)
            while backlog := collection.status().backlog:
                bars.update(bar, completed=texts - min(texts, backlog))
                time.sleep(LOOK_SECONDS)
