"""Files with API keys: what they may hold, and what becomes of them while the process runs."""

from __future__ import annotations

import logging
import os
import traceback
from dataclasses import replace
from pathlib import Path

import pytest

from worker.settings import Settings, SettingsError, read_settings
from worker.settings.keyfile import (
    MOST_KEYS,
    ApiKey,
    KeptKeys,
    KeyFileError,
    count_endpoints,
    each_key,
    read_keys,
)

EU = "https://eu.example.com"

GOOD = {
    "one key": ("vec_a\n", [("vec_a", None)]),
    "without an end of the line": ("vec_a", [("vec_a", None)]),
    "in the order of the file": ("vec_b\nvec_a\n", [("vec_b", None), ("vec_a", None)]),
    "comments and empty lines": ("# of Müller\n\n  # ours\nvec_a # hers\n", [("vec_a", None)]),
    "a # inside a key": ("vec_a#b\n", [("vec_a#b", None)]),
    "an endpoint beside it": (f"vec_a  {EU}/\n", [("vec_a", EU)]),
    "after a tab": (f"vec_a\t{EU}\t# over there\n", [("vec_a", EU)]),
    "a key twice": ("vec_a\nvec_b\nvec_a\n", [("vec_a", None), ("vec_b", None)]),
    "a key for two endpoints": (f"vec_a\nvec_a {EU}\n", [("vec_a", None), ("vec_a", EU)]),
    "from Windows": ("\ufeffvec_a\r\nvec_b\r\n", [("vec_a", None), ("vec_b", None)]),
}

WRONG = {
    "nothing": ("", "is empty"),
    "white space": (" \n\n", "is empty"),
    "only comments": ("# vec_secret\n", "has no API key in it"),
    "three words": ("vec_a\nvec_secret b c\n", "line 2 of .*a line is a key, or a key, a space"),
    "the endpoint first": (f"{EU} vec_secret\n", "line 1 of .*a line is a key, or a key, a space"),
    "no address": ("vec_a vec_secret\n", "line 1 of .*must be an address like https://"),
    "a login in the address": ("vec_a https://vec_secret:b@c\n", "no user name, password"),
    "a letter that no header can hold": ("vec_secret\u20ac\n", "not printable ASCII"),
    "too many": ("".join(f"vec_secret{n}\n" for n in range(MOST_KEYS + 1)), "more than 100"),
    "a large file": ("vec_secret" * 100_000, "does not hold API keys"),
    "no text": ("vec_secret\udcff", "does not hold API keys"),
}


@pytest.mark.parametrize(("content", "keys"), GOOD.values(), ids=GOOD)
def test_what_a_file_may_hold(
    content: str, keys: list[tuple[str, str | None]], tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content.encode())
    assert read_keys(str(file)) == tuple(ApiKey(*one) for one in keys)


@pytest.mark.parametrize(("content", "said"), WRONG.values(), ids=WRONG)
def test_what_it_may_not_hold_is_an_error_that_shows_none_of_it(
    content: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content.encode(errors="surrogateescape"))
    environ = {"VECTOR_EMBED_KEYS_FILE": str(file)}
    with pytest.raises(SettingsError, match=f"VECTOR_EMBED_KEYS_FILE: .*{said}") as caught:
        read_settings(environ)
    told = "".join(traceback.format_exception(None, caught.value, caught.value.__traceback__))
    assert "vec_secret" not in told and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="VECTOR_EMBED_KEYS_FILE: cannot read .*missing: No"):
        read_settings({"VECTOR_EMBED_KEYS_FILE": str(tmp_path / "missing")})


