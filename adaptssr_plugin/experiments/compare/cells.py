"""The cells of the grid: on what each depends, and how it is computed."""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch

from ...corpus import BehaviourCorpus
from ...downstream import Task, plain_reidentification, reidentify
from ...downstream.splits import split_seeds
from ...encoders import UserEncoder
from ...errors import InputError
from ...methods import Recipe
from ...methods.options.encoder import EncoderOptions
from ...methods.registry import method_named
from ...recbole import Config
from ...recbole.compat.user_sequences import load_user_sequences
from ...recbole.user_model.finetune import fine_tune
from ...recbole.user_model.pretrain import Source, load_pretrained, pretrain, versions
from ..figures.similarity import similarity_distributions
from ..records import LSA, MAJORITY, POPULARITY, TFIDF
from ..task_runs import Start, baseline_records, fine_tuning_records
from ..task_tables import make_task
from .memory import watch_memory
from .plan import ComparePlan, TaskSpec

_NOT_IN_KEYS = {"preset"}  # the options of the preset are in the key
# RecBole's options that change nothing, or whose effect is in the fingerprint of the corpus.
_NOT_IN_SETTINGS = {"use_gpu", "gpu_id", "eval_args", "data_path", "load_col", "field_separator"}
DEFAULTS: dict[str, Any] = {one.name: one.default for one in dataclasses.fields(Recipe)}
_ENCODER = {one.name for one in dataclasses.fields(EncoderOptions)}
_OF_STAGES = {
    "item_init", "item_lr_share", "batch_size", "history", "valid_share", "stopping_step", "clip_grad_norm",
    "amp_dtype", "seed", "split_seed",
}  # fmt: skip


@dataclass(frozen=True)
class Data:
    """A plan's corpus, loaded once in a process."""

    config: Config
    corpus: BehaviourCorpus
    fingerprint: str


@lru_cache(maxsize=2)
def _load(dataset: str, options: str, max_len: int) -> Data:
    config = Source(dataset, json.loads(options)).config(max_len)
    corpus = load_user_sequences(config).corpus
    digest = hashlib.sha256()
    for array in (corpus.items, corpus.offsets):
        digest.update(array.tobytes())
    digest.update("\0".join(map(str, corpus.item_tokens)).encode())
    digest.update("\0".join(map(str, corpus.user_tokens)).encode())
    settings = {name: value for name, value in json.loads(options).items() if name not in _NOT_IN_SETTINGS}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return Data(config, corpus, digest.hexdigest()[:16])


def load_data(plan: ComparePlan) -> Data:
    """Load the corpus of a plan; errors as :func:`load_user_sequences`."""
    options = json.dumps(dict(plan.recbole), sort_keys=True, default=str)
    return _load(plan.dataset, options, plan.recipe("none", False).max_len)


def options_of(recipe: Recipe, fine_tuning: bool) -> dict[str, Any]:
    """Return the options with an effect that differ from the defaults, so that an option added later changes no key.

    Args:
        recipe: the recipe.
        fine_tuning: whether those of fine-tuning or all others.
    """
    left_out = _NOT_IN_KEYS | recipe.unused_in_fine_tuning()
    return {
        name: getattr(recipe, name)
        for name, default in DEFAULTS.items()
        if name not in left_out and getattr(recipe, name) != default and name.startswith("ft_") == fine_tuning
    }


class Cell:
    """One result: on what it depends, and how it is computed."""

    kind: str

    def spec(self) -> dict[str, Any]:
        """Everything on which the result depends besides the corpus, as plain values."""
        raise NotImplementedError

    def needs(self) -> "Pretraining | None":
        """Return the model that has to exist before."""
        return None

    def compute(self, plan: Any, models: Path) -> dict[str, Any]:
        """Compute the result, as plain values; models are in folders under ``models``."""
        raise NotImplementedError

    def device(self, plan: Any) -> torch.device:
        """Return where it is computed."""
        return torch.device(load_data(plan).config["device"])

    def key(self, fingerprint: str) -> str:
        """Hash everything on which the result depends."""
        return _key(self, fingerprint)


