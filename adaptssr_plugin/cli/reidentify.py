"""``adaptssr reidentify``: a measure of user vectors that needs no labels."""

from pathlib import Path

import click

from .options import PATH, list_files


@click.command(short_help="Measure vectors without labels: find users again over time.")
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--dataset", metavar="NAME|FOLDER", help="Where the dataset of the pre-training is now.")
def reidentify(folder: Path, dataset: str | None) -> None:
    """Measure the user vectors of the model in DIR without labels: find users again across time.

    The model has to come from adaptssr pretrain --history older, so that it has not seen the newer halves. The vector
    of each newer half is compared with the older halves of all users, by cosine, to find the same user: HR@1, HR@10 and
    MRR, beside chance, the cosines of TF-IDF and LSA, and the encoder with random weights.

    \b
    adaptssr pretrain --dataset ml-100k --output older-run --history older
    adaptssr reidentify older-run
    """  # noqa: D301
    from ..experiments.reidentification import reidentify_users

    table, files = reidentify_users(folder, dataset)
    click.echo(table.text())
    click.echo("\nFiles:")
    list_files(files)
