"""The worker's Celery app: `celery -A worker worker -P threads -c 8`."""

from __future__ import annotations

from .broker import make_app
from .settings import Settings, SettingsError, read_settings


def _read() -> Settings:
    try:
        return read_settings()
    except SettingsError as error:
        raise SystemExit(f"Error: {error}") from None


settings = _read()
app = make_app(settings)
