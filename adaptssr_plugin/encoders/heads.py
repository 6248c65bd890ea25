"""Output layers of the pre-training objectives."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import InputError, check_choice, check_count
from ..functional import TargetScores, linear_cross_entropy, sampled_cross_entropy, score_targets
from ..functional.linear_cross_entropy import Reduction


class MaskedItemHead(nn.Module):
    """Scores of all items at a masked position: h · Eᵀ + b, with the item table tied, as in the authors' code.

    Calling it computes all scores; :meth:`loss` and :meth:`compare` hold only a chunk of them at a time.

    Args:
        n_items: columns, including the padding id as in the authors' code.
        softmax: with what the loss compares a target: "full", all items, or "sampled", uniformly drawn items.
        sample_share: the share of the other items that "sampled" draws, rounded up; in (0, 1]. At 1 it is "full".

    Raises:
        InputError: an unknown softmax, or a share out of range.
    """

    def __init__(self, n_items: int, softmax: Literal["full", "sampled"] = "full", sample_share: float = 0.2) -> None:
        super().__init__()
        check_count("n_items", n_items)
        check_choice("softmax", softmax, ("full", "sampled"))
        if not isinstance(sample_share, int | float) or not 0 < sample_share <= 1:
            raise InputError(f"sample_share: expected a number in (0, 1], got {sample_share!r}")
        self.softmax = softmax
        self.sample_share = sample_share
        self.bias = nn.Parameter(torch.zeros(n_items))

    def forward(self, hidden: Tensor, item_weight: Tensor) -> Tensor:
        """Score hidden states ``(M, d)`` against ``item_weight`` ``(n_items, d)``: ``(M, n_items)``."""
        return torch.addmm(self.bias, hidden, item_weight.t())

    @property
    def n_samples(self) -> int:
        """The number of items with which "sampled" compares every target."""
        return math.ceil(self.sample_share * (len(self.bias) - 1) - 1e-9)

    def loss(
        self,
        hidden: Tensor,
        item_weight: Tensor,
        targets: Tensor,
        generator: torch.Generator | None = None,
        counted: Tensor | None = None,
    ) -> Tensor:
        """Mean cross-entropy, a scalar in at least float32.

        Args:
            hidden: ``(M, d)``, M at least 1.
            item_weight: ``(n_items, d)``.
            targets: int64 ``(M,)``, each in 0..n_items-1.
            generator: for "sampled", on the device of ``hidden``; None: torch's default generator.
            counted: bool ``(M,)``, the rows over which the mean is taken, at least one; None: all.
        """
        reduction: Reduction = "mean" if counted is None else "none"
        if self.softmax == "full":
            losses = linear_cross_entropy(hidden, item_weight, self.bias, targets, reduction)
        else:
            arguments = (hidden, item_weight, self.bias, targets, self.n_samples, generator, reduction)
            losses = sampled_cross_entropy(*arguments)
        return losses if counted is None else (losses * counted).sum() / counted.sum()

    def compare(self, hidden: Tensor, item_weight: Tensor, targets: Tensor) -> TargetScores:
        """Cross-entropy over all items, and the margin of every target, each ``(M,)``, without gradient.

        Arguments as :meth:`loss`; "sampled" does not matter here.
        """
        return score_targets(hidden, item_weight, self.bias, targets)

    def extra_repr(self) -> str:
        """Show sizes and softmax."""
        share = f", sample_share={self.sample_share}" if self.softmax == "sampled" else ""
        return f"n_items={len(self.bias)}, softmax={self.softmax!r}{share}"
