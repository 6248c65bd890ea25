"""Augmentation-adaptive fusion (Eq. 7)."""

from typing import Literal

from torch import Tensor, nn

from ..errors import check_choice, check_kind
from ..functional import adaptive_coefficient, intra_user_similarities, stacked_unit_vectors
from .arguments import check_encodings


class AugmentationAdaptiveFusion(nn.Module):
    r"""The coefficient λ that says how far *not* to trust a user's augmentations (AdaptSSR, Eq. 7).

    .. math:: \lambda_i = 1 - \tfrac14 \sum_{s \in \{\hat u_i, \hat u_i^+\}}
              \sum_{t \in \{\tilde u_i, \tilde u_i^+\}} \max(\mathrm{sim}(s, t), 0)

    sim is the cosine. λ is near 0 where the two augmented views are still similar: then the augmented view is ranked
    against other users. λ is near 1 where they differ: then the implicit view is ranked above the augmented one.

    The defaults are the paper's. The authors' code differs in four points (METHODS.md, rows 1-4); its variant
    is ``AugmentationAdaptiveFusion(granularity="batch", terms=2, clamp=False)``.

    Args:
        granularity: "sample": a λ per user; "batch": the mean over the batch for all users (in a loss with
            ``gather``, over the batch of all processes).
        terms: 4: all cross pairs of the two views; 2: only those of the anchor itself, so that the two sides of the
            loss get different coefficients.
        clamp: max(·, 0) of every similarity, which keeps λ in [0, 1].
        detach: no gradient through λ (the paper does not say; the authors' code detaches).

    Raises:
        InputError: an invalid argument.
    """

    def __init__(
        self,
        granularity: Literal["sample", "batch"] = "sample",
        terms: Literal[4, 2] = 4,
        clamp: bool = True,
        detach: bool = True,
    ) -> None:
        super().__init__()
        check_choice("granularity", granularity, ("sample", "batch"))
        check_choice("terms", terms, (4, 2))
        self.granularity = granularity
        self.terms = terms
        check_kind("clamp", clamp, bool, "True or False")
        self.clamp = clamp
        check_kind("detach", detach, bool, "True or False")
        self.detach = detach

    def forward(self, anchor: Tensor, anchor_pos: Tensor, view: Tensor, view_pos: Tensor) -> Tensor:
        """Compute λ for one side.

        Args:
            anchor: encodings ``(B, d)`` of one augmented view, floating, of any length.
            anchor_pos: the same view under another dropout mask, ``(B, d)``.
            view: the other augmented view, ``(B, d)``.
            view_pos: the other view under another dropout mask, ``(B, d)``.

        Returns:
            ``(B,)``, float32 for half-precision input; a batch scalar is expanded.

        Raises:
            InputError: shapes, dtypes or devices that differ.
        """
        check_encodings(minimum=1, anchor=anchor, anchor_pos=anchor_pos, view=view, view_pos=view_pos)
        units = stacked_unit_vectors(anchor, anchor_pos, view, view_pos)  # (B, 4, d)
        return self.from_similarities(intra_user_similarities(units)[:, :2, 2:])

    def from_similarities(self, cross: Tensor) -> Tensor:
        """Compute λ ``(B, ...)`` from the cosines ``(B, ..., 2, 2)`` of {anchor, anchor_pos} with {view, view_pos}.

        The loss already has the cosines and calls this method with those of both sides, ``(B, 2, 2, 2)``. If a subclass
        overrides :meth:`forward`, the loss calls that instead, once per side, with unit vectors.
        """
        coefficient = adaptive_coefficient(cross.detach() if self.detach else cross, self.terms, self.clamp)
        if self.granularity == "batch":
            return coefficient.mean(0, keepdim=True).expand_as(coefficient)
        return coefficient

    def extra_repr(self) -> str:
        """Show the arguments when printed."""
        return f"granularity={self.granularity!r}, terms={self.terms}, clamp={self.clamp}, detach={self.detach}"
