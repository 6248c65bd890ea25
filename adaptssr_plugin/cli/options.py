"""Options and output that commands share. The options of a recipe are generated from it, so each is described once."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import click

from ..errors import InputError
from ..methods import Recipe
from ..methods.options.declaring import meaning, option_groups
from ..methods.options.fine_tuning import FineTuningOptions
from ..progress import Show

PATH = click.Path(path_type=Path)
_GROUPS = {group: names for group, names in option_groups(Recipe).items() if group}
_COMMON = frozenset(
    (
        "encoder", "dim", "n_layers", "max_len", "item_init", "warm_start", "mlm_epochs", "history", "mask_ratio",
        "crop_ratio", "reorder_ratio", "loss", "negatives", "scale", "temperature", "epochs", "learning_rate",
        "dropout", "batch_size", "seed", "ft_epochs", "ft_learning_rate", "ft_batch_size", "ft_dropout", "ft_tune",
    )
)  # fmt: skip
"""The options in ``--help``; ``--help-all`` shows all."""
QUIET = "Only the last line of each stage. Default: bars on a terminal, otherwise a line per epoch or run."
_ALSO = {"ft_tune": ("--tune",)}  # shorter names for an option
FINE_TUNING = (FineTuningOptions.group,)
PRETRAINING = tuple(group for group in _GROUPS if group not in FINE_TUNING)
_TYPES = get_type_hints(Recipe)
_FORMS = {int: "N", float: "X", bool: "true|false"}
_FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}


def recipe_options(groups: tuple[str, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of some groups to a command, and ``--help-all``; options that are not given are None."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option(
            "--help-all", is_flag=True, is_eager=True, expose_value=False, callback=_help_all,
            help="Show every option, including those of single methods, and exit.",
        )(command)  # fmt: skip
        for group in reversed(groups):
            for name in reversed(_GROUPS[group]):
                field, flag = _FIELDS[name], f"--{name.replace('_', '-')}"
                command = click.option(
                    flag,
                    *_ALSO.get(name, ()),
                    name,
                    type=_TYPES[name] if isinstance(_TYPES[name], type) else str,
                    default=None,
                    metavar=field.metadata["form"] or _FORMS.get(_TYPES[name], "TEXT"),
                    hidden=name not in _COMMON,
                    help=f"[{group}] {meaning(field)}",
                )(command)
        return command

    return decorate


def _help_all(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(help_of_all_options(context))
        context.exit()


def help_of_all_options(context: click.Context) -> str:
    """Show a command's help with the options that ``--help`` leaves out."""
    hidden = [option for option in context.command.params if isinstance(option, click.Option) and option.hidden]
    for option in hidden:
        option.hidden = False
    try:
        return context.get_help()
    finally:
        for option in hidden:
            option.hidden = True


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keep only the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def shown(quiet: bool) -> Show:
    """Return how much progress is shown with or without ``--quiet``."""
    return "last" if quiet else True


def comparison_options(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of every comparison to a command: ``pairs`` and what :func:`how_to_run` takes."""
    part, report = f"This machine's share of the {what}.", f"Write the results of finished {what}; compute nothing."
    jobs: dict[str, Any] = {"default": 1, "show_default": True, "help": "Processes; they share the cores."}
    options = [
        click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="RecBole option, e.g. use_gpu=False."),
        click.option("--jobs", type=click.IntRange(1), metavar="N", **jobs),
        click.option("--part", default="1/1", show_default=True, metavar="I/N", help=part),
        click.option("--report-only", is_flag=True, help=report),
        click.option("--quiet", is_flag=True, help=QUIET),
    ]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def how_to_run(jobs: int, part: str, report_only: bool, quiet: bool) -> dict[str, Any]:
    """Return the arguments of a comparison that :func:`comparison_options` are for."""
    from ..experiments.compare.running import part_of

    return {"jobs": jobs, "part": part_of(part), "report_only": report_only, "show_progress": shown(quiet)}


def show_results(done: Any, what: str) -> None:
    """Print the tables of a comparison, and where its files are; ``what`` is the plural of what was computed."""
    for name, text in done.tables.items():
        click.echo(f"{name}\n\n{text}")
    if done.unfinished:
        click.echo(f"{done.unfinished} {what} are left for other machines or a later run.")
    click.echo(f"{done.computed} {what} computed. Files:")
    list_files(done.files)


def list_files(paths: Iterable[Path]) -> None:
    """Print where files are, a line each."""
    for path in paths:
        click.echo(f"  {path}")


def names(text: str | None) -> list[str] | None:
    """Read names with commas between them; None stays None."""
    return None if text is None else text.split(",")


def numbers(name: str, text: str | None, example: str) -> tuple[float, ...] | None:
    """Read numbers with commas between them; None stays None.

    Raises:
        InputError: text of another form; the line names the option and shows an example.
    """
    if text is None:
        return None
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"{name}: expected numbers such as {example}, got {text!r}") from None


def recbole_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Read ``key=value`` pairs for RecBole.

    Raises:
        InputError: a pair without ``=``.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, found, value = pair.partition("=")
        if not found or not key:
            raise InputError(f"--set: expected key=value, got {pair!r}")
        options[key.strip().removeprefix("--")] = value.strip()
    return options
