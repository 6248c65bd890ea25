"""Objectives that compare two views of every user: AdaptSSR's ranking and InfoNCE."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...augment import ViewPair
from ...corpus import Batch
from ...distributed import total
from ...errors import InputError, check_count
from ...functional import OrderHits, order_hits, stacked_unit_vectors
from ...losses import AdaptSSRLoss, InfoNCELoss
from .base import Stage, StepResult, Streams, dropout_seeded
from .gradient_cache import encode_in_micro_batches

# A view provider: (item_seq, item_seq_len, generator) -> two views of every row. With ``needs_rows = True`` it also
# takes ``rows``: int64 (B,), the row numbers in the data from which it was made. With a schedule it has
# ``set_epoch(epoch, encoder)``: called before every epoch, counted from 0, with the encoder in training, and with None
# as the epoch before every validation, whose views should be the same in every epoch. If the schedule depends on the
# encoder, it also has ``epoch_state()`` and ``load_epoch_state(state)``, like a stage.
Views = Callable[..., ViewPair]

_BOTH = "encode_twice", "forward"
_QUANTILES = ("lambda_q05", "lambda_q50", "lambda_q95")
_QUANTILES_AT = (0.05, 0.5, 0.95)


class PairwiseStage(Stage):
    """Pre-train an encoder on pairs of views.

    With :class:`AdaptSSRLoss` each view is encoded twice under different dropout masks, four encodings in one
    stacked forward pass; with :class:`InfoNCELoss` once. The loss does not depend on where the views come from.

    With a criterion that gathers, the processes of a group train one batch together: all call :meth:`usable` and
    :meth:`step` at the same time, each for its own rows, which may be none. :meth:`validate` gathers nothing.

    Args:
        encoder: a callable ``(item_seq, item_seq_len) -> (B, d)``, usually a module, whose weights the stage then
            trains; for AdaptSSR with active dropout.
        views: the view provider.
        criterion: the loss.
        name: of the stage.
        penalty: returns a scalar that is added to the loss and logged; None: no penalty.
        mask_same_key: rows of the same key item are not negatives of each other; for views with ``keys_of(rows)``.
        micro_batch: users encoded at once, both views of each, by gradient caching
            (:func:`encode_in_micro_batches`); 0: all.

    Raises:
        InputError: ``mask_same_key`` with views that have no keys; ``micro_batch`` is not an integer of 0 or more.
    """

    def __init__(
        self,
        encoder: Callable[[Tensor, Tensor], Tensor],
        views: Views,
        criterion: AdaptSSRLoss | InfoNCELoss,
        name: str = "adaptssr",
        penalty: Callable[[], Tensor] | None = None,
        mask_same_key: bool = False,
        micro_batch: int = 0,
    ) -> None:
        super().__init__()
        check_count("micro_batch", micro_batch, 0)
        if mask_same_key and not hasattr(views, "keys_of"):
            raise InputError(f"mask_same_key: expected views with key items (duorec), got {type(views).__name__}")
        self.name = name
        self.encoder = encoder
        self.views = views
        self.loss = criterion
        self.penalty = penalty
        self.mask_same_key = mask_same_key
        self.micro_batch = micro_batch
        self.ranks = isinstance(criterion, AdaptSSRLoss)
        self.criterion = "order_accuracy" if self.ranks else "loss"
        self.bigger_is_better = self.ranks
        self.quantiles_at: Tensor
        self.register_buffer("quantiles_at", torch.tensor(_QUANTILES_AT), persistent=False)
        self._dropout_seen = False

    def share_batches(self) -> None:
        """Compare with the rows of all processes from now on."""
        self.loss.gather = True

    def set_epoch(self, epoch: int | None) -> None:
        """Tell a view provider with a schedule that an epoch begins; None: a validation."""
        if hasattr(self.views, "set_epoch"):
            self.views.set_epoch(epoch, self.encoder)

    def epoch_state(self) -> dict[str, Any]:
        """Return what a view provider computed from the encoder when the epoch began."""
        state: dict[str, Any] = self.views.epoch_state() if hasattr(self.views, "epoch_state") else {}
        return state

    def load_epoch_state(self, state: Mapping[str, Any]) -> None:
        """Return it to the view provider."""
        if state:
            self.views.load_epoch_state(state)  # type: ignore[attr-defined]

    def why_eager(self) -> str | None:
        """Name micro batches, and views that change from epoch to epoch."""
        if self.micro_batch:
            return f"micro_batch {self.micro_batch} encodes a batch in parts"
        if hasattr(self.views, "set_epoch"):
            return f"the views of {self.name} change from epoch to epoch"
        return None

    def usable(self, batch: Batch) -> bool:
        """Whether there are two users to compare.

        A part of a batch knows the whole batch; for any other batch of a gathering loss all processes are asked.
        """
        if batch.whole is not None:
            return len(batch.whole.lengths) > 1
        return (total(len(batch)) if self.loss.gather else len(batch)) > 1

    def step(self, batch: Batch, streams: Streams) -> StepResult:
        """Loss of the batch, including its penalty; for AdaptSSR also the compared similarities and quantiles of λ."""
        encodings = self._encode(batch, streams)
        if isinstance(self.loss, InfoNCELoss):
            loss, parts = self._penalised(self.loss(*encodings, self._ids(batch)))
            return StepResult(loss, {"loss": loss.detach(), **parts})
        self._require_dropout(encodings)
        u1, u1_pos, u2, u2_pos = encodings
        terms = self.loss.terms(u1, u1_pos, u2, u2_pos, self._ids(batch))
        loss, parts = self._penalised(self.loss.reduce(terms))
        if not len(batch):  # of a gathered batch
            return StepResult(loss, {"loss": loss.detach(), **parts})
        logs = {
            "loss": loss.detach(),
            **parts,
            "lambda_mean": terms.coefficient.mean(),
            "sim_implicit": terms.positive.mean(),
            "sim_augmented": terms.augmented.mean(),
            "sim_hardest_negative": terms.hardest.mean(),
        }
        quantiles = torch.quantile(terms.coefficient, self.quantiles_at.to(terms.coefficient.dtype))
        return StepResult(loss, logs | dict(zip(_QUANTILES, quantiles.unbind(), strict=True)))

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch], streams: Streams) -> dict[str, float]:
        """The two order accuracies with dropout kept on (METHODS.md, rows 29-31), or the loss for InfoNCE.

        Views and dropout masks come from the same streams every epoch. ``order_accuracy``, the criterion, is
        the sum of the two, as pooled counts over all batches. The loss includes the penalty.
        """
        hits: list[OrderHits] = []
        losses: list[Tensor] = []
        coefficients: list[Tensor] = []
        self.set_epoch(None)
        criterion = copy.copy(self.loss)
        criterion.gather = False  # the same numbers on one process and on each of several
        with _dropout_kept_on(self), dropout_seeded(streams.device, *streams.key):
            for number, batch in enumerate(batches):
                if len(batch) < 2:
                    continue
                encodings = self._encode(batch, Streams(streams.device, (*streams.key, number)))
                losses.append(criterion(*encodings, self._ids(batch)))
                if isinstance(criterion, AdaptSSRLoss):
                    hits.append(order_hits(stacked_unit_vectors(*encodings), self._ids(batch)))
                    u1, u1_pos, u2, u2_pos = encodings
                    coefficients.append(criterion.terms(u1, u1_pos, u2, u2_pos, self._ids(batch)).coefficient)
        if not losses:
            raise InputError("validation users: expected at least two in a batch, got fewer; raise valid_share")
        loss, parts = self._penalised(torch.stack(losses).mean())
        result = {"loss": float(loss), **{name: float(value) for name, value in parts.items()}}
        if not hits:
            return result
        pooled = OrderHits(*(torch.stack(counts).sum() for counts in zip(*hits, strict=True)))
        accuracies = {
            "implicit_over_augmented": int(pooled.positive_over_augmented) / int(pooled.positive_pairs),
            "augmented_over_others": int(pooled.augmented_over_negative) / max(int(pooled.negative_pairs), 1),
        }
        order = {"order_accuracy": sum(accuracies.values()), "lambda_mean": float(torch.cat(coefficients).mean())}
        return accuracies | order | result

    def _encode(self, batch: Batch, streams: Streams) -> tuple[Tensor, ...]:
        """Encode û, û⁺, ũ, ũ⁺ (or û, ũ) in one pass over both views; each ``(B, d)``."""
        rows = {}
        if getattr(self.views, "needs_rows", False):
            rows["rows"] = _rows(batch)
        pair = self.views(batch.item_seq, batch.item_seq_len, streams.generator("views"), **rows)
        parts = (*pair.first, *pair.second)
        return encode_in_micro_batches(self._encode_views, *parts, micro_batch=self.micro_batch, module=self)

    def _encode_views(
        self, first_seq: Tensor, first_len: Tensor, second_seq: Tensor, second_len: Tensor
    ) -> tuple[Tensor, ...]:
        views = torch.cat((first_seq, second_seq)), torch.cat((first_len, second_len))  # 2B rows
        if not self.ranks:
            return self.encoder(*views).chunk(2)
        encodings, others = _encode_twice(self.encoder, *views)  # each (2B, d)
        (u1, u2), (u1_pos, u2_pos) = encodings.chunk(2), others.chunk(2)
        return u1, u1_pos, u2, u2_pos

    def _ids(self, batch: Batch) -> Tensor:
        """The ids by which two rows are not negatives of each other: (B,) users, or (B, 2) users and keys."""
        keys = batch.keys
        if self.mask_same_key:
            keys = self.views.keys_of(_rows(batch))  # type: ignore[attr-defined]
        return batch.user_ids if keys is None else torch.stack((batch.user_ids, keys), 1)

    def _penalised(self, loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the penalty, if there is one, and return it as a number to log."""
        if self.penalty is None:
            return loss, {}
        penalty = self.penalty()
        return loss + penalty, {"penalty": penalty.detach()}

    def _require_dropout(self, encodings: tuple[Tensor, ...]) -> None:
        """Refuse, at the first step, an encoder that gives the same vector twice: then there is no implicit view."""
        if not len(encodings[0]):
            return  # of a gathered batch
        if not self._dropout_seen and torch.equal(encodings[0], encodings[1]):
            raise InputError(
                "encoder: expected active dropout, so that the same sequence is encoded differently twice, "
                f"got equal encodings from {type(self.encoder).__name__}"
            )
        self._dropout_seen = True