@pytest.mark.parametrize("other", ["VECTOR_EMBED_API_KEY", "VECTOR_EMBED_API_KEY_FILE"])
def test_two_places_for_keys_are_an_error_that_says_what_to_do(other: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("vec_a\n")
    with pytest.raises(SettingsError, match=f"not both: write the key .* and unset {other}$"):
        read_settings({"VECTOR_EMBED_KEYS_FILE": str(file), other: str(file)})


def test_each_key_comes_with_its_endpoint_and_no_key_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    usual = "https://usual.example.com"
    file.write_text(f"vec_secret1\nvec_secret2 {EU}\nvec_secret1 {usual}\n")
    settings = read_settings({"VECTOR_EMBED_KEYS_FILE": str(file), "VECTOR_EMBED_BASE_URL": usual})
    keys = each_key(settings)
    assert [(one.api_key, one.base_url) for one in keys] == [
        ("vec_secret1", usual),
        ("vec_secret2", EU),
    ]
    assert count_endpoints(settings) == 2
    assert "secret" not in repr((settings, keys, read_keys(str(file))))
    assert [replace(one, api_key=None, base_url=usual) for one in keys] == [
        replace(settings, keys_file=None)
    ] * 2


def test_without_a_file_there_is_the_one_key() -> None:
    settings = Settings(api_key="vec_a")
    assert each_key(settings) == (settings,)
    assert count_endpoints(settings) == 1


class Mounted:
    """A file with keys, and a clock; `look` is a look of the process some time later."""

    def __init__(self, directory: Path, content: str) -> None:
        self.file = directory / "keys"
        self.write(content)
        self.kept = KeptKeys(str(self.file), read_keys)
        self.now = 0.0
        self.look(0)

    def write(self, content: str) -> None:
        self.file.write_text(content)

    def look(self, later: float = 1.0) -> str:
        self.now += later
        return " ".join(one.key for one in self.kept.look(self.now))


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path, "vec_a\nvec_b\n")


def test_keys_that_are_added_and_taken_out_are_taken_over_once_they_stand_for_a_second(
    mounted: Mounted, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mounted.write("vec_b\nvec_c\nvec_d\n")
    assert [mounted.look() for _ in range(3)] == ["vec_a vec_b"] + ["vec_b vec_c vec_d"] * 2
    (line,) = caplog.messages
    assert line.endswith("holds 3 API keys now, 2 of them new; 1 are not used any more")
    assert "vec_" not in line


def test_a_file_that_is_half_written_drops_no_key(mounted: Mounted) -> None:
    for content in ("", "vec_", "vec_a\nve", "", "vec_a\nve", "vec_a\nvec_b\nvec_"):
        mounted.write(content)
        assert mounted.look() == "vec_a vec_b"
    mounted.write("vec_a\nvec_b\nvec_c\n")
    assert [mounted.look(), mounted.look()] == ["vec_a vec_b", "vec_a vec_b vec_c"]


def test_two_looks_at_the_same_moment_are_one(mounted: Mounted) -> None:
    mounted.write("vec_a\nve")
    assert [mounted.look(), mounted.look(0.0), mounted.look(0.9)] == ["vec_a vec_b"] * 3


@pytest.mark.parametrize("trouble", ["gone", "empty", "wrong", "no right to read it"])
def test_a_file_that_cannot_be_read_keeps_the_former_keys_and_says_so_once(
    mounted: Mounted, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    if trouble == "gone":
        mounted.file.unlink()
    elif trouble == "no right to read it":
        mounted.file.unlink()
        mounted.file.mkdir()  # root may read any file
    else:
        mounted.write("" if trouble == "empty" else "vec_a b c\n")
    assert [mounted.look() for _ in range(3)] == ["vec_a vec_b"] * 3
    assert mounted.kept.fault is not None
    (line,) = caplog.messages
    assert line == f"{mounted.kept.fault}: the API keys read before stay in use"
    # When it is well again, Then that is said too, and what it says counts
    if mounted.file.is_dir():
        mounted.file.rmdir()
    mounted.write("vec_c\n")
    assert [mounted.look(), mounted.look()] == ["vec_a vec_b", "vec_c"]
    assert mounted.kept.fault is None
    assert caplog.messages[1].endswith("can be read again")


def test_a_link_that_is_swapped_as_kubernetes_does_is_followed(tmp_path: Path) -> None:
    for version, content in (("..1", "vec_a\n"), ("..2", "vec_b\n")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "keys").write_text(content)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "keys").symlink_to("..data/keys")
    kept = KeptKeys(str(tmp_path / "keys"), read_keys)
    (tmp_path / "..next").symlink_to("..2")
    os.replace(tmp_path / "..next", tmp_path / "..data")
    assert [[one.key for one in kept.look(now)] for now in (1.0, 2.0)] == [["vec_a"], ["vec_b"]]


def test_without_a_key_at_the_start_there_is_nothing_to_keep(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot read"):
        each_key(Settings(keys_file=str(tmp_path / "missing")))
