"""PTUM's objectives: a masked behaviour and the next K, each classified among negatives."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...augment.operators.draws import uniform_below
from ...corpus import Batch
from ...encoders import UserEncoder
from ...errors import InputError, check_counts
from .base import Stage, StepResult, Streams, share_of
from .negative_items import NegativeItems


class Questions(NamedTuple):
    """The predictions for the users of a batch: the masked behaviour first, then the next K."""

    item_seq: Tensor
    """int64 ``(2B, L)``: histories with a behaviour masked, then histories without their newest."""
    item_seq_len: Tensor
    """int64 ``(2B,)``."""
    candidates: Tensor
    """int64 ``(B, 1 + K, 1 + P)``: the positive, then its negatives."""
    asked: Tensor
    """bool ``(B, 1 + K)``: False where a history is too short for the prediction."""


class NextBehaviourStage(Stage):
    """Classify a masked behaviour, and the next K, among P negatives by the dot product with the user vector (PTUM).

    L = MBP + weight · NBP, each the mean of -log softmax over the positive and its negatives. MBP masks one uniformly
    drawn behaviour of every user; for a user of one behaviour only [MASK] and its position are left to predict from.
    NBP hides the newest min(K, n - 1) of n behaviours, which are predicted from the user vector of the others; there
    is none for a user of one behaviour. All hidden behaviours have the same weight.

    Verified against the authors' code, which adds a position vector to all candidates of a prediction. A vector common
    to all candidates cancels in the softmax, in values and gradients, so it is left out here. Not reproduced: hidden
    behaviours left in place as blanks, and the positions of the last user in all rows.

    Args:
        encoder: with ``item_weight``, and user vectors as long as those of items.
        negatives: their source.
        n_negatives: P, at least 1.
        n_next: K, at least 1.
        weight: of the next behaviours, above 0.
        name: of the stage.

    Raises:
        InputError: a number out of range, or user vectors of another length.
    """

    criterion = "accuracy"

    def __init__(
        self,
        encoder: UserEncoder,
        negatives: NegativeItems,
        n_negatives: int = 4,
        n_next: int = 2,
        weight: float = 1.0,
        name: str = "ptum",
    ) -> None:
        super().__init__()
        check_counts(n_negatives=n_negatives, n_next=n_next)
        if not 0 < weight < float("inf"):
            raise InputError(f"weight: expected a positive number, got {weight!r}")
        width = encoder.item_weight.shape[1]
        if encoder.out_dim != width:
            raise InputError(
                f"interests: expected 1, for user vectors as long as those of items, {width}, "
                f"got vectors of {encoder.out_dim}"
            )
        self.name = name
        self.encoder = encoder
        self.negatives = negatives
        self.n_negatives = n_negatives
        self.n_next = n_next
        self.weight = weight

    def why_eager(self) -> str | None:
        """Nothing stands against it."""
        return None

    def step(self, batch: Batch, streams: Streams) -> StepResult:
        """Both objectives on a batch."""
        questions = self._ask(batch, streams)
        losses, _ = self._answer(questions)
        if batch.whole is None:
            masked = losses[:, 0].mean()
            following = losses[:, 1:].sum() / questions.asked[:, 1:].sum().clamp(min=1)
        else:  # sums here, of means over the whole batch
            lengths = batch.whole.lengths
            hidden = int((lengths - 1).clamp(max=self.n_next).sum())
            masked = losses[:, 0].sum() * share_of(1, batch, len(lengths))
            following = losses[:, 1:].sum() * share_of(1, batch, hidden)
        loss = masked + self.weight * following
        logs = {"loss": loss, "masked_loss": masked, "next_loss": following}
        return StepResult(loss, {name: value.detach() for name, value in logs.items()})

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch], streams: Streams) -> dict[str, float]:
        """Accuracy of both objectives and the loss, on the same predictions every epoch, dropout off.

        ``accuracy``, the criterion, is the mean of the two. A positive that ties for the first place counts as missed.
        If no user has two behaviours, only the masked behaviour counts.
        """
        self.eval()
        sums = torch.zeros(3, 2, dtype=torch.float64)  # predictions, correct ones, loss, of both objectives
        for number, batch in enumerate(batches):
            if not self.usable(batch):
                continue
            questions = self._ask(batch, Streams(streams.device, (*streams.key, number)))
            losses, right = self._answer(questions)
            parts = torch.stack([part.double().sum(0) for part in (questions.asked, right, losses)])
            sums += torch.stack((parts[:, 0], parts[:, 1:].sum(1)), 1).cpu()  # (3, 1 + K) to (3, 2)
        asked, hits, loss = sums.tolist()
        if not asked[0]:
            raise InputError("validation users: expected at least one, got none; raise valid_share")
        result = {"accuracy": hits[0] / asked[0], "masked_accuracy": hits[0] / asked[0], "loss": loss[0] / asked[0]}
        if asked[1]:
            result["next_accuracy"] = hits[1] / asked[1]
            result["accuracy"] = (result["masked_accuracy"] + result["next_accuracy"]) / 2
            result["loss"] += self.weight * loss[1] / asked[1]
        return result

    def _ask(self, batch: Batch, streams: Streams) -> Questions:
        item_seq, length = batch.item_seq, batch.item_seq_len
        mask = uniform_below(length, streams.generator("mask"))[:, None]  # (B, 1)
        masked = item_seq.scatter(1, mask, self.encoder.n_items)
        kept = (length - self.n_next).clamp(min=1)  # (B,)
        truncated = item_seq * (torch.arange(item_seq.shape[1], device=item_seq.device) < kept[:, None])
        following = kept[:, None] + torch.arange(self.n_next, device=item_seq.device)  # (B, K)
        asked = torch.cat((torch.ones_like(mask, dtype=torch.bool), following < length[:, None]), 1)
        places = torch.cat((mask, following.clamp(max=item_seq.shape[1] - 1)), 1)
        positives = item_seq.gather(1, places).masked_fill(~asked, 0)  # (B, 1 + K)
        negatives = self.negatives(positives, self.n_negatives, streams.generator("negatives"))
        candidates = torch.cat((positives[..., None], negatives), -1)
        return Questions(torch.cat((masked, truncated)), torch.cat((length, kept)), candidates, asked)

    def _answer(self, questions: Questions) -> tuple[Tensor, Tensor]:
        """-log of the positive's share in the softmax, and whether it alone has the highest score: ``(B, 1 + K)``.

        They are 0 and False where nothing is asked.
        """
        masked, truncated = self.encoder(questions.item_seq, questions.item_seq_len).chunk(2)  # each (B, d)
        users = torch.stack((masked, *[truncated] * self.n_next), 1)[:, :, None]  # (B, 1 + K, 1, d)
        # One lookup for all: its gradient has the size of the item table, whatever the number of ids.
        vectors = F.embedding(questions.candidates, self.encoder.item_weight)  # (B, 1 + K, 1 + P, d)
        # Not a matrix product, which autocast would compute in half precision.
        scores = (users * vectors).sum(-1)
        losses = -scores.log_softmax(-1)[..., 0]
        right = scores[..., 0] > scores[..., 1:].amax(-1)
        return losses.masked_fill(~questions.asked, 0), right & questions.asked
