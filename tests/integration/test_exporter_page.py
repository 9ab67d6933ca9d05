"""The page of `vec exporter`, asked over HTTP, on a real Redis."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import quote, urljoin, urlsplit

import httpx
import pytest
import redis
from servers import TcpProxy, wait_until
from shell import Shell
from stored import Bench, Store, pairs

from worker.cli.command import Target
from worker.local.redis_server import RedisServer
from worker.monitor.fleet import Trouble, Work, Worker, announce_worker
from worker.monitor.obstacle import CommandLine
from worker.monitor.page import app
from worker.monitor.server import Exporter
from worker.settings import Settings
from worker.store.connection import connect
from worker.throttle import announce_throttles, pause
from worker.throttle.holds import hold
from worker.types import Job

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>'\"&{{7*7}}\u202eexe\x1b[31m"


class Shown(HTMLParser):
    """What a browser would make of a page: its text by element, its links, its scripts."""

    _EMPTY = ("meta", "link", "input", "img", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.styles: list[str] = []
        self.words: list[str] = []
        self.by_class: dict[str, list[str]] = {}
        self._open: list[tuple[str, list[str], list[str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        said = {name: value or "" for name, value in attrs}
        self.links += [said[name] for name in ("href", "src", "action") if name in said]
        self.handlers += [name for name in said if name.startswith("on")]
        self.styles += [said["style"]] if "style" in said else []
        if tag not in self._EMPTY:
            self._open.append((tag, said.get("class", "").split(), []))

    def handle_endtag(self, tag: str) -> None:
        name, classes, words = self._open.pop()
        assert name == tag, (name, tag)
        for one in (*classes, tag):
            self.by_class.setdefault(one, []).append(" ".join("".join(words).split()))

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        for _, _, words in self._open:
            words.append(data)

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join("".join(self.words).split())


command = Target(None, False).command


@contextmanager
def served(
    settings: Settings, *, show_text: bool = False, command: CommandLine = command
) -> Iterator[Site]:
    """The exporter in this process; what it shows is at most a fifth of a second old."""
    exporter = Exporter(settings, "127.0.0.1", 0, command, show_text=show_text, seconds=0.2)
    with exporter, httpx.Client(base_url=exporter.url, timeout=30) as client:
        yield Site(client)


class Site:
    """A browser without a screen."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def page(self, path: str = "/", status: int = 200) -> Shown:
        """A page, which must have this status."""
        answer = self.client.get(path)
        assert answer.status_code == status, answer.text
        return Shown(answer.text)

    def until(self, text: str, path: str = "/") -> Shown:
        """The page, once it says this."""

        def found() -> Shown | None:
            shown = Shown(self.client.get(path).text)
            return shown if text in shown.text else None

        shown = wait_until(found, 15, f"{text!r} at {path}", 0.05)
        assert shown is not None
        return shown


@pytest.fixture
def site(settings: Settings) -> Iterator[Site]:
    with served(settings) as found:
        yield found


def refused(bench: Bench, number: int) -> None:
    """Dead letters."""
    bench.add(*pairs(number, "bad"))
    bench.embed_all(refuse=[f"bad {n}" for n in range(number)])


def collection(settings: Settings, name: str, texts: int) -> None:
    """A collection with this backlog."""
    Store(name, settings=settings).adder().add([Job(f"id{n}", "a text") for n in range(texts)])


