"""Interactions, and corpora on disk compared file by file."""

import numpy as np

FILES = ["corpus.json", "item_tokens.parquet", "items.npy", "offsets.npy", "user_tokens.parquet"]


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def named(corpus):
    """Histories in the source's own names."""
    return {str(user): corpus.item_tokens[corpus.history(row)].tolist() for row, user in enumerate(corpus.user_tokens)}


def interactions(folder, n=3000, seed=0):
    """Unsorted lines with a column too many and many equal times, beside a file of users."""
    rng = np.random.default_rng(seed)
    columns = rng.integers(0, 90, n), rng.integers(0, 200, n), rng.integers(0, 40, n)
    lines = [f"{time / 4}\tx\tu{user}\ti{item}" for user, item, time in zip(*columns, strict=True)]
    folder.mkdir()
    path = folder / "data.inter"
    path.write_text("\n".join(["timestamp:float\tother:token\tuser_id:token\titem_id:token", *lines]) + "\n")
    users = [f"{1 + number % 2}\tu{number}" for number in range(80)]
    (folder / "data.user").write_text("\n".join(["age:token\tuser_id:token", *users]) + "\n")
    return path
