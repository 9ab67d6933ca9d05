"""The engine: one slice of work, from claimed texts to committed vectors."""
