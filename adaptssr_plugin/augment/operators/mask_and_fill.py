"""Items are masked at random and replaced by predictions of a frozen masked-item model (CCL, our reconstruction)."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from adaptssr_plugin.augment.operators.base import Operator, Sequences, ViewPair, check_sequences, dtype_name
from adaptssr_plugin.augment.operators.counts import check_ratio, hidden
from adaptssr_plugin.augment.operators.draws import shuffled_windows
from adaptssr_plugin.devices import on_cpu
from adaptssr_plugin.errors import InputError, check_choice, check_count, check_kind


class Filler(Protocol):
    """A frozen masked-item model, as :class:`MaskAndFill` calls it: any callable, a module or not.

    It may have an attribute ``n_items``: the number of items including the padding id, which is also the id of [MASK].
    """

    def __call__(
        self, item_seq: Tensor, item_seq_len: Tensor, rows: Tensor, positions: Tensor
    ) -> Tensor | Iterable[Tensor]:
        """Score all items at the masked positions.

        Args:
            item_seq: (B, L) int64, right-padded with 0, with [MASK] written in.
            item_seq_len: (B,) int64.
            rows: (M,) int64, the rows of the masked positions, M at least 1.
            positions: (M,) int64, their positions in these rows.

        Returns:
            Logits (M, n) floating, item j in column j; or an iterable of such for consecutive positions, M in total.
            Only one at a time is held, so that a large catalogue needs little memory.
        """
        ...


class MaskAndFill(Operator):
    """Replaces a share of the items by predictions of a masked-item model.

    Of n items ``m = min(max(ceil(ratio · n), 1), n - 1)`` are masked, at positions drawn uniformly without replacement,
    and the model sees each row once. For each masked position an item is drawn from the softmax over the ``top_k``
    highest logits, all positions at once. It may be the original item, or one that the row already holds. The padding
    and [MASK] are never drawn. A row of one item stays unchanged.

    The model is used without gradient and is not a submodule: it is not trained, not in checkpoints, and stays in
    evaluation mode. ``.to(device)`` moves it.

    Args:
        ratio: the share of items that is masked, in (0, 1].
        filler: the masked-item model; a module in evaluation mode.
        mask_id: the id of [MASK], ``n_items``; None: the filler's ``n_items``.
        top_k: from how many of the likeliest items to draw, at least 1.
        temperature: divides the logits before the softmax, above 0.
        fill: "sample", or "argmax" for the likeliest item.
        ban_original: never fill in the original item.

    Raises:
        InputError: an argument out of range, or a filler that cannot be called.

    Example:
        >>> filler = lambda item_seq, item_seq_len, rows, positions: torch.zeros(len(rows), n_items)
        >>> filled = MaskAndFill(0.5, filler, mask_id=n_items)(item_seq, item_seq_len, generator)
        >>> (filled.item_seq != item_seq).sum(1) <= torch.tensor([2, 1])
        tensor([True, True])
    """

    min_length = 2

    def __init__(
        self,
        ratio: float,
        filler: Filler,
        *,
        mask_id: int | None = None,
        top_k: int = 50,
        temperature: float = 1.0,
        fill: Literal["sample", "argmax"] = "sample",
        ban_original: bool = False,
    ) -> None:
        super().__init__()
        self.ratio = check_ratio(ratio)
        if not callable(filler):
            raise InputError(f"filler: expected a masked-item model, got {type(filler).__name__}")
        self.filler: Filler
        object.__setattr__(self, "filler", filler)  # nn.Module's own setter would make it a submodule
        known: Any = getattr(filler, "n_items", None) if mask_id is None else mask_id
        check_count("mask_id", known)
        self.mask_id: int = known
        check_count("top_k", top_k)
        self.top_k = top_k
        if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not 0 < temperature < 1e30:
            raise InputError(f"temperature: expected a positive number, got {temperature!r}")
        self.temperature = float(temperature)
        check_choice("fill", fill, ("sample", "argmax"))
        self.fill = fill
        check_kind("ban_original", ban_original, bool, "True or False")
        self.ban_original = ban_original

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> Sequences:
        """Mask and fill a batch; see :meth:`Operator.forward`.

        Raises:
            InputError: as there; a filler in training mode, or one whose logits do not fit.
        """
        check_sequences(item_seq, item_seq_len, generator)
        return self.fill_blocks(item_seq, item_seq_len, (self.ratio,), generator)

    def fill_blocks(
        self,
        item_seq: Tensor,
        item_seq_len: Tensor,
        ratios: Sequence[float],
        generator: torch.Generator | None = None,
    ) -> Sequences:
        """Mask and fill equal blocks of rows, each with a separate ratio, in one pass; arguments are not checked.

        Args:
            item_seq: as :meth:`forward`; ``len(ratios)`` blocks with the same number of rows.
            item_seq_len: as :meth:`forward`.
            ratios: one per block, in (0, 1].
            generator: as :meth:`forward`.

        Raises:
            InputError: a filler in training mode, or one whose logits do not fit.
        """
        self._check_mode()
        width = item_seq.shape[1]
        # The most masked positions that a row of a block can have, computed on the CPU without a read-back.
        most = [int(hidden(ratio, torch.tensor(width)).numpy()) for ratio in ratios]
        order = shuffled_windows(torch.zeros_like(item_seq_len), item_seq_len, width, generator)
        order = order[:, : max(most)]  # (B, K), of which the first of each row are masked
        blocks = zip(item_seq_len.view(len(ratios), len(item_seq) // len(ratios)), ratios, strict=True)
        counts = torch.cat([hidden(ratio, lengths) for lengths, ratio in blocks])  # (B,)
        noise = torch.rand(order.shape, device=order.device, generator=generator)
        is_slot = torch.arange(order.shape[1], device=order.device) < counts[:, None]  # (B, K)
        rows, nth = _slots(is_slot, most)  # each (M,)
        if len(rows) == 0:
            return Sequences(item_seq.clone(), item_seq_len)
        positions = order[rows, nth]
        taken = is_slot[rows, nth]  # all of them, where slots can be counted
        original = item_seq[rows, positions]
        masked = item_seq.index_put((rows, positions), torch.where(taken, self.mask_id, original))
        drawn = self._fill(masked, item_seq_len, rows, positions, original, noise[rows, nth])
        return Sequences(item_seq.index_put((rows, positions), torch.where(taken, drawn, original)), item_seq_len)

    @torch.no_grad()
    def _fill(
        self, masked: Tensor, item_seq_len: Tensor, rows: Tensor, positions: Tensor, original: Tensor, noise: Tensor
    ) -> Tensor:
        """Draw the items for all masked positions, a chunk of logits at a time: (M,) int64."""
        logits = self.filler(masked, item_seq_len, rows, positions)
        drawn: list[Tensor] = []
        done = 0
        for chunk in [logits] if isinstance(logits, Tensor) else logits:
            if chunk.dim() != 2 or not chunk.is_floating_point() or chunk.shape[1] < max(self.mask_id, 2):
                came = f"{dtype_name(chunk)} of shape {tuple(chunk.shape)}"
                raise InputError(f"filler: expected floating logits (M, n) with n >= {self.mask_id}, got {came}")
            part = slice(done, done + len(chunk))
            done = part.stop
            if done <= len(rows):
                drawn.append(self._draw(chunk, original[part], noise[part]))
        if done != len(rows):
            raise InputError(f"filler: expected logits for {len(rows)} positions, got {done}")
        return torch.cat(drawn)

    def _draw(self, logits: Tensor, original: Tensor, noise: Tensor) -> Tensor:
        """Draw an item from each row of ``logits`` (m, n): (m,) int64."""
        scores = logits.float().clone()
        scores[:, 0] = -torch.inf
        scores[:, self.mask_id :] = -torch.inf
        if self.ban_original:
            # The item at a position that was masked before is unknown; its stand-in, the padding, is already banned.
            known = torch.where(original < self.mask_id, original, 0)
            scores.scatter_(1, known[:, None], -torch.inf)
        top, items = scores.topk(min(self.top_k, scores.shape[1]), dim=1)  # (m, k), the highest first
        if self.fill == "argmax":
            nth = torch.zeros_like(items[:, :1])
        else:
            total = (top / self.temperature).softmax(1).cumsum(1)  # (m, k)
            nth = (total <= noise[:, None] * total[:, -1:]).sum(1, keepdim=True)
            # A product rounded up to the total would select a banned item.
            nth = nth.minimum((top > -torch.inf).sum(1, keepdim=True) - 1).clamp_(min=0)
        # A row where nothing is left to draw keeps its items.
        return torch.where(top[:, 0] == -torch.inf, original, items.gather(1, nth)[:, 0])

    def _check_mode(self) -> None:
        """Raise InputError for a model in training mode, whose dropout would disturb its logits."""
        if isinstance(self.filler, nn.Module) and any(module.training for module in self.filler.modules()):
            raise InputError("filler: expected a model in evaluation mode, got one in training mode; call .eval()")

    def _apply(self, fn: Any, recurse: bool = True) -> "MaskAndFill":
        """Move the filler with the operator."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if isinstance(self.filler, nn.Module):
            self.filler._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def extra_repr(self) -> str:
        """Show the arguments in ``repr``."""
        return (
            f"ratio={self.ratio}, filler={type(self.filler).__name__}, mask_id={self.mask_id}, top_k={self.top_k}, "
            f"temperature={self.temperature}, fill={self.fill!r}, ban_original={self.ban_original}"
        )


