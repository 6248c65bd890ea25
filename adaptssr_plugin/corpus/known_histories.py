"""Histories of any users, including new ones, in the item ids of a trained model; read in chunks.

Behaviours with items that the model does not know are left out, and so are users who have no known item; both are
counted. Needs pyarrow: users keep the type that they have in a Parquet file.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..progress import Progress
from .behaviours import BehaviourCorpus, StrArray
from .formats.converters import parquet_batches, parquet_columns
from .formats.dataset_writer import file_sizes, numbered_lines

_CHUNK = 8192  # users in memory at once


class KnownHistories(NamedTuple):
    """Some users, and the part of their histories that a model knows."""

    users: Any
    """``pyarrow.Array`` of shape (U,): the names in the source of the users with a known item."""
    corpus: BehaviourCorpus
    """Their histories, in ids of the model; rows as ``users``."""
    behaviours: int
    """The number of behaviours that were read, of all users."""
    unknown: int
    """The number of these that the model does not know."""
    skipped: int
    """The number of users without a known item, who are not among ``users``."""


def known_lines(
    paths: Sequence[str | Path], item_tokens: StrArray, *, show_progress: bool = True
) -> Iterator[KnownHistories]:
    """Read text with one line per user: the user, then its items, oldest first, separated by blanks.

    Args:
        paths: UTF-8 text files, one after another; blank lines are skipped.
        item_tokens: ``(n_items,)``, the model's items, the padding first.
        show_progress: a progress bar on standard error, in a log a line every ten seconds.

    Yields:
        Users in the order of the files.

    Raises:
        InputError: a file that cannot be read.
    """
    import pyarrow as pa

    files = [Path(path) for path in paths]
    numbers = _numbers(item_tokens)
    users: list[str] = []
    lengths: list[int] = []
    ids: list[int] = []
    with Progress(file_sizes(files), "embed", show_progress, "B") as bar:
        for path in files:
            with path.open("rb") as file:
                for _, line in numbered_lines(file, path, bar):
                    user, *tokens = line.split() or [""]
                    if user:
                        users.append(user)
                        lengths.append(len(tokens))
                        ids += [numbers.get(token, 0) for token in tokens]
                    if len(users) == _CHUNK:
                        yield _known(pa.array(users), np.array(ids, np.int64), np.array(lengths), item_tokens)
                        users, lengths, ids = [], [], []
    yield _known(pa.array(users, pa.string()), np.array(ids, np.int64), np.array(lengths, np.int64), item_tokens)


def known_parquet(
    paths: Sequence[str | Path],
    item_tokens: StrArray,
    *,
    user_column: str = "user_id",
    items_column: str = "item_id",
    show_progress: bool = True,
) -> Iterator[KnownHistories]:
    """Read Parquet with one row per user and a list of items, oldest first; null counts as an empty list.

    Args:
        paths: Parquet files, one after another.
        item_tokens: ``(n_items,)``, the model's items, the padding first.
        user_column: integers or strings.
        items_column: lists of integers or strings.
        show_progress: a progress bar on standard error, in a log a line every ten seconds.

    Yields:
        Users in the order of the files.

    Raises:
        InputError: a file that cannot be read, a missing column or one of another type, a user that is null.
    """
    import pyarrow as pa

    files = [Path(path) for path in paths]
    file_sizes(files)
    total = sum(parquet_columns(path, user_column, items_column, ())[0] for path in files)
    known_items = pa.array(item_tokens[1:].tolist(), pa.string())
    with Progress(total, "embed", show_progress, "user") as bar:
        for path, row, batch in parquet_batches(files, [user_column, items_column], _CHUNK):
            users = _plain(batch.column(user_column))
            if users.null_count:
                raise InputError(f"{path}: expected a user in every row, got null after row {row}")
            ids, lengths = _list_ids(batch.column(items_column), known_items)
            yield _known(users, ids, lengths, item_tokens)
            bar.update(len(batch))


def known_corpus(
    corpus: BehaviourCorpus, item_tokens: StrArray, *, show_progress: bool = True
) -> Iterator[KnownHistories]:
    """Read a corpus, whose item ids may differ from the model's.

    Args:
        corpus: the users.
        item_tokens: ``(n_items,)``, the model's items, the padding first.
        show_progress: a progress bar on standard error, in a log a line every ten seconds.

    Yields:
        Users in the order of the corpus.
    """
    import pyarrow as pa

    numbers = _numbers(item_tokens)
    ids = np.array([0, *(numbers.get(token, 0) for token in corpus.item_tokens[1:].tolist())], dtype=np.int64)
    with Progress(len(corpus), "embed", show_progress, "user") as bar:
        for start in range(0, len(corpus), _CHUNK):
            offsets = corpus.offsets[start : start + _CHUNK + 1]
            users = pa.array(corpus.user_tokens[start : start + _CHUNK].tolist(), pa.string())
            yield _known(users, ids[corpus.items[offsets[0] : offsets[-1]]], np.diff(offsets), item_tokens)
            bar.update(len(users))


def _numbers(item_tokens: StrArray) -> dict[str, int]:
    """Return the id of every item, 0 for the padding."""
    return {token: number for number, token in enumerate(item_tokens.tolist())}


def _plain(column: Any) -> Any:
    """Decode a dictionary-encoded array."""
    from pyarrow import types

    return column.dictionary_decode() if types.is_dictionary(column.type) else column


def _list_ids(lists: Any, known_items: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the concatenated ids of all lists' items, 0 for unknown ones, and the length of each list."""
    import pyarrow as pa
    from pyarrow import compute

    lengths = compute.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    tokens = _plain(compute.list_flatten(lists)).cast(pa.string())
    found = compute.index_in(tokens, value_set=known_items)
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) + 1, lengths


def _known(
    users: Any, ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], item_tokens: StrArray
) -> KnownHistories:
    """Leave out unknown items, which have id 0, and users without any other."""
    import pyarrow as pa

    known = ids > 0
    owner = np.repeat(np.arange(len(users)), lengths)
    counts = np.bincount(owner[known], minlength=len(users))
    some = counts > 0
    kept = users.filter(pa.array(some, pa.bool_()))
    corpus = BehaviourCorpus(
        items=ids[known],
        offsets=np.append(0, np.cumsum(counts[some])).astype(np.int64),
        n_items=len(item_tokens),
        user_tokens=np.array(kept.cast(pa.string()).to_pylist(), dtype=np.str_),
        item_tokens=item_tokens,
    )
    return KnownHistories(kept, corpus, len(ids), int((~known).sum()), int((~some).sum()))
