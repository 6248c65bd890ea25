"""Fine-tuning a pre-trained (or fresh) encoder on a profile task, through RecBole's trainer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from recbole.config import Config

from ..corpus import BatchLoader, BehaviourCorpus
from ..downstream import LabelledRows, ProfileTask
from ..downstream.fine_tuning import ProfileStage
from ..downstream.tuning import trained_share, tune
from ..encoders import UserEncoder
from ..errors import InputError
from ..methods import Recipe
from ..methods.plan import StagePlan
from ..seeding import stream_seed
from ..training import WHOLE_ENCODER, transfer
from .pretrain import PretrainedModel, fresh_encoder
from .profiles import profile_labels
from .trainer import StageTrainer


@dataclass(frozen=True)
class FineTuned:
    """One fine-tuning run.

    Attributes:
        valid: the task's metric on validation users at the best epoch, a fraction in [0, 1].
        test: the same on test users, looked at once.
        best_epoch: counted from 1.
        seconds: wall-clock time of the run.
        trained: share of the encoder's parameters that were trained, beside the whole head.
    """

    valid: float
    test: float
    best_epoch: int
    seconds: float
    trained: float


def profile_task(
    config: Config, corpus: BehaviourCorpus, field: str, bins: Sequence[float] | None = None
) -> ProfileTask:
    """Make a task of a column of the dataset's ``.user`` file; two classes make it binary.

    Args:
        config: of the dataset.
        corpus: whose users are labelled.
        field: the column.
        bins: for numbers: ascending lower bounds of the classes.

    Raises:
        InputError: no such column, or one that makes no classes.
    """
    found = profile_labels(config, corpus.user_tokens, field, bins)
    return ProfileTask.from_labels(field, found.rows, found.labels, found.classes)


def fine_tune(
    config: Config,
    corpus: BehaviourCorpus,
    task: ProfileTask,
    recipe: Recipe,
    seed: int,
    pretrained: UserEncoder | None = None,
) -> FineTuned:
    """Fine-tune on 60 % of the task's users; choose the epoch on 20 %, test on 20 %.

    Args:
        config: of the dataset.
        corpus: the behaviours.
        task: what to predict.
        recipe: its ``ft_`` options (``ft_tune``: which weights) and the encoder's; ``split_seed`` fixes the split.
        seed: of initialisation, dropout and order.
        pretrained: weights to start from; None: a random initialisation (the row ``None`` of Table 2).

    Raises:
        InputError: weights that do not fit.
        TrainingDivergedError: NaN or infinity in a step.
    """
    started = time.perf_counter()
    encoder = fresh_encoder(recipe, corpus.n_items, recipe.ft_dropout, seed)
    if pretrained is not None:
        try:
            transfer(pretrained.state_dict(), encoder, WHOLE_ENCODER)
        except ValueError as error:
            raise InputError(f"model: {error}") from None
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(stream_seed(seed, "head"))
        tune(encoder, recipe.ft_tune, recipe.ft_rank)
        stage = ProfileStage(encoder, task, encoder.out_dim, recipe.ft_hidden)
    plan = StagePlan(
        name=f"fine-tune {task.name}",
        make=lambda *_: stage,
        epochs=recipe.ft_epochs,
        learning_rate=recipe.ft_learning_rate,
        dropout=recipe.ft_dropout,
        select="best",
    )
    trainer = StageTrainer(
        config, stage, plan, None, seed=seed, stopping_step=recipe.ft_epochs, amp_dtype=recipe.amp_dtype
    )
    split = task.split(recipe.split_seed)

    def loader(part: LabelledRows, shuffle: bool) -> BatchLoader:
        return BatchLoader(corpus, part.rows, batch_size=recipe.ft_batch_size, max_len=recipe.max_len, seed=seed,
                           name="fine-tune", shuffle=shuffle, labels=part.labels)  # fmt: skip

    trainer.run(loader(split.train, recipe.ft_shuffle), loader(split.valid, False), show_progress=False)
    scores, labels = stage.predict(batch.to(trainer.device) for batch in loader(split.test, False))
    return FineTuned(
        valid=float(trainer.best_valid_score),
        test=task.metric(scores, labels),
        best_epoch=trainer.selected_epoch,
        seconds=time.perf_counter() - started,
        trained=trained_share(encoder).share,
    )


def check_same_items(model: PretrainedModel, tokens: Sequence[str], corpus: BehaviourCorpus) -> None:
    """Raise InputError unless the corpus numbers the same items in the same way as the model's pre-training did."""
    if len(tokens) != corpus.n_items or any(a != b for a, b in zip(tokens, corpus.item_tokens, strict=True)):
        raise InputError(
            f"dataset: its items are not those that the model in {model.folder} was pre-trained on "
            f"({len(tokens) - 1} there, {corpus.n_items - 1} here)"
        )
