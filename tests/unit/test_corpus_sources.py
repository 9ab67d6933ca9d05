"""Sources: the files that a path names, and how each is named in what is said of it."""

from __future__ import annotations

import glob
import gzip
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from worker.corpus import Corpus, CorpusError, Reading, find_source, paths
from worker.corpus.sources import File
from worker.types import Job, Rejection, default_id


def write(root: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def line(id: str, text: str) -> bytes:
    return json.dumps({"id": id, "text": text}).encode() + b"\n"


def ids(path: object, reading: Reading | None = None) -> list[str | None]:
    with Corpus(str(path), reading) as corpus:
        return [one.id for one in corpus]


def test_a_folder_gives_its_files_by_name_and_documents_by_their_path(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "b/z.md": b"md",
            "b/deep/er/y.txt": b"one\ntwo",
            "a.jsonl": line("j1", "x") + line("j2", "y"),
            "c.txt.gz": gzip.compress(b"packed"),
            "image.png": b"\x89PNG",
            "LICENSE": b"MIT",
            ".hidden.md": b"no",
            ".git/x.md": b"no",
            "a.rejected.jsonl": b"{}\n",
            "a.vectors.jsonl": b"{}\n",
        },
    )
    with Corpus(str(tmp_path)) as corpus:
        lines = list(corpus)
        assert corpus.fault is None
        assert corpus.position == corpus.size
    assert [one.id for one in lines] == ["j1", "j2", "b/deep/er/y.txt", "b/z.md", "c.txt.gz"]
    assert lines[2] == Job("b/deep/er/y.txt", "one\ntwo")
    skipped = {".png": 1, "without a suffix": 1, ".rejected.jsonl": 1, ".vectors.jsonl": 1}
    assert corpus.skipped == skipped
    assert ids(f"{tmp_path}/") == ids(tmp_path)


