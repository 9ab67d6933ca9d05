"""The sink in Qdrant, over HTTP, against a server that fails and dies on demand."""

from __future__ import annotations

import hashlib
import json
import re
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from worker.export.qdrant import Qdrant
from worker.export.qdrant.notes import point_id
from worker.export.rows import ExportError
from worker.export.sink import SinkAway, Watermarks
from worker.layout import Layout
from worker.types import Position, Stored, text_digest

qdrant_client = pytest.importorskip("qdrant_client")
from qdrant_client.http import models  # noqa: E402
from qdrant_server import Fault, QdrantServer, Reply, running_qdrant  # noqa: E402

pytestmark = pytest.mark.elsewhere

BORN = b"life 1"
PLAIN = Layout("nomic-v1.5")
Script = Sequence[tuple[str, str]]  # ids with their texts, in the order of commits; "" deletes


@pytest.fixture(params=["local mode", "the engine"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[QdrantServer]:
    with running_qdrant(directory=None if request.param == "local mode" else tmp_path) as server:
        yield server


def stored(number: int, id: str, text: str, meta: dict[str, object] | None = None) -> Stored:
    numbers = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], "<u4") / 2**32 + 0.01
    data = numbers.astype("<f4").tobytes()
    return Stored(id, data, "nomic-v1.5", False, text, meta, number, text_digest(text))


def sink_at(server: QdrantServer) -> Qdrant:
    return Qdrant(server.address, "wiki")


class Redis:
    """The vectors and tombstones that an export would read, in the order of their numbers."""

    def __init__(self, script: Script) -> None:
        self.vectors: dict[str, Stored] = {}
        self.tombstones: list[Position] = []
        for number, (id, text) in enumerate(script, 1):
            if text:
                self.vectors[id] = stored(number, id, text)
            else:
                self.vectors.pop(id, None)
                self.tombstones.append(Position(number, id, b""))

    def after(self, number: int) -> list[Stored]:
        vectors = self.vectors.values()
        return sorted((one for one in vectors if (one.number or 0) > number), key=number_of)


def number_of(record: Stored) -> int:
    return record.number or 0


def export(sink: Qdrant, redis: Redis) -> None:
    """What an export does: all from the watermark on, in parts of three."""
    with sink.locked():
        sink.accept(BORN, PLAIN)
        sink.note_life(BORN)
        marks = sink.watermarks()
        vectors = redis.after(marks.vectors)
        for start in range(0, len(vectors), 3):
            sink.write(iter(vectors[start : start + 3]))
        sink.write_tombstones(one for one in redis.tombstones if one.number > marks.tombstones)
        sink.finish()


def follow(sink: Qdrant, redis: Redis) -> None:
    """An export that begins again once if the sink is away."""
    try:
        export(sink, redis)
    except SinkAway:
        export(sink, redis)


def assert_true_to(server: QdrantServer, redis: Redis) -> None:
    """Exactly what Redis has is there: nothing missing, twice, stale or strange."""
    points = server.points()
    assert points.keys() == redis.vectors.keys()
    for id, record in redis.vectors.items():
        assert (points[id]["number"], points[id]["digest"]) == (
            record.number,
            (record.digest or b"").hex(),
        )
        ours = np.array(record.vector) / np.linalg.norm(record.vector)
        assert np.allclose(points[id][""], ours, atol=1e-6)
    assert server.thresholds["articles"] == 20_000  # it is indexed again


BEFORE: Script = [("a", "one"), ("b", "two"), ("c", "three"), ("d", "four"), ("e", "five")]
AFTER: Script = [*BEFORE, ("a", "one again"), ("b", ""), ("f", "six"), ("c", "again"), ("c", "")]
FAULTS = {
    "answer lost": Fault(0, done=True),
    "killed before": Fault(0, for_good=True),
    "killed after": Fault(0, done=True, for_good=True),
}


@pytest.mark.parametrize(
    ("kind", "before"),
    [*((kind, []) for kind in FAULTS), ("killed after", BEFORE)],
)
def test_a_fault_or_a_kill_at_any_request_leaves_nothing_missing_twice_or_stale(
    kind: str, before: Script, server: QdrantServer
) -> None:
    fault = FAULTS[kind]
    at = asked = 0
    while asked >= at:
        at += 1
        server.empty()
        export(sink_at(server), Redis(before))
        server.strike(replace(fault, at=at))
        with suppress(SinkAway):
            (export if fault.for_good else follow)(sink_at(server), Redis(AFTER))
        asked = len(server.requests)
        if fault.for_good:
            server.strike(None)
            server.end_lease()
            export(sink_at(server), Redis(AFTER))
        assert_true_to(server, Redis(AFTER))
    assert at > 20


