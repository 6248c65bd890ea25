"""The operators that add correlated items: substitute and insert (CoSeRec, after the authors' code)."""

import torch
from torch import Tensor, nn

from adaptssr_plugin.augment.operators.base import Operator, Sequences, check_sequences, checked_int64
from adaptssr_plugin.augment.operators.counts import check_ratio, dn
from adaptssr_plugin.augment.operators.draws import drawn_positions, uniform_below
from adaptssr_plugin.errors import InputError, check_count, check_kind


class CorrelatedOperator(Operator):
    """What substitute and insert share: how many positions, which positions, and the items to put there.

    Of n items ``m = max(floor(ratio · n), 1)`` are drawn, uniformly without replacement. For an item without
    neighbours, a catalogue item is drawn uniformly instead.

    Args:
        ratio: the share of items that are drawn, in (0, 1].
        neighbours: (n_items,) or (n_items, k) int64, the items most correlated with each item, the most correlated
            first, 0 for none; row 0, of the padding, is ignored. A buffer that moves with the module and is not in
            its ``state_dict``.

    Raises:
        InputError: a ratio out of range, or neighbours of another shape or dtype or with ids out of range.
    """

    neighbours: Tensor
    n_needed = 1  # columns of ``neighbours`` that are used

    def __init__(self, ratio: float, neighbours: Tensor) -> None:
        super().__init__()
        self.ratio = check_ratio(ratio)
        self.register_buffer("neighbours", self._checked(neighbours), persistent=False)

    def set_neighbours(self, neighbours: Tensor) -> None:
        """Replace the neighbours, for a model-based correlation that is refreshed during training.

        Args:
            neighbours: as in the constructor, for the same number of items, on any device.

        Raises:
            InputError: as the constructor.
        """
        new = self._checked(neighbours)
        if len(new) != len(self.neighbours):
            raise InputError(f"neighbours: expected {len(self.neighbours)} rows as before, got {len(new)}")
        self.neighbours = new.to(self.neighbours.device)

    @property
    def n_items(self) -> int:
        """The number of items, including the padding."""
        return len(self.neighbours)

    def counts(self, item_seq_len: Tensor) -> Tensor:
        """Compute how many items of rows of length ``(B,)`` are drawn: int64 ``(B,)``, from 1 to n."""
        return dn(self.ratio, item_seq_len).clamp_(min=1)

    def correlated(self, items: Tensor, rank: Tensor | int, generator: torch.Generator | None) -> Tensor:
        """Return an item correlated with each of ``items``.

        Args:
            items: int64 of any shape, ids from 0 to ``n_items``.
            rank: which neighbour, from 0; a number or a tensor of the same shape.
            generator: on the device of ``items``, or None.

        Returns:
            int64 of the same shape, ids ``1 .. n_items - 1``.
        """
        known = torch.where(items < self.n_items, items, 0)  # like the padding, [MASK] has no neighbours
        found = self.neighbours.flatten()[known * self.neighbours.shape[1] + rank]
        drawn = torch.randint(1, self.n_items, items.shape, device=items.device, generator=generator)
        return torch.where(found > 0, found, drawn)

    def check_batch(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None) -> None:
        """Raise InputError unless the batch is valid and on the device of the neighbours."""
        check_sequences(item_seq, item_seq_len, generator)
        if item_seq.device != self.neighbours.device:
            raise InputError(f"item_seq: expected device {self.neighbours.device} as neighbours, got {item_seq.device}")

    def extra_repr(self) -> str:
        """Show the arguments in ``repr``."""
        return f"ratio={self.ratio}, n_items={self.n_items}"

    def _checked(self, neighbours: object) -> Tensor:
        """Return neighbours as (n_items, k), with none for the padding. Values are checked, which waits for a GPU."""
        neighbours = checked_int64("neighbours", neighbours)
        shape = tuple(neighbours.shape)
        table = neighbours[:, None] if neighbours.dim() == 1 else neighbours
        if table.dim() != 2 or len(table) < 2:
            raise InputError(f"neighbours: expected shape (n_items,) or (n_items, k) with n_items >= 2, got {shape}")
        if table.shape[1] < self.n_needed:
            raise InputError(f"neighbours: expected shape (n_items, k) with k >= {self.n_needed}, got {shape}")
        if table.is_meta:
            return table
        low, high = (int(end) for end in table.aminmax())
        if low < 0 or high >= len(table):
            raise InputError(f"neighbours: expected ids from 0 to {len(table) - 1}, got {low if low < 0 else high}")
        if not table[0].any():
            return table.contiguous()
        table = table.clone(memory_format=torch.contiguous_format)
        table[0] = 0
        return table


