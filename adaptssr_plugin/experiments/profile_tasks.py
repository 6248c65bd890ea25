"""``adaptssr finetune``: profile tasks from a model in a folder, as one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..methods import recipe
from ..recbole.finetune import check_same_items, profile_task
from ..recbole.pretrain import Source, load_pretrained, versions
from ..recbole.user_sequences import load_user_sequences
from ..training import load_artefact
from ..training.checkpoints import write_text
from .profile_runs import Start, baseline_records, fine_tuning_records, test_counts
from .records import paper_name, write_records
from .spread import what_the_spread_allows
from .tables import Table2, table_2


@dataclass(frozen=True)
class ProfileResults:
    """A table, what its spread allows to conclude, and the files written."""

    table: Table2
    conclusions: list[str]
    files: list[Path]


def finetune(
    folder: Path,
    fields: Sequence[str],
    bins: Sequence[float] | None,
    seeds: Sequence[int],
    scratch: bool,
    baselines: bool,
    options: Mapping[str, Any],
    show_progress: bool = True,
) -> ProfileResults:
    """Fine-tune the model in ``folder`` on columns of its dataset's ``.user`` file.

    Args:
        folder: of a finished pre-training.
        fields: columns; a column may be given once.
        bins: lower bounds that turn numbers into classes; for all ``fields``.
        seeds: of fine-tuning.
        scratch: also from a random initialisation, the row None.
        baselines: also the majority class and TF-IDF with logistic regression.
        options: ``ft_`` options over those that the model was made with.
        show_progress: a progress bar over all runs.

    Raises:
        InputError: a folder without a model, an unknown column, a dataset with other items.
    """
    if len(set(fields)) != len(fields):
        raise InputError(f"task: expected different columns, got {', '.join(fields)}")
    artefact, model = load_artefact(folder), load_pretrained(folder)
    card = artefact.card
    try:
        plan = recipe(card["recipe"]["method"], card["recipe"]["preset"], {**card["recipe"], **options})
        source = Source(card["dataset"], card["recbole_options"], card["recbole_config_files"])
    except (KeyError, TypeError):
        raise InputError(f"model: expected one from adaptssr pretrain, got another model.json in {folder}") from None
    config = source.config(plan.max_len)
    corpus = load_user_sequences(config).corpus
    check_same_items(model, artefact.item_tokens.tolist(), corpus)
    tasks = [profile_task(config, corpus, field, bins) for field in fields]

    epoch = model.stages[-1].selected_epoch if model.stages else None
    starts = [Start("none", None, plan)] if scratch or plan.method == "none" else []
    if plan.method != "none":
        starts.append(Start(plan.method, model.encoder, plan, epoch))
    records = list(baseline_records(source.name, corpus, tasks, plan.max_len, plan.split_seed)) if baselines else []
    records += fine_tuning_records(source.name, config, corpus, tasks, starts, seeds, show_progress)
    footer = [
        f"{source.name}: {', '.join(f'{len(task)} users with {task.name}' for task in tasks)}; split 6:2:2 "
        f"(split seed {plan.split_seed}), last {plan.max_len} training items; {len(seeds)} seeds; x 100.",
    ]
    rows = list(dict.fromkeys(paper_name(record.method) for record in records))
    table = table_2(records, rows=rows, footer=footer)
    conclusions: list[str] = []
    if scratch and len(starts) > 1 and len(seeds) > 1 and plan.ft_tune == "all":
        conclusions = what_the_spread_allows(records, test_counts(tasks, plan.split_seed), method=plan.method)
    stem = f"finetune-{'-'.join(fields)}" + ("" if plan.ft_tune == "all" else f"-{plan.ft_tune}")
    path = write_records(folder / f"{stem}.csv", records, versions())
    table_path = folder / f"{stem}.md"
    write_text(table_path, table.markdown() + "\n")
    return ProfileResults(table, conclusions, [path, table_path])
