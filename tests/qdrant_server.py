"""A Qdrant for tests: its REST interface, with faults on demand.

The points are in the local mode of Qdrant's client, or in the engine of its server. Bodies are read
by the client's own models, which take no unknown field. What is said of a collection as a whole is
kept here. The server counts its requests, and at one of them a `Fault` strikes.

    python -m qdrant_server PORT DIRECTORY    # with the engine: it outlives a SIGKILL
"""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
from qdrant_client.http import models
from qdrant_client.local.qdrant_local import QdrantLocal
from sinks import Held
from stored import vector_of_digest

from worker.export.qdrant import Qdrant
from worker.export.qdrant.notes import COMPANION
from worker.export.sink import Rotation, Sink
from worker.local.child import Child
from worker.local.redis_server import free_port

Reply = tuple[int, object, dict[str, str]]
_SAID = "collections.json"


@dataclass
class Fault:
    """What happens at one request.

    `done`: the request is carried out, and its answer is lost. `for_good`: none is answered after
    it, until the server is mended. `reply`: this is answered.
    """

    at: int
    done: bool = False
    for_good: bool = False
    reply: Reply | None = None


@dataclass
class QdrantServer:
    """The server. `requests` are those since the last `strike`, as `METHOD path`."""

    key: str = ""
    port: int = 0
    directory: Path | None = None
    requests: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    vectors: dict[str, Any] = field(default_factory=dict)
    thresholds: dict[str, int] = field(default_factory=dict)
    indexes: dict[str, dict[str, str]] = field(default_factory=dict)
    engine: Any = field(
        default_factory=lambda: QdrantLocal(":memory:", force_disable_check_same_thread=True)
    )
    _fault: Fault | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def address(self) -> str:
        return f"qdrant://127.0.0.1:{self.port}/articles"

    def strike(self, fault: Fault | None) -> None:
        """Count requests from here; `fault` comes at one of them. None: mend the server."""
        with self._lock:
            self.requests.clear()
            self.bodies.clear()
            self._fault = fault

    def empty(self) -> None:
        """Delete all that it holds."""
        for collection in self.engine.get_collections().collections:
            self.engine.delete_collection(collection.name)

    def end_lease(self) -> None:
        """As if the time of a lease had passed."""
        if self.engine.collection_exists(COMPANION):
            all_points = models.FilterSelector(filter=models.Filter())
            self.engine.set_payload(COMPANION, {"expires": 0.0}, all_points)

    def points(self, collection: str = "articles") -> dict[str, Any]:
        """The payloads of all points of a collection, with their vectors, by our ids."""
        if not self.engine.collection_exists(collection):
            return {}
        records, _ = self.engine.scroll(collection, limit=10**9, with_vectors=True)
        payloads = [{**(record.payload or {}), "": record.vector} for record in records]
        return {str(payload["id"]): payload for payload in payloads}

    def answer(self, method: str, path: str, body: bytes, key: str) -> Reply | None:
        """The answer to a request; None for none."""
        with self._lock:
            self.requests.append(f"{method} {path}")
            self.bodies.append(body)
            fault, number = self._fault, len(self.requests)
            is_struck = fault is not None and number >= fault.at
            if fault is not None and number > fault.at:
                is_struck = fault.for_good
            if fault is not None and is_struck:
                if fault.reply is not None:
                    return fault.reply
                if not (fault.done and number == fault.at):
                    return None
            if self.key and key != self.key:
                reply: Reply = (403, {"status": {"error": "forbidden"}}, {})
            else:
                reply = self._carry_out(method, path, body)
            return None if is_struck else reply

    def _carry_out(self, method: str, path: str, body: bytes) -> Reply:
        match = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        assert match, path
        name, step = unquote(match[1]), match[2] or ""
        wanted = json.loads(body) if body else {}
        if (method, step) != ("PUT", "") and not self.engine.collection_exists(name):
            error = f"Not found: Collection `{name}` doesn't exist!"
            return 404, {"status": {"error": error}, "time": 0.0}, {}
        steps: dict[tuple[str, str], Callable[[str, Any], object]] = {
            ("GET", ""): self._info,
            ("PUT", ""): self._create,
            ("PATCH", ""): self._update,
            ("PUT", "/index"): self._index,
            ("PUT", "/points"): self._upsert,
            ("POST", "/points"): self._retrieve,
            ("POST", "/points/scroll"): self._scroll,
            ("POST", "/points/delete"): self._delete,
            ("POST", "/points/payload"): self._set_payload,
        }
        try:
            result = steps[method, step](name, wanted)
        except ValueError as error:
            return 400, {"status": {"error": f"Wrong input: {error}"}, "time": 0.0}, {}
        if self.directory is not None and not step.startswith("/points"):
            said = [self.vectors, self.thresholds, self.indexes]
            (self.directory / _SAID).write_text(json.dumps(said))
        return 200, {"result": result, "status": "ok", "time": 0.0}, {}

    def _info(self, name: str, wanted: Any) -> object:
        schema = self.indexes[name].items()
        return {
            "status": "green",
            "config": {
                "params": {"vectors": self.vectors[name]},
                "optimizer_config": {"indexing_threshold": self.thresholds[name]},
            },
            "payload_schema": {name: {"data_type": kind, "points": 0} for name, kind in schema},
        }

    def _create(self, name: str, wanted: Any) -> object:
        config = models.CreateCollection(**wanted)
        self.engine.create_collection(name, config.vectors)
        self.vectors[name] = wanted["vectors"]
        self.thresholds[name] = 20_000
        self.indexes[name] = {}
        self._update(name, {"optimizers_config": wanted.get("optimizers_config")})
        return True

    def _update(self, name: str, wanted: Any) -> object:
        change = models.UpdateCollection(**wanted).optimizers_config
        if change is not None and change.indexing_threshold is not None:
            self.thresholds[name] = change.indexing_threshold
        return True

    def _index(self, name: str, wanted: Any) -> object:
        index = models.CreateFieldIndex(**wanted)
        kind = str(wanted["field_schema"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # local mode has none
            self.engine.create_payload_index(name, index.field_name, kind)
        self.indexes[name][index.field_name] = kind
        return {"operation_id": 1, "status": "completed"}

    def _upsert(self, name: str, wanted: Any) -> object:
        batch = models.PointsList(**wanted)
        self.engine.upsert(name, batch.points, update_filter=batch.update_filter)
        return {"operation_id": 1, "status": "completed"}

    def _retrieve(self, name: str, wanted: Any) -> object:
        asked = models.PointRequest(**wanted)
        found = self.engine.retrieve(name, asked.ids, asked.with_payload or False)
        return [record.model_dump(mode="json") for record in found]

    def _scroll(self, name: str, wanted: Any) -> object:
        asked = models.ScrollRequest(**wanted)
        page, following = self.engine.scroll(
            name,
            scroll_filter=asked.filter,
            limit=asked.limit or 10,
            offset=asked.offset,
            order_by=asked.order_by,
            with_payload=asked.with_payload or False,
            with_vectors=asked.with_vector or False,
        )
        points = [record.model_dump(mode="json") for record in page]
        return {"points": points, "next_page_offset": following}

    def _delete(self, name: str, wanted: Any) -> object:
        self.engine.delete(name, models.FilterSelector(**wanted))
        return {"operation_id": 1, "status": "completed"}

    def _set_payload(self, name: str, wanted: Any) -> object:
        asked = models.SetPayload(**wanted)
        assert asked.filter is not None
        self.engine.set_payload(name, asked.payload, models.FilterSelector(filter=asked.filter))
        return {"operation_id": 1, "status": "completed"}


class QdrantCase:
    """A collection of a Qdrant, for the contract of a sink."""

    def __init__(self, server: QdrantServer) -> None:
        self._server = server

    def open(self, rotation: Rotation | None = None, collection: str = "wiki") -> Sink:
        return Qdrant(self._server.address, collection, rotation, lease=0.6)

    def held(self) -> dict[str, Held]:
        """Of a vector Qdrant keeps the direction alone, and those of these tests all have one."""
        found = {}
        for id, point in self._server.points().items():
            assert [round(number, 4) for number in point[""]] == [0.7071, 0.7071]
            digest = bytes.fromhex(point["digest"])
            found[id] = Held(digest, vector_of_digest(digest))
        return found


@contextmanager
def running_qdrant(
    key: str = "", directory: Path | None = None, port: int = 0
) -> Iterator[QdrantServer]:
    """The server, at a free port if none is said, until the block ends.

    With a `directory`, its points are in the engine there.
    """
    qdrant = QdrantServer(key) if directory is None else _lasting(key, directory)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer waits 40 ms

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            path = urlsplit(self.path).path
            reply = qdrant.answer(self.command, path, body, self.headers.get("api-key") or "")
            if reply is None:
                self.close_connection = True
                return
            status, content, headers = reply
            packed = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(packed)))
            self.end_headers()
            self.wfile.write(packed)

        do_GET = do_PUT = do_POST = do_PATCH = _answer

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    qdrant.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield qdrant
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _lasting(key: str, directory: Path) -> QdrantServer:
    from qdrant_engine import Edge

    (directory / "points").mkdir(parents=True, exist_ok=True)
    qdrant = QdrantServer(key, directory=directory, engine=Edge(directory / "points"))
    with suppress(FileNotFoundError):
        said = json.loads((directory / _SAID).read_text())
        qdrant.vectors, qdrant.thresholds, qdrant.indexes = said
    return qdrant


