"""The input of a training step."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
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

    def padded(self, width: int) -> "Batch":
        """Pad ``item_seq`` on the right to ``width`` columns; it has no more."""
        return dataclasses.replace(self, item_seq=F.pad(self.item_seq, (0, width - self.item_seq.shape[1])))

    def on_device(self) -> dict[str, Tensor]:
        """Return what :meth:`to` copies, by name."""
        values = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "lengths"
        }
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> "Batch":
        """Replace fields by name."""
        changed: dict[str, Any] = dict(tensors)
        return dataclasses.replace(self, **changed)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Copy everything except ``lengths`` to ``device``."""
        tensors = self.on_device().items()
        return self.with_tensors({name: tensor.to(device, non_blocking=non_blocking) for name, tensor in tensors})

    def __len__(self) -> int:
        return len(self.lengths)
