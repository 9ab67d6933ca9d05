"""The page as an ASGI app: its addresses, its headers, and the templates.

All links are relative, so a proxy may serve it below any path that ends with a slash. Everything
that comes from Redis is escaped by the templates, and nothing may come from another host.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

import redis
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ...logs import plain
from ...settings import Settings
from ...store.connection import connect
from ...store.errors import CollectionError
from ...store.keys import CollectionKeys
from ...store.plane import MOST, Map, read_map
from ..obstacle import CommandLine
from . import views
from .brief import Brief
from .letters import Letters, read_letters
from .map import view
from .rendering import HERE, templates
from .shared import LOOK_SECONDS, Seen, Shared
from .snapshot import read_snapshot
from .views import Detail, read_detail
from .words import Said, map_command

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_STATIC = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "map.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
MAP_SECONDS = 600.0  # how old a map may be
MAP_SAMPLE = 3000  # vectors on it, unless MOST are asked for


class _MapKey(NamedTuple):
    """Which map it is."""

    name: str
    born: str  # a collection that was made anew has a map of its own
    field: str | None
    most: int


class _Drawing(Exception):
    """Another map is being made."""


class Page:
    """What is served of one Redis. `metrics` answers `/metrics`; the rest is as in `Exporter`."""

    def __init__(
        self,
        settings: Settings,
        metrics: WSGIApplication,
        command: CommandLine,
        *,
        show_text: bool = False,
        seconds: float = LOOK_SECONDS,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._command = command
        self._show_text = show_text
        self.shared = Shared(lambda: read_snapshot(settings, command), seconds)
        self._details: Brief[Detail | None] = Brief(seconds)
        self._letters: Brief[Letters] = Brief(seconds)
        self._maps: Brief[tuple[float, Map]] = Brief(MAP_SECONDS, most=4)
        self._drawing = threading.Lock()
        self._static = {name: (HERE / "static" / name).read_bytes() for name in _STATIC}
        digest = hashlib.sha256(b"".join(self._static.values()))
        self._templates = templates(digest.hexdigest()[:12])
        routes = [
            Route("/", self.overview),
            Route("/collections/{name:path}", self.collection),
            Route("/maps/{name:path}", self.map),
            Route("/static/{name}", self.static),
            Route("/metrics", self.metrics),
            Route("/healthz", _well),
        ]
        self.app = Starlette(
            routes=routes,
            exception_handlers={HTTPException: self._missing, Exception: self._missing},
        )

    # Endpoints. They are no coroutines, so starlette runs them in threads.

    def overview(self, request: Request) -> Response:
        """All collections."""
        seen = self.shared.look()
        if seen.snapshot is None:
            return self._away(request, seen)
        ask = request.query_params
        view = views.overview(
            seen,
            self.shared.history,
            self._command,
            find=plain(ask.get("find", "")[:100]),
            start=_whole(ask.get("from")),
            span=ask.get("span", ""),
        )
        return self._html(request, "overview.html", view)

    def collection(self, request: Request) -> Response:
        """One collection, and some of its dead letters."""
        name = request.path_params["name"]
        code, after = request.query_params.get("code"), _whole(request.query_params.get("after"))
        settings = self._settings
        try:
            detail = self._details.get(name, lambda: read_detail(settings, name, self._command))
            if detail is None:
                return self._gone(request, name)
            letters = Letters([], None)
            if detail.ledger.dead:
                letters = self._letters.get(
                    (name, code, after), lambda: read_letters(settings, name, code, after)
                )
        except CollectionError:
            return self._gone(request, name)
        except redis.RedisError as error:
            return self._away(request, Seen(None, str(error).rstrip(".")))
        view = views.collection(detail, letters, self._command, settings.queue, code=code)
        return self._html(
            request, "collection.html", {**view, "start": after, "show_text": self._show_text}
        )

    def map(self, request: Request) -> Response:
        """The vectors of a collection as points. One is made at a time, and kept for a while."""
        name, settings = request.path_params["name"], self._settings
        ask = request.query_params
        field = ask.get("color", "")[:100] or None
        most = MOST if ask.get("vectors") == str(MOST) else MAP_SAMPLE
        try:
            detail = self._details.get(name, lambda: read_detail(settings, name, self._command))
            if detail is None:
                return self._gone(request, name)
            key = _MapKey(name, detail.ledger.born, field, most)
            at, found = self._maps.kept(key) or self._draw(key)
        except _Drawing:
            said = Said("running", "Another map is being drawn", "One is drawn at a time.")
            return self._notice(request, 503, said, "This page looks again by itself.")
        except CollectionError as error:
            said = Said("empty", "There is no such map", plain(str(error)))
            return self._notice(request, 404, said)
        except redis.RedisError as error:
            return self._away(request, Seen(None, str(error).rstrip(".")))
        held = {"look_seconds": 0, "still": True, "memory": None}  # it does not look again
        shown = {**view(found, show_text=self._show_text), **held}
        asked = {"field": plain(field or ""), "is_large": most == MOST, "largest": MOST}
        command = map_command(name, self._command, field)
        return self._html(request, "map.html", {**shown, **asked, "at": at, "map_command": command})

    def _draw(self, key: _MapKey) -> tuple[float, Map]:
        """Make a map, if no other is being made: who waits would hold a thread of the server."""
        if not self._drawing.acquire(blocking=False):
            raise _Drawing
        try:
            return self._maps.get(key, lambda: (time.time(), _read_map(self._settings, key)))
        finally:
            self._drawing.release()

    def static(self, request: Request) -> Response:
        """A style sheet or a script. Its address changes with it, so it may be kept."""
        name = request.path_params["name"]
        if name not in self._static:
            raise HTTPException(404)
        headers = {**_HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}
        return Response(self._static[name], media_type=_STATIC[name], headers=headers)

    def metrics(self, request: Request) -> Response:
        """What Prometheus asks for, as the exporter answers it without this page."""
        environ = {
            "REQUEST_METHOD": request.method,
            "PATH_INFO": "/metrics",
            "QUERY_STRING": request.url.query,
            "HTTP_ACCEPT": request.headers.get("accept", ""),
            "HTTP_ACCEPT_ENCODING": request.headers.get("accept-encoding", ""),
        }
        told: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[..., object]:
            told.append((status, headers))
            return lambda _: None

        content = b"".join(self._metrics(environ, start))
        [(status, headers)] = told
        return Response(content, int(status.split()[0]), dict(headers))

    # Other pages

    def _away(self, request: Request, seen: Seen) -> Response:
        """Redis does not answer, and nothing was read yet."""
        address = self._settings.shown_redis_url
        if seen.fault is None:
            said = Said("empty", "Reading Redis for the first time", "It takes longer than usual.")
        else:
            said = Said(
                "away",
                "Redis does not answer",
                f"{plain(address)}: {plain(seen.fault)}",
                [self._command("doctor")],
            )
        more = "This page looks again by itself. Workers do too; what is queued is safe in Redis."
        return self._notice(request, 503, said, more)

    def _gone(self, request: Request, name: str) -> Response:
        """There is no collection of this name, or no longer."""
        shown = plain(name[:100])
        said = Said(
            "empty",
            f"There is no collection {shown}",
            "It was dropped, or its name is another. These commands list all, and make a new one:",
            [
                self._command("status"),
                self._command("vec-enqueue", "corpus.jsonl", collection="NAME"),
            ],
        )
        return self._notice(request, 404, said)

    async def _missing(self, request: Request, error: Exception) -> Response:
        """No such address, a method that is not there, or our own bug."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        title, note = {
            404: ("There is no such page", "The overview is at /, the metrics at /metrics."),
            405: ("This page is only read", "Ask for it with GET."),
        }.get(status, ("This page failed", "The exporter's log has more. Please report it."))
        return self._notice(
            request, status, Said("away" if status == 500 else "empty", title, note)
        )

    def _notice(self, request: Request, status: int, said: Said, more: str = "") -> Response:
        view = {"said": said, "more": more, "back": status == 404, "memory": None}
        return self._html(request, "notice.html", view, status)

    def _html(
        self, request: Request, template: str, view: Mapping[str, object], status: int = 200
    ) -> Response:
        depth = unquote(request.url.path).count("/") - 1
        around = {
            "root": "../" * depth,
            "still": request.query_params.get("still") is not None,
            "look_seconds": self.shared.seconds,
            "redis": plain(self._settings.shown_redis_url),
            "zone": time.strftime("UTC%z"),
        }
        content = self._templates.get_template(template).render({**around, **view})
        headers = {**_HEADERS, "Cache-Control": "no-store"}
        # An id may hold what UTF-8 cannot say; `plain` has escaped it where it is shown.
        body = content.encode("utf-8", "replace")
        return Response(body, status, headers, "text/html; charset=utf-8")


async def _well(request: Request) -> Response:
    """It lives. No thread is needed for that, so it answers whatever the others do."""
    return PlainTextResponse("ok\n")


def _read_map(settings: Settings, key: _MapKey) -> Map:
    keys = CollectionKeys(settings.prefix, key.name)
    return read_map(connect(settings), keys, key.most, key.field)


def _whole(said: str | None) -> int:
    """A number from an address; 0 for what is none, or is larger than Redis has."""
    is_number = said is not None and said.isascii() and said.isdecimal() and len(said) <= 20
    number = int(said or 0) if is_number else 0
    return number if number < 2**64 else 0
