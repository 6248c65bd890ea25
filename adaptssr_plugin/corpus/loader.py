"""Batches of users, in an order that depends on nothing but a seed and the epoch."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from adaptssr_plugin.corpus.batch import Batch
from adaptssr_plugin.corpus.behaviours import BehaviourCorpus
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.seeding import stream_seed


class BatchLoader:
    """Iterates over users in batches; every pass gives the epoch's order anew.

    The order is keyed by (seed, name, epoch), so a run that is resumed at an epoch sees the batches that an
    uninterrupted one sees. The last batch is kept, however short.

    Args:
        corpus: where the histories come from.
        rows: (N,) integers, the users to go through; None for all of them.
        batch_size: users in a batch.
        max_len: newest behaviours kept of each user.
        seed: the run's seed.
        name: tells apart the orders of several loaders with one seed.
        shuffle: False keeps the order of ``rows``.
        labels: (N,), one for each of ``rows``; None for none.

    Raises:
        InputError: rows outside the corpus, no rows, labels that do not fit them, or sizes below 1.
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
    ) -> None:
        for argument, value in (("batch_size", batch_size), ("max_len", max_len)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise InputError(f"{argument}: expected an integer of at least 1, got {value!r}")
        self.corpus = corpus
        self.rows = np.arange(len(corpus)) if rows is None else corpus.check_rows(rows).copy()
        if len(self.rows) == 0:
            raise InputError("rows: expected at least one row, got none")
        self.labels = None if labels is None else np.array(labels)
        if self.labels is not None and self.labels.shape != self.rows.shape:
            raise InputError(f"labels: expected shape ({len(self.rows)},), one per row, got {self.labels.shape}")
        self.batch_size = batch_size
        self.max_len = max_len
        self.seed = seed
        self.name = name
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next pass gives; 0 at first."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return self.from_step(0)

    def from_step(self, step: int) -> Iterator[Batch]:
        """Go through the epoch's batches from one of them on, counted from 0: the rest of an interrupted epoch."""
        order = np.arange(len(self.rows))
        if self.shuffle:
            order = np.random.default_rng(stream_seed(self.seed, self.name, self.epoch)).permutation(order)
        for start in range(step * self.batch_size, len(order), self.batch_size):
            yield self._batch(order[start : start + self.batch_size])

    def _batch(self, chosen: npt.NDArray[np.int64]) -> Batch:
        rows = self.rows[chosen]
        item_seq, lengths = self.corpus.padded(rows, self.max_len)
        labels = None if self.labels is None else torch.from_numpy(self.labels[chosen])
        return Batch(item_seq, lengths, torch.from_numpy(rows), lengths.clone(), labels)
