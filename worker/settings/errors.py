"""What reading the settings raises."""

from __future__ import annotations


class SettingsError(ValueError):
    """The environment says something that cannot be meant. The message names the variable."""
