"""Operators for long rows only, and the pair of views of CoSeRec, which needs them (after the authors' code)."""

import torch
from torch import Tensor

from adaptssr_plugin.augment.operators.base import Operator, Sequences, check_operator, check_sequences
from adaptssr_plugin.augment.operators.choice import apply_operator, keep_where
from adaptssr_plugin.augment.operators.correlated import ItemInsert, ItemSubstitute
from adaptssr_plugin.augment.operators.crop import ItemCrop
from adaptssr_plugin.augment.operators.mask import ItemMask
from adaptssr_plugin.augment.operators.reorder import ItemReorder
from adaptssr_plugin.augment.pair import RandomPair
from adaptssr_plugin.errors import InputError, check_count

_LETTERS = "SICMR"  # substitute, insert, crop, mask, reorder


class FromLength(Operator):
    """Offers an operator only to rows of at least a given length; shorter rows stay unchanged.

    Args:
        operator: any operator.
        min_length: the length, at least 1; the operator's own ``min_length`` applies if it is greater.

    Raises:
        InputError: not an operator, or a length below 1.

    Example:
        >>> views = RandomPair([ItemMask(0.7, mask_id=n_items), FromLength(ItemCrop(0.2), 5)])
    """

    def __init__(self, operator: Operator, min_length: int) -> None:
        super().__init__()
        check_operator("operator", operator)
        check_count("min_length", min_length)
        self.operator = operator
        self.min_length = max(min_length, operator.min_length)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> Sequences:
        """Augment the rows that are long enough; see :meth:`Operator.forward`."""
        check_sequences(item_seq, item_seq_len, generator)
        new = apply_operator("operator", self.operator, item_seq, item_seq_len, generator)
        return keep_where(item_seq_len >= self.min_length, new, Sequences(item_seq, item_seq_len))

    def extra_repr(self) -> str:
        """Show the argument in ``repr``."""
        return f"min_length={self.min_length}"


def coserec_pair(
    neighbours: Tensor,
    *,
    mask_id: int,
    substitute: float = 0.1,
    insert: float = 0.4,
    crop: float = 0.2,
    mask: float = 0.7,
    reorder: float = 0.2,
    threshold: int = 4,
    short: str = "SIM",
    max_insert_per_position: int = 1,
) -> RandomPair:
    """Make the two views of CoSeRec: five operators, drawn with replacement; fewer of them for short rows.

    Rows of more than ``threshold`` items get one of substitute, insert, crop, mask and reorder (operators 0 to 4 in
    this order), other rows one of those that ``short`` names. Pad sequences to the maximum length of the encoder: see
    :class:`ItemInsert`.

    Args:
        neighbours: (n_items,) or (n_items, k) int64, as in :class:`ItemInsert`.
        mask_id: ``n_items``.
        substitute: its ratio, in (0, 1], as the other four.
        insert: its ratio.
        crop: the share of items that is kept.
        mask: its ratio.
        reorder: its ratio.
        threshold: K, the longest row that counts as short; -1: no row does.
        short: the operators for short rows, of S(ubstitute), I(nsert), C(rop), M(ask), R(eorder).
        max_insert_per_position: as in :class:`ItemInsert`.

    Raises:
        InputError: a value out of range, or neighbours that do not fit.
    """
    check_count("threshold", threshold, -1)
    if not isinstance(short, str) or not short or len(set(short)) < len(short) or not set(short) <= set(_LETTERS):
        raise InputError(f"short: expected some of the letters S, I, C, M, R, each once, got {short!r}")
    operators: list[Operator] = [
        ItemSubstitute(substitute, neighbours=neighbours),
        ItemInsert(insert, neighbours=neighbours, max_insert_per_position=max_insert_per_position),
        ItemCrop(crop),
        ItemMask(mask, mask_id=mask_id),
        ItemReorder(reorder),
    ]
    if len(neighbours) != mask_id:
        raise InputError(f"neighbours: expected {mask_id} rows as mask_id, one per item, got {len(neighbours)}")
    from_length = max(1, threshold + 1)
    return RandomPair(
        [
            operator if letter in short else FromLength(operator, from_length)
            for letter, operator in zip(_LETTERS, operators, strict=True)
        ]
    )
