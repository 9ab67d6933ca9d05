"""The environment of a local stack, without variables that would send requests to other machines.

Its parts talk only to each other, so they need no proxy and no certificate, and no password or key
of another server. Variables for Python, uvicorn and the library of the weights are meant for other
programs.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}  # in any case
_FOREIGN = {
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"),
    *("PYTHONWARNINGS", "PYTHONINSPECT", "PYTHONIOENCODING"),
    *("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"),
    *("VECTOR_EMBED_API_KEY", "VECTOR_EMBED_API_KEY_FILE", "VECTOR_EMBED_DATABASE_URL"),
    *("VECTOR_EMBED_SINK_URL", "VECTOR_EMBED_KEYS_FILE"),
    *("VECTOR_EMBED_REDIS_URL", "VECTOR_EMBED_BROKER_URL", "REDIS_URL"),
}

# Passwords of databases: a command needs them, and what it starts does not.
SECRETS = ("PGPASSWORD", "QDRANT_API_KEY")


def keep_to_this_machine(environ: MutableMapping[str, str]) -> None:
    """Remove from `environ` what would send requests to other machines, or is a secret of them."""
    for name in list(environ):
        if name.lower() in _PROXIES or name in _FOREIGN or name.startswith("HF_"):
            del environ[name]
    environ["NO_PROXY"] = "*"  # without it, the settings of macOS apply


def has_home() -> bool:
    """Whether the user has a home directory. A random user of a container has none."""
    try:
        return Path.home().is_absolute()
    except (RuntimeError, KeyError):  # the latter of Python 3.9
        return False
