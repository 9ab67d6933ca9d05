"""What the environment says, and what it must not say."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from worker.settings import (
    DEFAULT_REDIS_URL,
    Settings,
    SettingsError,
    read_settings,
    settings_now,
    without_password,
)
from worker.types import Rate

SECRET = "hunter2"


def test_nothing_said_gives_the_documented_defaults() -> None:
    assert read_settings({}) == Settings()
    settings = Settings()
    assert settings.api_key is None
    assert settings.base_url == "https://api.vector-embed-cache.com"
    assert settings.model == "nomic-v1.5"
    assert settings.redis_url == settings.broker_url == DEFAULT_REDIS_URL
    assert (settings.max_in_flight, settings.high_water) == (8, 1_000_000)


def test_every_variable_is_read() -> None:
    settings = read_settings(
        {
            "VECTOR_EMBED_API_KEY": " vec_key\n",
            "VECTOR_EMBED_BASE_URL": "http://localhost:8000/",
            "VECTOR_EMBED_MODEL": "m",
            "VECTOR_EMBED_REDIS_URL": "redis://one/1",
            "VECTOR_EMBED_BROKER_URL": "amqp://two",
            "VECTOR_EMBED_MAX_IN_FLIGHT": "15",
            "VECTOR_EMBED_PREFIX": "mine",
            "VECTOR_EMBED_HIGH_WATER": "2_000",
            "VECTOR_EMBED_TIMEOUT": "1.5",
            "VECTOR_EMBED_SLICE_SECONDS": "3",
            "VECTOR_EMBED_LINGER": "0",
            "VECTOR_EMBED_LOCAL_DIR": "/somewhere",
        }
    )
    assert settings == Settings(
        api_key="vec_key",
        base_url="http://localhost:8000",
        model="m",
        redis_url="redis://one/1",
        broker_url="amqp://two",
        max_in_flight=15,
        prefix="mine",
        high_water=2000,
        timeout=1.5,
        slice_seconds=3.0,
        linger=0.0,
    )
    assert settings.queue == "mine.wakeups"


def test_an_empty_variable_is_as_good_as_none() -> None:
    names = ["API_KEY", "MODEL", "REDIS_URL", "BROKER_URL", "MAX_IN_FLIGHT", "TIMEOUT", "PREFIX"]
    assert read_settings({f"VECTOR_EMBED_{name}": " " for name in names}) == Settings()
    assert read_settings({"REDIS_URL": ""}) == Settings()


@pytest.mark.parametrize(
    ("option", "environ", "redis_url", "broker_url"),
    [
        (None, {"REDIS_URL": "redis://b"}, "redis://b", "redis://b"),
        (
            None,
            {"REDIS_URL": "redis://b", "VECTOR_EMBED_REDIS_URL": "redis://a"},
            "redis://a",
            "redis://a",
        ),
        (
            "redis://option",
            {"REDIS_URL": "redis://b", "VECTOR_EMBED_REDIS_URL": "redis://a"},
            "redis://option",
            "redis://option",
        ),
        (
            "redis://option",
            {"VECTOR_EMBED_BROKER_URL": "amqp://q"},
            "redis://option",
            "amqp://q",
        ),
    ],
)
def test_the_option_stands_above_our_variable_and_ours_above_the_common_one(
    option: str | None, environ: dict[str, str], redis_url: str, broker_url: str
) -> None:
    settings = read_settings(environ, redis_url=option)
    assert (settings.redis_url, settings.broker_url) == (redis_url, broker_url)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("VECTOR_EMBED_API_KYE", "VECTOR_EMBED_API_KEY"),
        ("VECTOR_EMBED_APIKEY", "VECTOR_EMBED_API_KEY"),
        ("VECTOR_EMBEDAPI_KEY", "VECTOR_EMBED_API_KEY"),
        ("VECTOR_EMBED_REDISURL", "VECTOR_EMBED_REDIS_URL"),
        ("VECTOR_EMBED_TIMEOUTS", "VECTOR_EMBED_TIMEOUT"),
        ("VECTOR_EMBED_REDIS", "VECTOR_EMBED_REDIS_URL"),
        ("VECTOR_EMBED_KEY", "VECTOR_EMBED_API_KEY"),
        ("VECTOR_EMBED_MAX_INFLIGHT", "VECTOR_EMBED_MAX_IN_FLIGHT"),
        ("VECTOR_EMBED_LOCALDIR", "VECTOR_EMBED_LOCAL_DIR"),
        ("VECTOR_EMBED_DATABASE", "VECTOR_EMBED_DATABASE_URL"),
        ("vector_embed_model", "VECTOR_EMBED_MODEL"),
        ("Vector_Embed_Model", "VECTOR_EMBED_MODEL"),
    ],
)
def test_a_near_miss_of_a_name_is_an_error_that_names_both(name: str, meant: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({name: SECRET})
    message = str(caught.value)
    assert f"{name}: did you mean {meant}?" in message
    assert SECRET not in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["VECTOR_EMBED_COLOUR", "VECTOR_EMBED_", "VECTOR_EMBEDDINGS_DB"])
def test_any_other_name_of_the_kind_is_a_warning(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "worker"):
        assert read_settings({name: SECRET}) == Settings()
    assert name in caplog.text
    assert SECRET not in caplog.text


def test_other_programs_variables_are_none_of_our_business(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert read_settings({"PATH": "x", "API_KEY": "x", "EMBED_MODEL": "x"}) == Settings()
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_IN_FLIGHT", "0"),
        ("MAX_IN_FLIGHT", "16"),
        ("MAX_IN_FLIGHT", "-1"),
        ("MAX_IN_FLIGHT", "eight"),
        ("MAX_IN_FLIGHT", "8.0"),
        ("HIGH_WATER", "999"),
        ("TIMEOUT", "0"),
        ("TIMEOUT", "-3"),
        ("TIMEOUT", "nan"),
        ("TIMEOUT", "inf"),
        ("TIMEOUT", "30s"),
        ("SLICE_SECONDS", "soon"),
        ("LINGER", "-0.1"),
        ("LINGER", "0.26"),
        ("LINGER", "nan"),
        ("LINGER", "15ms"),
        ("PREFIX", "a:b"),
        ("PREFIX", "{a}"),
        ("PREFIX", "a b"),
    ],
)
def test_a_bad_value_is_an_error_of_one_line_that_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({f"VECTOR_EMBED_{name}": value})
    message = str(caught.value)
    assert f"VECTOR_EMBED_{name} must be" in message
    assert repr(value) in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "url",
    [
        f"http://:{SECRET}@host",
        "host:6379",
        "http://host",
        f"redis://:{SECRET}@host:0",
        f"redis://:{SECRET}@host:port",
        f"redis://:{SECRET}@host:99999",
        f"redis://:{SECRET}@[::1",
        f"redis://:{SECRET}#@host",
        f"redis://:{SECRET}/@host",
        f"redis://:{SECRET}?@host",
    ],
)
def test_a_bad_redis_url_is_an_error_of_one_line_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({"REDIS_URL": url})
    message = str(caught.value)
    assert message.startswith("REDIS_URL: ")
    assert SECRET not in message
    assert "\n" not in message


@pytest.mark.parametrize("url", ["redis://h", "rediss://h:6380/2", "unix:///run/redis.sock?db=1"])
def test_the_three_kinds_of_redis_url_are_taken(url: str) -> None:
    assert read_settings({"REDIS_URL": url}).redis_url == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://user@host/0", "redis://user@host/0"),
        (f"redis://:{SECRET}@host/0", "redis://:***@host/0"),
        (f"redis://user:{SECRET}@host:1/0?db=2", "redis://user:***@host:1/0?db=2"),
        (f"rediss://u:{SECRET}@x@host/0", "rediss://u:***@host/0"),
        (f"redis://:{SECRET}/#?@host/0", "redis://:***@host/0"),
        (f"redis://:{SECRET}@[::1]:6379/0", "redis://:***@[::1]:6379/0"),
        (f"redis://host/0?password={SECRET}&db=1", "redis://host/0?password=***&db=1"),
        (f"unix:///redis.sock?db=1&password={SECRET}", "unix:///redis.sock?db=1&password=***"),
        (f"unix://u:{SECRET}@/redis.sock", "unix://u:***@/redis.sock"),
        (f"rediss://host/0?ssl_password={SECRET}", "rediss://host/0?ssl_password=***"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
    assert Settings(redis_url=url).shown_redis_url == shown


@pytest.mark.parametrize(
    ("said", "rate"),
    [
        ("600/min", Rate(10.0, "requests")),
        ("10/s", Rate(10.0, "requests")),
        ("6000 texts/min", Rate(100.0, "texts")),
    ],
)
def test_a_rate_is_of_requests_or_texts(said: str, rate: Rate) -> None:
    assert read_settings({"VECTOR_EMBED_RATE": said}).rate == rate


def test_a_rate_that_cannot_be_read_is_an_error_that_names_the_variable() -> None:
    with pytest.raises(SettingsError, match="VECTOR_EMBED_RATE"):
        read_settings({"VECTOR_EMBED_RATE": "fast"})


def test_settings_show_no_secret_and_cannot_be_changed() -> None:
    url = f"redis://:{SECRET}@host"
    settings = Settings(api_key=SECRET, redis_url=url, broker_url=url)
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.model = "other"  # type: ignore[misc]  # that it is refused is the point


def test_settings_are_read_again_when_the_environment_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VECTOR_EMBED_HIGH_WATER", "1234")
    assert settings_now() == read_settings()
    assert settings_now() is settings_now()
    monkeypatch.setenv("VECTOR_EMBED_HIGH_WATER", "2345")
    monkeypatch.setenv("REDIS_URL", "redis://other:6379/0")
    assert (settings_now().high_water, settings_now().redis_url) == (2345, "redis://other:6379/0")
    monkeypatch.setenv("VECTOR_EMBED_HIGH_WATER", "none")
    with pytest.raises(SettingsError, match="HIGH_WATER"):
        settings_now()
