"""Scores of all items that are computed only if something other than their cross-entropy is needed.

A model that computes ``scores = hidden @ table.T`` and then ``cross_entropy(scores, targets)`` gets, within
:func:`linear_scores`, the value and gradients of :func:`linear_cross_entropy`, which never holds the scores. Any other
use of the scores computes them by the model's own product, so a model with another loss is unchanged.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from ..errors import InputError
from .linear_cross_entropy import linear_cross_entropy

_PRODUCTS = (torch.matmul, Tensor.matmul)


class LinearScores(Tensor):
    """``hidden @ table.T + bias``, floating ``(..., n)``, not yet computed.

    Args:
        hidden: floating ``(..., d)``.
        table: ``(n, d)``, of the same dtype.
        bias: ``(n,)`` or None.
    """

    _hidden: Tensor
    _table: Tensor
    _bias: Tensor | None
    _computed: Tensor | None

    @staticmethod
    def __new__(cls: type[Any], hidden: Tensor, table: Tensor, bias: Tensor | None = None) -> "LinearScores":
        """Make a tensor without memory."""
        scores: LinearScores = Tensor._make_wrapper_subclass(
            cls, (*hidden.shape[:-1], len(table)), dtype=hidden.dtype, device=hidden.device, requires_grad=True
        )
        scores._hidden, scores._table, scores._bias, scores._computed = hidden, table, bias, None
        with torch._C.DisableTorchFunctionSubclass():
            scores.register_hook(_refuse)  # type: ignore[no-untyped-call]
        return scores

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Keep the scores uncomputed where :data:`_LAZY` can; compute them everywhere else."""
        kwargs = kwargs or {}
        if func in _LAZY and args and isinstance(args[0], LinearScores) and args[0]._computed is None:
            result = _LAZY[func](*args, **kwargs)
            if result is not None:
                return result
        args, kwargs = tree_map(_compute, (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, *_: Any) -> Any:
        """Refuse operations that torch runs without calling :meth:`__torch_function__`."""
        return _refuse()


def _compute(value: Any) -> Any:
    """Return scores as a plain tensor, the same one every time; return anything else unchanged."""
    if not isinstance(value, LinearScores):
        return value
    if value._computed is None:
        with torch.enable_grad():
            scores = torch.matmul(value._hidden, value._table.t())
            value._computed = scores if value._bias is None else scores + value._bias
    return value._computed


def _refuse(*_: Any) -> Any:
    raise InputError(
        "faster_layers: expected a model whose loss uses its scores of all items by torch's functions, got one with an "
        "autograd function of another kind; leave faster_layers off"
    )


# --- what is known of scores without computing them: each returns None where it does not apply -----------------------


def _cross_entropy(
    scores: LinearScores,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor | None:
    hidden = scores._hidden
    plain = weight is None and size_average is None and reduce is None and label_smoothing == 0
    if not plain or hidden.dim() != 2 or len(hidden) == 0 or target.dtype != torch.int64:
        return None
    counted = target != ignore_index
    losses = linear_cross_entropy(hidden, scores._table, scores._bias, target.where(counted, 0), reduction="none")
    losses = losses * counted
    if reduction == "none":
        return losses
    return losses.sum() / counted.sum() if reduction == "mean" else losses.sum()


def _plus(scores: LinearScores, other: Any) -> LinearScores | None:
    if not isinstance(other, Tensor) or other.shape != scores._table.shape[:1]:
        return None
    return LinearScores(scores._hidden, scores._table, other if scores._bias is None else scores._bias + other)


def _over(scores: LinearScores, number: Any) -> LinearScores | None:
    if not isinstance(number, float | int) or scores._bias is not None:
        return None
    return LinearScores(scores._hidden / number, scores._table)


def _as_rows(scores: LinearScores, *shape: Any) -> LinearScores | None:
    if shape != (-1, len(scores._table)):
        return None
    return LinearScores(scores._hidden.reshape(-1, scores._hidden.shape[-1]), scores._table, scores._bias)


_LAZY: dict[Any, Callable[..., Any]] = {
    F.cross_entropy: _cross_entropy,
    Tensor.add: _plus,
    Tensor.div: _over,
    Tensor.view: _as_rows,
    Tensor.reshape: _as_rows,
}


class linear_scores(TorchFunctionMode):  # noqa: N801 - a context, as torch names its own
    """Within this context products with a table of ``n_items`` rows are :class:`LinearScores`.

    Not if no gradient is needed, and not under autocast, where the product and its factors differ in dtype.

    Args:
        n_items: rows of the table.
    """

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace a product that has the form of scores."""
        if func in _PRODUCTS and not kwargs and self._are_scores(*args):
            return LinearScores(args[0], args[1].t())
        return func(*args, **(kwargs or {}))

    def _are_scores(self, hidden: Tensor, columns: Tensor) -> bool:
        return (
            columns.dim() == 2
            and columns.shape[1] == self.n_items
            and columns.stride(0) == 1  # a transposed table, whose rows are vectors
            and columns.requires_grad
            and hidden.dim() >= 2
            and hidden.shape[-1] == len(columns)
            and hidden.dtype == columns.dtype
            and hidden.dtype in (torch.float32, torch.float64)
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled(hidden.device.type)
        )