def test_what_is_written_is_found_again(server: QdrantServer) -> None:
    redis = Redis(AFTER)
    sink = sink_at(server)
    follow(sink, redis)
    assert_true_to(server, redis)
    assert sink.watermarks() == Watermarks(8, 10)
    assert sink.life == BORN
    assert {position.id: position.number for position in sink.positions()} == {
        id: record.number for id, record in redis.vectors.items()
    }
    right = Position(8, "f", text_digest("six"))
    wrong = [Position(7, "f", right.digest), Position(8, "f", b"0" * 16), Position(8, "no", b"1")]
    assert sink.holds([right, *wrong]) == [True, False, False, False]
    assert [(one.number, one.id) for one in sink.tombstones(0)] == [(7, "b"), (10, "c")]
    assert [one.id for one in sink.tombstones(7)] == ["c"]


def test_positions_come_in_the_order_of_their_numbers_page_by_page(server: QdrantServer) -> None:
    sink = sink_at(server)
    records = [stored(number, f"{number}", "a text") for number in range(1, 2502)]
    twice = stored(1000, "another", "with a number that Redis gave twice")
    fill(sink, *records[:1000], twice, *records[1000:])
    positions = list(sink.positions())
    assert [one.number for one in positions] == sorted([*range(1, 2502), 1000])
    assert len({one.id for one in positions}) == 2502
    assert [one.number for one in sink.positions(2499)] == [2500, 2501]


def fill(sink: Qdrant, *records: Stored, layout: Layout = PLAIN, born: bytes = BORN) -> None:
    """One export of these, whatever the watermark says."""
    with sink.locked():
        sink.accept(born, layout)
        sink.note_life(born)
        sink.write(iter(records))
        sink.finish()


HOSTILE = {
    "markup": "<script>alert('1')</script> & \"quotes\" {{7*7}}",
    "long": "x" * 10_000,
    "pairs": "\U0001f600 \U00010348",
    "control": "\0\x1b[31m\n\r\t\x7f\u202e\u2028",
    "a path": "../../collections/articles/points?wait=false#x",
    "like a UUID": "4e587e94-8a68-50d0-b4d3-5f4615cefb8b",
    "a number": "17",
    "a space": " ",
}


def test_any_id_and_text_is_kept_letter_by_letter_with_its_meta(server: QdrantServer) -> None:
    sink = sink_at(server)
    ids = list(HOSTILE.values())
    meta: dict[str, object] = {"id": "mine", "größe": [1, 2.5, None, {"a": "b"}]}
    records = [stored(number, id, f"text of {id}", meta) for number, id in enumerate(ids, 1)]
    fill(sink, *records)
    points = server.points()
    assert points.keys() == set(ids)
    assert all(points[id]["text"] == f"text of {id}" for id in ids)
    assert all(points[id]["meta"] == meta for id in ids)
    held = [Position(number_of(one), one.id, one.digest or b"") for one in records]
    assert sink.holds(held) == [True] * len(ids)
    fill(sink, stored(50, "big", "one", {"a": 2**70}))  # the server may keep it as a float
    assert float(server.points()["big"]["meta"]["a"]) == pytest.approx(2.0**70)
    with sink.locked():
        sink.write_tombstones(Position(100, id, b"") for id in ids)
    assert server.points().keys() == {"big"}
    assert {one.id for one in sink.tombstones(0)} == set(ids)


def test_a_piece_has_its_document_and_its_offsets_beside_its_other_fields(
    server: QdrantServer,
) -> None:
    piece = {"parent": "doc", "start": 10, "end": 14, "lang": "de"}
    fill(sink_at(server), stored(1, "doc#0002", "text", piece), stored(2, "doc", "text", piece))
    points = server.points()
    assert (points["doc#0002"]["parent"], points["doc#0002"]["start"]) == ("doc", 10)
    assert points["doc#0002"]["meta"] == {"lang": "de"}
    assert "parent" not in points["doc"] and points["doc"]["meta"] == piece  # it is no piece
    assert server.indexes["articles"] == {"parent": "keyword", "number": "integer"}


