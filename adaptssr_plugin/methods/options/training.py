"""Options of the training of a method's own stage; those of data and optimiser apply to every stage."""

from dataclasses import dataclass

from .declaring import OptionGroup, choice, count, fraction, not_negative, option, positive, rate, which_epoch


@dataclass(frozen=True)
class TrainingOptions(OptionGroup):
    """Epochs, optimiser, data and seeds."""

    group = "training"

    epochs: int = count(20, "Epochs of the method's own stage; 0 skips it.", "the authors' code", least=0)
    learning_rate: float = positive(2e-4, "Adam's learning rate.", "the paper")
    item_lr_share: float = fraction(
        1.0,
        "Learning rate of the item table in pre-training, relative to all other weights; 0 freezes the table.",
        "the authors' code",
    )
    dropout: float = rate(0.1, "Dropout of the encoder; the implicit view needs it.", "the paper")
    batch_size: int = count(128, "Users in a batch.", "the paper", least=2)
    micro_batch: int = count(
        0, "Two views: users encoded at once, by gradient caching; 0: the whole batch.", "ours", least=0
    )
    select: str = which_epoch(
        "Epoch that becomes the model: best (validation criterion), last or epoch:K.",
        "the paper; the criterion is ours",
    )
    history: str = choice(
        "whole",
        ("whole", "older"),
        "Part of every user's training history that is used: whole, or older, its older half, for adaptssr "
        "reidentify, which looks at the newer half.",
        "the paper",
    )
    valid_share: float = option(
        0.1, "Share of users held out for validation.", "the paper", lambda value: 0 < value < 1, "a number in (0, 1)"
    )
    stopping_step: int = count(10, "Epochs without improvement after which a stage stops.", "RecBole")
    clip_grad_norm: float = not_negative(0.0, "Largest norm of the gradient; 0: no clipping.", "the authors' code")
    amp_dtype: str = choice(
        "auto", ("auto", "bfloat16", "float16"), "Precision under RecBole's enable_amp; auto: torch's default.", "ours"
    )
    cuda_graphs: bool = option(
        False,
        "Steps on a CUDA device are captured as graphs and replayed, in pre-training and fine-tuning; batches are "
        "padded to quarters of max_len. Not measured yet. Where steps cannot be captured, one line says so.",
        "ours",
    )
    seed: int = count(2020, "Seed of initialisation, order, dropout and augmentation.", "RecBole", least=0)
    split_seed: int = count(2023, "Seed of all splits.", "ours", least=0)
