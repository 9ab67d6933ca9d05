"""A query: one text that a person or a program waits for, embedded through the fleet's throttle."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import redis

from vector_embed_client import Client, VectorEmbedError
from vector_embed_client.calls import check_text

from ..settings import Settings
from ..store.faults import is_read_only
from ..throttle import Throttle
from .sender import Deferred, Halted, Sender
from .verdicts import is_transient

PATIENCE_SECONDS = 60.0  # while the throttle says: not now
ATTEMPTS = 3


class NotSent(Exception):
    """The throttle does not let the query be sent now. The message says why."""


def embed_query(settings: Settings, model: str, text: str) -> Sequence[float]:
    """The vector of a text.

    Of a read-only replica the throttle cannot be asked: the text is sent without it. Raises the
    client's errors, ValueError for a key or an address that cannot be, NotSent.
    """
    if not settings.api_key:
        raise ValueError("VECTOR_EMBED_API_KEY is not set: a query is embedded through the API")
    check_text(text)  # a request that was never sent says nothing of the API
    sender = Sender(Throttle(settings, model), None, threading.Event())
    end, failures = time.monotonic() + PATIENCE_SECONDS, 0
    while True:
        try:
            return list(sender.send([text]).row(0))
        except Deferred as error:
            if time.monotonic() > end:
                raise NotSent(f"nothing can be sent now: {error}") from None
            time.sleep(1)
        except Halted as error:
            raise NotSent(str(error)) from None
        except redis.ResponseError as error:
            if not is_read_only(error):
                raise
            with Client(settings.api_key, settings.base_url, model, settings.timeout) as client:
                return client.embed(text).vector
        except VectorEmbedError as error:
            failures += 1
            if not is_transient(error) or failures == ATTEMPTS:
                raise
