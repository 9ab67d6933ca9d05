"""A batch with texts of several collections: which texts a refusal is looked for among."""

from __future__ import annotations

from collections.abc import Sequence

from trials import Api, ids, lease, poisoned, run

from vector_embed_client import VectorEmbedError
from worker.types import Embedded, Lease, Refused


def refuse(texts: Sequence[str]) -> VectorEmbedError | None:
    return VectorEmbedError("no", "invalid_request", 422) if poisoned(texts) else None


def of(name: str, first: int, *texts: str) -> list[Lease]:
    return [
        lease(number, text)._replace(collection=name) for number, text in enumerate(texts, first)
    ]


def sent_with(api: Api, text: str) -> int:
    return sum(text in texts for texts in api.requests)


def test_a_refused_batch_is_split_between_its_collections_first() -> None:
    api = Api(refuse)
    mine = of("mine", 0, "my text")
    others = of("others", 1, *[f"poison {number}" for number in range(60)])
    outcomes = run([*mine, *others], api)
    assert ids(outcomes, Embedded) == {"id0"}
    assert len(ids(outcomes, Refused)) > 0
    assert sent_with(api, "my text") == 2, "with the others, and then without them"


def test_of_many_collections_each_half_has_half() -> None:
    api = Api(refuse)
    batch = [one for n in range(64) for one in of(f"tenant-{n}", n, f"text {n}")]
    batch += of("bad", 64, "poison")
    outcomes = run(batch, api)
    assert len(ids(outcomes, Embedded)) == 64
    assert ids(outcomes, Refused) == {"id64"}
    assert max(sent_with(api, f"text {number}") for number in range(64)) <= 8
