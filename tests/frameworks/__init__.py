"""The adapters in their frameworks. A test is skipped if its framework is not installed."""
