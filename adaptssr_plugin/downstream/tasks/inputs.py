"""Inputs of tasks that use a part of a user's history: the behaviours before some moment."""

import numpy as np
import numpy.typing as npt

from ...corpus import BehaviourCorpus
from ...errors import InputError


def prefixes(corpus: BehaviourCorpus, rows: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> BehaviourCorpus:
    """Make a corpus of the oldest ``lengths[i]`` behaviours of each ``rows[i]``; items keep their ids, all of them.

    Args:
        corpus: the source of the histories.
        rows: (R,) integers; a user may come several times.
        lengths: (R,) integers, from 1 to the length of the row's history.

    Raises:
        InputError: rows outside the corpus, or lengths beyond their histories.
    """
    rows, lengths = corpus.check_rows(rows), np.asarray(lengths, dtype=np.int64)
    wrong = np.flatnonzero((lengths < 1) | (lengths > corpus.lengths[rows]))
    if len(wrong):
        user, length = corpus.user_tokens[rows[wrong[0]]], corpus.lengths[rows[wrong[0]]]
        raise InputError(f"lengths: expected 1 to {length} behaviours of user {user}, got {lengths[wrong[0]]}")
    offsets = np.append(0, np.cumsum(lengths))
    place = np.arange(offsets[-1]) + np.repeat(corpus.offsets[rows] - offsets[:-1], lengths)
    return BehaviourCorpus(corpus.items[place], offsets, corpus.n_items, corpus.user_tokens[rows], corpus.item_tokens)


def renumbered(
    corpus: BehaviourCorpus, item_tokens: npt.NDArray[np.str_]
) -> tuple[BehaviourCorpus, npt.NDArray[np.int64]]:
    """Convert items to a model's ids, and leave out those that it does not know.

    Args:
        corpus: behaviours with other item ids.
        item_tokens: (n_items,) the model's items by id, the padding first.

    Returns:
        A corpus with the model's ids, of the rows that have a known item; and the numbers of these rows.

    Raises:
        InputError: no known item.
    """
    number = {token: item for item, token in enumerate(item_tokens.tolist()) if item > 0}
    known = np.array([number.get(token, 0) for token in corpus.item_tokens.tolist()], dtype=np.int64)
    items = known[corpus.items]
    kept_before = np.append(0, np.cumsum(items > 0))[corpus.offsets]
    counts = np.diff(kept_before)
    rows = np.flatnonzero(counts)
    if len(rows) == 0:
        raise InputError("dataset: its items are not those of the model, which knows none of them")
    offsets = np.append(0, np.cumsum(counts[rows]))
    tokens = np.asarray(item_tokens)
    return BehaviourCorpus(items[items > 0], offsets, len(tokens), corpus.user_tokens[rows], tokens), rows
