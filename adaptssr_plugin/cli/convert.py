"""``adaptssr convert``: other forms of behaviour data to RecBole's atomic files or a corpus of any size."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..corpus.formats.atomic_converter import convert_interactions
from ..corpus.formats.converters import convert_lines, convert_parquet
from ..corpus.formats.dataset_writer import Converted
from ..corpus.formats.ttl import convert_ttl
from ..downstream.tasks.two_domain import convert_two_domains
from ..errors import InputError
from .options import PATH, list_files

_KINDS = ("lines", "ttl", "parquet", "recbole", "two-domains")
# Options for some kinds of data only.
_OPTIONS_OF = {
    "user_column": ("parquet", "recbole"),
    "items_column": ("parquet",),
    "label_column": ("parquet",),
    "item_column": ("recbole",),
    "time_column": ("recbole",),
    "boundary": ("two-domains",),
    "target": ("two-domains",),
    "corpus": ("lines", "ttl", "parquet", "recbole"),
}
_ONE_INPUT = ("recbole", "two-domains")


@click.command(short_help="Convert other forms of data to RecBole's files or a corpus.")
@click.argument("kind", metavar="|".join(_KINDS), type=click.Choice(_KINDS))
@click.argument("inputs", metavar="INPUT...", nargs=-1, type=PATH)
@click.option("--output", type=PATH, required=True, help="Folder for the dataset.")
@click.option("--name", help="Prefix of its files; by default the folder's name.")
@click.option("--corpus", is_flag=True, help="Write a corpus of any size instead of RecBole's files.")
@click.option("--user-column", default="user_id", show_default=True, help="parquet, recbole: column of users.")
@click.option("--items-column", default="item_id", show_default=True, help="parquet: column of lists of items.")
@click.option("--label-column", multiple=True, help="parquet: column for the .user file; may be repeated.")
@click.option("--item-column", default="item_id", show_default=True, help="recbole: column of items.")
@click.option("--time-column", default="timestamp", show_default=True, help="recbole: column of times.")
@click.option("--boundary", type=int, metavar="N", help="two-domains: the last item of the low domain.")
@click.option(
    "--target", type=click.Choice(["low", "high"]), default="low", show_default=True,
    help="two-domains: the domain to recommend from; the other is for pre-training.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace a dataset of that name in the folder.")
@click.option("--quiet", is_flag=True, help="Do not show progress.")
@click.pass_context
def convert(
    context: click.Context, /, kind: str, inputs: Sequence[Path], output: Path, name: str | None, **options: Any
) -> None:
    """Convert behaviours to the input of pretrain and finetune: RecBole's atomic files, or a corpus of any size.

    \b
    lines        one line per user, oldest first: user item item ...
    ttl          Tencent Transfer Learning: original_desen_pretrain.csv, and
                 files of labels such as original_desen_age.csv
    parquet      one row per user, with a list of items
    recbole      a .inter file, or its folder; only to a corpus
    two-domains  lines of integers, the items of two domains; one domain becomes
                 the histories, the other one the pairs for cold:FILE

    The folder gets NAME.inter, NAME.user if there are labels, and NAME.click.cold with the targets of TTL's files of
    clicks (NAME.like.cold for likes), for finetune --task cold:FILE. Either all files are written, or none.

    With --corpus, corpus.json and memory-mapped arrays replace NAME.inter: memory does not grow with the number of
    users, loading takes no time, and RecBole's filters and splits do not apply. An interrupted conversion resumes when
    the same command is given again.

    \b
    adaptssr convert lines beauty.txt --output beauty
    adaptssr convert ttl ColdRec/original_desen_*.csv --corpus --output ttl
    adaptssr convert parquet users.parquet --items-column history \\
        --label-column age --output mine
    adaptssr convert recbole path/to/ml-20m --corpus --output ml-20m-corpus
    adaptssr convert two-domains toy_game_mix.txt --boundary 37868 --output games
    """  # noqa: D301 - \b keeps click from wrapping the lines
    _check_options(context, kind, inputs)
    started = time.perf_counter()
    common: dict[str, Any] = {"name": name, "overwrite": options["overwrite"], "show_progress": not options["quiet"]}
    done = _convert(kind, inputs, output, options, common)
    _report(done, time.perf_counter() - started)


def _convert(
    kind: str, inputs: Sequence[Path], output: Path, options: dict[str, Any], common: dict[str, Any]
) -> Converted:
    form = {"corpus": options["corpus"]}
    if kind == "lines":
        return convert_lines(inputs, output, **form, **common)
    if kind == "ttl":
        return convert_ttl(inputs, output, **form, **common)
    if kind == "parquet":
        columns = {name: options[name] for name in ("user_column", "items_column")}
        return convert_parquet(inputs, output, **columns, label_columns=options["label_column"], **form, **common)
    if kind == "recbole":
        columns = {name: options[name] for name in ("user_column", "item_column", "time_column")}
        return convert_interactions(inputs[0], output, **columns, **common)
    del common["show_progress"]  # two domains take no longer than starting Python
    return convert_two_domains(inputs[0], output, options["boundary"], options["target"], **common)


def _check_options(context: click.Context, kind: str, inputs: Sequence[Path]) -> None:
    """Refuse options that do not apply to the kind of data, and ask for those that it needs."""
    for option, kinds in _OPTIONS_OF.items():
        given = context.get_parameter_source(option) is not click.core.ParameterSource.DEFAULT
        name = f"--{option.replace('_', '-')}"
        if given and kind not in kinds:
            expected = f"{kinds[0]} alone" if len(kinds) == 1 else f"{', '.join(kinds[:-1])} or {kinds[-1]}"
            raise InputError(f"{name}: expected with {expected}, got it with {kind}")
        if not given and (kind, option) in (("two-domains", "boundary"), ("recbole", "corpus")):
            raise InputError(f"{name}: needed with {kind}")
    one = kind in _ONE_INPUT
    if not inputs or (one and len(inputs) > 1):
        raise InputError(f"INPUT: expected {'one' if one else 'at least one'} INPUT for {kind}, got {len(inputs)}")


def _report(done: Converted, seconds: float) -> None:
    click.echo(
        f"{done.users:,} users, {done.items:,} items, {done.behaviours:,} behaviours in {seconds:.1f} seconds"
        + "".join(f"; {column}: {users:,} users" for column, users in done.labelled.items())
    )
    for note in done.notes:
        click.echo(f"note: {note}")
    click.echo("Files:")
    list_files(done.files)