class QdrantProcess:
    """A process of the server, with the engine: killed, it begins again where it was."""

    def __init__(self, directory: Path) -> None:
        self._port = free_port()
        self._directory = directory
        self.url = f"http://127.0.0.1:{self._port}"
        self.address = f"qdrant://127.0.0.1:{self._port}/articles"
        self.child = self._start()

    def restart(self) -> None:
        """SIGKILL, and begin again on the same port."""
        self.child.kill()
        self.child = self._start()

    def points(self) -> Iterator[Any]:
        """All that is in the collection `articles`."""
        wanted = {"limit": 5_000, "with_payload": True, "with_vector": True, "offset": None}
        with httpx.Client(base_url=self.url, timeout=300) as client:
            while True:
                page = client.post("/collections/articles/points/scroll", json=wanted).json()
                yield from page["result"]["points"]
                wanted["offset"] = page["result"]["next_page_offset"]
                if wanted["offset"] is None:
                    return

    def stop(self) -> None:
        """End it."""
        self.child.stop(30)

    def _start(self) -> Child:
        words = [sys.executable, "-m", "qdrant_server", str(self._port), str(self._directory)]
        child = Child(
            "Qdrant", words, self._directory.with_suffix(".log"), cwd=Path(__file__).parent
        )
        child.wait_for("listening", 120)
        return child


def main() -> None:
    with running_qdrant(directory=Path(sys.argv[2]), port=int(sys.argv[1])):
        print("listening", flush=True)
        signal.sigwait([signal.SIGTERM])


if __name__ == "__main__":
    main()
