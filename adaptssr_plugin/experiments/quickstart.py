"""The main job in one call: pre-train on ml-100k, fine-tune, and show what the pre-training bought."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..corpus import BehaviourCorpus
from ..methods import Recipe, recipe
from ..progress import Show
from ..recbole.compat.user_sequences import load_user_sequences
from ..recbole.user_model.finetune import profile_task
from ..recbole.user_model.pretrain import PretrainedModel, Source, fresh_encoder, pretrain, versions
from ..training.checkpoints import write_text
from .figures.similarity import similarity_distributions
from .figures.similarity_plot import draw_similarity
from .records import LSA, MAJORITY, TFIDF, WARM_UP, Record, write_records
from .seed_uncertainty import seed_uncertainty
from .tables import Table2, table_2
from .task_runs import Start, baseline_records, fine_tuning_records, test_counts

_DATASET = "ml-100k"  # ships inside the RecBole wheel: no network
_AGE_BINS = (18, 25, 35, 45, 50, 56)  # MovieLens' own age groups


@dataclass(frozen=True)
class Quickstart:
    """What the quickstart leaves behind.

    Attributes:
        table: in the form of the paper's Table 2.
        conclusions: what the seeds allow one to conclude, a sentence each.
        files: results, figure and model.
        seconds: wall-clock time.
    """

    table: Table2
    conclusions: list[str]
    files: list[Path]
    seconds: float


def quickstart(
    folder: str | Path,
    seeds: Sequence[int] = (0, 1, 2),
    options: dict[str, object] | None = None,
    show_progress: Show = True,
    say: Callable[[str], None] = print,
) -> Quickstart:
    """Masked items, then AdaptSSR, then gender, age and occupation from the model and from scratch.

    Args:
        folder: where all files go. A finished or interrupted pre-training in it is taken up again.
        seeds: of fine-tuning.
        options: of the recipe, over the preset ``quickstart``.
        show_progress: on standard error. True: bars on a terminal, elsewhere one line per epoch or run; ``"last"``:
            only the last line of each stage; False: nothing.
        say: takes lines of text.

    Raises:
        InputError: an option out of range; a folder that holds another run.
    """
    started = time.perf_counter()
    folder = Path(folder)
    plan = recipe("adaptssr", "quickstart", options)
    say(_departures(plan))
    source = Source(_DATASET)
    config = source.config(plan.max_len)
    corpus = load_user_sequences(config).corpus
    model = pretrain(source, plan, folder, show_progress)
    tasks = [
        profile_task(config, corpus, "gender"),
        profile_task(config, corpus, "age", _AGE_BINS),
        profile_task(config, corpus, "occupation"),
    ]
    records = list(baseline_records(_DATASET, corpus, tasks, plan))
    records += fine_tuning_records(_DATASET, config, corpus, tasks, _starts(model, plan), seeds, show_progress)
    table = table_2(records, rows=(MAJORITY, TFIDF, LSA, "None", WARM_UP, "AdaptSSR"), footer=_conditions(plan, seeds))
    conclusions = seed_uncertainty(records, test_counts(tasks, plan.split_seed))
    seconds = time.perf_counter() - started
    files = _write(folder, records, table, conclusions, seconds) + _figure_5(folder, plan, model, corpus)
    files += [folder / name for name in ("model.safetensors", "model.json", "items.json")]
    return Quickstart(table, conclusions, files, time.perf_counter() - started)


def _departures(plan: Recipe) -> str:
    """Say where the recipe departs from the paper's."""
    changed = [f"{name} {here} (paper {there})" for name, (there, here) in plan.departures().items()]
    return "Recipe of the quickstart, where it departs from the paper: " + ", ".join(changed) + "."


def _starts(model: PretrainedModel, plan: Recipe) -> list[Start]:
    """List the rows that are fine-tuned."""
    rows = [Start("none", None, plan)]
    if model.warm_up is not None:
        rows.append(Start(WARM_UP, model.warm_up, plan, model.stages[0].selected_epoch))
    return [*rows, Start("adaptssr", model.encoder, plan, model.stages[-1].selected_epoch)]


def _conditions(plan: Recipe, seeds: Sequence[int]) -> list[str]:
    return [
        f"ml-100k, 943 users split 6:2:2 (split seed {plan.split_seed}), last {plan.max_len} training items of each; "
        "AUC for gender, accuracy for the others, x 100;",
        f"mean±standard deviation over fine-tuning seeds {', '.join(map(str, seeds))}; one pre-training "
        f"(seed {plan.seed}); Impr against None.",
    ]


def _write(folder: Path, records: list[Record], table: Table2, conclusions: list[str], seconds: float) -> list[Path]:
    constants = {**versions(), "machine": f"{platform.machine()}, {os.cpu_count()} cores", "device": _device()}
    report = [table.markdown(), "", *(f"- {sentence}" for sentence in conclusions), "", f"{seconds:.0f} seconds"]
    texts = {"table.csv": table.csv(), "table.md": "\n".join(report) + "\n"}
    for name, text in texts.items():
        write_text(folder / name, text)
    return [write_records(folder / "records.csv", records, constants), *(folder / name for name in texts)]


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
