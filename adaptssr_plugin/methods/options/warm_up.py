"""Options of what lies before a method's own stage: the initial item table, and the stage of masked items."""

from dataclasses import dataclass

from ...errors import InputError
from .declaring import OptionGroup, choice, count, fraction, option, positive, rate, share, which_epoch


@dataclass(frozen=True)
class WarmUpOptions(OptionGroup):
    """The start of the item table, and masked items."""

    group = "warm-up"

    item_init: str = choice(
        "random",
        ("random", "svd"),
        "Initial item table of every stage: random, or svd, a truncated SVD of the training users' histories.",
        "the authors' code",
    )
    warm_start: str = option(
        "mlm",
        "Start of the method's own stage: mlm, a stage of masked items before it; none; or the folder of a "
        "finished pre-training, whose encoder is loaded (item vectors are matched by token).",
        "the paper",
        lambda value: bool(value.strip()),
        "mlm, none or the folder of a finished pre-training",
        "mlm|none|DIR",
    )
    mlm_epochs: int = count(20, "Epochs of the masked-item stage.", "the authors' code")
    mlm_learning_rate: float = positive(2e-4, "Adam's learning rate for masked items.", "the paper")
    mlm_dropout: float = rate(0.1, "Dropout in the masked-item stage.", "the paper")
    mlm_ratio: float = share(0.3, "Share of behaviours that are masked.", "the authors' code")
    mlm_softmax: str = choice(
        "full",
        ("full", "sampled"),
        "Masked items are compared with the full catalogue, or with a sample drawn in every step.",
        "the authors' code",
    )
    mlm_sample_share: float = share(0.2, "Share of the catalogue drawn by mlm_softmax sampled.", "PeterRec's code")
    mlm_pooled: float = fraction(
        0.0, "Share of the masked-item loss that predicts from the user vector.", "ours; the paper has no such term"
    )
    mlm_select: str = which_epoch(
        "Epoch of masked items that is passed on: best (validation accuracy), last or epoch:K.", "ours"
    )

    def check_warm_up(self) -> None:
        """Check options against one another; raises InputError."""
        if self.mlm_softmax == "full" and self.mlm_sample_share != WarmUpOptions.mlm_sample_share:
            raise InputError("mlm_sample_share: expected mlm_softmax sampled beside it, got full, which takes all")
        if self.item_init == "svd" and self.warm_start not in ("mlm", "none"):
            raise InputError(f"item_init: expected random beside the item table of {self.warm_start!r}, got svd")
