"""The store: what Redis holds of a collection, and the Lua steps that change it."""