class MaskAndFillPair(nn.Module):
    """Two independently masked and filled views of every row (CCL), from easy to hard with a curriculum.

    Both views go through the model in one pass.

    Args:
        fill: the operator.
        one_side: the first view is the row as it is.
        ratios: the operator's ratio by epoch; the last one holds from there on. Empty: always the operator's ratio.

    Raises:
        InputError: not a MaskAndFill, or a ratio out of range.
    """

    def __init__(self, fill: MaskAndFill, one_side: bool = False, ratios: Sequence[float] = ()) -> None:
        super().__init__()
        check_kind("fill", fill, MaskAndFill, "a MaskAndFill")
        self.fill = fill
        check_kind("one_side", one_side, bool, "True or False")
        self.one_side = one_side
        self.ratios = tuple(check_ratio(ratio) for ratio in ratios)
        self.full_ratio = fill.ratio

    def set_epoch(self, epoch: int | None, _encoder: object = None) -> None:
        """Set the ratio for an epoch, counted from 0; None: the operator's own, for validation."""
        scheduled = self.ratios and epoch is not None
        self.fill.ratio = self.ratios[min(epoch or 0, len(self.ratios) - 1)] if scheduled else self.full_ratio

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> ViewPair:
        """Draw two views; arguments and errors as :meth:`RandomPair.forward`, ``operators`` is None."""
        check_sequences(item_seq, item_seq_len, generator)
        if self.one_side:
            first = Sequences(item_seq.clone(), item_seq_len.clone())
            return ViewPair(first, self.fill(item_seq, item_seq_len.clone(), generator), None)
        both = self.fill(item_seq.repeat(2, 1), item_seq_len.repeat(2), generator)
        views = zip(both.item_seq.chunk(2), both.item_seq_len.chunk(2), strict=True)
        first, second = (Sequences(*view) for view in views)
        return ViewPair(first, second, None)

    def extra_repr(self) -> str:
        """Show the arguments in ``repr``."""
        return f"one_side={self.one_side}, ratios={self.ratios}"