class ItemSubstitute(CorrelatedOperator):
    """Replaces a share of the items by the items most correlated with them.

    Of n items ``max(floor(ratio · n), 1)`` are replaced, at positions drawn uniformly without replacement. An item
    without neighbours is replaced by a catalogue item drawn uniformly. A masked position that is drawn stays masked,
    since its item is no longer known. The item of a row of one item is always replaced.

    Args:
        ratio: the share of items that are replaced, in (0, 1].
        neighbours: (n_items,) or (n_items, k) int64, of which the first column is used; 0 for none. A buffer that
            moves with the module and is not in its ``state_dict``.

    Raises:
        InputError: a ratio out of range, or neighbours of another shape or dtype or with ids out of range.
    """

    def __init__(self, ratio: float = 0.1, *, neighbours: Tensor) -> None:
        super().__init__(ratio, neighbours)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> Sequences:
        """Substitute in a batch; see :meth:`Operator.forward`."""
        self.check_batch(item_seq, item_seq_len, generator)
        drawn = drawn_positions(item_seq_len, self.counts(item_seq_len), item_seq.shape[1], generator)  # (B, L)
        substitutes = self.correlated(item_seq, 0, generator)
        replaced = drawn & (item_seq < self.n_items)
        return Sequences(torch.where(replaced, substitutes, item_seq), item_seq_len)


class ItemInsert(CorrelatedOperator):
    """Puts the items most correlated with a share of the items immediately before them.

    Of n items ``m = max(floor(ratio · n), 1)`` are drawn uniformly without replacement. Before each is put the item
    most correlated with it; if it has no neighbour or is masked, a catalogue item drawn uniformly. A row of n items
    grows to n + m. The sequences keep their width L; of a longer row the newest L items are kept. **So pad a batch to
    the maximum length of the encoder, not to its longest row, to leave space for inserted items.**

    With ``max_insert_per_position`` above 1, k neighbours are put before a drawn item, the most correlated first, with
    k uniform on ``{1 .. max(1, floor(max_insert_per_position / m))}``; a missing neighbour is drawn from the catalogue.

    Args:
        ratio: the share of items before which others are inserted, in (0, 1].
        neighbours: (n_items,) or (n_items, k) int64, the most correlated first, 0 for none; k at least
            ``max_insert_per_position``. A buffer that moves with the module and is not in its ``state_dict``.
        max_insert_per_position: the most items inserted before one, at least 1.

    Raises:
        InputError: a ratio or number out of range, or neighbours of another shape or dtype or with ids out of range.
    """

    def __init__(self, ratio: float = 0.4, *, neighbours: Tensor, max_insert_per_position: int = 1) -> None:
        check_count("max_insert_per_position", max_insert_per_position)
        self.n_needed = max_insert_per_position
        super().__init__(ratio, neighbours)
        self.max_insert_per_position = max_insert_per_position

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> Sequences:
        """Insert into a batch; see :meth:`Operator.forward`."""
        self.check_batch(item_seq, item_seq_len, generator)
        width = item_seq.shape[1]
        place = torch.arange(width, device=item_seq.device)  # (L,)
        ahead_of = self._draw_counts(item_seq_len, width, generator)  # (B, L), how many come before each item
        shifted = place + ahead_of.cumsum(1)  # (B, L), where each item stands in the grown row
        length = item_seq_len + ahead_of.sum(1)
        kept = place + (length - width).clamp_(min=0)[:, None]  # (B, L), the places of the grown row that are kept
        # Every kept place belongs to the first item at that place or later: it is the item itself, or inserted before
        # it.
        anchor = torch.searchsorted(shifted, kept)
        items, distance = item_seq.gather(1, anchor), shifted.gather(1, anchor) - kept
        rank = (ahead_of.gather(1, anchor) - distance).clamp_(max=self.max_insert_per_position - 1)
        inserted = self.correlated(items, rank, generator)
        return Sequences(torch.where(distance > 0, inserted, items), length.clamp_(max=width))

    def _draw_counts(self, item_seq_len: Tensor, width: int, generator: torch.Generator | None) -> Tensor:
        """Draw how many items are inserted before each: (B, L) int64."""
        counts = self.counts(item_seq_len)  # (B,)
        drawn = drawn_positions(item_seq_len, counts, width, generator).long()
        if self.max_insert_per_position == 1:
            return drawn
        most = (self.max_insert_per_position // counts).clamp_(min=1)  # (B,)
        return drawn * (uniform_below(most[:, None].expand_as(drawn), generator) + 1)

    def extra_repr(self) -> str:
        """Show the arguments in ``repr``."""
        return f"{super().extra_repr()}, max_insert_per_position={self.max_insert_per_position}"


def replace_neighbours(module: nn.Module, neighbours: Tensor) -> None:
    """Set new neighbours in every operator within ``module`` that uses them.

    Args:
        module: an operator, a pair of views, or a module that contains some.
        neighbours: as in :meth:`CorrelatedOperator.set_neighbours`.

    Raises:
        InputError: neighbours that do not fit.
    """
    check_kind("module", module, nn.Module, "a torch module")
    for operator in module.modules():
        if isinstance(operator, CorrelatedOperator):
            operator.set_neighbours(neighbours)