def test_the_page_says_what_vec_status_says(bench: Bench, site: Site, shell: Shell) -> None:
    bench.add(*pairs(6))
    bench.embed_all(refuse=["text 1", "text 4"])
    bench.add(*[(f"new{n}", f"later {n}") for n in range(1203)])
    bench.claim("c", 3)
    [said] = json.loads(shell("vec", "status", "--json").stdout)
    shown = site.until("No worker: 1,203 texts to do")
    figures = dict(zip(shown.by_class["dt"], shown.by_class["dd"]))
    for name in ("embedded", "dead", "leased", "pending"):
        assert figures[name] == f"{said[name]:,}"
    assert figures["= enqueued"] == f"{said['enqueued']:,}" == "1,209"
    [row] = shown.by_class["row"]
    assert row.startswith(f"{said['state']} wiki")
    assert said["reason"] in row and "<1 % 6 of 1,209" in row and row.endswith("2")
    assert shown.by_class["code"] == ["vec worker"] * 3
    assert "reason" in said


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (Target("redis://h/1", False), ["env VECTOR_EMBED_REDIS_URL=redis://h/1 vec worker"] * 3),
        (Target(None, True), None),  # it starts its workers by itself
    ],
)
def test_what_is_to_be_typed_is_about_the_same_redis(
    target: Target, told: list[str] | None, bench: Bench, settings: Settings
) -> None:
    bench.add(*pairs(6))
    with served(settings, command=target.command) as site:
        shown = site.until("No worker: 6 texts to do")
    assert shown.by_class.get("code") == told


def test_one_collection_is_shown_in_detail_with_what_can_be_done(bench: Bench, site: Site) -> None:
    refused(bench, 3)
    hold(bench.redis, "vec", "wiki", "until monday")
    bench.add(("later", "a text"))
    announce_worker(bench.redis, "vec", Worker("host:1:a", 8))
    shown = site.until("paused: until monday", "/collections/wiki")
    assert shown.by_class["h1"] == ["wiki: paused"]
    commands = shown.by_class["code"]
    assert {"vec resume wiki", "vec dead wiki", "vec retry wiki"} <= set(commands)
    assert len(shown.by_class["c-id"]) == 3
    assert all("poison the API refuses it" in one for one in shown.by_class["c-reason"])
    assert "poison 3" in shown.by_class["codes"][0]


def test_dead_letters_are_paged_and_each_is_on_some_page(bench: Bench, site: Site) -> None:
    for first in range(0, 1000, 100):
        bench.add(*[(f"id{first + n}", f"bad {n}") for n in range(100)])
    bench.embed_all(refuse=[f"bad {n}" for n in range(100)])
    assert bench.status.dead == 1000
    seen: set[str] = set()
    path, pages = "/collections/wiki", 0
    while path:
        html = site.client.get(path).text
        ids = Shown(html).by_class.get("long", [])[::2]  # the last page may be empty
        assert len(ids) < 300
        seen |= set(ids)
        pages += 1
        found = re.search(r'href="(\?after=\d+[^"]*)">More', html)
        path = found and urljoin("/collections/wiki", found[1].replace("&amp;", "&")) or ""
    assert seen == {f"id{n}" for n in range(1000)} and pages > 4
    none = site.page("/collections/wiki?code=another")
    assert "None among those looked at" in none.text
    assert "id5" in site.page("/collections/wiki?code=poison&after=x").text


def test_texts_are_shown_only_if_asked_for(bench: Bench, settings: Settings) -> None:
    refused(bench, 1)
    for show_text in (False, True):
        with served(settings, show_text=show_text) as site:
            shown = site.page("/collections/wiki")
            assert ("bad 0" in shown.text) is show_text
            assert ("--show-text" in shown.text) is not show_text


def test_each_key_of_a_worker_has_its_throttle_and_a_broken_key_file_is_told(
    bench: Bench, site: Site
) -> None:
    bench.add(("a", "a text"))
    announce_throttles(bench.redis, "vec", dict.fromkeys(("e-one", "e-two"), "http://api.example"))
    pause(bench.redis, "vec", "e-two", "half of it rests")
    worker = Worker("host:1:a", 8, throttle="e-one", throttles=["e-one", "e-two"])
    announce_worker(bench.redis, "vec", replace(worker, key_fault="keys.txt is gone"))
    for path in ("/", "/collections/wiki"):
        shown = site.until("half of it rests", path)
        assert "e-one" in shown.text and "e-two" in shown.text
        assert len(shown.by_class["card"]) == 2
    assert "keys.txt is gone: the API keys that were read before" in site.page().text


