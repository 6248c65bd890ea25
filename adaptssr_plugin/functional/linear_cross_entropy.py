"""Cross-entropy over all items of a catalogue, without holding the scores of all items at once.

With scores ``s_ij = h_i · w_j + b_j`` and the target t of row i, the loss compares t with the other items:

    L_i = log(1 + Σ_{j ≠ t} exp(s_ij - s_it))

Items are visited in chunks that fit the cache, with a running maximum in place of the maximum of the row. The backward
visits them once more: the sum of the row then gives the softmax, and so the gradients in closed form. This takes one
product more than holding all scores, and is still faster on a CPU, because only the item vectors and their gradient
pass through memory. Memory is O(M · d + n · d + M · chunk), never M · n.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..devices import on_cpu
from ..errors import InputError, check_choice, check_count
from .similarity import elements_at_once, full_precision

Reduction = Literal["mean", "sum", "none"]

_MIN_CHUNK_ITEMS = 64


class TargetScores(NamedTuple):
    """How targets compare with all other items."""

    loss: Tensor
    """(M,): cross-entropy."""
    margin: Tensor
    """(M,): score of the target minus the highest score of another item; above 0 if the target alone is first."""


class _Others(NamedTuple):
    """Statistics of a row over the scores of all items except its target, each (M,)."""

    top: Tensor
    """The largest score, including the target's."""
    total: Tensor
    """Sum of exp(score - top) over the others."""
    highest: Tensor
    """The largest score of the others."""


