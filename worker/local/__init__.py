"""The embedded default: everything a run needs, on this machine, from nothing but Python."""
