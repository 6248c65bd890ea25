"""A run of a RecBole model that returns the rank of every test row's target, and its cost."""

import hashlib
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.utils import ModelType, get_trainer, init_seed

from ...downstream.ranking import target_ranks
from ...errors import InputError, TrainingDivergedError
from ..compat.patches import temporary_attribute, tensorboard_into
from ..compat.safe_config import one_line
from ..compat.training_rows import TrainingRows, item_tokens
from .installing import installed
from .run import process_kept


@dataclass(frozen=True)
class EvaluatedRows:
    """The test rows of a dataset, in the order of :attr:`MeasuredRun.ranks`.

    Attributes:
        users: int64 (R,), RecBole's user ids.
        lengths: int64 (R,), interactions of the user before the target.
        counts: int64 (R,), number of occurrences of the target in the training histories.
        n_training_users: number of users in training.
        n_items: number of ranked items.
        fingerprint: a hash of the training histories, the test rows and the item tokens.
    """

    users: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray
    n_training_users: int
    n_items: int
    fingerprint: str


@dataclass(frozen=True)
class MeasuredRun:
    """The result of a run.

    Attributes:
        valid_score: the best value of ``valid_metric``, by which the epoch is chosen.
        test: RecBole's metrics on the test rows at that epoch.
        ranks: int32 (R,), the rank of each target among all items, from 1; ties count against the target. Rows are in
            order of user, input length and item.
        epochs: number of trained epochs.
        best_epoch: the chosen epoch, from 1.
        seconds_per_epoch: median over epochs, of training alone.
        seconds_to_best: until the chosen epoch was validated, including the stages before and all validation.
        seconds: of the whole run, including loading.
    """

    valid_score: float
    test: Mapping[str, float]
    ranks: np.ndarray
    epochs: int
    best_epoch: int
    seconds_per_epoch: float
    seconds_to_best: float
    seconds: float


def evaluated_rows(model: str, dataset: str, options: Mapping[str, Any], share: float = 1.0) -> EvaluatedRows:
    """Describe the test rows of :func:`measured_run`; arguments and errors as there."""
    with _run_config(model, dataset, options) as config:
        (train, _, test), lengths = _loaders(config, share)
        histories = TrainingRows(config, train._dataset).histories()
        keys = _sort_keys(config, test._dataset.inter_feat)
        users, _, targets = keys
        digest = hashlib.sha256("\0".join(item_tokens(test._dataset)).encode())
        for array in (histories.items, histories.offsets, *keys):
            digest.update(np.ascontiguousarray(array).tobytes())
        n_items = int(test._dataset.item_num)
        counts = np.bincount(histories.items, minlength=n_items)[targets]
        order = np.lexsort(keys[::-1])
        return EvaluatedRows(
            users[order], lengths[order], counts[order], len(histories), n_items - 1, digest.hexdigest()[:16]
        )


def device_of_run(model: str, dataset: str, options: Mapping[str, Any]) -> torch.device:
    """Return the device of :func:`measured_run`; arguments and errors as there."""
    with _run_config(model, dataset, options) as config:
        return torch.device(config["device"])


