"""How an option is declared: its default and the default's origin, its meaning, and its valid values."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, get_args, get_type_hints

from ...errors import INSTALL, InputError

_SELECT = re.compile(r"best|last|epoch:[1-9][0-9]*")
_LONGEST = 1 << 16  # characters of a yaml file: PyYAML reads a megabyte in seconds


@dataclass(frozen=True)
class OptionGroup:
    """A base of dataclasses of options.

    Attributes:
        group: the name under which a command's help shows the options that the class declares.
    """

    group: ClassVar[str] = ""


def option(
    default: Any,
    text: str,
    origin: str,
    valid: Callable[[Any], bool] | None = None,
    expected: str | Callable[[], str] = "",
    form: str = "",
) -> Any:
    """Declare an option.

    Args:
        default: the value if none is given.
        text: the meaning.
        origin: where the default comes from: the paper, public code, or "ours" if neither settles it.
        valid: whether a value is valid; None: every value of its type is.
        expected: the valid values, in words.
        form: the valid values as the help of a command shows them behind the option; empty: by the type.
    """
    metadata = {"help": text, "origin": origin, "valid": valid, "expected": expected, "form": form}
    return dataclasses.field(default=default, metadata=metadata)


def meaning(field: "dataclasses.Field[Any]", here: Any = None, why: str = "") -> str:
    """Describe an option: its meaning, its default and the default's origin.

    Args:
        field: of a dataclass of options.
        here: another default that applies in this place; None: there is none.
        why: what gives it that default.
    """

    def shown(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    default, origin = shown(field.default), field.metadata["origin"]
    if here is None:
        return f"{field.metadata['help']} Default: {default} ({origin})."
    return f"{field.metadata['help']} Default: {shown(here)} with {why}, otherwise {default} ({origin})."


def share(default: float, text: str, origin: str) -> Any:
    """Declare a number in (0, 1]."""
    return option(default, text, origin, lambda value: 0 < value <= 1, "a number in (0, 1]")


def rate(default: float, text: str, origin: str) -> Any:
    """Declare a number in [0, 1)."""
    return option(default, text, origin, lambda value: 0 <= value < 1, "a number in [0, 1)")


def fraction(default: float, text: str, origin: str) -> Any:
    """Declare a number in [0, 1]."""
    return option(default, text, origin, lambda value: 0 <= value <= 1, "a number in [0, 1]")


def positive(default: float, text: str, origin: str) -> Any:
    """Declare a positive finite number."""
    return option(default, text, origin, lambda value: 0 < value < float("inf"), "a positive number")


def not_negative(default: float, text: str, origin: str) -> Any:
    """Declare a finite number of 0 or more."""
    return option(default, text, origin, lambda value: 0 <= value < float("inf"), "0 or more")


def count(default: int, text: str, origin: str, least: int = 1) -> Any:
    """Declare an integer of at least ``least``."""
    return option(default, text, origin, lambda value: value >= least, f"an integer of at least {least}")


def choice(default: str, choices: Iterable[str] | Callable[[], Iterable[str]], text: str, origin: str) -> Any:
    """Declare one of several words. ``words`` may be a function, which is called when a value is checked."""
    if callable(choices):
        ask = choices
        return option(default, text, origin, lambda value: value in ask(), lambda: " or ".join(ask()))
    words = tuple(choices)
    return option(default, text, origin, lambda value: value in words, " or ".join(words), "|".join(words))


def choice_or_positive(default: str, words: tuple[str, ...], text: str, origin: str) -> Any:
    """Declare one of several words or a positive finite number; the type is ``str | float``."""
    return option(
        default,
        text,
        origin,
        lambda value: value in words if isinstance(value, str) else 0 < value < float("inf"),
        f"{' or '.join(words)} or a positive number",
        "|".join((*words, "X")),
    )


def which_epoch(text: str, origin: str) -> Any:
    """Declare which epoch of a stage becomes its model."""
    expected = "best, last or epoch:K"
    return option("best", text, origin, lambda value: bool(_SELECT.fullmatch(value)), expected, "best|last|epoch:K")


def option_groups(kind: "type[OptionGroup]") -> dict[str, tuple[str, ...]]:
    """Names of the options of a dataclass, by the group of the base class that declares each."""
    found: dict[str, tuple[str, ...]] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, OptionGroup):
            known = {name for names in found.values() for name in names}
            new = tuple(field.name for field in dataclasses.fields(base) if field.name not in known)
            found[base.group] = found.get(base.group, ()) + new
    return found


def check_options(options: Any, prefix: str = "") -> None:
    """Check every field of a frozen dataclass of options, and convert numbers to its type.

    Args:
        options: the instance, from its ``__post_init__``.
        prefix: what users write before a field's name.

    Raises:
        InputError: a value of the wrong type or outside its range.
    """
    types = get_type_hints(type(options))
    for field in dataclasses.fields(options):
        name = prefix + field.name
        value = typed(name, getattr(options, field.name), types[field.name])
        object.__setattr__(options, field.name, value)
        valid = field.metadata["valid"]
        if valid is not None and not valid(value):
            expected = field.metadata["expected"]
            raise InputError(f"{name}: expected {expected() if callable(expected) else expected}, got {value!r}")


def read_yaml(source: Any) -> dict[str, Any]:
    """Read ``option: value`` lines from a path or a packaged file.

    Raises:
        InputError: a file that cannot be read or has other contents.
        ModuleNotFoundError: PyYAML is missing; it is not a dependency of the core.
    """
    try:
        import yaml
    except ModuleNotFoundError:
        needs = f"recipes are YAML and need PyYAML, which is not installed; {INSTALL}"
        raise ModuleNotFoundError(needs, name="yaml") from None

    try:
        text = source.read_text(encoding="utf-8")
        if len(text) > _LONGEST:
            raise InputError(f"config: expected 'option: value' lines in {source}, got {len(text)} characters")
        content = yaml.safe_load(text)
    except InputError:
        raise
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"config: cannot read {source}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict | None):
        raise InputError(f"config: expected 'option: value' lines in {source}, got {type(content).__name__}")
    return content or {}


def typed(name: str, value: Any, kind: Any) -> Any:
    """Return ``value`` as ``kind``. An integer counts as a number; text such as 2e-4 is read as a number.

    ``str | float`` takes numbers, and text that is not a number.
    """
    if float in (kind, *get_args(kind)) and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    if kind is not float and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    word = words.get(kind, "text or a number")
    raise InputError(f"{name}: expected {word}, got {value!r}")
