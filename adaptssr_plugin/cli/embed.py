"""``adaptssr embed`` and ``adaptssr export``: the output of a finished pre-training for other systems."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from .options import PATH, list_files, recbole_options

if TYPE_CHECKING:
    from ..corpus.known_histories import KnownHistories
    from ..training.serving import Embedded, UserModel

_PARQUET = (".parquet", ".pq")
_OF_DATASET = ("whole", "recbole_config", "pairs")
_OF_PARQUET = ("user_column", "items_column")


@click.command(short_help="Write the vectors of users, known or new, as Parquet.")
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--output", type=PATH, required=True, metavar="FILE", help="Parquet file of user vectors.")
@click.option("--items", type=PATH, metavar="FILE", help="Also write the item vectors, to this Parquet file.")
@click.option(
    "--dataset",
    metavar="NAME|FOLDER",
    help="RecBole dataset, with the options given here; by default that of the pre-training, with its options too.",
)
@click.option("--input", "inputs", type=PATH, multiple=True, metavar="FILE", help="Parquet or text; may be repeated.")
@click.option("--user-column", default="user_id", show_default=True, help="Parquet: column of users.")
@click.option("--items-column", default="item_id", show_default=True, help="Parquet: column of lists of items.")
@click.option("--whole", is_flag=True, help="Dataset: all of the .inter file, not only the training part.")
@click.option("--recbole-config", type=PATH, multiple=True, help="Dataset: RecBole YAML file (columns, filters …).")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Dataset: RecBole option.")
@click.option(
    "--batch-size", type=click.IntRange(1), metavar="N", default=512, show_default=True, help="Users encoded at once."
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 …; auto: cuda if there is one.")
@click.option("--quiet", is_flag=True, help="Do not show progress.")
@click.pass_context
def embed(
    context: click.Context,
    /,
    folder: Path,
    output: Path,
    items: Path | None,
    dataset: str | None,
    inputs: Sequence[Path],
    batch_size: int,
    device: str,
    quiet: bool,
    **options: Any,
) -> None:
    """Write the vectors of users, known or new, by the model in DIR.

    --input takes Parquet with one row per user and a list of items, or text with one line per user (user item item
    ...), oldest first; users need not be those of the training. Without --input, the users of a RecBole dataset. Items
    that the model does not know are left out, and so are users who have no known item; both are counted.

    The Parquet file has the columns user_id, as in the source, and vector, a list of numbers. That of --items has
    item_id and vector.

    \b
    adaptssr embed adaptssr-run --output users.parquet --items items.parquet
    adaptssr embed adaptssr-run --input new.parquet --items-column history \\
        --output new-users.parquet
    adaptssr embed adaptssr-run --input new.txt --output new-users.parquet
    """  # noqa: D301 - \b keeps click from wrapping the lines
    from ..training.serving import embed_items, embed_users, load_user_model

    _check_options(context, dataset, inputs)
    if items is not None and items.resolve() == output.resolve():
        raise InputError(f"--items: expected another file than --output, got {items} for both")
    model = load_user_model(folder)
    started = time.perf_counter()
    if inputs:
        chunks = _from_files(model, inputs, options["user_column"], options["items_column"], not quiet)
    else:
        chunks = _from_dataset(model, dataset, options, not quiet)
    done = embed_users(model, chunks, output, batch_size, device)
    files = [output]
    if items is not None:
        embed_items(model, items)
        files.append(items)
    _report(done, time.perf_counter() - started, files)


@click.command(short_help="Write the encoder as a graph that needs torch alone.")
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--output", type=PATH, required=True, metavar="FILE.pt2", help="File of the graph.")
@click.option("--device", default="cpu", show_default=True, help="Where the graph is to run; it runs nowhere else.")
def export(folder: Path, output: Path, device: str) -> None:
    """Write the encoder in DIR as a graph (torch.export) that torch runs without this package.

    It takes item_seq, int64 (B, L), right-padded with 0, and item_seq_len, int64 (B,), for any B and any L up to the
    model's. It returns the user vectors, zeros for a length of 0. Item ids are positions in the list items.json, which
    the file contains too.

    \b
    adaptssr export adaptssr-run --output encoder.pt2
    """  # noqa: D301
    from ..training.serving import export_model, load_user_model

    click.echo(f"Files:\n  {export_model(load_user_model(folder), output, device)}")


def _check_options(context: click.Context, dataset: str | None, inputs: Sequence[Path]) -> None:
    """Refuse options that do not apply to the source of the histories."""
    if inputs and dataset is not None:
        raise InputError("--dataset: expected without --input, got both")
    atomic = [path for path in inputs if path.suffix == ".inter"]
    if atomic:
        raise InputError(f"--input: expected Parquet or one line per user, got {atomic[0]}; --dataset takes its folder")
    parquet = [path for path in inputs if path.suffix in _PARQUET]
    if parquet and len(parquet) != len(inputs):
        raise InputError(f"--input: expected files of one kind, got {parquet[0]} beside others")
    for names, fits, where in ((_OF_DATASET, not inputs, "a dataset"), (_OF_PARQUET, bool(parquet), "Parquet")):
        for parameter in context.command.params:
            given = context.get_parameter_source(parameter.name or "") is not click.core.ParameterSource.DEFAULT
            if parameter.name in names and given and not fits:
                raise InputError(f"{parameter.opts[0]}: expected with {where} alone, got it with other input")


def _from_files(
    model: "UserModel", paths: Sequence[Path], user_column: str, items_column: str, show_progress: bool
) -> Iterator["KnownHistories"]:
    from ..corpus.known_histories import known_lines, known_parquet

    tokens = model.artefact.item_tokens
    if paths[0].suffix not in _PARQUET:
        return known_lines(paths, tokens, show_progress=show_progress)
    return known_parquet(paths, tokens, user_column=user_column, items_column=items_column, show_progress=show_progress)


def _from_dataset(
    model: "UserModel", dataset: str | None, options: dict[str, Any], show_progress: bool
) -> Iterator["KnownHistories"]:
    """Read a RecBole dataset: the named one, or that of the pre-training with its options."""
    from ..corpus.known_histories import known_corpus
    from ..recbole.compat.user_sequences import load_user_sequences
    from ..recbole.user_model.finetune import whole_histories
    from ..recbole.user_model.pretrain import Source

    settings = recbole_options(options["pairs"])
    files = [str(path.resolve()) for path in options["recbole_config"]]
    if dataset is None:
        card = model.artefact.card
        if "dataset" not in card:
            raise InputError(f"--dataset: expected one, or --input, since {model.folder} does not name its own")
        besides = ", with its --set and --recbole-config" if card.get("recbole_options") else ""
        source = Source.of_model(model.folder, card, settings, files, f"--dataset says where it is now{besides}")
    else:
        source = Source(dataset, settings, files)
    config = source.config(model.max_len)
    corpus = whole_histories(config) if options["whole"] else load_user_sequences(config).corpus
    return known_corpus(corpus, model.artefact.item_tokens, show_progress=show_progress)


def _report(done: "Embedded", seconds: float, files: Sequence[Path]) -> None:
    click.echo(f"{done.rows:,} users, vectors of {done.dim} numbers, in {seconds:.1f} seconds")
    if done.unknown:
        click.echo(f"note: {done.unknown:,} of {done.behaviours:,} behaviours left out, of items unknown to the model")
    if done.skipped:
        click.echo(f"note: {done.skipped:,} of {done.rows + done.skipped:,} users left out, without a known item")
    click.echo("Files:")
    list_files(files)
