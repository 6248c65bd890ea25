"""``adaptssr compare-losses``: RecBole models with and without a self-supervised loss."""

from pathlib import Path
from typing import Any

import click

from ..errors import InputError
from .options import PATH, comparison_options, how_to_run, names, numbers, recbole_options, show_results


@click.command("compare-losses", short_help="Compare RecBole models with and without ssl_loss.")
@click.argument("plan", required=False, metavar="[PLAN]")
@click.option("--output", type=PATH, default=Path("adaptssr-losses"), show_default=True, help="Folder for results.")
@click.option("--dataset", metavar="NAME|FOLDER", help="Where the data are, instead of the plan's.")
@click.option("--models", metavar="NAME,NAME", help="Models, instead of the plan's; SASRec without a plan.")
@click.option("--shares", metavar="X,X", help="Shares of the training users, e.g. 0.1,1, instead of the plan's.")
@click.option("--item-inits", metavar="NAME,NAME", help="Item embeddings: random, svd, instead of the plan's.")
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="Runs per row, instead of the plan's.")
@comparison_options("runs")
def compare_losses(
    plan: str | None,
    output: Path,
    dataset: str | None,
    models: str | None,
    shares: str | None,
    item_inits: str | None,
    seeds: int | None,
    pairs: tuple[str, ...],
    **running: Any,
) -> None:
    """Does ssl_loss help a recommender, on your data? RecBole models with and without it, tested over users.

    PLAN is a packaged plan (ml-100k, beauty) or a YAML file: dataset, models, losses, initial item embeddings, values
    to choose from, shares of the users, seeds. Without a plan, --dataset is compared with the defaults. Weight,
    temperature and scale are chosen on validation rows. Each model is then trained under every loss with the same
    seeds, and NDCG@10 of the same test users is compared. Every run is a line in cells.jsonl of the output folder; an
    interrupted command resumes from there.

    \b
    adaptssr compare-losses --dataset path/to/dataset --models SASRec,GRU4Rec
    adaptssr compare-losses ml-100k --output results --jobs 2
    """  # noqa: D301
    from ..experiments.compare_losses import compare_losses as run
    from ..experiments.compare_losses import read_loss_plan

    changes: dict[str, Any] = {
        "dataset": dataset,
        "models": names(models),
        "shares": numbers("shares", shares, "0.1,1"),
        "item_inits": names(item_inits),
        "seeds": seeds,
    }
    if plan is None and dataset is None:
        raise InputError("plan: expected a plan or --dataset, got none")
    chosen = read_loss_plan(plan, changes, recbole_options(pairs))
    done = run(chosen, output, **how_to_run(**running))
    show_results(done, "runs")
