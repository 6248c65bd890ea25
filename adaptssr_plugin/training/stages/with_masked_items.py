"""Two views and masked items in one stage: the task of the warm-up continues while views are compared."""

from collections.abc import Iterable, Mapping
from typing import Any

from ...corpus import Batch
from ...errors import InputError
from .base import Stage, StepResult, Streams
from .item_prediction import ItemPredictionStage
from .pairwise import PairwiseStage


class WithMaskedItemsStage(Stage):
    """Add ``weight`` times the loss of predicted items to a loss on two views; both use one encoder.

    This is ours; in the paper ranking follows masked items and replaces them. Epochs are compared by the criterion of
    the stage on two views. A batch in which every user has one behaviour has nothing to predict and uses its views
    alone.

    Args:
        views: the stage on two views.
        items: the stage of predicted items (masked, or next).
        weight: 0 or more.

    Raises:
        InputError: two encoders; ``micro_batch`` on two views, since predicted items are encoded all at once; a
            weight out of range.
    """

    def __init__(self, views: PairwiseStage, items: ItemPredictionStage, weight: float) -> None:
        super().__init__()
        if views.encoder is not items.encoder:
            raise InputError("items: expected the encoder of the stage on two views, got another one")
        if views.micro_batch:
            raise InputError(f"micro_batch: expected 0 beside masked items, got {views.micro_batch}")
        if not 0 <= weight < float("inf"):
            raise InputError(f"weight: expected a number of 0 or more, got {weight!r}")
        self.name = views.name
        self.criterion, self.bigger_is_better = views.criterion, views.bigger_is_better
        self.views = views
        self.items = items
        self.weight = weight

    @property
    def encoder(self) -> Any:
        """The encoder that both train."""
        return self.views.encoder

    def share_batches(self) -> None:
        """Tell both."""
        self.views.share_batches()
        self.items.share_batches()

    def set_epoch(self, epoch: int | None) -> None:
        """Tell the view provider."""
        self.views.set_epoch(epoch)

    def epoch_state(self) -> dict[str, Any]:
        """Return the view provider's state."""
        return self.views.epoch_state()

    def load_epoch_state(self, state: Mapping[str, Any]) -> None:
        """Return it to the view provider."""
        self.views.load_epoch_state(state)

    def why_eager(self) -> str | None:
        """Say what either of the two says."""
        return self.views.why_eager() or self.items.why_eager()

    def fixed(self, batch: Batch) -> tuple[int, ...]:
        """Return whether anything is predicted, and the sizes of that."""
        return (1, *self.items.fixed(batch)) if self.items.usable(batch) else (0,)

    def usable(self, batch: Batch) -> bool:
        """Whether there are two users to compare."""
        return self.views.usable(batch)

    def step(self, batch: Batch, streams: Streams) -> StepResult:
        """Loss on two views + weight · loss of predicted items; the latter is logged as ``loss_items``."""
        compared = self.views.step(batch, streams)
        if not self.items.usable(batch):
            return compared
        predicted = self.items.step(batch, streams)
        loss = compared.loss + self.weight * predicted.loss
        return StepResult(loss, {**compared.logs, "loss": loss.detach(), "loss_items": predicted.loss.detach()})

    def validate(self, batches: Iterable[Batch], streams: Streams) -> dict[str, float]:
        """Validate as the stage on two views does."""
        return self.views.validate(batches, streams)
