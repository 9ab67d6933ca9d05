"""Exports: vectors that leave Redis, into files and folders, and the proof that all are there."""