def _encode_twice(
    encoder: Callable[[Tensor, Tensor], Tensor], item_seq: Tensor, item_seq_len: Tensor
) -> tuple[Tensor, Tensor]:
    """Encode ``(2B, L)``, both views, under two dropout masks: two times ``(2B, d)``.

    An encoder with ``encode_twice`` computes their common part once; any other encodes every view twice.
    """
    if _shares_work(encoder):
        first, second = encoder.encode_twice(item_seq, item_seq_len)  # type: ignore[attr-defined]
        return first, second
    views = len(item_seq) // 2
    stacked = torch.cat([part for view in torch.split(item_seq, views) for part in (view, view)])
    lengths = torch.cat([part for view in torch.split(item_seq_len, views) for part in (view, view)])
    u1, u1_pos, u2, u2_pos = encoder(stacked, lengths).chunk(4)
    return torch.cat((u1, u2)), torch.cat((u1_pos, u2_pos))


def _shares_work(encoder: object) -> bool:
    """Whether ``encode_twice`` may replace calls of the encoder: defined no earlier than ``forward``, and no hooks."""
    kind = type(encoder)
    named = [next((place for place, base in enumerate(kind.__mro__) if name in vars(base)), None) for name in _BOTH]
    if named[0] is None or named[1] is None or named[0] > named[1] or "forward" in vars(encoder):
        return False
    return not (encoder._forward_hooks or encoder._forward_pre_hooks)  # type: ignore[attr-defined]


def _rows(batch: Batch) -> Tensor:
    """Return the row numbers in the data from which the views were made: (B,)."""
    return batch.user_ids if batch.rows is None else batch.rows


@contextmanager
def _dropout_kept_on(module: nn.Module) -> Iterator[None]:
    """Training mode for everything except norms with running statistics, since the implicit view needs dropout.

    Not every dropout is a module that could be switched on alone: nn.GRU and nn.TransformerEncoderLayer have
    built-in dropout.
    """
    training = {child: child.training for child in module.modules()}
    module.train()
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._NormBase):
            child.eval()
    try:
        yield
    finally:
        for child, mode in training.items():
            child.training = mode