def test_a_pattern_gives_the_files_that_match_it_as_if_they_were_named(tmp_path: Path) -> None:
    write(tmp_path, {f"s/{n}.jsonl": line(f"{n}", "x") for n in (2, 1, 10)})
    write(tmp_path, {"s/t.txt": b"one\ntwo", "s/u/v.md": b"md"})
    assert ids(f"{tmp_path}/s/*.jsonl") == ["1", "10", "2"]
    assert ids(f"{tmp_path}/s/*.txt") == [default_id("one"), default_id("two")]
    assert ids(f"{tmp_path}/s/*.txt", Reading(whole_files=True)) == ["t.txt"]
    assert ids(f"{tmp_path}/**/*.md") == ["s/u/v.md"]
    assert find_source(f"{tmp_path}/s/*.jsonl").many and find_source(str(tmp_path)).many
    assert sorted(paths(find_source(f"{tmp_path}/s/*.txt"))) == [f"{tmp_path}/s/t.txt"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    write(tmp_path, {"data[1].jsonl": line("a", "x"), "data1.jsonl": line("b", "x")})
    assert ids(tmp_path / "data[1].jsonl") == ["a"]


def versions(path: object) -> list[str | None]:
    return [file.version for file in find_source(str(path)).files() if isinstance(file, File)]


@pytest.mark.parametrize("path", ["s", "s/*", "s/a.jsonl"])
def test_the_version_of_a_file_changes_with_its_size_and_its_time(
    tmp_path: Path, path: str
) -> None:
    write(tmp_path, {"s/a.jsonl": line("a", "x")})
    file = tmp_path / "s/a.jsonl"
    seen = [versions(tmp_path / path), versions(tmp_path / path)]
    os.utime(file, ns=(1, 1))
    seen.append(versions(tmp_path / path))
    file.write_bytes(line("a", "xy"))
    os.utime(file, ns=(1, 1))
    seen.append(versions(tmp_path / path))
    assert seen[0] == seen[1] and None not in seen[0]
    assert len({str(each) for each in seen}) == 3


def test_a_pattern_gives_what_a_shell_does_but_follows_no_links_for_two_stars(
    tmp_path: Path,
) -> None:
    names = ("a.md", "b/a.md", "b/c/a.md", "b/c/d.txt", "a/b/c/a.md", "x[1]/a.md", ".b/a.md")
    write(tmp_path, {name: b"x" for name in names})
    write(tmp_path, {"b/.a.md": b"x"})
    os.symlink(tmp_path / "b" / "c", tmp_path / "linked")
    for pattern in ("*", "*.md", "*/*", "*/c/*", "b/*/[ad].*", "**", "**/*.md", "*/**", "**/c/**"):
        pattern += "" if pattern.endswith("*") else "*"
        for begin in (str(tmp_path), f"{tmp_path}/[b]", f"{tmp_path}/.[b]", f"{tmp_path}//b/."):
            found = {path for path in glob.iglob(f"{begin}/{pattern}", recursive=True)}
            files = {path for path in found if os.path.isfile(path)}
            if pattern.startswith("**"):
                files = {path for path in files if "linked" not in path}
            assert set(paths(find_source(f"{begin}/{pattern}"))) == files, (begin, pattern)
    os.symlink(".", tmp_path / "b" / "loop")
    assert ids(f"{tmp_path}/b/**/*.md") == ["a.md", "c/a.md"]


@pytest.mark.parametrize("pattern", ["*/*.jsonl", "loop/*.jsonl", "**/*.jsonl"])
def test_a_folder_that_a_pattern_cannot_look_into_is_a_rejection_and_a_fault(
    tmp_path: Path, pattern: str
) -> None:
    write(tmp_path, {"a/x.jsonl": line("a", "x")})
    os.symlink("loop", tmp_path / "loop")
    if "loop" in pattern:
        with pytest.raises(CorpusError, match=f"{tmp_path}/loop: the folder cannot be read: "):
            Corpus(f"{tmp_path}/{pattern}")
    elif "**" in pattern:  # no folder
        assert ids(f"{tmp_path}/{pattern}") == ["a"]
    else:
        with Corpus(f"{tmp_path}/{pattern}") as corpus:
            (job, rejection) = corpus
            assert job.id == "a" and isinstance(rejection, Rejection)
            assert rejection.file == f"{tmp_path}/loop"
            assert corpus.fault == f"{tmp_path}/loop: {rejection.reason}"


@pytest.mark.parametrize("path", ["", "*/*.md"])
def test_a_file_that_disappears_before_it_is_read_is_a_rejection_and_a_fault(
    tmp_path: Path, path: str
) -> None:
    write(tmp_path, {f"{folder}/x.md": b"x" for folder in "abc"})
    with Corpus(str(tmp_path / path)) as corpus:
        (tmp_path / "b" / "x.md").unlink()
        write(tmp_path, {"d/x.md": b"new"})
        *jobs, gone = corpus
        assert [one.id for one in jobs] == ["a/x.md", "c/x.md", "d/x.md"]
        assert isinstance(gone, Rejection) and gone.file == str(tmp_path / path)
        assert corpus.fault == f"{gone.file}: 1 of its files disappeared while it was read"


@pytest.mark.parametrize("path", ["", "*.jsonl", "a.jsonl"])
@pytest.mark.parametrize("change", ["w", "a", "r"])
def test_a_file_that_is_written_to_while_it_is_read_is_a_fault(
    tmp_path: Path, path: str, change: str
) -> None:
    write(tmp_path, {"a.jsonl": line("a", "x") + line("b", "x")})
    with Corpus(str(tmp_path / path)) as corpus:
        lines = iter(corpus)
        assert next(lines).id == "a"
        with open(tmp_path / "a.jsonl", change) as file:
            if change != "r":
                file.write("{}")
        last = [*lines][-1]
        reason = "it was changed while it was read: run the same command again"
        if change == "r":
            assert last.id == "b" and corpus.fault is None
        else:
            assert corpus.fault is not None and corpus.fault.endswith(reason)


def test_ids_of_documents_whose_names_are_not_utf8_differ(tmp_path: Path) -> None:
    for name in (b"a\xff.md", b"a\xfe.md", "ä.md".encode()):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    assert sorted(map(str, ids(tmp_path))) == ["a\\xfe.md", "a\\xff.md", "ä.md"]


def test_rejections_of_several_files_name_file_and_line(tmp_path: Path) -> None:
    write(tmp_path, {"a.jsonl": line("a", "x") + b"bad\n", "b.jsonl": b"\nbad\n", "c.md": b""})
    with Corpus(str(tmp_path)) as corpus:
        rejected = [one for one in corpus if isinstance(one, Rejection)]
    assert [(one.file, one.line) for one in rejected] == [
        (f"{tmp_path}/a.jsonl", 2),
        (f"{tmp_path}/b.jsonl", 2),
        (f"{tmp_path}/c.md", 1),
    ]


def test_a_file_of_several_that_cannot_be_read_is_one_rejection_and_a_fault(
    tmp_path: Path,
) -> None:
    write(tmp_path, {"a.csv": b"body\nx\n", "b.jsonl": line("b", "x"), "c.json": b"{}"})
    os.symlink("nowhere", tmp_path / "d.md")
    with Corpus(str(tmp_path)) as corpus:
        first, job, second, third = corpus
        assert corpus.fault is not None and corpus.fault.startswith(f"{tmp_path}/a.csv: has no")
    assert job == Job("b", "x")
    assert isinstance(first, Rejection) and first.reason.startswith("has no column 'text'")
    assert isinstance(second, Rejection) and second.file == f"{tmp_path}/c.json"
    assert isinstance(third, Rejection) and "does not exist" in third.reason


def test_a_truncated_shard_is_a_fault_and_the_next_is_read(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(line(str(n), os.urandom(20).hex()) for n in range(99)))
    write(tmp_path, {"a.jsonl.gz": whole[:-20], "b.jsonl.gz": whole})
    with Corpus(f"{tmp_path}/*.gz") as corpus:
        last = list(corpus)[-1]
        assert corpus.fault is not None and corpus.fault.startswith(f"{tmp_path}/a.jsonl.gz: ")
    assert last.id == "98"


@pytest.mark.parametrize("reading", [Reading(template="none"), Reading(encoding="none")])
def test_what_no_file_can_be_read_with_is_an_error_before_any_is(
    tmp_path: Path, reading: Reading
) -> None:
    write(tmp_path, {"a.jsonl": line("a", "x")})
    with pytest.raises(CorpusError, match="--(template|encoding)"):
        Corpus(str(tmp_path), reading)


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path, {"a/x.md": b"x"})
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    os.symlink(tmp_path / "a" / "x.md", tmp_path / "y.md")
    assert ids(tmp_path) == ["a/x.md", "y.md"]


def test_a_folder_tells_what_to_install_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"a.md": b"x", "b.html": b"<p>x"})
    for name in [name for name in sys.modules if name.startswith("inscriptis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "inscriptis", None)
    monkeypatch.delitem(sys.modules, "worker.corpus.formats.html", raising=False)
    with pytest.raises(CorpusError, match=r'pip install "vector-embed-cache-client\[html\]"'):
        Corpus(str(tmp_path))


def test_zstandard_without_its_library_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.version_info >= (3, 14):
        pytest.skip("it is part of Python")
    write(tmp_path, {"a.jsonl.zst": b"(\xb5/\xfd"})
    monkeypatch.setitem(sys.modules, "backports", None)
    with pytest.raises(CorpusError, match=r'pip install "vector-embed-cache-client\[zst\]"'):
        Corpus(str(tmp_path / "a.jsonl.zst"))


@pytest.mark.parametrize("path", ["", "*.jsonl", "sub"])
def test_a_folder_or_pattern_without_a_readable_file_is_an_error(tmp_path: Path, path: str) -> None:
    write(tmp_path, {"x.png": b"", "sub/y.pdf": b""})
    with pytest.raises(CorpusError, match="no file that can be read"):
        Corpus(str(tmp_path / path))
