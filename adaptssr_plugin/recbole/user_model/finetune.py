"""Fine-tuning a pre-trained (or fresh) encoder on a task of any form, through RecBole's trainer."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from recbole.config import Config

from ...corpus import BatchLoader, BehaviourCorpus, is_corpus, open_corpus, read_interactions
from ...downstream import LabelledRows, ProfileTask, Task, TaskSplit, fewer_labels, logistic_regression, standardised
from ...downstream.linear import Features
from ...downstream.tuning import trained_and_all, tune
from ...encoders import UserEncoder
from ...errors import InputError
from ...methods import Recipe
from ...methods.plan import StagePlan
from ...seeding import stream_seed
from ...training import WHOLE_ENCODER, transfer
from ...training.serving import user_vectors
from ..compat.profiles import profile_labels
from .pretrain import PretrainedModel
from .stages import fresh_encoder
from .trainer import StageTrainer

_ENCODED_AT_ONCE = 512


@dataclass(frozen=True)
class FineTuned:
    """One fine-tuning run.

    Attributes:
        valid: the metric by which epochs are chosen, on validation rows at the best epoch, a fraction in [0, 1].
        test: the same on test rows, computed once.
        best_epoch: counted from 1; None for linear reading, which has no epochs.
        seconds: wall-clock time of the run.
        trained: share of the encoder's parameters that were trained; the head is always trained.
        valid_metrics: all metrics of the task by name, ``valid`` first.
        test_metrics: the same on test rows, ``test`` first.
    """

    valid: float
    test: float
    best_epoch: int | None
    seconds: float
    trained: float
    valid_metrics: Mapping[str, float]
    test_metrics: Mapping[str, float]


def profile_task(
    config: Config, corpus: BehaviourCorpus, field: str, bins: Sequence[float] | None = None
) -> ProfileTask:
    """Make a task from a column of the dataset's ``.user`` file; two classes make it binary.

    Args:
        config: of the dataset.
        corpus: has the users to label.
        field: the column.
        bins: for numbers: ascending lower bounds of the classes.

    Raises:
        InputError: no such column, or a column that gives fewer than two classes.
    """
    found = profile_labels(config, corpus.user_tokens, field, bins)
    return ProfileTask.from_labels(field, found.rows, found.labels, found.classes)


def whole_histories(config: Config) -> BehaviourCorpus:
    """Read every behaviour in the dataset's ``.inter`` file: without split or filter, with separate item ids.

    A memory-mapped corpus already has this form.

    Raises:
        InputError: a file that is missing or malformed.
    """
    if is_corpus(config["data_path"]):
        return open_corpus(config["data_path"])
    return read_interactions(
        Path(config["data_path"]) / f"{config['dataset']}.inter",
        user_field=config["USER_ID_FIELD"],
        item_field=config["ITEM_ID_FIELD"],
        time_field=config["TIME_FIELD"],
        separator=config["field_separator"],
        encoding=config["encoding"],
    )


def fine_tune(
    config: Config,
    corpus: BehaviourCorpus,
    task: Task,
    recipe: Recipe,
    seed: int,
    pretrained: UserEncoder | None = None,
    labels: int | None = None,
    frozen: Features | None = None,
) -> FineTuned:
    """Fine-tune on 60 % of the task's rows; choose the epoch on 20 %, test on 20 %.

    ``ft_tune: linear`` trains nothing: a logistic regression reads the standardised vectors of the encoder as it is,
    dropout off, and the validation rows choose its penalty (:func:`logistic_regression`).

    Args:
        config: of the dataset.
        corpus: the behaviours of the pre-training, whose items the encoder knows.
        task: what to predict.
        recipe: its ``ft_`` options (``ft_tune``: which weights) and the encoder's; ``split_seed`` fixes the split.
            ``ft_item_lr_share`` applies to the item table of ``pretrained``; a random one is trained like the rest.
        seed: of initialisation, dropout and order.
        pretrained: weights to start from; None: a random initialisation (the row ``None`` of Table 2).
        labels: how many labels of training rows to use, see :func:`fewer_labels`; None: all.
        frozen: for linear reading, the result of :func:`frozen_vectors` for the same arguments, to encode users once.

    Raises:
        InputError: weights that do not fit, a task for an encoder of other items, or linear reading for a task that
            is not a profile task.
        TrainingDivergedError: NaN or infinity in a step.
    """
    started = time.perf_counter()
    split = task.parts(recipe)
    if recipe.ft_tune == "linear":
        frozen = frozen or frozen_vectors(config, corpus, task, recipe, seed, pretrained)
        return _read_linearly(task, split, frozen, recipe, labels, started)
    inputs, encoder = _inputs_of(task, corpus), _start(corpus, recipe, seed, pretrained)
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(stream_seed(seed, "head"))
        tune(encoder, recipe.ft_tune, recipe.ft_rank)
        stage = task.stage(encoder, encoder.out_dim, recipe)
    plan = StagePlan(
        name=f"fine-tune {task.name}",
        make=lambda *_: stage,
        epochs=recipe.ft_epochs,
        learning_rate=recipe.ft_learning_rate,
        dropout=recipe.ft_dropout,
        select="best",
        item_lr_share=1.0 if pretrained is None else recipe.ft_item_lr_share,
    )
    trainer = StageTrainer(
        config, stage, plan, None,
        seed=seed, stopping_step=recipe.ft_epochs, amp_dtype=recipe.amp_dtype, cuda_graphs=recipe.cuda_graphs,
    )  # fmt: skip
    if labels is not None:
        split = fewer_labels(split, labels, recipe.split_seed)

    def loader(part: LabelledRows, shuffle: bool) -> BatchLoader:
        return BatchLoader(inputs, part.rows, batch_size=recipe.ft_batch_size, max_len=recipe.max_len, seed=seed,
                           name="fine-tune", shuffle=shuffle, labels=part.labels)  # fmt: skip

    trainer.run(loader(split.train, recipe.ft_shuffle), loader(split.valid, False), show_progress=False)
    tested = stage.evaluate(batch.to(trainer.device) for batch in loader(split.test, False))
    best = trainer.history[trainer.selected_epoch - 1]
    n_trained, n_parameters = trained_and_all(encoder)
    return FineTuned(
        valid=float(trainer.best_valid_score),
        test=tested[task.metric_name],
        best_epoch=trainer.selected_epoch,
        seconds=time.perf_counter() - started,
        trained=n_trained / n_parameters,
        valid_metrics={name: best[f"valid_{name}"] for name in tested},
        test_metrics=tested,
    )


def frozen_vectors(
    config: Config,
    corpus: BehaviourCorpus,
    task: Task,
    recipe: Recipe,
    seed: int,
    pretrained: UserEncoder | None = None,
) -> Features:
    """Encode a task's users with the encoder from which fine-tuning would start, dropout off.

    Arguments and errors as :func:`fine_tune`.

    Returns:
        A function from rows of the task ``(n,)`` to vectors ``(n, d)`` float32.
    """
    if not isinstance(task, ProfileTask):
        raise InputError(f"ft_tune: expected anything but linear for {task.name}, which has no classes, got linear")
    inputs, encoder = _inputs_of(task, corpus), _start(corpus, recipe, seed, pretrained)
    device = config["device"]
    vectors = user_vectors(encoder.to(device).eval(), inputs, recipe.max_len, _ENCODED_AT_ONCE, device, task.rows)
    place = np.zeros(len(inputs), dtype=np.int64)
    place[task.rows] = np.arange(len(task.rows))
    return lambda rows: vectors[place[rows]]


def _inputs_of(task: Task, corpus: BehaviourCorpus) -> BehaviourCorpus:
    inputs = corpus if task.inputs is None else task.inputs
    if inputs.n_items != corpus.n_items:
        raise InputError(f"task: expected inputs of {corpus.n_items} items in {task.name}, got {inputs.n_items}")
    return inputs


def _start(corpus: BehaviourCorpus, recipe: Recipe, seed: int, pretrained: UserEncoder | None) -> UserEncoder:
    encoder = fresh_encoder(recipe, corpus.n_items, recipe.ft_dropout, seed)
    if pretrained is not None:
        try:
            transfer(pretrained.state_dict(), encoder, WHOLE_ENCODER)
        except ValueError as error:
            raise InputError(f"model: {error}") from None
    return encoder


def _read_linearly(
    task: Task, split: TaskSplit, frozen: Features, recipe: Recipe, labels: int | None, started: float
) -> FineTuned:
    assert isinstance(task, ProfileTask)
    features = standardised(frozen, split.train.rows)
    few = split if labels is None else fewer_labels(split, labels, recipe.split_seed)
    result = logistic_regression(task, few, features)
    return FineTuned(
        valid=result.valid,
        test=result.test,
        best_epoch=None,
        seconds=time.perf_counter() - started,
        trained=0.0,
        valid_metrics={task.metric_name: result.valid},
        test_metrics={task.metric_name: result.test},
    )


def check_same_items(model: PretrainedModel, tokens: Sequence[str], corpus: BehaviourCorpus) -> None:
    """Raise InputError unless the corpus numbers the same items in the same way as the model's pre-training did."""
    if len(tokens) != corpus.n_items or any(a != b for a, b in zip(tokens, corpus.item_tokens, strict=True)):
        raise InputError(
            f"dataset: its items are not those that the model in {model.folder} was pre-trained on "
            f"({len(tokens) - 1} there, {corpus.n_items - 1} here)"
        )