def test_what_others_wrote_is_text_and_nothing_else(
    bench: Bench, settings: Settings, redis_client: redis.Redis
) -> None:
    keyed = replace(settings, api_key="vec_secret_key")
    bench.add((HOSTILE, f"bad {HOSTILE}"), ("x" * 1000, "bad\nsecond line"))
    bench.embed_all(refuse=[f"bad {HOSTILE}", "bad\nsecond line"])
    # No producer of ours can write half a surrogate pair: JSON that another wrote may hold one.
    lone = {
        "text": "\ud800",
        "meta": None,
        "code": "\ud800",
        "reason": "",
        "attempts": 1,
        "at": 1.0,
    }
    redis_client.hset("vec:{wiki}:dead", "lone", b"0" * 16 + json.dumps(lone).encode())
    hold(bench.redis, "vec", "wiki", HOSTILE)
    client = connect(settings)
    announce_throttles(client, "vec", {"t": f"http://{HOSTILE}/"})
    pause(client, "vec", "t", HOSTILE)
    troubles = [Trouble(1.0, f"wiki: {HOSTILE}")]
    work = [Work(HOSTILE, 1, True)]
    name = f"{HOSTILE.encode('ascii', 'ignore').decode()}:1:a"
    announce_worker(
        client,
        "vec",
        Worker(name, 8, 1.0, HOSTILE, work=work, troubles=troubles, throttle="t", queue=HOSTILE),
    )
    said = quote(HOSTILE, safe="")
    asked = [f"/?find={said}", f"/collections/{said}", f"/collections/wiki?code={said}"]
    with served(keyed, show_text=True) as site:
        for path in ("/", "/collections/wiki", *asked):
            answer = site.client.get(path)
            shown = Shown(answer.text)
            assert shown.tags.count("script") == 1 and "img" not in shown.tags, path
            assert not shown.handlers and not shown.styles
            assert "\u202e" not in answer.text and "\x1b" not in answer.text
            assert "vec_secret_key" not in answer.text
            assert path == asked[0] or "<script>alert(1)</script>" in shown.text
        assert "bad second line" in site.page("/collections/wiki").by_class["pre"]


def test_every_page_forbids_what_is_not_its_own(bench: Bench, site: Site) -> None:
    bench.add(("a", "a text"))
    pages = {"/": 200, "/collections/wiki": 200, "/collections/x": 404, "/x": 404}
    for path, status in pages.items():
        answer = site.client.get(path)
        assert answer.status_code == status
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
    assert site.client.post("/").status_code == 405
    assert site.client.get("/static/../app.py").status_code == 404


def test_of_many_all_can_be_found_and_every_link_leads_somewhere_below_any_path(
    bench: Bench, site: Site
) -> None:
    for n in range(105):
        collection(bench.settings, f"tenant-{n:03}", 2 if n == 77 else 1)
    refused(bench, 300)
    shown = site.until("106, 105 waiting, 1 idle")
    assert len(shown.by_class["row"]) == 50
    assert shown.by_class["row"][0].startswith("waiting tenant-077")
    assert len(site.page("/?from=100").by_class["row"]) == 6
    assert len(site.page("/?find=NT-10").by_class["row"]) == 5
    assert "No collection with" in site.page("/?find=other").text
    to_see, seen = [""], set()
    while to_see:
        path = to_see.pop()
        seen.add(path)
        answer = site.client.get(f"/{path}")
        assert answer.status_code == 200, path
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        for link in Shown(answer.text).links:
            assert not link.startswith("/") and not urlsplit(link).netloc, link
            target = urljoin(f"http://proxy/below/here/{path}", link).partition("#")[0]
            assert target.startswith("http://proxy/below/here/"), (path, link)
            its_path = target.removeprefix("http://proxy/below/here/")
            is_new = its_path not in seen and its_path not in to_see
            if is_new and "after=" not in its_path and "collections/t" not in its_path:
                to_see.append(its_path)
    assert {"metrics", "collections/wiki", "?from=100"} <= seen


