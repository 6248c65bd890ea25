"""InfoNCE over a batch of pairs of views (Eq. 8 and Eq. 9)."""

from typing import Literal

from torch import Tensor, nn

from ..errors import InputError
from ..functional import hardest_info_nce, info_nce, stacked_unit_vectors, unit_vectors
from ..functional.search import Implementation, check_implementation
from ..functional.similarity import stacked_vectors
from .arguments import (
    Reduction,
    check_choice,
    check_chunk_size,
    check_encodings,
    check_gather,
    check_positive,
    gathered_rows,
    reduce_gathered_rows,
    reduce_rows,
)


class InfoNCELoss(nn.Module):
    r"""The contrastive loss that AdaptSSR is compared with (paper Eq. 9; CL4SRec, CoSeRec, DuoRec).

    For the 2B encodings z of two views, with p(i) the partner of i in the other view:

    .. math:: \ell_i = -\log \frac{\exp(\mathrm{sim}(z_i, z_{p(i)}) / \tau)}
              {\sum_{k \ne i} \exp(\mathrm{sim}(z_i, z_k) / \tau)}

    sim is the cosine, or the dot product; 2(B - 1) negatives, both directions. No B × B matrix is kept.

    Args:
        temperature: τ > 0. The paper has none (1), which is a weak contrast for a cosine.
        negatives: "all": Eq. 9; "hardest": Eq. 8, the nearest negative alone in place of their sum.
        reduction: "mean" over rows that have a negative, "sum", or "none" for ``(B,)``; the loss of a row is
            the mean over its two anchors.
        gather: negatives from every process, gradients included, as :class:`AdaptSSRLoss`.
        chunk_size: rows of the similarity matrix held at once; None chooses for the device.
        similarity: "cosine": Eq. 9; "dot": the dot product of the encodings as they are, which the originals of
            CL4SRec and DuoRec take with τ = 1 (spec 2.1).
        implementation: of the search for the hardest negative, "auto", "torch" or "triton": see
            :class:`AdaptSSRLoss`. The sum over all negatives has torch's alone.

    Raises:
        InputError: an argument outside of the above.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        negatives: Literal["all", "hardest"] = "all",
        reduction: Reduction = "mean",
        gather: bool = False,
        chunk_size: int | None = None,
        similarity: Literal["cosine", "dot"] = "cosine",
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__()
        check_choice("negatives", negatives, ("all", "hardest"))
        check_choice("reduction", reduction, ("mean", "sum", "none"))
        check_chunk_size(chunk_size)
        check_choice("similarity", similarity, ("cosine", "dot"))
        check_implementation(implementation)
        check_gather(gather, implementation)
        if implementation == "triton" and negatives == "all":
            raise InputError("implementation: expected 'auto' or 'torch' with negatives='all', got 'triton'")
        self.implementation = implementation
        self.temperature = check_positive("temperature", temperature)
        self.negatives = negatives
        self.reduction = reduction
        self.gather = gather
        self.chunk_size = chunk_size
        self.similarity = similarity

    def forward(self, z1: Tensor, z2: Tensor, user_ids: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            z1: encodings of the first view, floating ``(B, d)``, B ≥ 2, of any length.
            z2: encodings of the second view, ``(B, d)``.
            user_ids: integers ``(B,)`` or ``(B, k)``; rows with the same id in any column are never negatives of
                each other (say column 0 the user, column 1 the target item). A row to which that leaves no
                negative contributes 0 and is left out of the mean.

        Returns:
            A scalar, or ``(B,)`` for ``reduction="none"``; float32 for half-precision input.

        Raises:
            InputError: shapes, dtypes or devices that do not agree; fewer than two rows, with ``gather`` on all
                processes together.
        """
        rows = None
        if self.gather:
            vectors, user_ids, rows = gathered_rows(user_ids, z1=z1, z2=z2)  # (N, 2, d)
            vectors = unit_vectors(vectors) if self.similarity == "cosine" else vectors
        else:
            check_encodings(user_ids, z1=z1, z2=z2)
            stacked = stacked_unit_vectors if self.similarity == "cosine" else stacked_vectors
            vectors = stacked(z1, z2)  # (B, 2, d)
        arguments = (vectors, self.temperature, user_ids, self.chunk_size)
        if self.negatives == "all":
            per_anchor, valid = info_nce(*arguments, rows)
        else:
            per_anchor, valid = hardest_info_nce(*arguments, self.implementation, rows)
        counted = None if user_ids is None else valid
        if self.gather:
            return reduce_gathered_rows(per_anchor, counted, self.reduction, len(vectors))
        return reduce_rows(per_anchor, counted, self.reduction)

    def extra_repr(self) -> str:
        """Show the arguments when printed."""
        return (
            f"temperature={self.temperature}, negatives={self.negatives!r}, reduction={self.reduction!r}, "
            f"similarity={self.similarity!r}" + (", gather=True" if self.gather else "")
        )
