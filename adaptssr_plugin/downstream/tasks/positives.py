"""The labels that every user is known for, looked up for whole batches on the device of the batch."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...augment.operators.draws import uniform_below


class Positives(nn.Module):
    """Pairs of a user and a label, sorted; its tensors belong to the data and to no checkpoint.

    Args:
        users: (K,) int64 in [0, n_users).
        labels: (K,) int64 in [0, n_labels); a pair may come several times.
        n_users: number of users, those without a label included.
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
        # How many labels below a user's k-th positive are none: ascending over k, and over users with their offset.
        gaps = owners * (n_labels + 1) + sorted_labels - nth
        for name, values in (("start", start), ("labels", sorted_labels), ("gaps", gaps)):
            self.register_buffer(name, torch.from_numpy(values.astype(np.int64)), persistent=False)

    def pairs(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Give all positives of some users ``(B,)``: for each its place in the batch and its label, both (K,) int64."""
        first, count = self.start[users], self.start[users + 1] - self.start[users]
        rows = torch.arange(len(users), device=users.device).repeat_interleave(count)  # (K,)
        before = count.cumsum(0) - count
        return rows, self.labels[(first - before)[rows] + torch.arange(len(rows), device=users.device)]

    def negatives(self, users: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw one label for each user, uniform on those that are not the user's.

        Rejecting positives until none is left has the same distribution, but no end for a user who has all labels.
        Here the r-th label that is no positive is computed from a number r drawn below their count.

        Args:
            users: (B,) int64.
            generator: on the device of ``users``, or None.

        Returns:
            (B,) int64 labels; and (B,) bool, False for a user who has all labels, whose label means nothing.
        """
        first, end = self.start[users], self.start[users + 1]
        left = self.n_labels - (end - first)
        nth = uniform_below(left, generator)
        passed = torch.searchsorted(self.gaps, users * (self.n_labels + 1) + nth, right=True) - first
        return (nth + passed).clamp(max=self.n_labels - 1), left > 0
