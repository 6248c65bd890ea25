"""Options of fine-tuning."""

from dataclasses import dataclass

from ...errors import InputError
from .declaring import OptionGroup, choice, count, fraction, option, positive, rate

_OF_TRAINING = frozenset(
    ("ft_epochs", "ft_learning_rate", "ft_item_lr_share", "ft_batch_size", "ft_dropout", "ft_hidden", "ft_shuffle",
     "ft_rank")
)  # fmt: skip


@dataclass(frozen=True)
class FineTuningOptions(OptionGroup):
    """The training on a task, and how cold recommendation is measured."""

    group = "fine-tuning"

    ft_epochs: int = count(5, "Epochs of fine-tuning.", "the authors' code")
    ft_learning_rate: float = positive(2e-4, "Adam's learning rate in fine-tuning.", "the paper")
    ft_item_lr_share: float = fraction(
        1.0, "Fine-tuning: as item_lr_share, for the item table of the pre-trained model.", "the authors' code"
    )
    ft_batch_size: int = count(128, "Users in a batch of fine-tuning.", "the paper")
    ft_dropout: float = rate(0.1, "Dropout of the encoder in fine-tuning.", "the paper")
    ft_hidden: int = count(64, "Hidden width of the two-layer head.", "the paper")
    ft_shuffle: bool = option(True, "New order of users in every epoch of fine-tuning.", "ours")
    ft_coldrec_loss: str = choice(
        "bpr",
        ("bpr", "ce"),
        "Cold recommendation: one negative per row, or cross-entropy over the label space.",
        "the authors' code",
    )
    ft_neg_exclude: str = choice(
        "all",
        ("all", "train"),
        "Cold recommendation: which positives of a user are never drawn as negatives: all, or the training rows'.",
        "the authors' code",
    )
    ft_split_unit: str = choice(
        "pair",
        ("pair", "user"),
        "Cold recommendation: split by pairs of user and item, or by users.",
        "the authors' code",
    )
    ft_ties: str = choice(
        "pessimistic",
        ("pessimistic", "optimistic", "mean"),
        "Cold recommendation: rank of a target among items of the same score.",
        "ours",
    )
    ft_tune: str = choice(
        "all",
        ("all", "head", "adapter", "lora", "item_adapter", "linear"),
        "What is trained: all weights; the head alone; the head with adapters, with low-rank updates (lora), or with "
        "one adapter after the item table. linear: nothing, a logistic regression reads the frozen user vectors.",
        "the authors' code",
    )
    ft_rank: int = count(8, "Width of adapters, and rank of low-rank updates.", "ours")

    def unused_in_fine_tuning(self) -> frozenset[str]:
        """Names of options that change nothing: those of the training, where linear reading trains nothing."""
        return _OF_TRAINING if self.ft_tune == "linear" else frozenset()

    def check_fine_tuning(self) -> None:
        """Check options against one another; raises InputError."""
        if self.ft_tune != "all" and self.ft_item_lr_share != 1:
            raise InputError(
                f"ft_item_lr_share: expected 1 with ft_tune {self.ft_tune}, which freezes the table, "
                f"got {self.ft_item_lr_share}"
            )
