"""Views from easy to hard, by how far a frozen model sees them from the original sequence (CCL, our reconstruction)."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptssr_plugin.augment.operators.base import Sequences, ViewPair, check_sequences
from adaptssr_plugin.augment.operators.mask_and_fill import MaskAndFill
from adaptssr_plugin.errors import InputError, check_count, check_kind


@runtime_checkable
class Evaluator(Protocol):
    """A frozen masked-item model that can also encode whole rows."""

    def mean_states(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Average the hidden states over the items of every row: (B, L) and (B,) int64 to (B, d) floating."""
        ...


class Candidates(NamedTuple):
    """The candidates for V views of B rows, C per view and row.

    Attributes:
        item_seq: (V, C, B, L) int64, candidate c of ratio ρ·(c + 1)/C.
        difficulty: (V, C, B) floating, in [0, 2], up to rounding.
    """

    item_seq: Tensor
    difficulty: Tensor


class ScoredFillPair(nn.Module):
    """Two views of every row, each the c-th easiest of C candidates that are masked and filled (CCL).

    For a row S, C candidates Ŝ are drawn at the ratios ρ·c/C, c = 1 .. C, and sorted by their difficulty
    ``1 - cos(mean-pooled G(S), mean-pooled G(Ŝ))``, where G is the frozen masked-item model that fills them. Of equally
    difficult candidates the one of the smaller ratio comes first. Each view has separate candidates. The candidates of
    a whole batch are filled in one pass and scored, together with their rows, in another.

    This is our reconstruction: we could not read CCL's text. Its abstract mentions a learnable evaluator, its code has
    none. Every epoch draws and scores new candidates: under a frozen model the difficulty of fixed ones never changes,
    and their views would repeat for a whole stage.

    Args:
        fill: the operator, of ratio ρ, whose filler has ``mean_states``.
        candidates: C, at least 1.
        ranks: c by epoch, each in 1 .. C; the last one holds from there on. Empty: always C.
        one_side: the first view is the row as it is.

    Raises:
        InputError: an argument out of range, a ``fill`` that is not a MaskAndFill, or a filler that cannot encode rows.
    """

    def __init__(
        self, fill: MaskAndFill, candidates: int = 5, ranks: Sequence[int] = (), one_side: bool = False
    ) -> None:
        super().__init__()
        check_kind("fill", fill, MaskAndFill, "a MaskAndFill")
        check_kind("fill", fill.filler, Evaluator, "a filler with mean_states")
        self.fill = fill
        self.evaluator: Evaluator
        object.__setattr__(self, "evaluator", fill.filler)  # not as a submodule; the operator does the same
        check_count("candidates", candidates)
        for rank in ranks:
            check_count("ranks", rank, most=candidates)
        self.candidates, self.ranks = candidates, tuple(ranks)
        check_kind("one_side", one_side, bool, "True or False")
        self.one_side = one_side
        self.rank = self.candidates

    def set_epoch(self, epoch: int | None, _encoder: object = None) -> None:
        """Set the rank for an epoch, counted from 0; None: the hardest, for validation."""
        scheduled = self.ranks and epoch is not None
        self.rank = self.ranks[min(epoch or 0, len(self.ranks) - 1)] if scheduled else self.candidates

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> ViewPair:
        """Draw two views; arguments and errors as :meth:`RandomPair.forward`, ``operators`` is None."""
        drawn = self.draw(item_seq, item_seq_len, generator)
        easiest_first = drawn.difficulty.argsort(dim=1, stable=True)  # (V, C, B)
        chosen = easiest_first[:, self.rank - 1, :, None]  # (V, B, 1)
        place = chosen.expand(-1, -1, item_seq.shape[1])[:, None]  # (V, 1, B, L)
        views = [Sequences(view[0], item_seq_len.clone()) for view in drawn.item_seq.gather(1, place)]
        if self.one_side:
            views.insert(0, Sequences(item_seq.clone(), item_seq_len.clone()))
        return ViewPair(views[0], views[1], None)

    @torch.no_grad()
    def draw(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> Candidates:
        """Draw and score the candidates of a batch; arguments and errors as :meth:`MaskAndFill.forward`."""
        check_sequences(item_seq, item_seq_len, generator)
        views = 1 if self.one_side else 2
        ratios = [self.fill.ratio * (nth + 1) / self.candidates for nth in range(self.candidates)]
        copies = views * self.candidates
        rows, lengths = item_seq.repeat(copies, 1), item_seq_len.repeat(copies)  # (V·C·B, L), (V·C·B,)
        filled = self.fill.fill_blocks(rows, lengths, ratios * views, generator).item_seq
        states = self.evaluator.mean_states(torch.cat([item_seq, filled]), torch.cat([item_seq_len, lengths]))
        units = F.normalize(states, dim=-1).view(1 + copies, len(item_seq), states.shape[-1])  # (1 + V·C, B, d)
        # For unit vectors 1 - cos is half the squared distance, in which small differences do not cancel.
        difficulty = (units[1:] - units[:1]).square().sum(-1) / 2  # (V·C, B)
        parts = (views, self.candidates, len(item_seq))
        return Candidates(filled.view(*parts, item_seq.shape[1]), difficulty.view(parts))

    def extra_repr(self) -> str:
        """Show the arguments in ``repr``."""
        return f"candidates={self.candidates}, ranks={self.ranks}, one_side={self.one_side}"


def equal_stages(epochs: int, candidates: int, stages: int | None = None) -> tuple[int, ...]:
    """Return the rank for every epoch: stages of equal length, or of lengths that differ by one epoch.

    Epoch e of E belongs to stage ``s = ⌊e · S / E⌋ + 1`` of S, which takes the ``⌈s · C / S⌉``-th easiest of C. With as
    many stages as candidates, stage c takes the c-th. The last stage always takes the hardest.

    Args:
        epochs: E, at least S.
        candidates: C, at least 1.
        stages: S, in 1 .. C; None: C.

    Returns:
        E ranks in 1 .. C, in ascending order.

    Raises:
        InputError: a number out of range.
    """
    check_count("candidates", candidates)
    stages = candidates if stages is None else stages
    check_count("stages", stages, most=candidates)
    check_count("epochs", epochs)
    if epochs < stages:
        raise InputError(f"epochs: expected at least one for each of the {stages} stages, got {epochs}")
    stage_of = [epoch * stages // epochs + 1 for epoch in range(epochs)]
    return tuple(-(-stage * candidates // stages) for stage in stage_of)
