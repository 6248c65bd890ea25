"""Pooling by a dictionary of interests: several vectors of one user (IDICL, our reconstruction)."""

import torch
from torch import Tensor, nn

from ..errors import check_count
from ..functional import unit_vectors
from .embedding import INIT_STD


class InterestPooling(nn.Module):
    """u = concat_m u_m / ‖u_m‖, u_m = Σ_t α_mt h_t with α_m = softmax_t(D_m · h_t): one vector per interest.

    D_1 .. D_M are learned: the dictionary. Every block has length 1, so the cosine of two concatenations is the mean of
    the M cosines of their blocks, and the losses need no change. We found no published formula of IDICL; this is our
    reconstruction, after an unused part of AdaptSSR's code. (That code normalises the concatenation and also divides by
    M, so that its similarities are at most 1/M in size; this is not reproduced.)

    Args:
        dim: d, the length of a dictionary vector.
        interests: M, at least 1; M = 1 is attention pooling scaled to length 1.

    Raises:
        InputError: fewer than one interest.
    """

    def __init__(self, dim: int, interests: int = 4) -> None:
        super().__init__()
        check_count("interests", interests)
        # The same name as in attention pooling: stages exchange parameters by name.
        self.query = nn.Parameter(torch.empty(interests, dim))
        nn.init.normal_(self.query, std=INIT_STD)

    def forward(self, hidden: Tensor, visible: Tensor) -> Tensor:
        """Pool ``(B, L, d)`` into ``(B, M · d)``; ``visible`` is bool ``(B, L)``, at least one True in a row.

        The result is in at least float32, and each of its M blocks has length 1.
        """
        scores = self.query.to(hidden.dtype) @ hidden.transpose(1, 2)  # (B, M, L)
        weights = scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1).to(hidden.dtype)
        return unit_vectors(weights @ hidden).flatten(1)

    def overlap(self) -> Tensor:
        """R = ‖offdiag(q qᵀ)‖_F with the unit vectors q_m of D_m: a scalar in [0, √(M (M - 1))].

        0 if all interests are orthogonal, and exactly 0 for M = 1; the gradient is 0 there too.
        """
        units = unit_vectors(self.query)
        others = ~torch.eye(len(units), dtype=torch.bool, device=units.device)
        cosines = (units[:, None] * units).sum(-1)  # (M, M); autocast would round a matrix product
        # The norm's gradient at 0 is 0; that of a written-out root would be NaN.
        norm: Tensor = torch.linalg.vector_norm(cosines * others)
        return norm

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"dim={self.query.shape[1]}, interests={self.query.shape[0]}"
