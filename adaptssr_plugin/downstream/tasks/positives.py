"""The positive labels of every user, looked up for whole batches on the device of the batch."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...augment.operators.draws import uniform_below


class Positives(nn.Module):
    """Pairs of a user and a label, sorted; its tensors are data and not saved in checkpoints.

    Args:
        users: (K,) int64 in [0, n_users).
        labels: (K,) int64 in [0, n_labels); a pair may come several times.
        n_users: number of users, including those without a label.
        n_labels: size of the label space.
    """

    start: Tensor
    labels: Tensor
    gaps: Tensor

    def __init__(
        self, users: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], n_users: int, n_labels: int
    ) -> None:
        super().__init__()
        self.n_labels = n_labels
        owners, sorted_labels = np.divmod(np.unique(users * n_labels + labels), n_labels)
        start = np.append(0, np.cumsum(np.bincount(owners, minlength=n_users)))
        nth = np.arange(len(owners)) - start[owners]
        # The number of non-positive labels below a user's k-th positive: ascending in k, and over users with their
        # offset.
        gaps = owners * (n_labels + 1) + sorted_labels - nth
        for name, values in (("start", start), ("labels", sorted_labels), ("gaps", gaps)):
            self.register_buffer(name, torch.from_numpy(values.astype(np.int64)), persistent=False)

    def pairs(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Return all positives of users ``(B,)``: place in the batch and label of each, both (K,) int64."""
        first, count = self.start[users], self.start[users + 1] - self.start[users]
        rows = torch.arange(len(users), device=users.device).repeat_interleave(count)  # (K,)
        before = count.cumsum(0) - count
        return rows, self.labels[(first - before)[rows] + torch.arange(len(rows), device=users.device)]

    def negatives(self, users: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw one label for each user, uniform on those that are not the user's.

        Redrawing until a label is not a positive has the same distribution, but never ends for a user who has all
        labels. Here the r-th label that is not a positive is computed from a random number r below their count.

        Args:
            users: (B,) int64.
            generator: on the device of ``users``, or None.

        Returns:
            (B,) int64 labels; and (B,) bool, False for a user who has all labels, whose result is meaningless.
        """
        first, end = self.start[users], self.start[users + 1]
        left = self.n_labels - (end - first)
        nth = uniform_below(left, generator)
        passed = torch.searchsorted(self.gaps, users * (self.n_labels + 1) + nth, right=True) - first
        return (nth + passed).clamp(max=self.n_labels - 1), left > 0
