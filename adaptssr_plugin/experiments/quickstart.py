"""The quickstart: pre-train on ml-100k, and measure user vectors before and after it."""

import dataclasses
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ..corpus import BehaviourCorpus
from ..downstream import ProfileTask
from ..downstream.splits import split_seeds
from ..encoders import UserEncoder
from ..errors import check_count
from ..methods import Recipe, recipe
from ..progress import Show
from ..recbole import Config
from ..recbole.compat.user_sequences import load_user_sequences
from ..recbole.user_model.finetune import profile_task
from ..recbole.user_model.pretrain import PretrainedModel, Source, fresh_encoder, pretrain, versions
from ..recbole.user_model.stages import untrained_encoder
from ..training.checkpoints import write_text
from .figures.similarity import similarity_distributions
from .figures.similarity_plot import draw_similarity
from .records import LSA, MAJORITY, SVD_START, TFIDF, WARM_UP, Record, write_records
from .reidentification import reidentification_table
from .tables import Table2, best_baseline_footer, table_2
from .task_runs import Start, baseline_records, fine_tuning_records
from .task_tables import LINEAR, splits_shown

_DATASET = "ml-100k"  # ships with RecBole: no network needed
_AGE_BINS = (18, 25, 35, 45, 50, 56)  # MovieLens' own age groups
_SOURCE = {"eval_args": {"split": {"RS": [1.0, 0.0, 0.0]}, "group_by": "user", "order": "TO", "mode": "full"}}


def quickstart(
    folder: str | Path,
    splits: int = 8,
    options: dict[str, object] | None = None,
    show_progress: Show = True,
    say: Callable[[str], None] = print,
) -> tuple[list[Path], float]:
    """Pre-train with the preset ``recommended`` on the older halves of histories, and measure user vectors.

    A finished or interrupted pre-training in the folder is resumed. ``splits`` are those of the users for linear
    reading; ``options`` override the preset and the settings that keep the run short; ``say`` takes lines of text.

    Returns:
        The files of results, figure and model, and the wall-clock time in seconds.

    Raises:
        InputError: an option out of range; a folder that holds another run.
    """
    started = time.perf_counter()
    check_count("splits", splits)
    folder = Path(folder)
    # One model, which has seen older halves alone, serves every table.
    plan = recipe("adaptssr", "recommended", {"history": "older", **(options or {})})
    say(_departures(plan))
    source = Source(_DATASET, _SOURCE)
    config = source.config(plan.max_len)
    corpus = load_user_sequences(config).corpus
    tasks = [profile_task(config, corpus, "gender"), profile_task(config, corpus, "age", _AGE_BINS)]
    model = pretrain(source, plan, folder, show_progress)
    halves = corpus.halves()
    encoders = {SVD_START: untrained_encoder(plan, halves[0]), WARM_UP: model.warm_up, "adaptssr": model.encoder}
    rows = {name: encoder for name, encoder in encoders.items() if encoder is not None}
    measured = {
        "linear": _linear(config, corpus, tasks, plan, rows, splits, show_progress),
        "reidentification": reidentification_table(_DATASET, corpus, halves, plan, rows),
        "fine-tuned": _fine_tuned(config, corpus, tasks[0], plan, model, show_progress),
    }
    for _, table in measured.values():
        say(f"\n{table.text()}")
    files = _write(folder, measured, time.perf_counter() - started)
    files += _figure_5(folder, plan, model, corpus)
    files += [folder / name for name in ("model.safetensors", "model.json", "items.json")]
    return files, time.perf_counter() - started


def _departures(plan: Recipe) -> str:
    """Say where the recipe differs from that of the preset ``paper``, whose values are not all the paper's."""
    changed = [f"{name} {here} (paper {there})" for name, (there, here) in plan.departures().items()]
    return "Recipe of the quickstart, where it departs from the preset paper: " + ", ".join(changed) + "."


def _linear(
    config: Config,
    corpus: BehaviourCorpus,
    tasks: Sequence[ProfileTask],
    plan: Recipe,
    encoders: Mapping[str, UserEncoder],
    splits: int,
    show_progress: Show,
) -> tuple[list[Record], Table2]:
    """Read profiles linearly from frozen vectors, beside word counts and LSA."""
    reading, seeds = dataclasses.replace(plan, ft_tune="linear"), split_seeds(plan.split_seed, splits)
    records = list(baseline_records(_DATASET, corpus, tasks, reading, seeds))
    starts = [Start("none", None, reading), *(Start(name, encoder, reading) for name, encoder in encoders.items())]
    records += fine_tuning_records(_DATASET, config, corpus, tasks, starts, (plan.seed,), show_progress, seeds)
    names = ("None", *encoders)
    footer = [
        f"ml-100k, 943 users split 6:2:2 ({splits_shown(plan.split_seed, splits)}), newest {plan.max_len} items; AUC "
        f"for gender, accuracy for age, x 100; mean±standard deviation over splits; one pre-training (seed "
        f"{plan.seed}), which has seen the older half of every history; Impr against None, the encoder from random "
        f"weights.",
        LINEAR,
        *best_baseline_footer(records, among=names),
    ]
    return records, table_2(records, (MAJORITY, TFIDF, LSA, *names), footer)


def _fine_tuned(
    config: Config,
    corpus: BehaviourCorpus,
    task: ProfileTask,
    plan: Recipe,
    model: PretrainedModel,
    show_progress: Show,
) -> tuple[list[Record], Table2]:
    """Train all weights on one task, from scratch and from the model."""
    starts = [Start("none", None, plan), Start("adaptssr", model.encoder, plan)]
    records = list(fine_tuning_records(_DATASET, config, corpus, [task], starts, (0, 1), show_progress))
    footer = [f"All weights fine-tuned, {plan.ft_epochs} epochs; first split, two seeds; x 100; Impr against None."]
    return records, table_2(records, ("None", "adaptssr"), footer)


def _write(folder: Path, measured: Mapping[str, tuple[list[Record], Table2]], seconds: float) -> list[Path]:
    constants = {**versions(), "machine": f"{platform.machine()}, {os.cpu_count()} cores", "device": _device()}
    files = []
    for name, (records, table) in measured.items():
        files += [write_records(folder / f"records-{name}.csv", records, constants), folder / f"{name}.csv"]
        write_text(files[-1], table.csv())
    pages = "\n\n".join(table.markdown() for _, table in measured.values())
    write_text(folder / "tables.md", f"{pages}\n\n{seconds:.0f} seconds\n")
    return [*files, folder / "tables.md"]


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"


def _figure_5(folder: Path, plan: Recipe, model: PretrainedModel, corpus: BehaviourCorpus) -> list[Path]:
    """Draw the paper's Figure 5 for the pre-trained and the untrained encoder."""
    encoders = {
        "None (random initialisation)": fresh_encoder(plan, corpus.n_items, plan.dropout, plan.seed),
        "AdaptSSR (pre-trained)": model.encoder,
    }
    panels = {
        title: similarity_distributions(encoder, corpus, seed=plan.seed, max_len=plan.max_len)
        for title, encoder in encoders.items()
    }
    return draw_similarity(panels, folder / "similarity", corpus=f"ml-100k, last {plan.max_len} behaviours")
