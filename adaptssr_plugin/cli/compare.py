"""``adaptssr compare``: pre-training methods in the paper's tables and figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import InputError
from .options import PATH, comparison_options, how_to_run, recbole_options, show_results


@click.command(short_help="Compare methods: the paper's tables and figures.")
@click.argument("plan", required=False, metavar="[PLAN]")
@click.option("--smoke", is_flag=True, help="The packaged plan smoke with every table and figure; takes minutes.")
@click.option("--output", type=PATH, default=Path("adaptssr-compare"), show_default=True, help="Folder for results.")
@click.option("--dataset", metavar="NAME|FOLDER", help="Where the plan's dataset is.")
@click.option(
    "--table",
    "tables",
    multiple=True,
    type=click.Choice(["paper", "controlled", "linear", "reidentification", "none"]),
    help="Tables to compute; may be repeated. Default: paper and controlled.",
)
@click.option(
    "--figure",
    "figures",
    multiple=True,
    type=click.Choice(["3", "4", "5", "7"]),
    help="Figures to draw; may be repeated.",
)
@click.option("--variants", is_flag=True, help="A table of the plan's variants of AdaptSSR, on validation rows.")
@click.option("--method", "methods", multiple=True, help="Methods, instead of the plan's; may be repeated.")
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="Fine-tuning runs per row, instead of the plan's.")
@click.option(
    "--splits", type=click.IntRange(1), metavar="N", help="Random splits of a task's rows, instead of the plan's."
)
@click.option(
    "--pretrain-seeds", type=click.IntRange(1), metavar="N", help="Pre-training runs per row, instead of the plan's."
)
@comparison_options("cells")
def compare(
    plan: str | None,
    smoke: bool,
    output: Path,
    dataset: str | None,
    tables: Sequence[str],
    figures: Sequence[str],
    variants: bool,
    methods: Sequence[str],
    seeds: int | None,
    splits: int | None,
    pretrain_seeds: int | None,
    pairs: tuple[str, ...],
    **running: Any,
) -> None:
    """Compare pre-training methods: the paper's Tables 2 and 3, Table 2 controlled, and Figures 3, 4, 5 and 7.

    PLAN is a packaged plan (ml-100k, tenrec-qba, ...) or a YAML file: corpus, tasks, methods, options and seeds. Every
    pre-training and every run of fine-tuning is a cell, a line in cells.jsonl of the output folder. An interrupted run
    resumes from there. After a change of the plan only the affected cells are computed again.

    In the controlled comparison all methods have the same start and the same epochs. Temperature and augmentation
    strength of contrastive methods are chosen on validation rows. On several machines: --part 1/3, 2/3 and 3/3, then
    concatenate their cells.jsonl in one folder and give the command once more.

    --table linear is the controlled comparison by logistic regression on frozen vectors, over eight random splits.
    --table reidentification needs no labels: every method is pre-trained on the older half of every history, and its
    vector of each newer half has to find the older half of the same user. Beside these two tables, --figure 3 shows
    the same measure over augmentation strengths.

    \b
    adaptssr compare --smoke
    adaptssr compare ml-100k --output results --jobs 2
    adaptssr compare tenrec-qba --dataset path/to/tenrec-qba --output results \\
        --table controlled --figure 3
    adaptssr compare ml-100k --output results --table reidentification \\
        --pretrain-seeds 5
    """  # noqa: D301
    from ..experiments.compare import compare as run
    from ..experiments.compare import read_plan
    from ..experiments.compare.report import OF_TASKS, TABLES

    if smoke == (plan is not None):
        raise InputError(
            "plan: expected a plan or --smoke, and not both" if smoke else "plan: expected a plan, got none"
        )
    changes: dict[str, Any] = {
        "dataset": dataset,
        "methods": list(methods) or None,
        "seeds": seeds,
        "splits": splits,
        "pretrain_seeds": pretrain_seeds,
    }
    chosen = read_plan(plan or "smoke", changes, recbole_options(pairs))
    wanted = tables or (TABLES if smoke else OF_TASKS)
    names = [name for name in TABLES if name in wanted]
    numbers = (3, 4, 5, 7) if smoke and not figures else tuple(int(number) for number in figures)
    done = run(chosen, output, names, numbers, variants=variants or smoke, **how_to_run(**running))
    show_results(done, "cells")
