"""Negatives of a behaviour, drawn from other behaviours or from the catalogue."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...corpus import BehaviourCorpus
from ...errors import InputError, check_kind

_TOTAL = 1 << 44  # the sum to which weights are scaled, approximately
_USERS = 1 << 16  # users whose behaviours are processed together
_RANDOM_BITS = 62  # of a draw; so an item's probability is off by at most a factor of 1 + 2**-18


class NegativeItems(nn.Module):
    """Draw items by their weights, but never the positive itself.

    Drawing until an item differs from the positive is drawing by the weights without the positive's. So one draw is
    enough: the positive's weight is cut out of the line on which all weights lie side by side. Weights are integers, so
    that the cut is exact.

    Args:
        weights: (n_items,) floating numbers of at least 0, of which only the ratios matter; the padding's is 0.

    Raises:
        InputError: fewer than two items with a positive weight.
    """

    def __init__(self, weights: npt.NDArray[np.float64]) -> None:
        super().__init__()
        check_kind("weights", weights, np.ndarray, "a numpy array")
        known = int((weights > 0).sum())
        if known < 2:
            raise InputError(f"negatives: expected two different items or more in the training histories, got {known}")
        scaled = np.ceil(weights * (_TOTAL / weights.sum())).astype(np.int64)  # a positive weight stays positive
        # Not in checkpoints: it is part of the data.
        self.ends: Tensor
        self.register_buffer("ends", torch.from_numpy(scaled.cumsum()), persistent=False)

    @classmethod
    def from_histories(cls, corpus: BehaviourCorpus) -> "NegativeItems":
        """A random user, then a random behaviour of that user."""
        weights = np.zeros(corpus.n_items)
        for start in range(0, len(corpus), _USERS):
            offsets = corpus.offsets[start : start + _USERS + 1]
            lengths = np.diff(offsets)
            shares = np.repeat(1.0 / lengths, lengths)
            weights += np.bincount(corpus.items[offsets[0] : offsets[-1]], weights=shares, minlength=corpus.n_items)
        return cls(weights)

    @classmethod
    def uniform(cls, n_items: int) -> "NegativeItems":
        """Every item with the same weight; ``n_items`` includes the padding id 0."""
        weights = np.ones(n_items)
        weights[0] = 0
        return cls(weights)

    def forward(self, positives: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``count`` items for each positive, independently.

        Args:
            positives: int64, any shape, ids 0..n_items-1; for a 0 any item is a negative.
            count: the number of negatives for each.
            generator: on the device of ``positives``; None takes torch's own.

        Returns:
            int64 ``(*positives.shape, count)``, all different from their positive.
        """
        ends = self.ends
        end = ends[positives][..., None]
        start = torch.where(positives == 0, 0, ends[positives - 1])[..., None]
        room = ends[-1] - (end - start)
        shape = (*positives.shape, count)
        drawn = torch.randint(1 << _RANDOM_BITS, shape, device=ends.device, generator=generator) % room
        drawn = torch.where(drawn < start, drawn, drawn + (end - start))
        return torch.searchsorted(ends, drawn, right=True)
