"""What the tests of the losses share: inputs, variants by name, one way to compare values and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product

import pytest
import torch
from oracle import (
    OFFICIAL_CODE,
    PAPER,
    LiteralTerms,
    Variant,
    literal_adaptssr,
    literal_info_nce,
    literal_info_nce_rows,
    literal_terms,
)
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from adaptssr_plugin import AdaptSSRLoss, AugmentationAdaptiveFusion, InfoNCELoss


def name(variant: Variant | float) -> str:
    if not isinstance(variant, Variant):
        return f"constant-{variant}"
    switches = [variant.granularity, str(variant.terms)]
    switches += ["clamp"] * variant.clamp + ["detach"] * variant.detach
    return "-".join(switches)


EVERY_VARIANT: dict[str, Variant | float] = {
    name(variant): variant
    for variant in (
        *(Variant(*s) for s in product(("sample", "batch"), (4, 2), (True, False), (True, False))),
        *(0.0, 0.35, 1.0),
    )
}
SOME_VARIANTS: dict[str, Variant | float] = {
    name(variant): variant for variant in (PAPER, OFFICIAL_CODE, Variant(clamp=False, detach=False), 0.35)
}
USERS = ["one-each", "repeats", "one-only"]
COLUMNS = ["one-column", "two-columns", "three-columns"]  # ids (B, k)
REDUCTIONS = ["mean", "sum", "none"]
NEGATIVES = ["hardest", "all", 0.1]
every_loss = pytest.mark.parametrize(
    ("module", "count", "literal"),
    [(AdaptSSRLoss, 4, literal_adaptssr), (InfoNCELoss, 2, literal_info_nce)],
    ids=["adaptssr", "info-nce"],
)


def fusion_of(variant: Variant | float) -> AugmentationAdaptiveFusion | float:
    if not isinstance(variant, Variant):
        return variant
    return AugmentationAdaptiveFusion(
        granularity=variant.granularity, terms=variant.terms, clamp=variant.clamp, detach=variant.detach
    )


def encodings(
    n_rows: int,
    dim: int,
    *,
    count: int = 4,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    alike: float = 1.0,
) -> list[Tensor]:
    """Leaf tensors ``(n_rows, dim)``, rows of differing length; ``alike`` draws a row's encodings together."""
    generator = torch.Generator().manual_seed(1_000 * seed + 7 * n_rows + dim)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    common = alike * normal(n_rows, dim)
    result = []
    for _ in range(count):
        lengths = 0.2 + 3 * torch.rand(n_rows, 1, generator=generator, dtype=torch.float64)
        result.append(((common + normal(n_rows, dim)) * lengths).to(dtype).requires_grad_())
    return result


def tied_encodings(count: int) -> list[Tensor]:
    """Leaf tensors ``(5, 3)``: rows 1 and 2 are one user seen twice, close to row 0; rows 3 and 4 are far off."""
    inputs = [u.detach() for u in encodings(5, 3, count=count, alike=2.0)]
    for u in inputs:
        u[1] = inputs[0][0] + 0.1 * u[0]
        u[2] = u[1]
        u[3:] = -u[:2]
    return [u.requires_grad_() for u in inputs]


