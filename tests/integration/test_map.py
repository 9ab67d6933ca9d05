"""`vec map`, and the map on the page."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from typing import Any

import pytest
from servers import wait_until
from shell import Shell
from stored import Bench
from test_exporter_page import HOSTILE, Shown, served

from worker import Collection
from worker.monitor.page import app
from worker.settings import Settings
from worker.store.errors import CollectionError
from worker.store.keys import CollectionKeys
from worker.store.plane import Map, read_map
from worker.types import Embedded, Job


def store(bench: Bench, vectors: dict[str, tuple[float, ...]], **meta: str) -> None:
    """Store these vectors, with texts, and the meta of each."""
    jobs = [Job(id, f"the text of {id}", {"kind": meta.get(id, "plain")}) for id in vectors]
    bench.collection.adder().add(jobs)
    leases = bench.claim("c", len(jobs))
    embedded = [
        Embedded(lease, struct.pack("<3f", *vectors[lease.job.id]), False) for lease in leases
    ]
    bench.collection.backlog.commit(embedded, [], keep_text=True)
    bench.release("c", end_slice=True)


def read(bench: Bench, sample: int = 100, field: str | None = None) -> Map:
    return read_map(bench.redis, CollectionKeys("vec", "wiki"), sample, field)


def near_and_far(bench: Bench) -> None:
    grid = {f"g{n}": (1.0, n / 10, (n % 3) / 2) for n in range(8)}
    twins = {"one": (0.2, 1.0, 0.1), "other": (0.4, 2.0, 0.201)}
    store(bench, {**grid, **twins, "lonely": (-1.0, -1.0, 5.0)}, lonely="odd")


def test_near_duplicates_and_outliers_are_named(bench: Bench) -> None:
    near_and_far(bench)
    found = read(bench)
    ids = [point.id for point in found.points]
    assert len(ids) == 11 == found.vectors
    first = found.pairs[0]
    assert {ids[first.one], ids[first.other]} == {"one", "other"} and first.cosine > 0.999
    assert ids[found.outliers[0].one] == "lonely"
    assert all(0 <= point.x <= 1 and 0 <= point.y <= 1 for point in found.points)
    assert found.points[0].passage == f"the text of {ids[0]}"


def test_a_kept_field_gives_the_colours(bench: Bench) -> None:
    near_and_far(bench)
    found = read(bench, field="kind")
    assert found.groups == ["plain", "odd"] and found.coloured == "kind"
    assert {one.id for one in found.points if one.group == 1} == {"lonely"}
    with pytest.raises(CollectionError, match="no vector that was read has a kept field 'other'"):
        read(bench, field="other")


def test_a_sample_lies_evenly_over_the_collection(bench: Bench) -> None:
    for first in range(0, 300, 100):
        store(bench, {f"id{n:03}": (1.0, float(n), 0.0) for n in range(first, first + 100)})
    ids = sorted(point.id for point in read(bench, 30).points)
    assert len(ids) == 30
    assert {id[2] for id in ids} == {"0", "1", "2"}


def test_too_few_vectors_are_no_map(bench: Bench) -> None:
    store(bench, {"a": (1.0, 0.0, 0.0), "b": (0.0, 1.0, 0.0)})
    with pytest.raises(CollectionError, match="2 vectors: a map needs at least 3"):
        read(bench)


def test_vec_map_writes_one_file_that_needs_no_other(bench: Bench, shell: Shell) -> None:
    near_and_far(bench)
    store(bench, {HOSTILE: (3.0, 3.0, -9.0)})
    ended = shell("vec", "map", "wiki", "-o", "map.html")
    assert ended.stdout == "wiki: 12 vectors of 12 drawn to map.html\n", ended.stderr
    html = unescape((shell.directory / "map.html").read_text())
    shown = Shown((shell.directory / "map.html").read_text())
    assert shown.tags.count("script") == 2 and not shown.handlers and not shown.links
    assert "default-src 'none'; style-src 'sha256-" in html and "\u202e" not in html
    data = re.search(r'id="points">(.*?)</script>', html)
    assert data is not None
    points = json.loads(data[1])
    assert len(points) == 12
    assert [one[4] for one in points if one[3] == "one"] == ["the text of one"]
    assert "one Show and other" in shown.text
    without = shell("vec", "map", "wiki", "-o", "map.html", "--no-text")
    assert without.returncode == 0
    assert "the text of" not in (shell.directory / "map.html").read_text()


def test_a_map_takes_the_place_of_the_old_one_when_it_is_complete(
    bench: Bench, shell: Shell
) -> None:
    near_and_far(bench)
    target = shell.directory / "old.html"
    target.write_text("the old one")
    (shell.directory / "map.html").symlink_to(target)
    assert shell("vec", "map", "wiki", "-o", "map.html", "--color", "no").returncode == 2
    assert target.read_text() == "the old one"
    assert shell("vec", "map", "wiki", "-o", "map.html").returncode == 0
    assert "11 of 11 vectors" in target.read_text() and (shell.directory / "map.html").is_symlink()
    limited = ["bash", "-c", 'ulimit -f 4; exec "$@"', "-"]  # kilobytes of a file
    words = shell.command("vec", "map", "wiki", "-o", "map.html")
    ended = subprocess.run(
        [*limited, *words], cwd=shell.directory, env=shell.environ, capture_output=True, text=True
    )
    assert ended.returncode == 2 and "cannot be written: File too large" in ended.stderr
    assert "11 of 11 vectors" in target.read_text()
    assert not list(shell.directory.glob("*.part"))


def test_vec_map_says_in_one_line_what_is_wrong(bench: Bench, shell: Shell) -> None:
    store(bench, {"a": (1.0, 0.0, 0.0)})
    few = shell("vec", "map", "wiki", "-o", "map.html")
    assert few.returncode == 2 and "needs at least 3" in few.stderr
    none = shell("vec", "map", "other", "-o", "map.html")
    assert none.returncode == 2 and "no collection 'other'" in none.stderr
    assert shell("vec", "map", "wiki", "-o", "map.gif").returncode == 2


@pytest.mark.elsewhere
def test_vec_map_draws_a_png(bench: Bench, shell: Shell) -> None:
    """Each group has its colour; a name may be anything."""
    image = pytest.importorskip("matplotlib.image")
    # What a stranger's matplotlib would want:
    (shell.directory / "matplotlibrc").write_text("text.usetex: True\nfigure.dpi: 5\n")
    strange = {"MPLBACKEND": "unknown", "HOME": str(shell.directory / "matplotlibrc")}
    near_and_far(bench)
    more: dict[str, tuple[float, ...]] = {"third": (-2.0, 1.0, 0.5), "more": (1.0, -3.0, 0.2)}
    store(bench, more, third="_$x_{$", more="<b>\u202e日")
    ended = shell("vec", "map", "wiki", "-o", "map.png", "--color", "kind", **strange)
    assert (ended.stdout, ended.stderr) == ("wiki: 13 vectors of 13 drawn to map.png\n", "")
    pixels = (image.imread(shell.directory / "map.png")[:, :, :3] * 255).round().astype(int)
    height, width, _ = pixels.shape
    assert 1100 < height < width
    plane, legend = pixels[:, : height - 80], pixels[:, height - 80 :]
    for number, colour in enumerate(("2f81f7", "d9730d", "2da44e", "cf4a8b", "8957e5")):
        # Dots let a fifth of the white through.
        faint = [round(0.8 * part + 0.2 * 255) for part in bytes.fromhex(colour)]
        on_plane = (abs(plane - faint).max(axis=2) <= 2).any()
        in_legend = (legend == list(bytes.fromhex(colour))).all(axis=2).any()
        assert bool(on_plane) == bool(in_legend) == (number < 4), colour


def test_vec_map_says_which_extra_is_missing(bench: Bench, shell: Shell) -> None:
    near_and_far(bench)
    path = os.pathsep.join([str(shell.directory), os.environ.get("PYTHONPATH", "")])
    for file, package, extra in (("map.png", "matplotlib", "png"), ("map.html", "jinja2", "web")):
        (shell.directory / f"{package}.py").write_text(
            f"raise ModuleNotFoundError(name='{package}')"
        )
        ended = shell("vec", "map", "wiki", "-o", file, PYTHONPATH=path)
        assert ended.returncode == 2
        assert f"pip install 'vector-embed-cache-client[{extra}]'" in ended.stderr
        assert not (shell.directory / file).exists()


def test_the_page_has_the_map_and_texts_only_if_asked_for(bench: Bench, settings: Settings) -> None:
    near_and_far(bench)
    for show_text in (False, True):
        with served(settings, show_text=show_text) as site:
            shown = site.page("/maps/wiki")
            assert "11 of 11 vectors" in shown.text and "vec map wiki -o wiki.html" in shown.text
            assert ("the text of" in shown.text) is show_text
            site.page("/maps/other", 404)


def test_a_dropped_collection_has_no_map_and_a_new_one_its_own(
    bench: Bench, settings: Settings
) -> None:
    near_and_far(bench)
    with served(settings) as site:
        assert "lonely" in site.page("/maps/wiki").text
        Collection("wiki", settings=settings).drop()
        site.until("There is no collection wiki", "/maps/wiki")
        store(bench, {f"new{n}": (1.0, float(n), 0.0) for n in range(4)})
        shown = site.until("4 of 4 vectors", "/maps/wiki")
        assert "lonely" not in shown.text


def test_equal_vectors_are_drawn_at_one_place_and_none_is_an_outlier(bench: Bench) -> None:
    store(bench, {f"same{n}": (0.1, 0.7, 0.3) for n in range(20)})
    found = read(bench)
    assert len({(one.x, one.y) for one in found.points}) == 1 and len(found.groups) == 1
    assert found.pairs and not found.outliers


def test_a_file_that_cannot_be_is_refused_before_anything_is_read(
    bench: Bench, shell: Shell
) -> None:
    near_and_far(bench)
    ended = shell("vec", "map", "wiki", "-o", "nowhere/map.html")
    assert ended.returncode == 2 and "there is no directory nowhere" in ended.stderr


def test_the_page_colours_by_a_kept_field_and_draws_more_if_asked(
    bench: Bench, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    near_and_far(bench)
    monkeypatch.setattr(app, "MAP_SAMPLE", 5)
    with served(settings) as site:
        assert "5 of 11 vectors" in site.page("/maps/wiki").text
        shown = site.page("/maps/wiki?color=kind&vectors=20000")
        assert "11 of 11 vectors" in shown.text and "By kind" in shown.text
        assert "vec map wiki --color kind -o wiki.html" in shown.text
        assert "kept field 'no'" in site.page("/maps/wiki?color=no", 404).text


def test_while_a_map_is_drawn_others_are_told_and_hold_no_thread(
    bench: Bench, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    near_and_far(bench)
    going = threading.Event()

    def slow(*asked: Any) -> Map:
        assert going.wait(30)
        return read_map(*asked)

    monkeypatch.setattr(app, "read_map", slow)
    with served(settings) as site, ThreadPoolExecutor(61) as many:
        answers = [many.submit(site.client.get, "/maps/wiki") for _ in range(61)]
        wait_until(lambda: sum(one.done() for one in answers) == 60, 20, "all but one")
        assert site.client.get("/healthz").text == "ok\n"
        going.set()
        states = sorted(one.result().status_code for one in answers)
        assert states == [200] + [503] * 60
        assert site.page("/maps/wiki")
