"""The engine of Qdrant in place of the local mode of its client: a directory for each collection.

It has a write-ahead log, so after a SIGKILL it begins again with all that was answered. It takes
and returns the models of the client, as far as a sink needs them.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from qdrant_client.http import models

_DATATYPES = {
    "float32": edge.VectorStorageDatatype.Float32,
    "float16": edge.VectorStorageDatatype.Float16,
    "uint8": edge.VectorStorageDatatype.Uint8,
}
_ONE = models.VectorParams(size=1, distance=models.Distance.DOT)
_SCHEMAS = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
}


class Edge:
    """The collections below a directory; those that are there already are loaded."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._shards = {path.name: edge.EdgeShard.load(str(path)) for path in directory.iterdir()}

    def collection_exists(self, name: str) -> bool:
        return name in self._shards

    def get_collections(self) -> models.CollectionsResponse:
        named = [models.CollectionDescription(name=name) for name in self._shards]
        return models.CollectionsResponse(collections=named)

    def create_collection(
        self, name: str, vectors: models.VectorParams | dict[str, models.VectorParams]
    ) -> None:
        path = self._directory / name
        path.mkdir()
        params: Any
        if isinstance(vectors, dict):
            params = {named: _params(one) for named, one in vectors.items()}
            params = params or {"none": _params(_ONE)}  # it takes no collection without any
        else:
            params = _params(vectors)
        self._shards[name] = edge.EdgeShard.create(str(path), edge.EdgeConfig(vectors=params))

    def delete_collection(self, name: str) -> None:
        self._shards.pop(name).close()
        shutil.rmtree(self._directory / name)

    def create_payload_index(self, name: str, field: str, schema: str) -> None:
        step = edge.UpdateOperation.create_field_index(field, _SCHEMAS[schema])
        self._shards[name].update(step)

    def upsert(
        self,
        name: str,
        points: Sequence[models.PointStruct],
        update_filter: models.Filter | None = None,
    ) -> None:
        packed: list[Any] = []
        for point in points:
            vector: Any = point.vector
            packed.append(edge.Point(point.id, vector, point.payload))
        step = edge.UpdateOperation.upsert_points(packed, condition=_filter(update_filter))
        self._shards[name].update(step)

    def retrieve(
        self, name: str, ids: Sequence[Any], with_payload: Any = True
    ) -> list[models.Record]:
        found = self._shards[name].retrieve(list(ids), with_payload, False)
        return [_record(one) for one in found]

    def scroll(
        self,
        name: str,
        scroll_filter: models.Filter | None = None,
        limit: int = 10,
        offset: Any = None,
        order_by: str | None = None,
        with_payload: Any = True,
        with_vectors: bool = False,
    ) -> tuple[list[models.Record], Any]:
        wanted = edge.ScrollRequest(
            filter=_filter(scroll_filter),
            limit=limit,
            offset=offset,
            order_by=None if order_by is None else edge.OrderBy(order_by),
            with_payload=with_payload,
            with_vector=with_vectors,
        )
        found, following = self._shards[name].scroll(wanted)
        records = [_record(one) for one in found]
        return records, None if following is None else str(following)

    def delete(self, name: str, selector: models.FilterSelector) -> None:
        step = edge.UpdateOperation.delete_points_by_filter(_filter(selector.filter))
        self._shards[name].update(step)

    def set_payload(
        self, name: str, payload: dict[str, Any], selector: models.FilterSelector
    ) -> None:
        step = edge.UpdateOperation.set_payload_by_filter(_filter(selector.filter), payload)
        self._shards[name].update(step)


def _params(vectors: models.VectorParams) -> Any:
    return edge.EdgeVectorParams(
        size=vectors.size,
        distance=getattr(edge.Distance, vectors.distance.value),
        datatype=_DATATYPES[vectors.datatype.value if vectors.datatype else "float32"],
    )


def _record(found: Any) -> models.Record:
    id = found.id if isinstance(found.id, int) else str(found.id)
    return models.Record(id=id, vector=found.vector, payload=found.payload)


def _filter(given: models.Filter | None) -> Any:
    if given is None:
        return None
    return edge.Filter(
        must=_conditions(given.must),
        should=_conditions(given.should),
        must_not=_conditions(given.must_not),
    )


def _conditions(given: Any) -> list[Any] | None:
    if given is None:
        return None
    return [_condition(one) for one in (given if isinstance(given, list) else [given])]


def _condition(given: Any) -> Any:
    if isinstance(given, models.Filter):
        return _filter(given)
    if isinstance(given, models.HasIdCondition):
        return edge.HasIdCondition(set(given.has_id))
    assert isinstance(given, models.FieldCondition), given
    if isinstance(given.match, models.MatchValue):
        return edge.FieldCondition(given.key, match=edge.MatchValue(given.match.value))
    assert isinstance(given.range, models.Range), given
    bounds = given.range.model_dump(exclude_none=True)
    return edge.FieldCondition(given.key, range=edge.RangeFloat(**bounds))