def test_the_id_of_a_point_is_the_documented_uuid(server: QdrantServer) -> None:
    fill(sink_at(server), stored(1, "a", "one"))
    id = "e3caa4ae-90f4-52dd-ba05-fe854fda7976"
    assert uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, "vector-embed-cache"), "a") == uuid.UUID(id)
    assert [record.id for record in server.engine.retrieve("articles", [id])] == [id]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_smaller_vectors_become_float16(server: QdrantServer, dtype: str) -> None:
    rows = np.array([[0.3, -0.2, 0.9, 0.1]], np.float32)
    layout = Layout("nomic-v1.5", None, dtype)
    record = stored(1, "a", "one")._replace(data=layout.encode(rows)[0], dtype=dtype)
    fill(sink_at(server), record, layout=layout)
    assert np.allclose(server.points()["a"][""], record.vector, atol=1e-3)
    config = {"size": 4, "datatype": "float16", "distance": "Cosine"}
    assert server.vectors["articles"] == config


def test_requests_have_at_most_256_points_and_eight_megabytes(server: QdrantServer) -> None:
    sink = sink_at(server)
    records = [stored(number, f"{number}", "a text") for number in range(1, 601)]
    large = [stored(number, f"{number}", "b" * 3_000_000) for number in range(601, 607)]
    fill(sink, *records, *large)
    sizes = [len(body) for body in server.bodies]
    assert len(server.points()) == 606
    assert max(sizes) < 8.5 * 2**20
    upserts = [path for path in server.requests if path == "PUT /collections/articles/points"]
    assert len(upserts) == 3 + 2


def test_of_an_id_that_comes_twice_in_a_part_the_last_one_is_sent(server: QdrantServer) -> None:
    fill(sink_at(server), stored(1, "a", "one"), stored(2, "b", "two"), stored(3, "a", "three"))
    assert {id: point["number"] for id, point in server.points().items()} == {"a": 3, "b": 2}
    assert not any(b'"one"' in body for body in server.bodies)


# What may not be replaced


def test_a_point_with_a_higher_number_stays_whatever_comes_late(server: QdrantServer) -> None:
    sink = sink_at(server)
    fill(sink, stored(5, "a", "five"), stored(6, "b", "six"))
    late = [body for body in server.bodies if b'"points":[{"id"' in body and b"five" in body]
    fill(sink, stored(9, "a", "nine"))
    fill(sink, stored(7, "a", "seven"), stored(8, "c", "eight"))
    server.answer("PUT", "/collections/articles/points", late[-1], "")
    numbers = {id: point["number"] for id, point in server.points().items()}
    assert numbers == {"a": 9, "b": 6, "c": 8}
    with sink.locked():
        assert sink.watermarks().vectors == 9
        sink.write_tombstones(iter([Position(8, "a", b""), Position(8, "c", b""), *_buried(10)]))
    assert server.points().keys() == {"a", "c"}  # a tombstone's number is above those it heeds


def _buried(number: int) -> list[Position]:
    return [Position(number, "b", b""), Position(number, "never there", b"")]


def test_what_an_interrupted_part_left_is_replaced_after_redis_went_back(
    server: QdrantServer,
) -> None:
    fill(sink_at(server), stored(1, "a", "one"))
    killed = sink_at(server)
    with suppress(SinkAway), killed.locked():
        killed.write(iter([stored(2, "b", "two")]))
        server.strike(Fault(4, for_good=True))  # after the note and the point
        killed.write(iter([stored(7, "a", "lost")]))
    assert server.points()["a"]["number"] == 7
    server.strike(None)
    server.end_lease()
    sink = sink_at(server)
    assert sink.watermarks().vectors == 2
    fill(sink, stored(3, "a", "three"))  # Redis lost 7, and counts from there again
    assert server.points()["a"]["number"] == 3


def test_points_of_other_programs_are_left_alone(server: QdrantServer) -> None:
    fill(sink_at(server), stored(1, "a", "one"))
    other = models.PointStruct(id=17, vector=[1.0, 0, 0, 0], payload={"id": "a"})
    server.engine.upsert("articles", [other])
    sink = sink_at(server)
    assert [position.id for position in sink.positions()] == ["a"]
    with sink.locked():
        sink.write_tombstones(iter([Position(2, "a", b"")]))
    assert [record.id for record in server.engine.scroll("articles")[0]] == [17]


