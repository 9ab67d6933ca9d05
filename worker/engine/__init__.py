"""The engine: the worker process and its slices of work, from claimed texts to stored vectors."""
