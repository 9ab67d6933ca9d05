"""The local stack: all that a run needs, on this machine, installed by pip alone."""

MODULES = ("pydantic", "starlette", "uvicorn", "wordllama")  # of the `local` extra
