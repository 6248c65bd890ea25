"""``adaptssr finetune``: tasks of any form from a model in a folder, as one table."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from ..corpus import BehaviourCorpus
from ..downstream import ProfileTask, Task, cold_task, conversion_task, read_cold_rows
from ..downstream.splits import split_seeds
from ..downstream.tasks.inputs import renumbered
from ..errors import InputError
from ..methods import Recipe
from ..progress import Show
from ..recbole import Config
from ..recbole.user_model.finetune import profile_task, whole_histories
from ..recbole.user_model.pretrain import versions
from ..training.checkpoints import write_text
from .label_curve import HOW, curves_text, label_curves, write_label_curves
from .opened import open_pretrained
from .records import Record, paper_name, write_records
from .seed_uncertainty import seed_uncertainty
from .tables import Table2, table_2
from .task_runs import Start, baseline_records, fine_tuning_records, test_counts

_FORMS = {"cold": "the path of a file of pairs behind it", "convert": "an item behind it"}


@dataclass(frozen=True)
class TaskResults:
    """A table, the conclusions that its seeds allow, the files written, and the curve over labels as text."""

    table: Table2
    conclusions: list[str]
    files: list[Path]
    curve: str = ""


def finetune(
    folder: Path,
    words: Sequence[str],
    bins: Sequence[float] | None,
    seeds: Sequence[int],
    scratch: bool,
    baselines: bool,
    options: Mapping[str, Any],
    show_progress: Show = True,
    dataset: str | None = None,
    n_splits: int = 1,
    labels: Sequence[int | None] = (),
) -> TaskResults:
    """Fine-tune the model in ``folder`` on tasks over its dataset.

    Args:
        folder: of a finished pre-training.
        words: tasks as :func:`make_task` reads them; each may be given once.
        bins: lower bounds that turn numbers into classes; for all columns among the tasks.
        seeds: of fine-tuning.
        scratch: also from a random initialisation, the row None.
        baselines: also baselines without an encoder, see :func:`baseline_records`.
        options: ``ft_`` options; override those of the model.
        show_progress: as for :func:`~.task_runs.fine_tuning_records`.
        dataset: where the dataset of the pre-training is now; None: where it was.
        n_splits: random splits of each task's rows; the first is that of the model's ``split_seed``.
        labels: numbers of training labels for a curve, None for all of them; empty: no curve.

    Raises:
        MissingDatasetError: no dataset.
        InputError: a folder without a model, an unknown column or item, a file that cannot be read, a dataset with
            other items.
        OSError: results that cannot be written into the folder; nothing is trained then.
    """
    if len(set(words)) != len(words):
        raise InputError(f"task: expected different columns, got {', '.join(words)}")
    opened = open_pretrained(folder, options, dataset)
    model, plan, source = opened.model, opened.recipe, opened.source
    config, corpus = opened.config, opened.corpus
    tasks = [make_task(word, config, corpus, plan, bins) for word in words]
    if len({task.name for task in tasks}) != len(tasks):
        raise InputError(f"task: expected tasks of different names, got {', '.join(task.name for task in tasks)}")

    names = "-".join(re.sub(r"[^\w.]+", "-", task.name) for task in tasks)
    stem = f"finetune-{names}" + ("" if plan.ft_tune == "all" else f"-{plan.ft_tune}")
    with NamedTemporaryFile(prefix=f".{stem}-labels-records.csv.", dir=folder):
        pass  # a folder or a name that cannot be written to is reported now, and not when training is over

    epoch = model.stages[-1].selected_epoch if model.stages else None
    starts = [Start("none", None, plan)] if scratch or plan.method == "none" else []
    if plan.method != "none":
        starts.append(Start(plan.method, model.encoder, plan, epoch))
    splits = split_seeds(plan.split_seed, n_splits)
    n_train = {task.name: len(task.parts(plan).train.rows) for task in tasks}

    def measured(some: Sequence[Task], counts: Sequence[int | None]) -> list[Record]:
        plain = baseline_records(source.name, corpus, some, plan, splits, counts) if baselines else ()
        tuned = fine_tuning_records(source.name, config, corpus, some, starts, seeds, show_progress, splits, counts)
        return [*plain, *tuned]

    records = measured(tasks, [None])
    shown = _chosen_by(tasks, records)
    rows = list(dict.fromkeys(paper_name(record.method) for record in shown))
    table = table_2(shown, rows=rows, footer=_footer(source.name, tasks, plan, len(seeds), n_splits))
    conclusions: list[str] = []
    profiles = [task for task in tasks if isinstance(task, ProfileTask)]
    told_apart = n_splits > 1 or (len(seeds) > 1 and plan.ft_tune != "linear")
    if profiles and scratch and len(starts) > 1 and told_apart and plan.ft_tune in ("all", "linear"):
        of_profiles = _chosen_by(profiles, records)
        conclusions = seed_uncertainty(of_profiles, test_counts(profiles, plan.split_seed), method=plan.method)
    path = write_records(folder / f"{stem}.csv", records, versions())
    table_path = folder / f"{stem}.md"
    write_text(table_path, table.markdown() + "\n")
    files = [path, table_path]
    if not labels:
        return TaskResults(table, conclusions, files)
    few = [one for task in tasks for one in measured([task], [n for n in labels if n and n < n_train[task.name]])]
    of_curve = few + (records if None in labels else [])
    curves = label_curves(_chosen_by(tasks, of_curve), n_train)
    below = [*_footer(source.name, tasks, plan, len(seeds), n_splits), HOW]
    runs = f"{source.name}, {n_splits} {'split' if n_splits == 1 else 'splits'}, mean ± std"
    files += [
        write_records(folder / f"{stem}-labels-records.csv", of_curve, versions()),
        *write_label_curves(curves, folder / f"{stem}-labels", conditions=runs, footer=below),
    ]
    return TaskResults(table, conclusions, files, curves_text(curves, below))


def make_task(
    word: str, config: Config, corpus: BehaviourCorpus, plan: Recipe, bins: Sequence[float] | None = None
) -> Task:
    """Make a task from its name on the command line.

    Args:
        word: a column of the dataset's ``.user`` file; ``cold:FILE``, cold recommendation from a file that
            :func:`read_cold_rows` reads; or ``convert:ITEM``, whether a user comes to an item, by its token.
        config: of the dataset.
        corpus: the behaviours of the pre-training. Tasks whose inputs end at some moment take them from the whole
            ``.inter`` file, including held-out behaviours, and leave out items that the model does not know.
        plan: has the length of inputs, and the seed of random choices.
        bins: for columns of numbers.

    Raises:
        InputError: another form, or an error in a column, a file or an item.
    """
    form, colon, rest = word.partition(":")
    if not colon:
        return profile_task(config, corpus, word, bins)
    if form not in _FORMS:
        raise InputError(f"task: expected a column of the .user file, cold:FILE or convert:ITEM, got {word!r}")
    if not rest:
        raise InputError(f"task: expected {_FORMS[form]}, got {word!r}")
    if form == "convert":
        histories, _ = renumbered(whole_histories(config), corpus.item_tokens)
        return conversion_task(histories, rest, plan.max_len, plan.split_seed)
    rows = read_cold_rows(Path(rest))
    if rows.lengths is None:
        return cold_task(Path(rest).stem, rows, corpus)
    return cold_task(Path(rest).stem, rows, whole_histories(config), corpus.item_tokens)


LINEAR = (
    "Nothing is fine-tuned: logistic regression reads the standardised vectors of the encoder as it is; the "
    "cross-entropy of validation rows chooses its penalty."
)


def splits_shown(split_seed: int, n_splits: int) -> str:
    """Name the random splits of a table."""
    if n_splits == 1:
        return f"split seed {split_seed}"
    return f"{n_splits} random splits, seeds {split_seed} to {split_seed + n_splits - 1}"


def _chosen_by(tasks: Sequence[Task], records: Sequence[Record]) -> list[Record]:
    """Keep the metric by which each task's epochs are chosen: the table has one column per task."""
    metric_of = {task.name: task.metric_name for task in tasks}
    return [record for record in records if metric_of.get(record.task) == record.metric]


def _footer(dataset: str, tasks: Sequence[Task], plan: Recipe, n_seeds: int, n_splits: int) -> list[str]:
    """Describe the data of the measurement."""
    whole = all(task.inputs is None for task in tasks)
    items = f"last {plan.max_len} training items" if whole else f"last {plan.max_len} items of each input"
    linear = plan.ft_tune == "linear"
    runs = "1 seed" if n_seeds == 1 else f"{n_seeds} seeds"
    runs += (" from scratch" if linear else "") + (" on each split" if n_splits > 1 else "")
    lines = [
        f"{dataset}: {', '.join(task.size for task in tasks)}; split 6:2:2 "
        f"({splits_shown(plan.split_seed, n_splits)}), {items}; mean±standard deviation, {runs}; x 100.",
    ]
    if linear:
        lines.append(LINEAR)
    if any(task.name.startswith("convert:") for task in tasks):
        lines.append("Conversion: the pre-training has seen whole histories, the item and what came after it included.")
    return lines
