"""Operators that change behaviour sequences, on whole batches, and their combinations."""
