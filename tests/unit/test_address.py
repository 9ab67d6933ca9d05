"""What the URL of a Redis may say, and what redis-py and kombu are told of it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from worker.settings import SettingsError, read_settings
from worker.settings.address import OURS, broker_url, read_address

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "for_redis", "options", "for_kombu"),
    [
        ("redis://", "redis://localhost/0", {}, "redis://localhost/0"),
        ("redis://h:1/", "redis://h:1/0", {}, "redis://h:1/0"),
        ("redis://u:p%40%2F@h/3", "redis://u:p%40%2F@h/3", {}, "redis://u:p%40%2F@h/3"),
        ("redis://:p@h/3?db=2", "redis://:p@h/2", {}, "redis://:p@h/2"),
        ("redis://h?password=p&username=u", "redis://u:p@h/0", {}, "redis://u:p@h/0"),
        ("redis://[::1]:7/1", "redis://[::1]:7/1", {}, "redis://[::1]:7/1"),
        ("redis://h?client_name=me", "redis://h/0", {"client_name": "me"}, "redis://h/0"),
        (
            "unix://u:p@/run/a b.sock?db=2",
            "unix://u:p@/run/a%20b.sock?db=2",
            {},
            "redis+socket://u:p@/run/a%20b.sock?virtual_host=2",
        ),
        (
            "redis+socket:///r.sock?virtual_host=2",
            "unix:///r.sock?db=2",
            {},
            "redis+socket:///r.sock?virtual_host=2",
        ),
        ("rediss://h", "rediss://h/0", {}, "rediss://h/0?ssl_cert_reqs=CERT_REQUIRED"),
        *[
            (
                f"rediss://h?ssl_cert_reqs={spelling}",
                "rediss://h/0",
                {"ssl_cert_reqs": "none"},
                "rediss://h/0?ssl_cert_reqs=CERT_NONE",
            )
            for spelling in ("none", "CERT_NONE")
        ],
        (
            "rediss://h?ssl_check_hostname=false",
            "rediss://h/0",
            {"ssl_check_hostname": False},
            "rediss://h/0?ssl_cert_reqs=CERT_REQUIRED&ssl_check_hostname=False",
        ),
    ],
)
def test_redis_py_and_kombu_are_told_the_same_each_in_its_own_spelling(
    url: str, for_redis: str, options: dict[str, object], for_kombu: str
) -> None:
    assert read_address(url).for_redis() == (for_redis, options)
    assert broker_url(url) == for_kombu
    assert read_settings({"REDIS_URL": url}).redis_url == url


def test_a_cluster_is_named_without_a_database() -> None:
    assert read_address("rediss+cluster://:p@h:1/0").for_redis() == ("rediss://:p@h:1", {})


@pytest.mark.parametrize("option", sorted(OURS))
def test_an_option_that_is_ours_to_set_is_ignored_with_a_line_that_names_it(
    option: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"redis://:{SECRET}@h/1?{option}=3"
    assert read_settings({"VECTOR_EMBED_REDIS_URL": url}).redis_url == url
    assert read_address(url).for_redis() == (f"redis://:{SECRET}@h/1", {})
    assert broker_url(url) == f"redis://:{SECRET}@h/1"
    assert caplog.messages == [
        f"VECTOR_EMBED_REDIS_URL: ignored, because we set it ourselves: {option}"
    ]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://h/0?colour=red", "an option 'colour' that is not known here"),
        ("redis://h/zero", "its database must be a number from 0, not 'zero'"),
        ("redis://h/-1", "its database must be a number"),
        ("redis://h?db=x", "its database must be a number"),
        ("redis://h?ssl_cert_reqs=none", "begin the URL with rediss://"),
        ("rediss://h?ssl_cert_reqs=maybe", "none, optional or required, not 'maybe'"),
        ("rediss://h?ssl_check_hostname=maybe", "true or false, not 'maybe'"),
        ("rediss://h?ssl_ca_certs=/no/such", "ssl_ca_certs names '/no/such', which cannot be read"),
        ("unix://", "names no socket"),
        ("unix:///?db=1", "names no socket"),
        ("sentinel://h:26379/0", "Sentinel is not supported: name the primary"),
        ("redis+sentinel://h:26379/mymaster/0", "Sentinel is not supported"),
        ("http://h", "must begin with redis://, rediss:// or unix://"),
        ("h:6379", "must begin with redis://"),
        (f"redis://:{SECRET}@h/0#1", "has a # in it"),
    ],
)
def test_what_cannot_be_meant_is_one_line_that_names_the_variable_and_the_way_out(
    url: str, words: str
) -> None:
    for name in ("REDIS_URL", "VECTOR_EMBED_REDIS_URL"):
        with pytest.raises(SettingsError) as caught:
            read_settings({name: url})
        assert str(caught.value).startswith(f"{name}: ")
        assert words in str(caught.value)
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match="^--redis-url: "):
        read_settings({}, redis_url=url)


def test_a_certificate_that_can_be_read_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("")
    assert read_address(f"rediss://h?ssl_ca_certs={file}").tls == {"ssl_ca_certs": str(file)}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:5672", "it is no URL"),
        ("amqp://u:p@h:port//", "its host and port cannot be read"),
        (f"amqp://u:{SECRET}/@h:1//", "its host and port cannot be read"),
        ("amqp://h//;amqp://h:port//", "its host and port cannot be read"),
        ("carrierpigeon://h", "Celery knows no broker of the kind 'carrierpigeon'"),
        ("sentinel://h", "Sentinel is not supported"),
        ("redis://h/x", "its database must be a number"),
        ("redis+cluster://h", "Celery has no broker on a Redis Cluster"),
    ],
)
def test_a_broker_that_cannot_be_meant_is_one_line(url: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({"VECTOR_EMBED_BROKER_URL": url})
    assert "VECTOR_EMBED_BROKER_URL" in str(caught.value)
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["amqp://u:p@h//", "amqp://h//;amqp://g//", "pyamqp://h/v"])
def test_brokers_of_another_kind_are_left_as_they_are(url: str) -> None:
    assert read_settings({"VECTOR_EMBED_BROKER_URL": url}).broker_url == url
    assert broker_url(url) == url


def test_the_ignored_options_are_said_once_at_a_warning_level(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read_settings({"REDIS_URL": "redis://h?protocol=3&decode_responses=True"})
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith(": decode_responses, protocol")
