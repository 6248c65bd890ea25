"""Two periods of one history as its two views (IDICL, our reconstruction), and other views of short histories."""

from typing import Literal

import torch
from torch import Tensor, nn

from adaptssr_plugin.augment.operators.base import ViewPair, check_sequences
from adaptssr_plugin.augment.operators.choice import keep_where
from adaptssr_plugin.augment.operators.counts import check_ratio, up
from adaptssr_plugin.augment.operators.crop import cut_window
from adaptssr_plugin.augment.operators.draws import uniform_below
from adaptssr_plugin.errors import check_choice, check_count


class PeriodPair(nn.Module):
    """Cuts two windows of ``l = max(1, ceil(ratio · n))`` consecutive items out of every history of n.

    If two such windows fit side by side (2 l ≤ n) they are disjoint: every placement is equally likely, and so is which
    of the two is the first view. Otherwise both are drawn independently, as :class:`ItemCrop` does. A row of one item
    is its own two views; of a row of two items each view gets one.

    The published text says only "different time periods"; the rest is our reconstruction. Periods cut by wall-clock
    time would need the times of behaviours, which a corpus does not hold.

    Args:
        ratio: the share of items in each window, in (0, 1].
        period: "disjoint": as above; "independent": the two windows may overlap.

    Raises:
        InputError: a ratio out of range or an unknown period.

    Example:
        >>> first, second, _ = PeriodPair(0.4)(item_seq, item_seq_len, generator)
    """

    def __init__(self, ratio: float = 0.4, period: Literal["disjoint", "independent"] = "disjoint") -> None:
        super().__init__()
        self.ratio = check_ratio(ratio)
        check_choice("period", period, ("disjoint", "independent"))
        self.period = period

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> ViewPair:
        """Draw two views; arguments and errors as :meth:`Operator.forward`.

        Returns:
            Both views with the shapes, dtypes and device of the input; ``operators`` is None.
        """
        check_sequences(item_seq, item_seq_len, generator)
        length = up(self.ratio, item_seq_len).clamp_(min=1)  # (B,)
        first, second = self._draw_starts(item_seq_len, length, generator)
        return ViewPair(cut_window(item_seq, first, length), cut_window(item_seq, second, length.clone()), None)

    def _draw_starts(self, n: Tensor, length: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Draw the start of the windows of the first and the second view, each (B,) int64."""
        room = n - length + 1  # possible starts of one window
        if self.period == "independent":
            return uniform_below(room, generator), uniform_below(room, generator)
        # With s = n - 2l spare items, the older window starts at a and the newer at l + b, for 0 <= a <= b <= s. Such
        # pairs are the pairs i < j of s + 2 places, with a = i and b = j - 1. So two different places are drawn. Either
        # order is equally likely, so their order is also that of the views.
        disjoint = 2 * length <= n
        n_places = torch.where(disjoint, room - length + 1, room)  # s + 2
        i = uniform_below(n_places, generator)
        j = uniform_below(n_places - disjoint.long(), generator)
        j = j + (disjoint & (j >= i))
        newer = torch.where(disjoint, length - 1, 0)
        return i + newer * (i > j), j + newer * (j > i)

    def extra_repr(self) -> str:
        """Show the arguments in ``repr``."""
        return f"ratio={self.ratio}, period={self.period!r}"


class ByLength(nn.Module):
    """Takes the two views of a row from one pair of views or from another, by the row's length. Ours.

    Both pairs are drawn for all rows, ``long`` first, and with the same generator. So long rows get the views that
    ``long`` alone would give them, and no length is read back from the device.

    Args:
        long: makes the views of rows with at least ``least`` items.
        short: makes the views of the other rows. Both keep the shape of their input.
        least: a positive number of items.

    Raises:
        InputError: ``least`` out of range.
    """

    def __init__(self, long: nn.Module, short: nn.Module, least: int) -> None:
        super().__init__()
        check_count("least", least)
        self.long, self.short, self.least = long, short, least

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> ViewPair:
        """Draw two views; arguments and errors as :meth:`Operator.forward`.

        Returns:
            Both views with the shapes, dtypes and device of the input; ``operators`` is None.
        """
        is_long = item_seq_len >= self.least  # (B,)
        pairs = [views(item_seq, item_seq_len, generator) for views in (self.long, self.short)]
        first, second = (keep_where(is_long, *both) for both in zip(*(pair[:2] for pair in pairs), strict=True))
        return ViewPair(first, second, None)

    def extra_repr(self) -> str:
        """Show the argument in ``repr``."""
        return f"least={self.least}"
