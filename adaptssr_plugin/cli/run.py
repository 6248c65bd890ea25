"""The command ``adaptssr run``: RecBole's own syntax, its results, and one line for a user's mistake."""

import dataclasses
import difflib
import importlib.util
import inspect
import itertools
import json
import math
import shlex
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..errors import InputError, ProcessLostError

# RecBole's options for processes on several machines, and for the process number of one.
_ELSEWHERE = ("world_size", "ip", "port", "group_offset", "local_rank")
# What RecBole's checks of a value raise. RuntimeError and AttributeError only while a config is made.
_REFUSALS = (ValueError, TypeError, NotImplementedError, KeyError)
_CONFIG_REFUSALS = (*_REFUSALS, RuntimeError, AttributeError)
# Entries of a config that RecBole derives from others and would not accept as input.
_DERIVED = {
    "model", "dataset", "device", "local_rank", "single_spec", "MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type",
    "valid_metric_bigger", "valid_neg_sample_args", "test_neg_sample_args",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Call:
    """A command line of ``adaptssr run``.

    Attributes:
        model: name of the model.
        dataset: name or folder of the dataset.
        pairs: the words ``--key=value``.
        files: YAML files; later ones override earlier ones.
        nproc: processes on this machine that train together.
    """

    model: str
    dataset: str
    pairs: tuple[str, ...]
    files: tuple[str, ...]
    nproc: int = 1


def parse(words: Sequence[str], config_files: str | None) -> Call:
    """Read the words of a command line as RecBole does, but refuse what RecBole ignores.

    Raises:
        InputError: a missing name, a word other than ``--key=value``, a key given twice, processes on other machines.
    """
    pairs: dict[str, str] = {}
    for word in words:
        if word.startswith("-"):
            key = _key(word)
            if key in pairs:
                raise InputError(f"{key}: expected one value, got {pairs[key]} and {word}")
            pairs[key] = word
    names = [word for word in words if not word.startswith("-")]
    if len(names) < 2:
        missing = ("MODEL", "DATASET")[len(names)]
        raise InputError(f"Missing argument '{missing}'; adaptssr run --help says what is expected")
    if len(names) > 2:
        raise InputError(f"options: expected --key=value after the model and the dataset, got {names[2]!r}")
    try:
        files = shlex.split(config_files or "")
    except ValueError as error:  # a quotation mark left open
        raise InputError(f"config_files: expected file names separated by blanks, got {config_files!r}") from error
    nproc = pairs.pop("nproc", "--nproc=1").removeprefix("--nproc=")
    if not nproc.isdecimal() or int(nproc) < 1:
        raise InputError(f"nproc: expected a positive integer, got {nproc!r}")
    return Call(names[0], names[1], tuple(pairs.values()), tuple(files), int(nproc))


def _key(word: str) -> str:
    key, found, value = word.removeprefix("--").partition("=")
    if key in _ELSEWHERE:
        raise InputError(f"{key}: expected nproc alone; processes on several machines are torchrun's, got {word}")
    if not word.startswith("--") or not found or not key:
        raise InputError(f"options: expected --key=value, got {word!r}")
    if "=" in value:
        raise InputError(f"{key}: RecBole takes no value with = from a command line, got {word}; say it in a yaml file")
    if key in ("model", "dataset"):
        raise InputError(f"{key}: expected as the first two words of the command alone, got {word} besides")
    return key


def show(call: Call) -> None:
    """Print the options of a run.

    Raises:
        InputError: a user's mistake.
    """
    with _command_line(call.pairs):
        click.echo(config_text(call, _config(call)), nl=False)


def check(call: Call) -> None:
    """Raise InputError for mistakes that can be found before processes are started; each of them would report it."""
    with _command_line(call.pairs):
        _checked_config(call)


def run(call: Call) -> None:
    """Train and test a model by RecBole and print the results; of several processes only the first prints.

    Raises:
        InputError: a user's mistake.
    """
    from ..recbole import run_recbole
    from ..training.processes import Processes

    processes = Processes(together=True)
    with _command_line(call.pairs):
        config = processes.agreed(lambda: _checked_config(call))
        for note in _unknown_options(config) if processes.is_main_process else ():
            click.echo(f"adaptssr: {note}", err=True)
        before = set(_checkpoints(config))
        try:
            result = run_recbole(call.model, call.dataset, list(call.files))
        except (InputError, ProcessLostError):
            raise
        except (*_REFUSALS, RuntimeError) as error:
            if _in_training(error):
                raise
            raise InputError(f"options: RecBole refuses the dataset or the options: {_named(error)}") from error
    if processes.is_main_process:
        click.echo(results_text(config, result, before))


@contextmanager
def _command_line(pairs: Iterable[str]) -> Iterator[None]:
    """Let RecBole read options from ``sys.argv``; restores it, and the streams, which RecBole's logger wraps."""
    before = sys.argv, sys.stdout, sys.stderr
    sys.argv = ["adaptssr run", *pairs]
    try:
        yield
    finally:
        sys.argv, sys.stdout, sys.stderr = before


# --- before the training ---------------------------------------------------------------------------------------------


def _config(call: Call) -> Any:
    from ..recbole import installed
    from ..recbole.recommender.config import RunConfig

    try:
        with installed():
            return RunConfig(call.model, call.dataset, list(call.files))
    except InputError as error:
        names = _model_names()
        meant = _suggestion(call.model, names) if str(error).startswith("model:") and call.model not in names else ""
        raise InputError(f"{error}{meant}") from None
    except _CONFIG_REFUSALS as error:
        raise InputError(f"options: RecBole refuses them: {_named(error)}") from error


def _model_names() -> list[str]:
    """Return the names of the models that have defaults, RecBole's and ours."""
    ours = Path(__file__).parents[1] / "recbole" / "recommender" / "defaults" / "models"
    folders = (_recbole() / "properties" / "model", ours)
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def _recbole() -> Path:
    spec = importlib.util.find_spec("recbole")  # only recbole/ imports it
    assert spec is not None
    return Path(*spec.submodule_search_locations or [])


def _checked_config(call: Call) -> Any:
    """Make the config; refuse mistakes that can be found before RecBole loads anything and opens its log.

    Raises:
        InputError: a model that cannot have the self-supervised loss, a missing dataset, column or file.
    """
    from ..recbole.recommender.backbones import refusal

    config = _config(call)
    reason = refusal(config.model_class) if config.ssl.active else None
    if reason is not None:
        raise InputError(f"ssl_loss: {config.model} cannot have one: {reason}")
    for name in ("pretrained", "resume"):
        if config[name] and not Path(config[name]).exists():
            raise InputError(f"{name}: expected an existing file, got {config[name]!r}")
    folder = Path(config["data_path"])
    if folder.is_dir():
        _check_columns(config, folder)
        return config
    known = (_recbole() / "properties" / "dataset" / "url.yaml").read_text(encoding="utf-8")
    downloads = [line.partition(":")[0] for line in known.splitlines()]
    if config.dataset not in downloads:  # RecBole would download these
        raise InputError(
            f"dataset: expected a folder of atomic files, one under data_path, or a name that RecBole knows, got "
            f"{config.dataset!r}{_suggestion(config.dataset, ['ml-100k', *downloads])}"
        )
    return config


def _check_columns(config: Any, folder: Path) -> None:
    from ..recbole import atomic_columns

    parts = config["benchmark_filename"]
    suffixes = [f"{part}.inter" for part in parts] if isinstance(parts, list | tuple) else ["inter"]
    needed = [("USER_ID_FIELD", config["USER_ID_FIELD"]), ("ITEM_ID_FIELD", config["ITEM_ID_FIELD"])]
    loaded = config["load_col"]
    loaded = loaded.get("inter", []) if isinstance(loaded, Mapping) else "*"
    if config["MODEL_TYPE"].name == "SEQUENTIAL":
        histories = f"{config['ITEM_ID_FIELD']}{config['LIST_SUFFIX']}"
        needed.append(("benchmark_filename", histories) if parts else ("TIME_FIELD", config["TIME_FIELD"]))
    for suffix in suffixes:
        columns = atomic_columns(
            folder, config.dataset, suffix, separator=config["field_separator"], encoding=config["encoding"] or "utf-8"
        )
        wanted = [("load_col", column) for column in loaded] if isinstance(loaded, list | tuple) else []
        for option, column in [*needed, *wanted]:
            if column not in columns:
                raise InputError(
                    f"{option}: expected a column {column!r} in {folder / config.dataset}.{suffix}, which has "
                    f"{', '.join(columns)}"
                )
    for option, column in needed:
        if isinstance(loaded, list | tuple) and column not in loaded:
            raise InputError(f"load_col: expected {column!r} ({option}) among the columns for inter, got {loaded!r}")


def _unknown_options(config: Any) -> list[str]:
    """Report options that look misspelt: RecBole accepts any name but reads only those that it knows."""
    from ..recbole.recommender.config import RUN_OPTIONS

    known = {*config.internal_config_dict, *RUN_OPTIONS, *itertools.chain(*config.parameters.values())}
    notes = []
    for name in config.external_config_dict:
        suggestion = _suggestion(name, known)
        if name not in known and not name.startswith("ssl_") and suggestion:
            notes.append(f"{name}: no option that RecBole or its defaults name{suggestion}")
    return notes


def _suggestion(name: str, known: Iterable[str]) -> str:
    """Suggest known names close to this one; case is ignored."""
    spelt = {one.lower(): one for one in known}
    close = difflib.get_close_matches(str(name).lower(), spelt, n=3)
    return f"; did you mean {' or '.join(spelt[one] for one in close)}?" if close else ""


def _in_training(error: BaseException) -> bool:
    """Tell whether a trainer's ``fit`` or ``evaluate`` raised it; earlier errors are about options and data."""
    names = (frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(name in ("fit", "evaluate") for name in names)


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no more is said'}"


# --- results ---------------------------------------------------------------------------------------------------------


def results_text(config: Any, result: Mapping[str, Any], before: set[Path]) -> str:
    """Write the results of a run in a few lines; ``before`` are the checkpoints that were there before it."""
    lines = []
    for title, name in (("best valid", "best_valid_result"), ("test", "test_result")):
        if result[name]:  # without validation there is no best result
            places = int(config["metric_decimal_place"] or 4)
            lines.append(f"{title:<12}" + ", ".join(f"{key} {value:.{places}f}" for key, value in result[name].items()))
    written = sorted(set(_checkpoints(config)) - before, key=lambda path: path.stat().st_mtime)
    if written or config["resume"]:
        lines.append(f"{'checkpoint':<12}{written[-1] if written else config['resume']}")
    return "\n".join(lines)


def _checkpoints(config: Any) -> list[Path]:
    return list(Path(config["checkpoint_dir"]).glob(f"{config.model}-*.pth"))


# --- the options of a run --------------------------------------------------------------------------------------------


def config_text(call: Call, config: Any) -> str:
    """Write the options of a run as YAML that ``--config_files`` accepts: ours with their meaning, then RecBole's."""
    from ..recbole.recommender.config import RUN_OPTIONS, plain
    from ..recbole.recommender.settings import meanings as meanings_of_ssl

    values = {name: value for name, value in plain(config).items() if name not in _DERIVED}
    values["data_path"] = {**config.internal_config_dict, **config.external_config_dict}["data_path"]
    if values["train_neg_sample_args"]["distribution"] == "none":
        values["train_neg_sample_args"] = None  # the form in which it has to be written
    meanings = meanings_of_ssl(config.model, config.ssl)
    values.update(config.ssl.as_options())
    meanings.update({name: meaning for name, (_, _, meaning) in RUN_OPTIONS.items()})

    first = [f"ssl_{name}" for name in inspect.get_annotations(type(config.ssl))]  # the rest: views and losses
    groups = {
        "Self-supervision": first + [name for name in meanings if name.startswith("ssl_") and name not in first],
        "The run": list(RUN_OPTIONS),
        **{f"RecBole: {kind.lower()}": names for kind, names in config.parameters.items()},
    }
    grouped = {name for names in groups.values() for name in names}
    groups[f"RecBole: {config.model} and others"] = [name for name in values if name not in grouped]
    lines = [f"# adaptssr run {shlex.join([call.model, call.dataset])}"]
    for title, names in groups.items():
        lines += ["", f"# --- {title}"]
        for name in names:
            if name in values:  # already removed: RecBole lists some names twice
                value = values.pop(name)
                lines += textwrap.wrap(meanings.get(name, ""), 110, initial_indent="# ", subsequent_indent="# ")
                lines.append(f"{name}: {yaml_value(value)}")
    return "\n".join(lines) + "\n"


def yaml_value(value: Any) -> str:
    """Write a plain value in YAML's flow style."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{yaml_value(key)}: {yaml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(yaml_value(item) for item in value) + "]"
    if isinstance(value, float):
        if not math.isfinite(value):
            return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
        mantissa, exponent, power = repr(value).partition("e")
        # YAML reads 1e-08 as text.
        return f"{mantissa}{'' if '.' in mantissa else '.0'}{exponent}{power}"
    return json.dumps(value, ensure_ascii=False)