def assert_one_winner(loss: Tensor, right: Tensor, inputs: Sequence[Tensor]) -> None:
    """Of :func:`tied_encodings`, one of two equal negatives of row 0 takes the gradient, for each of its anchors."""
    torch.testing.assert_close(loss, right, rtol=1e-12, atol=0)
    got, expected = (torch.stack(torch.autograd.grad(rows[0], inputs)) for rows in (loss, right))  # (count, B, d)
    assert expected[:, 1:3].abs().sum() > 0, "the tied rows should be the hardest negatives of row 0"
    for gradient in (got, expected):
        assert (gradient[:, 1:].abs().sum(-1) > 0).sum() <= 2
    torch.testing.assert_close(got[:, 0], expected[:, 0], rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(got[:, 1] + got[:, 2], expected[:, 1] + expected[:, 2], rtol=1e-10, atol=1e-13)


def weights_for(output: Tensor) -> Tensor:
    """A weight per entry, none like another, so that no gradient of a row is lost in a sum."""
    entries = torch.arange(output.numel(), dtype=output.dtype, device=output.device)
    return 1 + 0.3 * entries.view_as(output)


def gradients(output: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of the weighted output; zeros where the graph has no path, the graph kept for the next question."""
    return torch.autograd.grad(
        output, inputs, weights_for(output), retain_graph=True, allow_unused=True, materialize_grads=True
    )


def distance(got: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """‖got − truth‖ / ‖truth‖ over all tensors together, in float64."""
    ours, right = (torch.cat([t.detach().double().flatten() for t in tensors]) for tensors in (got, truth))
    return float((ours - right).norm() / right.norm())


_of_truth = WeakTensorKeyDictionary()  # tensors are no keys of a dict: their == is not a bool


def gradients_of_truth(truth: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of a literal loss that several tests share: walking its graph costs more than all else in them."""
    if truth not in _of_truth:
        _of_truth[truth] = gradients(truth, inputs)
    return _of_truth[truth]


def assert_agrees(got: Tensor, truth: Tensor, inputs: Sequence[Tensor], *, check_gradients: bool = True) -> None:
    """Value to 1e-12 and gradients to 1e-10 of the truth, both made from the same float64 leaves."""
    torch.testing.assert_close(got, truth, rtol=1e-12, atol=1e-14)
    if check_gradients:
        for mine, right in zip(gradients(got, inputs), gradients_of_truth(truth, inputs), strict=True):
            torch.testing.assert_close(mine, right, rtol=1e-10, atol=1e-13)


def user_ids_of(kind: str, n_rows: int) -> Tensor | None:
    """``"one-each"`` passes none; ``"repeats"`` holds two ids that are one number in float64; the rest is (B, k)."""
    if kind == "one-each":
        return None
    if kind == "one-only":
        return torch.full((n_rows,), 7)
    if kind in COLUMNS:
        # Row 0 shares its first id with row 2 and its second with row 1; row 3's is row 0's in float64 alone. In
        # the third column all differ but rows 2 and 3. What rows share across columns (3, 5) does not count.
        ids = torch.tensor([[3, 2**53, 6], [5, 2**53, 7], [3, 5, 8], [6, 2**53 + 1, 8]])
        ids = ids[:, : COLUMNS.index(kind) + 1]
        return ids.repeat(n_rows // 4 + 1, 1)[:n_rows]
    ids = torch.tensor([3, 2**53, 3, 2**53 + 1])
    return ids.repeat(n_rows // 4 + 1)[:n_rows]


@cache
def ranking_truth(
    variant: Variant | float = PAPER,
    negatives: str | float = "hardest",
    users: str = "one-each",
    n_rows: int = 4,
    dim: int = 3,
    scale: float = 1.0,
) -> tuple[list[Tensor], Tensor | None, LiteralTerms]:
    """Leaves, their user ids, and the literal terms with their graph; made once per session."""
    inputs = encodings(n_rows, dim)
    ids = user_ids_of(users, n_rows)
    return inputs, ids, literal_terms(*inputs, ids, fusion=variant, negatives=negatives, scale=scale)


@cache
def info_nce_truth(
    negatives: str | float = "all",
    users: str = "one-each",
    n_rows: int = 4,
    dim: int = 3,
    temperature: float = 1.0,
    similarity: str = "cosine",
) -> tuple[list[Tensor], Tensor | None, tuple[Tensor, Tensor]]:
    """Leaves, their user ids, and the literal loss of every row with its graph and its validity."""
    inputs = encodings(n_rows, dim, count=2)
    ids = user_ids_of(users, n_rows)
    loss = literal_info_nce_rows(*inputs, ids, temperature=temperature, negatives=negatives, similarity=similarity)
    return inputs, ids, loss
