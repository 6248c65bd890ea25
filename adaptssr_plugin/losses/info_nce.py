"""InfoNCE over a batch of pairs of views (Eq. 8 and Eq. 9)."""

from typing import Literal

from torch import Tensor

from ..errors import InputError, check_choice
from ..functional import hardest_info_nce, info_nce
from ..functional.linear_cross_entropy import Reduction
from ..functional.search import Implementation
from .arguments import Negatives, check_positive
from .base import BatchLoss


class InfoNCELoss(BatchLoss):
    r"""The contrastive loss that AdaptSSR is compared with (paper Eq. 9; CL4SRec, CoSeRec, DuoRec).

    For the 2B encodings z of two views, with p(i) the partner of i in the other view:

    .. math:: \ell_i = -\log \frac{\exp(\mathrm{sim}(z_i, z_{p(i)}) / \tau)}
              {\sum_{k \ne i} \exp(\mathrm{sim}(z_i, z_k) / \tau)}

    sim is the cosine, or the dot product; 2(B - 1) negatives, both directions. No B × B matrix is kept.

    Args:
        temperature: τ > 0. The paper has none (1), which is a weak contrast for a cosine.
        negatives: "all": Eq. 9; "hardest": Eq. 8, the nearest negative alone in place of their sum; or a number
            t > 0: Eq. 8 with the soft negative t log mean exp(s/t) in place of the nearest, as :class:`AdaptSSRLoss`;
            for t = τ that is Eq. 9 with the mean over negatives in place of their sum.
        reduction: "mean" over rows that have a negative, "sum", or "none" for ``(B,)``; the loss of a row is
            the mean over its two anchors.
        gather: negatives from every process, gradients included, as :class:`AdaptSSRLoss`.
        chunk_size: rows of the similarity matrix held at once; None chooses for the device.
        similarity: "cosine": Eq. 9; "dot": the dot product of the encodings as they are, which the code of
            CL4SRec and DuoRec takes with τ = 1.
        implementation: of the search for the hardest negative, "auto", "torch" or "triton": see
            :class:`AdaptSSRLoss`. "triton" is refused with "all" and with a soft negative.

    Raises:
        InputError: an invalid argument.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        negatives: Negatives = "all",
        reduction: Reduction = "mean",
        gather: bool = False,
        chunk_size: int | None = None,
        similarity: Literal["cosine", "dot"] = "cosine",
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__(negatives, reduction, gather, chunk_size, implementation)
        check_choice("similarity", similarity, ("cosine", "dot"))
        if implementation == "triton" and negatives == "all":
            raise InputError("implementation: expected 'auto' or 'torch' with negatives='all', got 'triton'")
        self.temperature = check_positive("temperature", temperature)
        self.similarity = similarity

    def forward(self, z1: Tensor, z2: Tensor, user_ids: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            z1: encodings of the first view, floating ``(B, d)``, B ≥ 2, of any length.
            z2: encodings of the second view, ``(B, d)``.
            user_ids: integers ``(B,)`` or ``(B, k)``, as in :meth:`AdaptSSRLoss.forward`; rows with the same id
                in any column are never negatives of each other.

        Returns:
            A scalar, or ``(B,)`` for ``reduction="none"``; float32 for half-precision input.

        Raises:
            InputError: shapes, dtypes or devices that differ; fewer than two rows (with ``gather``: in all processes).
        """
        vectors, ids, rows = self._compared(user_ids, self.similarity == "cosine", z1=z1, z2=z2)  # (N, 2, d)
        arguments = (vectors, self.temperature, ids, self.chunk_size)
        if self.negatives == "all":
            per_anchor, valid = info_nce(*arguments, rows)
        else:
            per_anchor, valid = hardest_info_nce(*arguments, self.implementation, rows, self._softness)
        return self._reduce(per_anchor, None if user_ids is None else valid, len(vectors))

    def extra_repr(self) -> str:
        """Show the arguments when printed."""
        return (
            f"temperature={self.temperature}, negatives={self.negatives!r}, reduction={self.reduction!r}, "
            f"similarity={self.similarity!r}" + (", gather=True" if self.gather else "")
        )
