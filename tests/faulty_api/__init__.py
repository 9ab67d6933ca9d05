"""The API of the tests: the local API, with faults on demand and a log of what it was asked."""