# The collection there


@pytest.mark.parametrize(
    ("vectors", "line"),
    [
        ({"size": 3, "distance": "Cosine"}, "takes vectors of 3 numbers, and wiki has 4"),
        ({"size": 4, "distance": "Dot"}, "compares by Dot, not by Cosine"),
        ({"size": 4, "distance": "Cosine", "datatype": "uint8"}, "keeps numbers as uint8"),
        ({"text": {"size": 4, "distance": "Cosine"}}, "has not one vector without a name"),
        (
            {"size": 4, "distance": "Cosine", "multivector_config": {"comparator": "max_sim"}},
            "has not one vector without a name",
        ),
        ({}, "has not one vector without a name"),
    ],
)
def test_a_collection_that_is_there_is_checked(
    server: QdrantServer, vectors: dict[str, object], line: str
) -> None:
    body = json.dumps({"vectors": vectors}).encode()
    server.answer("PUT", "/collections/articles", body, "")
    with pytest.raises(
        ExportError, match=f"qdrant://127.*/articles {line}.*name another"
    ) as caught:
        fill(sink_at(server), stored(1, "a", "one"))
    assert not isinstance(caught.value, SinkAway)
    assert "\n" not in str(caught.value)


def test_the_users_own_indexing_comes_back_also_after_a_kill(server: QdrantServer) -> None:
    config = {
        "vectors": {"size": 4, "distance": "Cosine"},
        "optimizers_config": {"indexing_threshold": 777},
    }
    server.answer("PUT", "/collections/articles", json.dumps(config).encode(), "")
    with sink_at(server).locked(), suppress(KeyboardInterrupt):
        pass
    sink = sink_at(server)
    with sink.locked():
        sink.write(iter([stored(1, "a", "one")]))
        assert server.thresholds["articles"] == 0
        server.strike(Fault(1, for_good=True))  # killed
    server.strike(None)
    server.end_lease()
    sink = sink_at(server)
    with sink.locked():
        sink.write(iter([stored(2, "b", "two")]))
        assert server.thresholds["articles"] == 0
        sink.finish()
        assert server.thresholds["articles"] == 777
    sink = sink_at(server)
    with sink.locked():  # it is no first load any more
        sink.write(iter([stored(3, "c", "three")]))
        assert server.thresholds["articles"] == 777
        sink.finish()


@pytest.mark.parametrize("is_emptied", [False, True])
def test_a_collection_that_was_deleted_or_emptied_is_filled_again(
    server: QdrantServer, is_emptied: bool, caplog: pytest.LogCaptureFixture
) -> None:
    redis = Redis(AFTER)
    sink = sink_at(server)
    export(sink, redis)
    with sink.locked() as token:
        pass
    server.engine.delete_collection("articles")
    if is_emptied:
        config = {"vectors": {"size": 4, "distance": "Cosine"}}
        server.answer("PUT", "/collections/articles", json.dumps(config).encode(), "")
    with sink_at(server).locked():
        assert list(sink.tombstones(0)) == []
    export(sink_at(server), redis)
    assert_true_to(server, redis)
    assert "was deleted or emptied since the last export" in caplog.text
    with sink_at(server).locked() as other:
        assert other != token  # so Redis does not take it for the one that it knows


def test_another_life_or_layout_is_not_mixed_in(server: QdrantServer) -> None:
    sink = sink_at(server)
    fill(sink, stored(1, "a", "one"))
    with sink.locked():
        with pytest.raises(ExportError, match="holds an earlier life of wiki.*name another"):
            sink.accept(b"life 2", PLAIN)
        with pytest.raises(ExportError, match="as float32 with all dim.*as int8 with all.* now"):
            sink.accept(BORN, Layout("nomic-v1.5", None, "int8"))
        sink.accept(BORN, PLAIN)
    other = Qdrant(server.address, "another")
    with pytest.raises(ExportError, match="holds the collection wiki"), other.locked():
        pass
    with sink.locked() as token:  # the refusal left no lease behind
        assert token
    server.engine.delete_collection("articles")  # as the lines say
    fill(other, stored(1, "a", "one"), born=b"life 2", layout=Layout("m", None, "float16"))
    assert server.points().keys() == {"a"}


