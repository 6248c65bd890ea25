"""The exceptions whose message is one line for the user."""

import operator

INSTALL = 'in a clone of adaptssr-plugin, type `pip install -e ".[recbole]" && pip install --no-deps recbole==1.2.1`'
"""What a message says where something of the extra ``recbole``, or RecBole, is missing: one way for every Python."""

_LONGEST = 2000  # characters of a message: what came may be a file of a single line


class InputError(ValueError):
    """A wrong argument, option, column or file.

    The message is one line that names what is wrong, what was expected and what came. Commands print
    it and exit with 2, without a traceback; any other exception is a fault of this package.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 4 :]}"
        # What came may be any bytes: no terminal is to obey them.
        return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    return character if character.isprintable() else " " if character == "\n" else repr(character)[1:-1]


def check_kind(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Raise InputError unless the argument called ``name`` is of a class; ``expected`` says so in words."""
    if not isinstance(value, kind):
        raise InputError(f"{name}: expected {expected}, got {type(value).__name__}")


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise InputError unless the argument called ``name`` is one of ``choices``, names or integers."""
    if not isinstance(value, str | int) or isinstance(value, bool) or value not in choices:
        raise InputError(f"{name}: expected {' or '.join(map(repr, choices))}, got {value!r}")


def check_count(name: str, value: object, least: int = 1, most: int | None = None, optional: bool = False) -> None:
    """Raise InputError unless the argument called ``name`` is an integer in ``least .. most``, or an optional None."""
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
    """A checkpoint that is half there, or was written by something else. The one before it may be whole."""


class MissingDatasetError(InputError):
    """A dataset that is not where it was looked for. It may have moved."""


class TrainingDivergedError(RuntimeError):
    """A step gave NaN or infinity. The message names stage, epoch, step, batch and the last good checkpoint."""


class ProcessLostError(RuntimeError):
    """Of several processes that train together another one ended, or no longer answers; this one cannot go on alone."""


class TrainingStoppedError(SystemExit):
    """SIGTERM ended a training that can go on: it has written a checkpoint first, and said so in one line.

    A SystemExit, so that nobody takes it for one failed run among many and begins the next: a process in which
    nobody catches it ends with status 143, as one does that SIGTERM has killed.
    """

    def __init__(self, message: str) -> None:
        super().__init__(143)
        self.message = message

    def __str__(self) -> str:
        return self.message
