"""The checkup of the API and the keys, as `vec doctor` shows it. Each key embeds one word."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx
import redis

from vector_embed_client import Client, VectorEmbedError
from vector_embed_client.route import route_to
from vector_embed_client.transport import Transport

from ..monitor import figures
from ..monitor.obstacle import CommandLine
from ..settings import Settings
from ..settings.keyfile import each_key, misfit, unread
from ..throttle import Throttle
from .checkup import Finding, clock, ok, problem, warning
from .sender import Deferred, Halted, Sender

PATIENCE_SECONDS = 5.0


def api(settings: Settings, command: CommandLine) -> Iterator[Finding]:
    """The API, and the keys."""
    if (reason := unread(settings) or misfit(settings)) is not None:
        yield problem(reason, "correct it")
        return
    keys = each_key(settings)
    if not keys[0].api_key:
        yield warning(
            "VECTOR_EMBED_API_KEY is not set: fine for a producer, but a worker needs it",
            "export VECTOR_EMBED_API_KEY=vec_your_api_key",
        )
    for url in dict.fromkeys(one.base_url for one in keys):
        yield from _endpoint([one for one in keys if one.base_url == url], len(keys), command)


def _endpoint(keys: Sequence[Settings], every: int, command: CommandLine) -> Iterator[Finding]:
    """An endpoint, and its keys. `every`: how many keys there are, of all endpoints."""
    first = keys[0]
    url = first.base_url
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        yield warning(f"the key travels unencrypted to {url}", "name it with https://")
    skews: list[float] = []

    def note_date(response: httpx.Response) -> None:
        try:
            date = parsedate_to_datetime(response.headers["Date"])
            skews.append(date.timestamp() - time.time())
        except (KeyError, TypeError, ValueError):
            pass

    check = "check VECTOR_EMBED_BASE_URL and the network"
    key = first.api_key or "vec_none"
    try:
        transport = Transport(route_to(url))  # as a worker's requests go
        own = httpx.Client(transport=transport, event_hooks={"response": [note_date]})
        with own, Client(key, url, first.model, retries=0, http_client=own) as client:
            try:
                health = client.health(deadline=PATIENCE_SECONDS)
            except VectorEmbedError as error:
                yield problem(f"the API at {url} does not answer: {error}", check)
                return
            yield ok(f"the API at {url} answers, version {figures.plain(health.version)}")
            for one in keys:
                if one.api_key:
                    yield _key(one, every, command)
    except ValueError as error:  # a key or an address that cannot be
        yield problem(str(error), "correct the variable")
        return
    if skews:
        yield clock("the API", skews[0], "times that it names are misread")


def _key(settings: Settings, every: int, command: CommandLine) -> Finding:
    """Whether the API embeds a new word with a key. (Its statistics would accept any key.)"""
    throttle = Throttle(replace(settings, timeout=PATIENCE_SECONDS), settings.model, urgent=True)
    sender = Sender(lambda: [throttle], settings.model, None, threading.Event())
    named = "the key" if every == 1 else f"the key {throttle.name}"
    bad = problem if every == 1 else warning  # the others continue
    try:
        sender.send([f"doctor {uuid.uuid4().hex}"])
    except redis.RedisError:
        return warning(f"{named} was not tried: Redis does not answer", "see above")
    except Deferred as wait:
        why = str(wait) or "others are waiting before us"
        return warning(f"the API limits {named} just now: {why}", f"wait, or {command('resume')}")
    except Halted as halt:
        where = "VECTOR_EMBED_API_KEY" if every == 1 else "it in VECTOR_EMBED_KEYS_FILE"
        remedy = f"correct {where} or the account, then {command('resume')}"
        this = "this key" if every == 1 else named
        return bad(f"nothing is sent with {this}: {halt}", remedy)
    except VectorEmbedError as error:
        with_key = "" if every == 1 else f" and {named}"
        said = f"the API embeds no word with {settings.model}{with_key}: {error}"
        return bad(said, "correct the account or VECTOR_EMBED_MODEL, or wait")
    return ok(f"the API takes {named}: it embedded one new word, which costs one text")