def linear_ratios(ratio: float, epochs: int, epochs_per_stage: int) -> tuple[float, ...]:
    """Return the ratio of every epoch, in equal steps: ``ratio · (⌊e / s⌋ + 1) / ⌈E / s⌉`` (CCL's code).

    Args:
        ratio: of the last stage, in (0, 1].
        epochs: E, at least 1.
        epochs_per_stage: s, at least 1.

    Raises:
        InputError: a number out of range.
    """
    check_ratio(ratio)
    check_count("epochs", epochs)
    check_count("epochs_per_stage", epochs_per_stage)
    stages = -(-epochs // epochs_per_stage)
    return tuple(ratio * (epoch // epochs_per_stage + 1) / stages for epoch in range(epochs))


def _slots(is_slot: Tensor, most: list[int]) -> tuple[Tensor, Tensor]:
    """Return row and number of every slot; if counting them would make the CPU wait, all that a block can have."""
    if on_cpu(is_slot):
        rows, nth = is_slot.nonzero(as_tuple=True)
        return rows, nth
    height = len(is_slot) // len(most)  # rows of a block
    all_rows, all_nth = [], []
    for block, each in enumerate(most):
        place = torch.arange(height * each, device=is_slot.device)
        all_rows.append(block * height + place // max(each, 1))
        all_nth.append(place % max(each, 1))
    return torch.cat(all_rows), torch.cat(all_nth)
