"""A small real slice of ml-100k, and runs of RecBole on it, for the tests of its entry points."""

import contextlib
import functools
import importlib
import logging
from pathlib import Path

import pandas as pd
import recbole
import torch

from adaptssr_plugin.recbole import compat_patches, import_quick_start
from adaptssr_plugin.recbole.compat.patches import temporary_attribute

ML_100K = Path(recbole.__file__).parent / "dataset_example" / "ml-100k" / "ml-100k.inter"
USERS, NEWEST = 60, 20
SMALL = {
    "data_path": ".",
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "epochs": 2,
    "MAX_ITEM_LIST_LENGTH": 10,
    "hidden_size": 16,
    "inner_size": 16,
    "n_layers": 1,
    "n_heads": 2,
    "embedding_size": 16,
    "train_batch_size": 256,
    "eval_batch_size": 256,
    "topk": [5],
    "metrics": ["Recall", "NDCG"],
    "valid_metric": "NDCG@5",
    "show_progress": False,
    "state": "error",
    "use_gpu": False,
}


@functools.cache
def _interactions():
    return pd.read_csv(ML_100K, sep="\t").sort_values("timestamp:float", kind="stable")


def write_slice(folder: Path, users: int = USERS, newest: int = NEWEST, first: int = 1) -> Path:
    """Write the newest interactions of some of the first users of ml-100k as an atomic file into a folder."""
    rows = _interactions()
    rows = rows[rows["user_id:token"].between(first, first + users - 1)]
    rows = rows.groupby("user_id:token").tail(newest)
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_csv(folder / f"{folder.name}.inter", sep="\t", index=False)
    return folder


@contextlib.contextmanager
def quiet_root():
    """Take the handlers out again that RecBole's own functions leave with the root logger, and pytest's meanwhile."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    root.handlers[:] = []
    try:
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = before
        root.setLevel(level)


@contextlib.contextmanager
def watched(owner: type, found: list):
    """Collect the trainers of a class, RecBole's or ours, that train within."""

    def fit(trainer, *arguments, **options):
        found.append(trainer)
        return own(trainer, *arguments, **options)

    own = owner.fit
    with temporary_attribute(owner, "fit", fit):
        yield


def stock_run(model, options, dataset="slice"):
    """Run RecBole as it is, but for what it needs to start: the result and the trainer."""
    from recbole.trainer import Trainer

    import_quick_start()
    quick_start = importlib.import_module("recbole.quick_start.quick_start")
    load = torch.load
    trainers = []
    # For its own checkpoint, just written, whose pickled Config needs it.
    executing = temporary_attribute(torch, "load", lambda *a, **k: load(*a, **{**k, "weights_only": False}))
    with compat_patches(), quiet_root(), watched(Trainer, trainers), executing:
        result = quick_start.run_recbole(model, dataset, config_dict={**SMALL, **options})
    return result, trainers[0]


def our_run(model, options, dataset="slice", **arguments):
    """Run ours: the result and the trainer."""
    from adaptssr_plugin.recbole import run_recbole
    from adaptssr_plugin.recbole.recommender.trainer import RecommenderTrainer

    trainers = []
    with watched(RecommenderTrainer, trainers):
        result = run_recbole(model, dataset, config_dict={**SMALL, **options}, **arguments)
    return result, trainers[0]


def same_weights(a, b):
    """Whether two models are bit for bit the same."""
    first, second = a.state_dict(), b.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)