@lru_cache(maxsize=1 << 14)  # grids ask for the keys of all cells after every finished cell
def _key(cell: Cell, fingerprint: str) -> str:
    text = json.dumps({"corpus": fingerprint, "kind": cell.kind, **cell.spec()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Pretraining(Cell):
    """A pre-trained model. With ``warm_start: mlm`` the masked-item stage is a separate cell, shared by methods."""

    recipe: Recipe
    kind = "pretraining"

    def spec(self) -> dict[str, Any]:
        """The options of pre-training, including the seed."""
        return {"options": options_of(self.recipe, fine_tuning=False)}

    def needs(self) -> "Pretraining | None":
        """Return the shared warm-up, if there is one."""
        if self.recipe.warm_start != "mlm" or not self.recipe.epochs:
            return None
        return Pretraining(warm_up_of(self.recipe))

    def compute(self, plan: ComparePlan, models: Path) -> dict[str, Any]:
        """Pre-train; the result has the values for Table 3."""
        fingerprint = load_data(plan).fingerprint
        recipe, warm_up = self.recipe, self.needs()
        if warm_up is not None:
            start = str(models / warm_up.key(fingerprint))
            recipe = dataclasses.replace(recipe, warm_start=start, item_init="random")  # the start has an item table
            if method_named(recipe.method).needs_filler:
                # A finished model has no output bias, so the filler is the warm-up, trained a little longer.
                recipe = dataclasses.replace(recipe, mlm_epochs=math.ceil(recipe.mlm_epochs / 10), mlm_select="last")
        peak_mb = watch_memory(load_data(plan).config["device"])
        started = time.perf_counter()
        model = pretrain(plan.source(), recipe, models / self.key(fingerprint), show_progress=False)
        seconds = time.perf_counter() - started
        trained = round(len(load_data(plan).corpus) * (1 - recipe.valid_share))
        return {
            "seconds": seconds,
            "peak_memory_mb": peak_mb(),
            "users_trained_on": trained,
            "stages": [
                {
                    "name": stage.name,
                    "epochs": len(stage.history),
                    "selected_epoch": stage.selected_epoch,
                    "seconds": sum(epoch["seconds"] for epoch in stage.history),
                    "first": stage.history[0],
                    "last": stage.history[-1],
                    "selected": stage.history[stage.selected_epoch - 1],
                }
                for stage in model.stages
            ],
        }


@cache
def warm_up_of(recipe: Recipe) -> Recipe:
    """Return the recipe of the masked-item stage alone, without options that do not affect it."""
    kept = {
        name: getattr(recipe, name) for name in DEFAULTS if name.startswith("mlm_") or name in _ENCODER | _OF_STAGES
    }
    return Recipe(method="adaptssr", warm_start="mlm", epochs=0, **kept)


@dataclass(frozen=True)
class FineTuning(Cell):
    """One run of fine-tuning on a task."""

    start: Pretraining | None  # None: a random initialisation
    task: TaskSpec
    recipe: Recipe  # has the ``ft_`` options, sizes and split
    seed: int
    split: int = 0  # its number among repeated ones
    kind = "fine-tuning"

    def spec(self) -> dict[str, Any]:
        """The start's options, the task and the options of fine-tuning."""
        sizes = {
            name: value
            for name, value in options_of(self.recipe, fine_tuning=False).items()
            if name in _ENCODER | {"split_seed", "amp_dtype"}
        }
        return {
            "start": None if self.start is None else self.start.spec(),
            "task": dataclasses.asdict(self.task),
            "sizes": sizes,
            "options": options_of(self.recipe, fine_tuning=True),
            "seed": self.seed,
            **_split_of(self.split),
        }

    def needs(self) -> Pretraining | None:
        """Return the model."""
        return self.start

    def compute(self, plan: ComparePlan, models: Path) -> dict[str, Any]:
        """Fine-tune; returns all metrics of validation and test rows."""
        data = load_data(plan)
        encoder, epoch = _model_of(self.start, data, models)
        peak_mb = watch_memory(data.config["device"])
        task = task_of(plan, self.task, self.recipe)
        recipe = dataclasses.replace(self.recipe, split_seed=self.recipe.split_seed + self.split)
        done = fine_tune(data.config, data.corpus, task, recipe, self.seed, encoder)
        return {
            "valid": dict(done.valid_metrics),
            "test": dict(done.test_metrics),
            "best_epoch": done.best_epoch,
            "pretrain_epoch": epoch,
            "seconds": done.seconds,
            "peak_memory_mb": peak_mb(),
        }


@dataclass(frozen=True)
class Baselines(Cell):
    """The baselines without an encoder, on a task."""

    task: TaskSpec
    recipe: Recipe  # has the sizes and the split
    split: int = 0  # its number among repeated ones
    lsa: bool = False  # only LSA, which was added later, so that earlier results keep their keys; False: the others
    kind = "baselines"

    def spec(self) -> dict[str, Any]:
        """The task, its split and its input."""
        recipe = self.recipe
        splits = {"max_len": recipe.max_len, "split_seed": recipe.split_seed, "ties": recipe.ft_ties,
                  "unit": recipe.ft_split_unit}  # fmt: skip
        lsa = {"lsa": recipe.dim} if self.lsa else {}
        return {"task": dataclasses.asdict(self.task), "splits": splits, **_split_of(self.split), **lsa}

    def compute(self, plan: ComparePlan, models: Path) -> dict[str, Any]:  # noqa: ARG002 - as every cell's
        """Fit them; a record for every value."""
        started = time.perf_counter()
        data = load_data(plan)
        task = task_of(plan, self.task, self.recipe)
        splits = [self.recipe.split_seed + self.split]
        methods = (LSA,) if self.lsa else (MAJORITY, TFIDF, POPULARITY)
        records = list(baseline_records(plan.name, data.corpus, [task], self.recipe, splits, methods=methods))
        return {
            "records": [dataclasses.asdict(one) for one in records],
            "size": task.size,
            "rows": len(task),
            "metric": task.metric_name,
            "name": task.name,
            "seconds": time.perf_counter() - started,
        }


@dataclass(frozen=True)
class LabelCurve(Cell):
    """Linear reading of one encoder's vectors, or the baselines, by number of training labels, over all splits."""

    start: Pretraining | None  # None: a random initialisation
    task: TaskSpec
    recipe: Recipe  # has sizes, split and the name of the row
    seed: int  # of the random initialisation
    labels: tuple[int | None, ...]  # numbers of labels; None: all
    splits: int
    plain: bool = False  # the baselines, instead of an encoder
    kind = "label-curve"

    def spec(self) -> dict[str, Any]:
        """The start, the task, sizes, splits and numbers of labels."""
        return {
            "start": None if self.start is None else self.start.spec(),
            "task": dataclasses.asdict(self.task),
            "sizes": {name: getattr(self.recipe, name) for name in sorted(_ENCODER | {"split_seed"})},
            "seed": self.seed,
            "labels": list(self.labels),
            "splits": self.splits,
            "plain": self.plain,
        }

    def needs(self) -> Pretraining | None:
        """Return the model."""
        return self.start

    def compute(self, plan: ComparePlan, models: Path) -> dict[str, Any]:
        """Read the vectors; a record for every value."""
        started = time.perf_counter()
        data = load_data(plan)
        task = task_of(plan, self.task, self.recipe)
        n_train = len(task.parts(self.recipe).train.rows)
        splits = split_seeds(self.recipe.split_seed, self.splits)
        labels = [count for count in self.labels if count is None or count < n_train]
        if self.plain:
            records = baseline_records(plan.name, data.corpus, [task], self.recipe, splits, labels)
        else:
            encoder, epoch = _model_of(self.start, data, models)
            recipe = dataclasses.replace(self.recipe, ft_tune="linear")
            start = Start(recipe.method, encoder, recipe, epoch)
            seeds = [self.seed]
            records = fine_tuning_records(
                plan.name, data.config, data.corpus, [task], [start], seeds, False, splits, labels
            )
        found = [dataclasses.asdict(one) for one in records]
        return {"records": found, "n_train": n_train, "seconds": time.perf_counter() - started}


def _split_of(number: int) -> dict[str, int]:
    """Return the part of a cell's key for the split; empty for the first one, as when there was only one."""
    return {"split": number} if number else {}


def _model_of(start: Pretraining | None, data: Data, models: Path) -> tuple[UserEncoder | None, int | None]:
    if start is None:
        return None, None
    model = load_pretrained(models / start.key(data.fingerprint))
    return model.encoder, model.stages[-1].selected_epoch if model.stages else None


@dataclass(frozen=True)
class _OfModel(Cell):
    """A result of a model, and of nothing else."""

    start: Pretraining

    def spec(self) -> dict[str, Any]:
        """The model's options."""
        return {"start": self.start.spec()}

    def needs(self) -> Pretraining | None:
        """Return the model."""
        return self.start

    def compute(self, plan: ComparePlan, models: Path) -> dict[str, Any]:
        """Measure the model and the time that this takes."""
        started = time.perf_counter()
        data = load_data(plan)
        found = self.measure(load_pretrained(models / self.start.key(data.fingerprint)).encoder, data)
        return {**found, "seconds": time.perf_counter() - started}

    def measure(self, encoder: UserEncoder, data: Data) -> dict[str, Any]:
        """Compute the result, as plain values."""
        raise NotImplementedError


@dataclass(frozen=True)
class Similarities(_OfModel):
    """The samples of Figure 5 for a model."""

    kind = "similarities"

    def measure(self, encoder: UserEncoder, data: Data) -> dict[str, Any]:
        """Sample; values have four decimals, finer than the grid of the figure."""
        recipe = self.start.recipe
        found = similarity_distributions(encoder, data.corpus, seed=recipe.seed, max_len=recipe.max_len)
        samples = {name: [round(float(value), 4) for value in sample] for name, sample in found.curves.items()}
        return {"samples": samples, "mask_ratio": found.mask_ratio, "crop_ratio": found.crop_ratio}


@dataclass(frozen=True)
class Reidentification(_OfModel):
    """Re-identification of users by a model that was trained on the older halves alone."""

    kind = "re-identification"

    def measure(self, encoder: UserEncoder, data: Data) -> dict[str, Any]:
        """Return the metrics."""
        max_len, device = self.start.recipe.max_len, data.config["device"]
        return {"metrics": reidentify(encoder, *data.corpus.halves(), max_len, device=device)}


@dataclass(frozen=True)
class PlainReidentification(Cell):
    """Re-identification by baselines without an encoder."""

    max_len: int
    dim: int
    kind = "plain re-identification"

    def spec(self) -> dict[str, Any]:
        """How much of a half is read, and the length of LSA's vectors."""
        return {"max_len": self.max_len, "dim": self.dim}

    def compute(self, plan: ComparePlan, models: Path) -> dict[str, Any]:  # noqa: ARG002 - as every cell's
        """Return the metrics by row."""
        started = time.perf_counter()
        found = plain_reidentification(*load_data(plan).corpus.halves(), self.max_len, self.dim)
        return {"metrics": found, "seconds": time.perf_counter() - started}


_tasks: dict[Any, Task] = {}


def task_of(plan: ComparePlan, spec: TaskSpec, recipe: Recipe) -> Task:
    """Make a task, once per process; the file of ``cold:FILE`` may be beside the dataset's.

    Raises:
        InputError: as :func:`make_task`.
    """
    data = load_data(plan)
    key = data.fingerprint, spec, recipe.max_len, recipe.split_seed
    if key not in _tasks:
        form, colon, rest = spec.word.partition(":")
        beside = form == "cold" and colon and not Path(rest).is_file()
        word = f"cold:{Path(plan.dataset) / rest}" if beside else spec.word
        _tasks[key] = make_task(word, data.config, data.corpus, recipe, spec.bins)
    return _tasks[key]


def task_hashes(plan: ComparePlan) -> dict[str, str]:
    """Hash the rows and labels of every task of a plan, and what is read of its inputs; by the task as JSON."""
    found = {}
    reference = plan.recipe("none", False)
    for spec in plan.tasks:
        task = task_of(plan, spec, reference)
        inputs = () if task.inputs is None else (task.inputs.items, task.inputs.offsets)
        digest = hashlib.sha256()
        for array in (*itertools.chain(*task.parts(reference)), *inputs):
            digest.update(array.tobytes())
        found[json.dumps(dataclasses.asdict(spec), sort_keys=True)] = digest.hexdigest()[:16]
    return found


def conditions(device: torch.device) -> Mapping[str, Any]:
    """Where, and with which software, a result is computed."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def check_ready(plan: ComparePlan) -> None:
    """Load the corpus and make every task, so that a wrong plan is refused before anything is trained.

    Raises:
        InputError: an error in data or tasks.
    """
    reference = plan.recipe("none", False)
    names = [task_of(plan, spec, reference).name for spec in plan.tasks]
    if len(set(names)) != len(names):
        raise InputError(f"tasks: expected different names, got {', '.join(names)}")