def test_a_hundred_browsers_cost_redis_no_more_than_one(settings: Settings, bench: Bench) -> None:
    refused(bench, 5)
    client = connect(settings)

    def calls() -> int:
        return int(str(client.info("stats")["total_commands_processed"]))

    exporter = Exporter(settings, "127.0.0.1", 0, command, seconds=600.0)
    with exporter, httpx.Client(base_url=exporter.url, timeout=60) as browser:
        for path in ("/", "/collections/wiki"):
            assert browser.get(path).status_code == 200
        before = calls()
        with ThreadPoolExecutor(20) as many:
            paths = ["/", "/collections/wiki"] * 100
            answers = list(many.map(lambda path: browser.get(path).status_code, paths))
        assert set(answers) == {200}
        assert calls() - before < 20  # this test's own, and a heartbeat of the connection


@pytest.mark.heavy  # some seconds, which it waits
def test_redis_away_says_so_keeps_what_was_read_and_comes_back(
    redis_server: RedisServer, settings: Settings, proxy: Callable[[str], TcpProxy], bench: Bench
) -> None:
    line = proxy(redis_server.url)
    line.refuse()
    with served(replace(settings, redis_url=line.url)) as site:
        first = site.page("/", 503)
        assert first.by_class["h1"] == ["Redis does not answer"]
        assert "vec doctor" in first.by_class["code"]
        assert site.client.get("/collections/wiki").status_code == 503
        line.refuse(False)
        site.until("Nothing here yet")
        bench.add(("a", "a text"))
        site.until("No worker: 1 text to do")
        line.refuse()
        old = site.until("As it was at")
        assert old.by_class["h1"] == ["Redis does not answer"]
        assert "vec doctor" in old.by_class["code"] and "0 of 1" in old.text
        line.refuse(False)
        wait_until(lambda: "No worker: 1 text" in site.page().text, 15, "Redis to be back")


def test_a_dropped_collection_has_a_page_that_says_what_to_do(bench: Bench, site: Site) -> None:
    bench.add(("a", "a text"))
    assert site.page("/collections/wiki").by_class["h1"] == ["wiki: waiting"]
    bench.collection.drop()
    shown = site.until("There is no collection wiki", "/collections/wiki")
    assert "vec status" in shown.by_class["code"]
    site.page("/collections/a b/c", 404)


def test_the_first_start_says_how_to_begin(site: Site, redis_client: redis.Redis) -> None:
    shown = site.page()
    assert shown.by_class["h1"] == ["Nothing here yet"]
    assert "vec-enqueue corpus.jsonl" in shown.by_class["code"]
    assert redis_client.dbsize() == 0  # the page changes nothing


def test_without_the_extra_the_metrics_are_served_and_the_page_says_what_to_install(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("worker.monitor.page")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with served(settings) as site:
        page = site.client.get("/")
        assert page.text.count("\n") == 1 and "vector-embed-cache-client[web]" in page.text
        assert "vec_up 1.0" in site.client.get("/metrics").text
        assert site.client.get("/healthz").text == "ok\n"


def test_vec_enqueue_serves_the_page_while_it_waits(shell: Shell) -> None:
    shell.write("wiki.jsonl", *({"id": f"id{n}", "text": f"text {n}"} for n in range(3)))
    alone = shell("vec-enqueue", "wiki.jsonl", "--web")
    assert alone.returncode == 2 and "--web goes with --local or --wait" in alone.stderr
    process = shell.start("vec-enqueue", "wiki.jsonl", "--wait", "--web", "--timeout", "60")
    assert process.stderr is not None
    url = re.match(r"the page: (http://127\.0\.0\.1:\d+)/$", process.stderr.readline().strip())
    assert url is not None
    with httpx.Client(base_url=url[1], timeout=30) as client:
        Site(client).until("No worker: 3 texts to do")
    process.terminate()
    assert process.wait(30) == 143


def test_the_health_of_the_exporter_is_told_while_every_page_waits_for_redis(
    bench: Bench, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = threading.Event()

    def slow(*_: object) -> None:
        assert going.wait(30)

    monkeypatch.setattr(app, "read_detail", slow)
    with served(settings) as site, ThreadPoolExecutor(60) as many:
        answers = [many.submit(site.client.get, f"/collections/c{n}") for n in range(60)]
        try:
            assert httpx.get(f"{site.client.base_url}/healthz", timeout=20).text == "ok\n"
            assert not any(one.done() for one in answers)
        finally:
            going.set()
        assert {one.result().status_code for one in answers} == {404}
