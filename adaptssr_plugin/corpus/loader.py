"""Batches of users, in an order that depends only on a seed and the epoch."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from adaptssr_plugin.corpus.batch import Batch, WholeBatch
from adaptssr_plugin.corpus.behaviours import BehaviourCorpus
from adaptssr_plugin.errors import InputError, check_count, check_counts, check_kind
from adaptssr_plugin.seeding import stream_seed


class BatchLoader:
    """Iterates over users in batches; every pass uses the epoch's order.

    The order is keyed by (seed, name, epoch), so a run that is resumed at an epoch sees the batches of an uninterrupted
    one. The last, smaller batch is kept.

    Args:
        corpus: the source of the histories.
        rows: (N,) integers, the users to iterate over; None: all.
        batch_size: users in a batch.
        max_len: the number of newest behaviours of a user that are used.
        seed: the run's seed.
        name: makes the orders of several loaders with one seed differ.
        shuffle: False keeps the order of ``rows``.
        labels: (N,), one for each of ``rows``; None: no labels.
        part: the number of this process, from 0, among those that share every batch.
        parts: the number of processes. Each gets consecutive rows of every batch; their numbers differ by at most one
            and may be 0. The order does not depend on ``parts``.

    Raises:
        InputError: no corpus, rows outside of it, no rows, labels that do not fit them, sizes below 1, a part out of
            range, or a ``shuffle`` that is neither True nor False.
    """

    def __init__(
        self,
        corpus: BehaviourCorpus,
        rows: npt.NDArray[np.int64] | None = None,
        *,
        batch_size: int,
        max_len: int,
        seed: int,
        name: str = "batches",
        shuffle: bool = True,
        labels: npt.NDArray[np.generic] | None = None,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        check_kind("corpus", corpus, BehaviourCorpus, "a BehaviourCorpus")
        check_kind("shuffle", shuffle, bool, "True or False")
        check_counts(batch_size=batch_size, max_len=max_len, parts=parts)
        check_count("part", part, 0, parts - 1)
        self.corpus = corpus
        self.rows = np.arange(len(corpus)) if rows is None else corpus.check_rows(rows).copy()
        if len(self.rows) == 0:
            raise InputError("rows: expected at least one row, got none")
        self.labels = None if labels is None else np.array(labels)
        if self.labels is not None and self.labels.shape != self.rows.shape:
            raise InputError(f"labels: expected shape ({len(self.rows)},), one per row, got {self.labels.shape}")
        self.batch_size, self.max_len = batch_size, max_len
        self.seed, self.name, self.shuffle = seed, name, shuffle
        self.part, self.parts = part, parts
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order the next pass uses; 0 at first."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return self.from_step(0)

    def from_step(self, step: int) -> Iterator[Batch]:
        """Iterate from one of the epoch's batches on, counted from 0: the rest of an interrupted epoch."""
        order = self._order()
        for start in range(step * self.batch_size, len(order), self.batch_size):
            yield self._batch(order[start : start + self.batch_size])

    def users_of(self, step: int) -> npt.NDArray[np.int64]:
        """Return the rows of one of the epoch's batches, including those of other processes."""
        return self.rows[self._order()[step * self.batch_size : (step + 1) * self.batch_size]]

    def _order(self) -> npt.NDArray[np.int64]:
        order = np.arange(len(self.rows))
        if not self.shuffle:
            return order
        return np.random.default_rng(stream_seed(self.seed, self.name, self.epoch)).permutation(order)

    def _batch(self, chosen: npt.NDArray[np.int64]) -> Batch:
        whole = None
        if self.parts > 1:
            rows = self.rows[chosen]
            lengths = np.minimum(self.corpus.offsets[rows + 1] - self.corpus.offsets[rows], self.max_len)
            whole = WholeBatch(torch.from_numpy(lengths), self.parts)
            chosen = np.array_split(chosen, self.parts)[self.part]  # the first parts may have one more
        rows = self.rows[chosen]
        if len(rows):
            item_seq, length = self.corpus.padded(rows, self.max_len)
        else:
            item_seq, length = torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        labels = None if self.labels is None else torch.from_numpy(self.labels[chosen])
        return Batch(item_seq, length, torch.from_numpy(rows), length.clone(), labels, whole=whole)