def test_a_vector_of_another_length_is_refused_before_any_of_its_part(
    server: QdrantServer,
) -> None:
    sink = sink_at(server)
    odd = stored(2, "b", "two")._replace(data=b"\0" * 8)
    with pytest.raises(ExportError, match="id 'b' has 2 dimensions, and .* takes 4"):
        fill(sink, stored(1, "a", "one"), odd)
    assert server.points() == {}


def test_an_error_among_the_records_leaves_nothing_of_the_part(server: QdrantServer) -> None:
    def records() -> Iterator[Stored]:
        yield stored(1, "a", "one")
        raise KeyError("Redis is away")

    sink = sink_at(server)
    with pytest.raises(KeyError), sink.locked():
        sink.write(records())
    assert server.points() == {}
    assert sink.watermarks() == Watermarks(0, 0)


def test_the_last_tombstones_are_remembered(
    server: QdrantServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.export.qdrant.notes.TOMBSTONES", 500)  # local mode is slow
    sink = sink_at(server)
    many = [Position(number, f"{number}", b"") for number in range(1, 801)]
    with sink.locked():
        sink.write_tombstones(iter(many[:200]))
        sink.write_tombstones(iter(many[200:]))
        assert sink.watermarks().tombstones == 800
    assert list(sink.tombstones(0)) == many[300:]
    assert list(sink.tombstones(799)) == many[-1:]


# The lease


def test_one_export_at_a_time_and_the_next_one_after_the_lease(server: QdrantServer) -> None:
    def at(lease: float) -> Qdrant:
        return Qdrant(server.address, "wiki", lease=lease)

    with at(0.6).locked() as token:
        line = r"another vec export writes wiki to qdrant://127\.0\.0\.1:\d+/articles$"
        with pytest.raises(ExportError, match=line), at(0.6).locked():
            pass
        server.strike(Fault(1, for_good=True))  # killed
    server.strike(None)
    with at(0.6).locked() as same:
        assert same == token
    began = time.monotonic()
    with at(60.0).locked():
        assert time.monotonic() - began < 5.0  # an export that ended gave its lease back


@pytest.mark.parametrize("has_ended", [False, True])
def test_an_export_that_lost_its_lease_writes_nothing_more(
    server: QdrantServer, has_ended: bool
) -> None:
    frozen = sink_at(server)
    with frozen.locked():
        frozen.write(iter([stored(1, "a", "one")]))
        server.end_lease()
        with ExitStack() as exits:
            exits.enter_context(sink_at(server).locked())
            if has_ended:
                exits.close()
            for step in (
                lambda: frozen.write(iter([stored(2, "a", "two")])),
                lambda: frozen.write_tombstones(iter([Position(2, "a", b"")])),
                frozen.watermarks,
            ):
                with pytest.raises(ExportError, match="another vec export"):
                    step()
    assert {id: point["number"] for id, point in server.points().items()} == {"a": 1}


# Addresses, keys and errors

KEY = "s3cret/+key"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("qdrant://host", "qdrant://host:6333/wiki"),
        ("qdrant://host:7000/articles", "qdrant://host:7000/articles"),
        (
            "qdrants://:s3cret%2F%2Bkey@xyz.cloud.example/a%20b",
            "qdrants://xyz.cloud.example:6333/a b",
        ),
        ("qdrant://s3cret%2F%2Bkey@[::1]:7000/", "qdrant://[::1]:7000/wiki"),
    ],
)
def test_an_address_is_shown_without_its_key(address: str, shown: str) -> None:
    sink = Qdrant(address, "wiki")
    assert str(sink) == shown
    assert KEY not in repr(vars(sink)) and "s3cret" not in repr(sink)


@pytest.mark.parametrize(
    "address",
    [
        "qdrant://",
        "qdrant:///articles",
        f"qdrant://:{KEY}@host:port/x",
        "qdrant://:s3cret@host/a/b",
        "qdrant://:s3cret@host/a?key=s3cret",
        "qdrant://:s3cret@host/a#s3cret",
        "http://:s3cret@host/a",
        "qdrant://:s3cret%0A%C3%A9@host/a",
    ],
)
def test_a_wrong_address_is_one_line_without_its_key(address: str) -> None:
    with pytest.raises(ExportError, match="Qdrant") as caught:
        Qdrant(address, "wiki")
    assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)