class _Scores:
    """Scores of rows against all items, chunk by chunk; each chunk overwrites the one before.

    (A fresh tensor per chunk would lie between the small results that a caller keeps, and the heap would grow.)

    Args:
        hidden: (M, d), in the dtype in which scores are computed.
        table: (n, d) of any floating dtype.
        bias: (n,) of any floating dtype, or None.
        excluded: (M,) int64, the item that a row leaves out.
        chunk_size: items scored at once; None chooses for the device.
    """

    def __init__(
        self, hidden: Tensor, table: Tensor, bias: Tensor | None, excluded: Tensor, chunk_size: int | None
    ) -> None:
        self.hidden, self.table, self.bias, self.excluded = hidden, table, bias, excluded[:, None]
        if chunk_size is None:
            chunk_size = max(_MIN_CHUNK_ITEMS, elements_at_once(hidden.device) // len(hidden))
        self.chunk_size = min(chunk_size, len(table))

    def __iter__(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Return the items of a chunk, their vectors (c, d), and the scores (M, c), -inf where excluded."""
        n_rows, n_items = len(self.hidden), len(self.table)
        buffer = self.hidden.new_empty(n_rows * self.chunk_size)
        for start in range(0, n_items, self.chunk_size):
            items = slice(start, min(start + self.chunk_size, n_items))
            width = items.stop - start
            vectors = self.table[items].to(self.hidden.dtype)
            scores = torch.mm(self.hidden, vectors.t(), out=buffer[: n_rows * width].view(n_rows, width))
            if self.bias is not None:
                scores += self.bias[items]
            # In place and without a read-back: every row overwrites one column, most of them with its own value.
            place = self.excluded - start  # (M, 1)
            column = place.clamp(0, width - 1)
            value = scores.gather(1, column).masked_fill_(place == column, -torch.inf)
            yield items, vectors, scores.scatter_(1, column, value)


def _compare(scores: _Scores, first: Tensor) -> _Others:
    """Go through all items once; ``first`` (M,) are the scores of the targets."""
    top, total, highest = first, torch.zeros_like(first), torch.full_like(first, -torch.inf)
    for _, _, chunk in scores:
        here = chunk.amax(1)
        highest = torch.maximum(highest, here)
        grown = torch.maximum(top, here)
        added = chunk.sub_(grown[:, None]).exp_().sum(1)
        total = torch.addcmul(added, total, (top - grown).exp_())
        top = grown
    return _Others(top, total, highest)


def _loss(first: Tensor, others: _Others) -> Tensor:
    # log(Σ exp) - first, accurate for a target far above the others and for one far below.
    behind = first - others.top  # <= 0
    return torch.log1p(others.total + torch.expm1(behind)) - behind


def _target_scores(hidden: Tensor, table: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    first = (hidden * table[targets]).sum(1)  # (M,)
    return first if bias is None else first + bias[targets]


class _LinearCrossEntropy(torch.autograd.Function):
    """See the module's docstring.

    ``candidates`` (k,) int64, distinct, are the items with which a target is compared, and ``excluded`` (M,) is the
    place among them that a row leaves out. If both are None: all items, and the target.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        *compared: Any,
    ) -> Tensor:
        candidates, excluded, ctx.chunk_size = compared
        with full_precision(hidden):
            exact = hidden.to(_accumulated_in(hidden, weight, bias))
            first = _target_scores(exact, weight, bias, targets)
            others = _compare(_candidate_scores(exact, weight, bias, targets, *compared), first)
            ctx.save_for_backward(
                hidden, weight, bias, targets, candidates, excluded, first, others.top, others.total
            )  # fmt: skip
            return _loss(first, others)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, candidates, excluded, first, top, total = ctx.saved_tensors
        with full_precision(hidden):
            exact = hidden.to(top.dtype)
            scores = _candidate_scores(exact, weight, bias, targets, candidates, excluded, ctx.chunk_size)
            # The softmax is exp(score - top) times this. exp(score - log Σ) would be rounded relative to the
            # size of the scores. At the target, softmax - 1 is minus the sum of the others: nothing cancels.
            factor = grad / (total + torch.exp(first - top))  # (M,)
            scaled = exact * factor[:, None]
            grad_hidden, grad_rows, grad_bias = _sums(scores, top, factor, scaled, ctx.needs_input_grad)
            if grad_hidden is not None:
                own = weight[targets].to(exact.dtype)
                grad_hidden = grad_hidden.addcmul_(total[:, None], own, value=-1).mul_(factor[:, None])
                grad_hidden = grad_hidden.to(hidden.dtype)
            if grad_rows is not None:
                grad_rows = _at_items(grad_rows, candidates, len(weight))
                grad_rows = grad_rows.index_add_(0, targets, scaled * total[:, None], alpha=-1).to(weight.dtype)
            if grad_bias is not None:
                grad_bias = _at_items(grad_bias, candidates, len(bias))
                grad_bias = grad_bias.index_add_(0, targets, factor * total, alpha=-1).to(bias.dtype)
        return grad_hidden, grad_rows, grad_bias, None, None, None, None


def _sums(
    scores: _Scores, top: Tensor, factor: Tensor, scaled: Tensor, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Sum exp(score - top) times item vectors over items (M, d), and over rows times ``scaled`` and ``factor``.

    The latter two, (n, d) and (n,), are the gradients of table and bias except for the targets' own part. ``wanted``
    says which of the three to compute.
    """
    empty = scaled.new_empty
    by_row = torch.zeros_like(scaled) if wanted[0] else None
    by_item = empty(scores.table.shape) if wanted[1] else None
    weights = empty(len(scores.table)) if wanted[2] else None
    for items, vectors, chunk in scores:
        chunk.sub_(top[:, None]).exp_()  # (M, c)
        if by_row is not None:
            by_row.addmm_(chunk, vectors)
        if by_item is not None:
            torch.mm(chunk.t(), scaled, out=by_item[items])
        if weights is not None:
            torch.mv(chunk.t(), factor, out=weights[items])
    return by_row, by_item, weights


def _accumulated_in(*tensors: Tensor | None) -> torch.dtype:
    """Float64 if any of the tensors is float64, otherwise float32."""
    double = any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if double else torch.float32


def _candidate_scores(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    candidates: Tensor | None,
    excluded: Tensor | None,
    chunk_size: int | None,
) -> _Scores:
    if candidates is None or excluded is None:
        return _Scores(hidden, weight, bias, targets, chunk_size)
    return _Scores(hidden, weight[candidates], None if bias is None else bias[candidates], excluded, chunk_size)


def _at_items(gradient: Tensor, candidates: Tensor | None, n_items: int) -> Tensor:
    """Write the gradient of the candidates to their places among all items."""
    if candidates is None:
        return gradient
    return gradient.new_zeros(n_items, *gradient.shape[1:]).index_copy_(0, candidates, gradient)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    reduction: Reduction = "mean",
    chunk_size: int | None = None,
) -> Tensor:
    """Cross-entropy of ``hidden @ weight.T + bias`` at ``targets``, without the (M, n) scores.

    Equal to ``F.cross_entropy(F.linear(hidden, weight, bias), targets)`` in value and all gradients. Computed in
    float64 if any argument is float64, otherwise in float32, also for half precision and under autocast.

    Args:
        hidden: floating (M, d), M at least 1.
        weight: floating (n, d): the item table, n at least 2.
        bias: floating (n,) or None. -inf leaves an item out; it may not be a target then.
        targets: int64 (M,), each in 0..n-1. Values are checked only on a CPU; on other devices a target outside the
            table is a device-side error, as in torch.
        reduction: "mean", "sum" or "none".
        chunk_size: items scored at once; None chooses for the device.

    Returns:
        Scalar, or (M,) for "none"; float32 or float64. Differentiable once.

    Raises:
        InputError: a shape, dtype, device or value other than these, or no rows at all: their mean is undefined, and
            callers skip batches without targets (METHODS.md, row 53).
    """
    _check(hidden, weight, bias, targets, chunk_size)
    check_choice("reduction", reduction, get_args(Reduction))
    losses = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, targets, None, None, chunk_size
    )
    return _reduced(losses, reduction)


def sampled_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    n_samples: int,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
    chunk_size: int | None = None,
) -> Tensor:
    """Cross-entropy of every target among itself and ``n_samples`` other items (sampled softmax).

    Of all n items ``n_samples + 1`` are drawn uniformly without replacement, once for the whole batch. A row whose
    target is among them is compared with the others; any other row is compared with all but the last drawn. So each
    row is compared with exactly ``n_samples`` distinct items, uniform over the items other than its target. The usual
    correction log q for the sampling distribution is the same for every item here and cancels. The sum over the
    samples is not scaled up to the catalogue: the value is below the full cross-entropy and equals it at
    ``n_samples = n - 1``.

    Args:
        hidden: as in :func:`linear_cross_entropy`, and so are ``weight``, ``bias``, ``targets``, ``reduction`` and
            ``chunk_size``.
        weight: (n, d).
        bias: (n,) or None.
        targets: (M,).
        n_samples: 1..n-1.
        generator: on the device of ``hidden``; None: torch's default one.
        reduction: "mean", "sum" or "none".
        chunk_size: samples scored at once; None chooses for the device.

    Returns:
        Scalar, or (M,) for "none". The gradient of ``weight`` is dense.

    Raises:
        InputError: as :func:`linear_cross_entropy`; ``n_samples`` out of range.
    """
    _check(hidden, weight, bias, targets, chunk_size)
    check_choice("reduction", reduction, get_args(Reduction))
    n_items = len(weight)
    check_count("n_samples", n_samples, most=n_items - 1)
    drawn = torch.randperm(n_items, generator=generator, device=hidden.device)[: n_samples + 1]
    place = torch.full((n_items,), n_samples, device=hidden.device)  # that of the last one drawn, for items not drawn
    place[drawn] = torch.arange(n_samples + 1, device=hidden.device)
    losses = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, targets, drawn, place[targets], chunk_size
    )
    return _reduced(losses, reduction)


@torch.no_grad()
def score_targets(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk_size: int | None = None
) -> TargetScores:
    """Cross-entropy of every row, and the margin of its target over all other items; without gradient.

    Args:
        hidden: as in :func:`linear_cross_entropy`, and so are the others.
        weight: (n, d).
        bias: (n,) or None.
        targets: (M,).
        chunk_size: items scored at once; None chooses for the device.

    Returns:
        Loss and margin, each (M,). A tie for the first place counts against the target: margin 0.

    Raises:
        InputError: as :func:`linear_cross_entropy`.
    """
    _check(hidden, weight, bias, targets, chunk_size)
    with full_precision(hidden):
        exact = hidden.to(_accumulated_in(hidden, weight, bias))
        first = _target_scores(exact, weight, bias, targets)
        others = _compare(_Scores(exact, weight, bias, targets, chunk_size), first)
        return TargetScores(_loss(first, others), first - others.highest)


def _reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def _check(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk_size: int | None) -> None:
    tensors = {"hidden": hidden, "weight": weight, "targets": targets, **({} if bias is None else {"bias": bias})}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise InputError(f"{name}: expected a tensor, got {type(tensor).__name__}")
        if name != "targets" and not tensor.is_floating_point():
            raise InputError(f"{name}: expected a floating dtype, got {tensor.dtype}")
        if tensor.device != hidden.device:
            raise InputError(f"{name}: expected device {hidden.device} as hidden, got {tensor.device}")
    if hidden.dim() != 2 or len(hidden) == 0:
        raise InputError(f"hidden: expected shape (M, d) with M >= 1, got {tuple(hidden.shape)}")
    if weight.dim() != 2 or weight.shape[1] != hidden.shape[1] or len(weight) < 2:
        raise InputError(
            f"weight: expected shape (n, {hidden.shape[1]}) with n >= 2, d as in hidden, got {tuple(weight.shape)}"
        )
    for name, row, like in (("bias", bias, weight), ("targets", targets, hidden)):
        if row is not None and row.shape != (len(like),):
            which = "item" if like is weight else "row of hidden"
            raise InputError(f"{name}: expected shape ({len(like)},), one per {which}, got {tuple(row.shape)}")
    if targets.dtype != torch.int64:
        raise InputError(f"targets: expected int64, got {targets.dtype}")
    check_count("chunk_size", chunk_size, optional=True)
    if on_cpu(targets):
        values = targets.numpy()
        wrong = values[(values < 0) | (values >= len(weight))]
        if len(wrong):
            raise InputError(f"targets: expected items in 0..{len(weight) - 1}, got {wrong[0]}")
