"""RecBole's sequential models with ``faster_layers``: their own loss and scores at less cost.

The model's ``forward`` is computed in groups of rows of similar length, if a trial shows that padding does not matter.
The cross-entropy over all items is computed without holding their scores. Both are the model's own functions with
different rounding; a model of another form is computed as in RecBole.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from recbole.utils import ModelType
from torch import Tensor

from ...devices import shapes_are_fixed
from ...encoders.length_groups import restore_order
from ...functional.linear_scores import linear_scores
from .backbones import LENGTH, PROBED_ROWS, SEQUENCE, backbone_groups, ignores_padding, untouched


class Faster:
    """Mixed into the class of a sequential model."""

    n_items: int
    _splits: bool | None = None
    """Whether rows can be encoded separately and without padding; None before the first batch."""

    def calculate_loss(self, interaction: Any) -> Any:
        """Compute the model's own loss; cross-entropy over all items chunk by chunk."""
        with linear_scores(self.n_items):
            return super().calculate_loss(interaction)  # type: ignore[misc]


def faster_bases(model_class: type[Any]) -> tuple[tuple[type[Any], ...], dict[str, Any]]:
    """Return bases and members of the class that a model gets with ``faster_layers``."""
    if getattr(model_class, "type", None) != ModelType.SEQUENTIAL:
        return (model_class,), {}
    names = list(inspect.signature(model_class.forward).parameters)
    sequence = next((name for name in names if name in SEQUENCE), None)
    members = {} if sequence is None else {"forward": _in_groups(model_class.forward, sequence)}
    return (Faster, model_class), members


def _in_groups(own: Callable[..., Any], sequence: str) -> Callable[..., Any]:
    signature = inspect.signature(own)

    @functools.wraps(own)
    def forward(self: Any, *arguments: Any, **named: Any) -> Any:
        given = signature.bind(self, *arguments, **named).arguments
        given.pop(next(iter(given)))
        if shapes_are_fixed() or not _are_rows(given, sequence):
            return own(self, *arguments, **named)
        if self._splits is None:
            self._splits = _splits(self, own, given, sequence)
        if not self._splits:
            return own(self, *arguments, **named)
        item_seq = given[sequence]
        lengths = _lengths(given, item_seq)
        groups = backbone_groups(lengths)
        parts = [own(self, **_part(given, rows, {sequence: item_seq[rows, :width]})) for rows, width in groups]
        if parts[0].dim() == 3:  # BERT4Rec, whose loss and scores use nothing after a row's last item
            parts = [F.pad(part, (0, 0, 0, item_seq.shape[1] - part.shape[1])) for part in parts]
        return restore_order(parts, groups)

    return forward


def _are_rows(given: dict[str, Any], sequence: str) -> bool:
    """Whether the arguments of a ``forward`` are those of two rows or more: a sequence, and numbers per row."""
    item_seq = given[sequence]
    return (
        isinstance(item_seq, Tensor)
        and item_seq.dim() == 2
        and len(item_seq) > 1
        and all(
            name == sequence or (isinstance(value, Tensor) and value.shape == item_seq.shape[:1])
            for name, value in given.items()
        )
    )


def _part(given: dict[str, Any], rows: Any, other: dict[str, Tensor]) -> dict[str, Tensor]:
    """Select rows of the arguments of a ``forward``, with replacements for some arguments."""
    return {name: other[name] if name in other else value[rows] for name, value in given.items()}


def _lengths(given: dict[str, Any], item_seq: Tensor) -> Tensor:
    """Return how much of each row is used, int64 ``(B,)``: up to its last item, or its length if that is more."""
    places = torch.arange(1, item_seq.shape[1] + 1, device=item_seq.device)
    lengths = torch.where(item_seq != 0, places, 1).amax(1)
    for name in LENGTH:
        if name in given:
            lengths = torch.maximum(lengths, given[name])
    return lengths


@torch.no_grad()
def _splits(model: Any, own: Callable[..., Any], given: dict[str, Any], sequence: str) -> bool:
    """Try on the first rows whether each has the same encoding alone and without padding."""
    item_seq = given[sequence][:PROBED_ROWS]

    def encode(sequences: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
        output = own(model, **_part(given, rows, {sequence: sequences, **dict.fromkeys(LENGTH, lengths)}))
        if hasattr(model, "reconstruct_test_data"):  # BERT4Rec, (B, L, d)
            output = output[torch.arange(len(output), device=output.device), lengths - 1]
        if not isinstance(output, Tensor) or output.dim() != 2:
            raise ValueError("expected a vector")
        return output

    with untouched(model, item_seq.device):
        model.eval()
        try:
            return ignores_padding(model, encode, item_seq, _lengths(given, given[sequence])[:PROBED_ROWS])
        except (RuntimeError, ValueError, TypeError, LookupError):  # its forward does something else
            return False
