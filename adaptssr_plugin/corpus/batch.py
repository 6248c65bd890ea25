"""What a training step is handed."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """The behaviour sequences of some users, oldest behaviour first.

    Attributes:
        item_seq: (B, L) int64, items ``1 .. n_items - 1``, right-padded with 0.
        item_seq_len: (B,) int64, at least 1.
        user_ids: (B,) int64, the row of each user in the corpus.
        lengths: (B,) int64, the numbers of ``item_seq_len``, always on the CPU: host code that needs them
            never has to wait for the device.
        labels: (B,), or None where there are none.
    """

    item_seq: Tensor
    item_seq_len: Tensor
    user_ids: Tensor
    lengths: Tensor
    labels: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Copy everything but ``lengths`` to ``device``."""
        labels = None if self.labels is None else self.labels.to(device, non_blocking=non_blocking)
        return Batch(
            self.item_seq.to(device, non_blocking=non_blocking),
            self.item_seq_len.to(device, non_blocking=non_blocking),
            self.user_ids.to(device, non_blocking=non_blocking),
            self.lengths,
            labels,
        )

    def __len__(self) -> int:
        return len(self.lengths)
