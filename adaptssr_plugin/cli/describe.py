"""``adaptssr describe``: the paper's Table 1 for any corpus, and sample users."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import click

from ..errors import InputError
from .options import PATH, recbole_options


@click.command(short_help="Show what is in a dataset, and augmented views of its users.")
@click.argument("dataset", metavar="NAME|FOLDER")
@click.option(
    "--users", type=click.IntRange(0), metavar="N", default=0, show_default=True, help="Number of sample users to show."
)
@click.option(
    "--seed", type=click.IntRange(0), metavar="N", default=0, show_default=True, help="For the users and their views."
)
@click.option(
    "--rho",
    type=float,
    metavar="X",
    default=0.6,
    show_default=True,
    help="Strength of the operators; crop keeps 1 - rho.",
)
@click.option(
    "--max-len", type=click.IntRange(1), metavar="N", help="Newest behaviours of a sample user; 100, or the model's."
)
@click.option("--model", type=PATH, metavar="DIR", help="A finished pre-training: shows λ of the sample users.")
@click.option("--recbole-config", type=PATH, multiple=True, help="RecBole YAML file (columns, filters …).")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="RecBole option, e.g. USER_ID_FIELD=uid.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def describe(
    dataset: str,
    users: int,
    seed: int,
    rho: float,
    max_len: int | None,
    model: Path | None,
    recbole_config: Sequence[Path],
    pairs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Describe a corpus: sequences, items, lengths, and the labels of the .user file.

    With --users, also show that many users with two views of each operator: mask, crop, reorder, and substitute and
    insert with the most correlated items (ItemCF-IUF). With --model, also λ of the two views.

    \b
    adaptssr describe ml-100k
    adaptssr describe path/to/folder --users 3 --model adaptssr-run
    """  # noqa: D301 - \b keeps click from wrapping the lines
    from ..experiments.describe import describe as run
    from ..recbole.user_model.pretrain import Source

    for option, value in (("--model", model), ("--max-len", max_len)):
        if value is not None and not users:
            raise InputError(f"{option}: expected with --users alone, got it without")
    if model is not None and max_len is not None:
        raise InputError("--max-len: expected without --model, which brings its own, got both")
    source = Source(dataset, recbole_options(pairs), [str(path.resolve()) for path in recbole_config])
    found = run(source, users=users, seed=seed, strength=rho, max_len=max_len or 100, model=model)
    click.echo(json.dumps(dataclasses.asdict(found), indent=1, ensure_ascii=False) if as_json else found.text())
