"""The input of a training step."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class WholeBatch:
    """The whole batch, of which several processes have one part each.

    Attributes:
        lengths: (N,) int64, on the CPU: of the rows of all processes, as ``Batch.lengths``.
        parts: the number of processes.
    """

    lengths: Tensor
    parts: int


@dataclass(frozen=True, eq=False)
class Batch:
    """The behaviour sequences of some users, oldest behaviour first.

    Attributes:
        item_seq: (B, L) int64, items ``1 .. n_items - 1``, right-padded with 0.
        item_seq_len: (B,) int64, at least 1.
        user_ids: (B,) int64, the row of each user in the corpus.
        lengths: (B,) int64, the numbers of ``item_seq_len``, always on the CPU, so that CPU code that needs them does
            not wait for the device.
        labels: (B,), or None.
        keys: (B,) int64, or None: rows with the same key, such as the same target item, are not negatives of each
            other either.
        rows: (B,) int64, or None: the row numbers in the data of a view provider, if they differ from ``user_ids``.
        whole: the whole batch if this is one process's part, which may have no rows; otherwise None.
    """

    item_seq: Tensor
    item_seq_len: Tensor
    user_ids: Tensor
    lengths: Tensor
    labels: Tensor | None = None
    keys: Tensor | None = None
    rows: Tensor | None = None
    whole: WholeBatch | None = None

    @property
    def all_lengths(self) -> Tensor:
        """``lengths`` of the whole batch, including the parts of other processes."""
        return self.lengths if self.whole is None else self.whole.lengths

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Copy everything except ``lengths`` to ``device``."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return Batch(
            moved(self.item_seq),
            moved(self.item_seq_len),
            moved(self.user_ids),
            self.lengths,
            None if self.labels is None else moved(self.labels),
            None if self.keys is None else moved(self.keys),
            None if self.rows is None else moved(self.rows),
            self.whole,
        )

    def __len__(self) -> int:
        return len(self.lengths)
