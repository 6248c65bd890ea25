"""The second view is another history that ends in the same item (DuoRec, after the authors' code)."""

import torch
from torch import Tensor, nn

from adaptssr_plugin.augment.buckets import contents, index_buckets
from adaptssr_plugin.augment.operators.base import Sequences, ViewPair, check_sequences, dtype_name
from adaptssr_plugin.augment.operators.choice import keep_where
from adaptssr_plugin.augment.operators.draws import uniform_below
from adaptssr_plugin.errors import InputError, check_kind


class SameTargetPair(nn.Module):
    """Pairs every row with a random other row of the same key item.

    The first view is the row itself. The second is drawn uniformly from the other rows with its key. If there is none,
    the second view is the row again, and only the encoder's dropout tells the views apart. A drawn row contributes its
    newest L items, where L is the width of the batch.

    The call needs the row numbers of the batch (``needs_rows``). All sequences are held as buffers, which
    ``.to(device)`` moves; they are data and not part of the ``state_dict``.

    Args:
        items: (total,) int64 or int32, the items of all rows, each row's oldest first.
        starts: (N,) int64, where the items of each row start.
        lengths: (N,) int64, the number of items of each row, at least 1.
        keys: (N,) int64, each row's key item, at least 0.
        drop_last: the key is the last item of its row and is hidden from both views, as DuoRec's code hides the
            next-item target. A row of one item has nothing else to show: it stays unchanged and is never drawn.
        skip_identical: never draw a row with the same items in the same order.
        candidates: (N,) bool, the rows that may be drawn (those of the training split); None: all.

    Raises:
        InputError: arrays that do not fit together, or keys that are not the last items with ``drop_last``.

    Example:
        >>> items, starts, lengths = torch.tensor([3, 5, 7, 8, 7]), torch.tensor([0, 3]), torch.tensor([3, 2])
        >>> views = SameTargetPair(items, starts, lengths, keys=items[starts + lengths - 1])
        >>> first, second, _ = views(torch.tensor([[3, 5, 7]]), torch.tensor([3]), rows=torch.tensor([0]))
        >>> second.item_seq.tolist()
        [[8, 7, 0]]
    """

    needs_rows = True

    items: Tensor
    starts: Tensor
    lengths: Tensor
    keys: Tensor
    order: Tensor
    first_place: Tensor
    own_place: Tensor
    n_own: Tensor
    n_others: Tensor

    def __init__(
        self,
        items: Tensor,
        starts: Tensor,
        lengths: Tensor,
        keys: Tensor,
        drop_last: bool = False,
        skip_identical: bool = False,
        candidates: Tensor | None = None,
    ) -> None:
        super().__init__()
        _check_data(items, starts, lengths, keys, candidates)
        for name, flag in (("drop_last", drop_last), ("skip_identical", skip_identical)):
            check_kind(name, flag, bool, "True or False")
        self.drop_last = drop_last
        self.skip_identical = skip_identical
        if drop_last and not bool((items[starts + lengths - 1] == keys).all()):
            raise InputError("keys: expected the last item of every row with drop_last=True, got other items")
        long_enough = lengths > 1 if drop_last else torch.ones_like(lengths, dtype=torch.bool)
        drawable = long_enough if candidates is None else long_enough & candidates
        buckets = index_buckets(keys, drawable, contents(items, starts, lengths) if skip_identical else None)
        data = {"items": items, "starts": starts, "lengths": lengths, "keys": keys, **buckets._asdict()}
        # A row that is too short gets no partner either.
        data["n_others"] = torch.where(long_enough, buckets.n_others, 0)
        for name, tensor in data.items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(
        self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None, *, rows: Tensor
    ) -> ViewPair:
        """Draw two views.

        Args:
            item_seq: (B, L) int64, right-padded with 0; never written to.
            item_seq_len: (B,) int64, each at least 1, on the device of ``item_seq``.
            generator: source of the random numbers, on the device of ``item_seq``; None: torch's default generator.
            rows: (B,) int64, the row numbers (of N) of the batch, on the device of ``item_seq``.

        Returns:
            Both views with the shapes, dtypes and device of the input; ``operators`` is None.

        Raises:
            InputError: a shape, dtype or device other than these, or stored sequences on another device.
        """
        check_sequences(item_seq, item_seq_len, generator)
        _check_rows(rows, item_seq, self.items)
        length = self._shown(item_seq_len)
        place = torch.arange(item_seq.shape[1], device=item_seq.device)  # (L,)
        first = Sequences(item_seq * (place < length[:, None]), length)
        partner = self._newest(self.draw(rows, generator), item_seq.shape[1])
        has_one = self.n_others[rows] > 0  # (B,)
        return ViewPair(first, keep_where(has_one, partner, first), None)

    def draw(self, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw the row that each of ``rows`` (B,) int64 is paired with: (B,) int64, the row itself if alone."""
        place = self.first_place[rows] + uniform_below(self.n_others[rows], generator)  # (B,)
        # Skip the row itself and rows identical to it.
        place = place + torch.where(place >= self.own_place[rows], self.n_own[rows], 0)
        drawn = self.order[place.clamp_(max=len(self.order) - 1)]
        return torch.where(self.n_others[rows] > 0, drawn, rows)

    def keys_of(self, rows: Tensor) -> Tensor:
        """Give the key items (B,) int64 of ``rows`` (B,) int64.

        As a second column beside the users in the ``user_ids`` (B, 2) of a loss, they keep rows of one key from being
        negatives of each other (``mask_same_key``, which DuoRec's code does not have).
        """
        return self.keys[rows]

    def _shown(self, length: Tensor) -> Tensor:
        """The number of items that a view shows of rows of ``length`` (B,): (B,)."""
        return length - (length > 1).long() if self.drop_last else length.clone()

    def _newest(self, rows: Tensor, width: int) -> Sequences:
        """Return the newest ``width`` items that a view of each of ``rows`` (B,) shows, right-padded with 0."""
        shown = self._shown(self.lengths[rows])
        length = shown.clamp(max=width)
        place = torch.arange(width, device=rows.device)  # (L,)
        source = (self.starts[rows] + shown - length)[:, None] + place  # (B, L)
        item_seq = self.items[source.clamp_(max=len(self.items) - 1)].long()
        return Sequences(item_seq.mul_(place < length[:, None]), length)

    def extra_repr(self) -> str:
        """Show the arguments in ``repr``."""
        return f"n_rows={len(self.keys)}, drop_last={self.drop_last}, skip_identical={self.skip_identical}"


def _check_data(items: Tensor, starts: Tensor, lengths: Tensor, keys: Tensor, candidates: Tensor | None) -> None:
    """Raise InputError unless the arrays are valid for :class:`SameTargetPair`."""
    _check_array("items", items, (torch.int64, torch.int32))
    for name, array in (("starts", starts), ("lengths", lengths), ("keys", keys)):
        _check_array(name, array, (torch.int64,))
    if candidates is not None:
        _check_array("candidates", candidates, (torch.bool,))
    others = {"lengths": lengths, "keys": keys} | ({} if candidates is None else {"candidates": candidates})
    for name, array in others.items():
        if array.shape != starts.shape:
            expected, came = tuple(starts.shape), tuple(array.shape)
            raise InputError(f"{name}: expected shape {expected}, one per row as starts, got {came}")
    for name, array in {"starts": starts, **others}.items():
        if array.device != items.device:
            raise InputError(f"{name}: expected device {items.device} as items, got {array.device}")
    if len(starts) == 0:
        raise InputError("starts: expected at least one row, got none")
    for name, array, least in (("starts", starts, 0), ("lengths", lengths, 1), ("keys", keys, 0)):
        if int(array.min()) < least:
            raise InputError(f"{name}: expected numbers of at least {least}, got {int(array.min())}")
    end = int((starts + lengths).max())
    if end > len(items):
        raise InputError(f"lengths: expected rows that end within the {len(items)} items, got one that ends at {end}")


def _check_array(name: str, array: object, dtypes: tuple[torch.dtype, ...]) -> None:
    names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
    if not isinstance(array, Tensor):
        raise InputError(f"{name}: expected a tensor, got {type(array).__name__}")
    if array.dim() != 1 or array.dtype not in dtypes:
        came = f"{dtype_name(array)} of shape {tuple(array.shape)}"
        raise InputError(f"{name}: expected {names} of shape (n,), got {came}")


def _check_rows(rows: object, item_seq: Tensor, items: Tensor) -> None:
    _check_array("rows", rows, (torch.int64,))
    assert isinstance(rows, Tensor)
    if len(rows) != len(item_seq):
        raise InputError(f"rows: expected shape ({len(item_seq)},), one per row of item_seq, got ({len(rows)},)")
    if rows.device != item_seq.device:
        raise InputError(f"rows: expected device {item_seq.device} as item_seq, got {rows.device}")
    if items.device != item_seq.device:
        raise InputError(f"item_seq: expected device {items.device} as the stored sequences, got {item_seq.device}")
