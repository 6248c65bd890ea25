"""The self-supervised ranking objective (Eq. 5 and Eq. 6)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError, check_choice
from ..functional import RankedPairs, all_pairs_ranking, hardest_pair_ranking, intra_user_similarities
from ..functional.linear_cross_entropy import Reduction
from ..functional.search import Implementation
from .arguments import Negatives, check_positive
from .base import BatchLoss
from .fusion import AugmentationAdaptiveFusion

# METHODS.md, rows 1-5: what the paper says against what the authors' code does.
_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "official_code": {"granularity": "batch", "terms": 2, "clamp": False, "detach": True},
}


class RankingTerms(NamedTuple):
    """What the loss compares, per row ``(B,)``: means over the anchors û and ũ. All but ``loss`` are detached."""

    loss: Tensor
    """(L̂ᵢ + L̃ᵢ)/2, with its gradient; 0 where a row has no negative."""
    coefficient: Tensor
    """λᵢ."""
    positive: Tensor
    """sim(u, u⁺): the implicit view."""
    augmented: Tensor
    """Mean similarity to the encodings of the other augmented view."""
    hardest: Tensor
    """Largest similarity to another user; -inf where the batch has none."""


class AdaptSSRLoss(BatchLoss):
    r"""Augmentation-adaptive self-supervised ranking (AdaptSSR, NeurIPS 2023).

    Asks for the order sim(u, u⁺) ≥ sim(u, û) ≥ sim(u, u⁻): the same input under another dropout mask, an
    augmented view, another user. With the hardest of each in the batch (Eq. 6):

    .. math:: \hat L_i = -\log\sigma\bigl(\kappa[\lambda_i (P - \max V) + (1 - \lambda_i)(\min V - \max W)]\bigr)

    where, for the anchor û: :math:`P = \mathrm{sim}(\hat u, \hat u^+)`,
    :math:`V = \{\mathrm{sim}(\hat u, \tilde u), \mathrm{sim}(\hat u, \tilde u^+)\}`, and W holds the
    similarities to all 4(B - 1) encodings of other users. L̃ takes ũ as its anchor; the loss of a row is
    (L̂ + L̃)/2. sim is the cosine. No B × B matrix is kept: memory grows as B · d + chunk · B.

    Args:
        fusion: how λ is set. None: Eq. 7 of the paper; a number in [0, 1]: a constant λ; or an
            :class:`AugmentationAdaptiveFusion`.
        negatives: "hardest": Eq. 6 (the default). "all": Eq. 5, the mean over all 8(B - 1) pairs of V and W. A number
            τ > 0: Eq. 6 with the soft negative τ log mean exp(w/τ) over w ∈ W in place of max W. All three are
            streamed. The soft negative is ours, not the paper's. It tends to max W for τ → 0 and to the mean of W for
            τ → ∞. With λ = 0 and κ = 1/τ the loss is InfoNCE at temperature τ, with the mean over negatives in place
            of their sum. It pushes all other users away; the hardest negative alone can draw all users into one
            direction.
        scale: κ > 0, multiplies the bracket before the sigmoid. The paper has no such factor (1).
        reduction: "mean" over rows that have a negative, "sum", or "none" for ``(B,)``.
        gather: take negatives from every process of torch's default process group, gradients included. Every process
            has to make the same calls. The number of rows may differ between processes and be 0. Each process returns
            the loss of its own rows. The gradients are those of the whole batch: for "sum" when summed over the
            processes, for "mean" when **averaged** over them, as DistributedDataParallel does; so the average of the
            returned values is the mean of all rows. ``granularity="batch"`` then refers to the whole batch. For what
            is communicated see :func:`adaptssr_plugin.distributed.gather_rows`; the mean with ids sends one more
            number. Without a process group, or in a group of one, it changes nothing.
        chunk_size: rows of the similarity matrix held at once; None chooses for the device.
        implementation: of the search for the hardest negative. "torch": on any device. "triton": a CUDA kernel that
            keeps no part of the similarity matrix in memory; not with ``gather`` or a soft negative. "auto": the
            Triton kernel on CUDA devices of compute capability 9 (H100, H200) if Triton is installed, unless the
            encodings are float64 or torch.compile is active; "torch" everywhere else.

    Raises:
        InputError: an invalid argument.

    Example:
        >>> criterion = AdaptSSRLoss()
        >>> u1, u1_pos, u2, u2_pos = torch.randn(4, 8, 64, generator=torch.Generator().manual_seed(0))
        >>> round(float(criterion(u1, u1_pos, u2, u2_pos)), 4)
        0.7296
    """

    def __init__(
        self,
        fusion: AugmentationAdaptiveFusion | float | None = None,
        negatives: Negatives = "hardest",
        scale: float = 1.0,
        reduction: Reduction = "mean",
        gather: bool = False,
        chunk_size: int | None = None,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__(negatives, reduction, gather, chunk_size, implementation)
        if fusion is None:
            fusion = AugmentationAdaptiveFusion()
        elif not isinstance(fusion, AugmentationAdaptiveFusion):
            if isinstance(fusion, bool) or not isinstance(fusion, int | float) or not 0 <= fusion <= 1:
                raise InputError(
                    f"fusion: expected None, a number in [0, 1] or an AugmentationAdaptiveFusion, got {fusion!r}"
                )
            fusion = float(fusion)
        self.fusion = fusion
        self.scale = check_positive("scale", scale)

    @classmethod
    def from_preset(cls, preset: str, **arguments: Any) -> "AdaptSSRLoss":
        """Make the loss of the paper, or the loss that the authors' code computes.

        Args:
            preset: "paper": a λ per user from four clamped terms; "official_code": one λ per batch and side
                from two unclamped terms, which can exceed 1 (METHODS.md, rows 1-5).
            **arguments: any other argument of the class except ``fusion``.
        """
        check_choice("preset", preset, tuple(_PRESETS))
        if "fusion" in arguments:
            raise InputError(f"fusion: expected no fusion beside preset {preset!r}, got {arguments['fusion']!r}")
        return cls(fusion=AugmentationAdaptiveFusion(**_PRESETS[preset]), **arguments)

    def forward(self, u1: Tensor, u1_pos: Tensor, u2: Tensor, u2_pos: Tensor, user_ids: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            u1: û, encodings of the first augmented view, floating ``(B, d)``, B ≥ 2, of any length.
            u1_pos: û⁺, the same view under another dropout mask, ``(B, d)``.
            u2: ũ, the second augmented view, ``(B, d)``.
            u2_pos: ũ⁺, the second view under another dropout mask, ``(B, d)``.
            user_ids: integers ``(B,)`` or ``(B, k)``; rows with the same id in any column are never negatives of
                each other (for example column 0 the user, column 1 the target item). A row without any negative
                contributes 0 and is left out of the mean.

        Returns:
            A scalar, or ``(B,)`` for ``reduction="none"``; float32 for half-precision input.

        Raises:
            InputError: shapes, dtypes or devices that differ; fewer than two rows (with ``gather``: in all processes).
        """
        pairs, _, n_rows = self._rank(u1, u1_pos, u2, u2_pos, user_ids)
        # Without ids every row has B - 1 other users.
        valid = None if user_ids is None else pairs.hardest[:, 0] != -torch.inf
        return self._reduce(pairs.loss, valid, n_rows)

    def terms(
        self, u1: Tensor, u1_pos: Tensor, u2: Tensor, u2_pos: Tensor, user_ids: Tensor | None = None
    ) -> RankingTerms:
        """Compute the loss per row and the similarities that it compares; arguments as :meth:`forward`.

        Pass the result to :meth:`reduce` for the tensor that :meth:`forward` returns.
        """
        pairs, coefficient, _ = self._rank(u1, u1_pos, u2, u2_pos, user_ids)
        if isinstance(coefficient, float):
            coefficient = pairs.positive.new_full(pairs.positive.shape, coefficient)
        return RankingTerms(
            loss=pairs.loss.mean(1),
            coefficient=coefficient.detach().mean(1),
            positive=pairs.positive.detach().mean(1),
            augmented=pairs.augmented.detach().mean((1, 2)),
            hardest=pairs.hardest.detach().mean(1),
        )

    def reduce(self, terms: RankingTerms) -> Tensor:
        """Reduce the loss of ``terms`` as :meth:`forward` does."""
        return self._reduce(terms.loss, terms.hardest != -torch.inf, len(terms.loss))

    def _rank(
        self, u1: Tensor, u1_pos: Tensor, u2: Tensor, u2_pos: Tensor, user_ids: Tensor | None
    ) -> tuple[RankedPairs, Tensor | float, int]:
        """Return the pairs of this process's rows, λ, and the number of rows of all processes together."""
        units, user_ids, rows = self._compared(user_ids, True, u1=u1, u1_pos=u1_pos, u2=u2, u2_pos=u2_pos)  # (N, 4, d)
        # The gradient of Eq. 6 is computed in closed form and needs no graph of a user's own similarities.
        without_gradient = self.negatives != "all" and (isinstance(self.fusion, float) or self.fusion.detach)
        own = intra_user_similarities(units.detach() if without_gradient else units)  # (N, 4, 4)
        coefficient = self._coefficient(own, units)
        if rows is not None:
            # A batch scalar (or a subclass) computes λ from the whole batch; the rest is for this process's rows.
            own = own[rows]
            coefficient = coefficient[rows] if isinstance(coefficient, Tensor) else coefficient
        arguments = (units, own, coefficient, self.scale, user_ids, self.chunk_size, self.implementation, rows)
        if self.negatives == "all":
            pairs = all_pairs_ranking(*arguments)
        else:
            pairs = hardest_pair_ranking(*arguments, self._softness)
        return pairs, coefficient, len(units)

    def _coefficient(self, own: Tensor, units: Tensor) -> Tensor | float:
        """Compute λ ``(N, 2)`` from the similarities, or from the encodings if a subclass overrides ``forward``."""
        fusion = self.fusion
        if isinstance(fusion, float):
            return fusion
        if type(fusion).forward is not AugmentationAdaptiveFusion.forward:
            first, first_pos, second, second_pos = units.unbind(1)
            sides = (first, first_pos, second, second_pos), (second, second_pos, first, first_pos)
            return torch.stack([fusion(*side) for side in sides], 1)
        return fusion.from_similarities(torch.stack((own[:, :2, 2:], own[:, 2:, :2]), 1))

    def extra_repr(self) -> str:
        """Show the arguments when printed."""
        fusion = f"fusion={self.fusion}, " if isinstance(self.fusion, float) else ""
        gather = ", gather=True" if self.gather else ""
        return f"{fusion}negatives={self.negatives!r}, scale={self.scale}, reduction={self.reduction!r}{gather}"