def test_the_key_is_sent_and_no_error_or_log_shows_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with running_qdrant(KEY) as server:
        monkeypatch.setenv("QDRANT_API_KEY", KEY)
        sink = Qdrant(server.address, "wiki")
        fill(sink, stored(1, "a", "one"))
        echo = {"status": {"error": f"no such key {KEY}\n" + "x" * 9999}}
        for status, kind in ((400, ExportError), (403, ExportError), (500, SinkAway)):
            server.strike(Fault(1, for_good=True, reply=(status, echo, {})))
            with pytest.raises(kind) as caught:
                sink.watermarks()
            said = "".join(traceback.format_exception(caught.value))
            assert KEY not in said and f"({status})" in str(caught.value)
            assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)
        server.strike(None)
        monkeypatch.setenv("QDRANT_API_KEY", "wrong")
        with pytest.raises(ExportError, match=r"refuses the key: forbidden \(403\)"):
            Qdrant(server.address, "wiki").watermarks()
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ((429, {"status": {"error": "slow down"}}, {}), SinkAway),
        ((500, b"", {}), SinkAway),
        ((502, b"<html>", {}), SinkAway),
        ((400, {"status": {"error": "Wrong input: x"}}, {}), ExportError),
        ((413, b"too large", {}), ExportError),
        ((301, b"", {"Location": "http://127.0.0.1:1/"}), ExportError),
        ((200, b"<html>welcome", {}), ExportError),
        ((200, b"{}", {}), ExportError),
        ((200, b"[]", {}), ExportError),
    ],
)
def test_what_passes_may_be_tried_again_and_what_does_not_may_not(
    server: QdrantServer, reply: Reply, kind: type[ExportError]
) -> None:
    sink = sink_at(server)
    server.strike(Fault(1, reply=reply))
    with pytest.raises(ExportError) as caught:
        sink.watermarks()
    assert type(caught.value) is kind
    assert sink.watermarks() == Watermarks(0, 0)


def test_a_retry_after_is_waited_for_before_the_next_request(server: QdrantServer) -> None:
    sink = sink_at(server)
    server.strike(Fault(1, reply=(429, b"", {"Retry-After": "0.5"})))
    with pytest.raises(SinkAway):
        sink.watermarks()
    began = time.monotonic()
    sink.watermarks()
    assert time.monotonic() - began > 0.4


def test_a_server_that_is_not_there_is_away(server: QdrantServer) -> None:
    sink = Qdrant("qdrant://127.0.0.1:1/articles", "wiki")
    with pytest.raises(SinkAway, match="qdrant://127.0.0.1:1/articles does not answer"):
        sink.watermarks()


def test_a_sink_that_is_not_there_yet_holds_nothing(server: QdrantServer) -> None:
    sink = sink_at(server)
    assert sink.watermarks() == Watermarks(0, 0)
    assert sink.life is None
    assert list(sink.positions()) == list(sink.tombstones(0)) == []
    assert sink.holds([Position(1, "a", b"")]) == [False]
    with sink.locked():
        sink.finish()
        assert sink.write(iter([])) is None
        assert sink.write_tombstones(iter([])) is None
        sink.write_tombstones(iter([Position(1, "a", b"")]))
    assert not server.engine.collection_exists("articles")


def test_the_documented_query_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "qdrant.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    id = "bees.md#0001"
    point = str(uuid.uuid5(uuid.UUID("4e587e94-8a68-50d0-b4d3-5f4615cefb8b"), id))
    assert point_id(id) == point
    qdrant = qdrant_client.QdrantClient(":memory:")
    cosine = models.VectorParams(size=2, distance=models.Distance.COSINE)
    qdrant.create_collection("articles", cosine)
    payload = {"id": id, "parent": "bees.md"}
    qdrant.upsert("articles", [models.PointStruct(id=point, vector=[1.0, 0.0], payload=payload)])
    monkeypatch.setattr(qdrant_client, "QdrantClient", lambda url, api_key: qdrant)
    answer = SimpleNamespace(vector=[1.0, 0.0])
    monkeypatch.setattr("vector_embed_client.Client.embed", lambda client, text: answer)
    monkeypatch.setenv("VECTOR_EMBED_API_KEY", "vec_test")
    exec(compile(code, "qdrant.md", "exec"), {})
    said = capsys.readouterr().out
    assert said.startswith("1.000 bees.md#0001\n1 pieces of bees.md\n")
    assert point in said