def measured_run(model: str, dataset: str, options: Mapping[str, Any], share: float = 1.0) -> MeasuredRun:
    """Train a sequential model as :func:`~adaptssr_plugin.recbole.run_recbole` does, and rank every test target.

    Nothing is written permanently: the checkpoint is in a folder that is removed, and there are no logs.

    Args:
        model: name of a sequential model of RecBole's, CL4SRec, CoSeRec or DuoRec.
        dataset: name of a dataset as RecBole knows it, or a folder of atomic files.
        options: RecBole's and the ``ssl_`` options. The command line is not read.
        share: in (0, 1], of the users for training and validation: the first ones of one random order, so that a
            smaller share is part of a larger one. All users are tested.

    Raises:
        InputError: as ``run_recbole``; or a model that is not sequential, a split without validation or test rows,
            an evaluation that does not rank all items.
        TrainingDivergedError: a loss or a score that is not a number.
    """
    started = time.perf_counter()
    with _run_config(model, dataset, options) as config:
        init_seed(config["seed"], config["reproducibility"])
        (train, valid, test), _ = _loaders(config, share)
        init_seed(config["seed"], config["reproducibility"])
        network = config.model_class(config, train._dataset).to(config["device"])
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, network)
        validated: list[tuple[int, float, float]] = []  # epoch, seconds since the start, score
        epoch_seconds: list[float] = []
        own_epoch = trainer._train_epoch

        def train_epoch(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            loss = own_epoch(*arguments, **named)
            epoch_seconds.append(time.perf_counter() - began)
            return loss

        fitting = time.perf_counter()

        def note(epoch: int, score: float) -> None:
            validated.append((epoch + 1, time.perf_counter() - fitting, float(score)))

        with temporary_attribute(trainer, "_train_epoch", train_epoch):
            valid_score, _ = trainer.fit(train, valid, verbose=False, saved=True, callback_fn=note)
        result, ranks = _evaluate(config, trainer, test)
    best = max(validated, key=lambda one: one[2])  # the first of equal ones, as in RecBole
    epochs = validated[-1][0]
    return MeasuredRun(
        valid_score=float(valid_score),
        test={name: float(value) for name, value in result.items()},
        ranks=ranks,
        epochs=epochs,
        best_epoch=best[0],
        seconds_per_epoch=statistics.median(epoch_seconds[-epochs:]),  # earlier ones belong to a warm-up
        seconds_to_best=best[1],
        seconds=time.perf_counter() - started,
    )


@contextmanager
def _run_config(model: str, dataset: str, options: Mapping[str, Any]) -> Iterator[Any]:
    """Replace the beginning of RecBole's quick start: its config, without writing files or reading the command line."""
    with (
        TemporaryDirectory() as folder,
        installed(),
        process_kept(),
        temporary_attribute(sys, "argv", sys.argv[:1]),
        tensorboard_into(None),
    ):
        config = Config(model, dataset, config_dict={**options, "checkpoint_dir": folder, "show_progress": False})
        if config["MODEL_TYPE"] != ModelType.SEQUENTIAL:
            raise InputError(f"model: expected a sequential model of RecBole's, got {model}")
        if not 0 < config["eval_step"] <= config["epochs"]:
            raise InputError(
                f"eval_step: expected 1 to epochs ({config['epochs']}), so that an epoch is validated, got "
                f"{config['eval_step']}"
            )
        yield config


def _loaders(config: Any, share: float) -> tuple[tuple[Any, Any, Any], np.ndarray]:
    """Make RecBole's loaders of a share of the training users; count the interactions before each test row's target."""
    try:
        dataset = create_dataset(config)
        parts = dataset.build()
        lengths = _history_lengths([_numbers(part.inter_feat, config["USER_ID_FIELD"]) for part in parts])
        if share < 1:
            parts = _with_share(config, parts, share)
        with temporary_attribute(dataset, "build", lambda: parts):
            train, valid, test = data_preparation(config, dataset)
    except InputError:
        raise
    except (ValueError, TypeError, NotImplementedError, AssertionError, KeyError, OSError) as error:
        raise InputError(f"options: RecBole refuses the dataset or the options: {one_line(error)}") from error
    for name, loader in (("validation", valid), ("test", test)):
        if not loader:
            raise InputError(f"eval_args: expected a split with {name} rows, got {config['eval_args']}")
        if not isinstance(loader, FullSortEvalDataLoader):
            raise InputError(f"eval_args: expected mode full, which ranks all items, got {config['eval_args']['mode']}")
    return (train, valid, test), lengths


def _history_lengths(parts: list[np.ndarray]) -> np.ndarray:
    """Count the interactions before each target of the last part, from the users of the rows of all parts.

    RecBole makes a row of every interaction but a user's first, and splits them in order.
    """
    users = np.concatenate(parts)
    order = np.argsort(users, kind="stable")
    _, first, sizes = np.unique(users[order], return_index=True, return_counts=True)
    lengths = np.empty(len(users), dtype=np.int64)
    lengths[order] = np.arange(len(users)) - np.repeat(first, sizes) + 1
    return lengths[len(users) - len(parts[-1]) :]


def _with_share(config: Any, parts: list[Any], share: float) -> list[Any]:
    """Keep the training and validation rows of a share of the users."""
    field = config["USER_ID_FIELD"]
    everyone = np.unique(_numbers(parts[0].inter_feat, field))
    n_kept = max(1, round(share * len(everyone)))
    kept = torch.from_numpy(np.random.default_rng(0).permutation(everyone)[:n_kept])
    *others, test = parts
    return [*(part.copy(part.inter_feat[torch.isin(part.inter_feat[field], kept)]) for part in others), test]


def _evaluate(config: Any, trainer: Any, test: Any) -> tuple[Mapping[str, float], np.ndarray]:
    """Evaluate as RecBole does, from the best checkpoint, and rank each target by the scores that RecBole sees."""
    collector, found = trainer.eval_collector, []
    own_collect = collector.eval_batch_collect

    def collect(scores: torch.Tensor, interaction: Any, rows: torch.Tensor, items: torch.Tensor) -> None:
        none = torch.empty(0, dtype=torch.int64, device=scores.device)
        ranks = target_ranks(scores[rows], items.to(scores.device), none, none)
        if ranks.isnan().any():
            raise TrainingDivergedError(f"{config['model']}: a score of a test row is NaN")
        found.append(np.stack([*_sort_keys(config, interaction), ranks.cpu().numpy().astype(np.int64)]))
        own_collect(scores, interaction, rows, items)

    with temporary_attribute(collector, "eval_batch_collect", collect):
        result = trainer.evaluate(test, load_best_model=True)
    *keys, ranks = np.concatenate(found, axis=1)
    return result, ranks[np.lexsort(keys[::-1])].astype(np.int32)


def _sort_keys(config: Any, rows: Any) -> list[np.ndarray]:
    """Return user, input length and target of rows, the keys of their order."""
    return [_numbers(rows, config[name]) for name in ("USER_ID_FIELD", "ITEM_LIST_LENGTH_FIELD", "ITEM_ID_FIELD")]


def _numbers(rows: Any, field: str) -> np.ndarray:
    numbers: np.ndarray = rows[field].cpu().numpy().astype(np.int64)
    return numbers
