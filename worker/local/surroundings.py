"""The surroundings of a local stack: what of the environment would lead it away from this machine.

Its parts talk to each other alone, so they heed no proxy and no certificate. What others say to
Python, uvicorn and the library of the weights by the environment is not meant for them.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}  # in any case
_FOREIGN = {
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"),
    *("PYTHONWARNINGS", "PYTHONINSPECT", "PYTHONIOENCODING"),
    *("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"),
    "VECTOR_EMBED_API_KEY_FILE",
}


def keep_to_this_machine(environ: MutableMapping[str, str]) -> None:
    """Take out of `environ` what would lead requests to this machine elsewhere."""
    for name in list(environ):
        if name.lower() in _PROXIES or name in _FOREIGN or name.startswith("HF_"):
            del environ[name]
    environ["NO_PROXY"] = "*"  # said, for without a word macOS' own settings hold


def has_home() -> bool:
    """Whether the user has a home directory: a container's random user has none."""
    try:
        return Path.home().is_absolute()
    except RuntimeError:
        return False
