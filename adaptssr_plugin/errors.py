"""The exceptions of this package, and the checks of arguments that raise them. A message is one line for the user."""

import operator
from collections.abc import Mapping
from typing import TypeVar

_Found = TypeVar("_Found")

INSTALL = 'in a clone of adaptssr-plugin, type `pip install -e ".[recbole]" && pip install --no-deps recbole==1.2.1`'
"""What a message says where RecBole or a package of the extra ``recbole`` is missing; the same for every Python."""

_LONGEST = 2000  # characters of a message: it may quote a file of a single line


class InputError(ValueError):
    """A wrong argument, option, column or file.

    The message is one line that names what is wrong, what was expected and what came. Commands print it and exit
    with status 2, without a traceback. Any other exception is a bug in this package.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 4 :]}"
        # A message may quote arbitrary bytes; they must not control the terminal.
        return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    return character if character.isprintable() else " " if character == "\n" else repr(character)[1:-1]


def check_kind(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Raise InputError unless ``value`` is an instance of ``kind``; the message describes it as ``expected``."""
    if not isinstance(value, kind):
        raise InputError(f"{name}: expected {expected}, got {type(value).__name__}")


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise InputError unless ``value`` is one of ``choices``, which are names or integers."""
    if not isinstance(value, str | int) or isinstance(value, bool) or value not in choices:
        raise InputError(f"{name}: expected {' or '.join(map(repr, choices))}, got {value!r}")


def find(what: str, known: Mapping[str, _Found], name: str) -> _Found:
    """Return what is known by a name; an unknown one raises InputError, which lists the known ones."""
    if name not in known:
        raise InputError(f"{what}: expected one of {', '.join(sorted(known))}, got {name!r}")
    return known[name]


def check_count(name: str, value: object, least: int = 1, most: int | None = None, optional: bool = False) -> None:
    """Raise InputError unless ``value`` is an integer in ``least .. most``, or None if ``optional``."""
    if optional and value is None:
        return
    try:
        fits = not isinstance(value, bool) and least <= operator.index(value) < 1 << 63  # type: ignore[arg-type]
        fits = fits and (most is None or value <= most)  # type: ignore[operator]
    except (TypeError, ValueError):
        fits = False
    if not fits:
        what = "a positive integer" if least == 1 else f"an integer of at least {least}"
        what = what if most is None else f"an integer in {least} .. {most}"
        raise InputError(f"{name}: expected {what}{' or None' if optional else ''}, got {value!r}")


def check_counts(**counts: object) -> None:
    """Raise InputError unless all arguments, by their names, are positive integers."""
    for name, count in counts.items():
        check_count(name, count)


class DamagedCheckpointError(InputError):
    """A checkpoint that is incomplete, or that something else wrote. The one before it may be intact."""


class MissingDatasetError(InputError):
    """A dataset was not found where it was expected. It may have moved."""


class TrainingDivergedError(RuntimeError):
    """A step gave NaN or infinity. The message names stage, epoch, step, batch and the last good checkpoint."""


class ProcessLostError(RuntimeError):
    """Another of the processes that train together ended or stopped answering; this one cannot go on alone."""


class TrainingStoppedError(SystemExit):
    """SIGTERM ended a training that can be resumed. It wrote a checkpoint first; the message says so in one line.

    It is a SystemExit, so that no caller takes it for one failed run among many and starts the next. If nothing
    catches it, the process exits with status 143, as a process killed by SIGTERM does.
    """

    def __init__(self, message: str) -> None:
        super().__init__(143)
        self.message = message

    def __str__(self) -> str:
        return self.message
