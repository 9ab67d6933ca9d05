"""Collections as a typed program uses them. Nothing runs this file: mypy --strict reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy

from worker import (
    BacklogFull,
    Collection,
    CollectionError,
    CollectionGone,
    DeadLetter,
    Dropped,
    Job,
    Local,
    ModelsDiffer,
    Rate,
    Receipt,
    ReceiptStatus,
    Record,
    RedisAway,
    RedisUnfit,
    Rejection,
    Settings,
    SettingsError,
    StackError,
    Status,
    Text,
    ThrottleStatus,
    UnknownCollection,
    aenqueue,
    enqueue,
    read_settings,
)


def waiting() -> tuple[str, bool | None]:
    try:
        enqueue(["one"], "wiki", timeout=0.5)
    except BacklogFull as full:
        return full.reason, False
    except RedisAway as away:
        return away.collection, away.taken
    return "", True


def producing() -> None:
    receipt: Receipt = enqueue(["one", "two"], "wiki")
    new: int = receipt.new + receipt.unchanged + receipt.duplicates + receipt.dead
    rejections: tuple[Rejection, ...] = receipt.rejections
    became: ReceiptStatus = receipt.wait(timeout=1) if new else receipt.status()
    dead: list[str] = became.ids("dead") if became.waiting == 0 else list(became.states)
    texts: list[Text] = ["one", ("a", "two"), (7, "three"), (None, "four"), Job("b", "five")]
    texts.append({"id": "c", "text": "six", "page": 1})
    elsewhere = Settings(redis_url="redis://other:6379/0", rate=Rate(10.0, "requests"))
    enqueue(texts, collection="wiki", model="m", keep_text=True, settings=elsewhere)
    enqueue({"a": "one"}.items(), "wiki")
    enqueue((f"text {number}" for number in range(10)), "wiki", settings=read_settings())
    print(new, rejections, dead)


def reading(wiki: Collection) -> None:
    status: Status = wiki.wait(timeout=60)
    counts: int = status.embedded + status.evicted + status.dead + status.backlog
    throttle: ThrottleStatus | None = status.throttle
    record: Record | None = wiki.get("a")
    records: list[Record | None] = wiki.get_many(["a", "b"])
    for one in wiki:
        vector: list[float] = one.vector
        data: bytes = one.tobytes()
        meta: Mapping[str, object] | None = one.meta
        print(one.id, one.model, one.cached, one.text, one.dimensions, vector, data, meta)
    size: int = len(wiki)
    ids: Iterator[str] = wiki.ids()
    names, matrix = wiki.to_numpy()
    first: numpy.float32 = matrix[0, 0]
    model: str | None = wiki.model()
    dimensions: int | None = wiki.dimensions()
    print(counts, throttle, record, records, size, list(ids), names, first, model, dimensions)


async def serving(wiki: Collection) -> None:
    receipt: Receipt = await aenqueue([("a", "one")], "wiki", settings=None)
    became: ReceiptStatus = await receipt.await_done(timeout=1)
    states: dict[str, str] = await wiki.astates(["a"]) if became.dead else wiki.states(["a"])
    status: Status = await wiki.await_done(timeout=5)
    record: Record | None = await wiki.aget("a")
    records: list[Record | None] = await wiki.aget_many(["a", "b"])
    async for one in wiki:
        print(one.vector)
    print(receipt, status, record, records, states)


def trying() -> None:
    with Local() as local:
        matrix = local.embed(["one", "two"])
        second: numpy.float32 = matrix[1, 0]
        dimensions: int = local.client.embed("one").dimensions
        print(second, dimensions, Collection("texts", settings=local.settings).status())


def ending(wiki: Collection) -> None:
    letters: Iterator[DeadLetter] = wiki.dead(code="validation_error")
    print([(letter.id, letter.reason) for letter in letters], wiki.retry(["a"], code=None))
    gone: Dropped = wiki.drop(lambda so_far: print(so_far.vectors))
    print(gone.vectors, gone.queued, gone.dead)


def failing() -> None:
    try:
        reading(Collection("wiki"))
    except (UnknownCollection, CollectionGone, ModelsDiffer) as error:
        error_: CollectionError = error
        print(error_)
    except (SettingsError, RedisUnfit, StackError) as trouble:
        print(trouble)
