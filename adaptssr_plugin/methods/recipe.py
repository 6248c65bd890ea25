"""Every option of pre-training and fine-tuning: its meaning, type, range and default, in one place.

An option's value comes from, later ones first: the command line or ``options``, the user's yaml files, the
preset, the method's packaged yaml, the defaults here, which are the paper's.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

from ..errors import InputError

_PACKAGE = files(__package__)


def _option(default: Any, text: str, valid: Callable[[Any], bool] | None = None, expected: str = "") -> Any:
    """Declare an option: its default, what it means, and which values it takes."""
    return dataclasses.field(default=default, metadata={"help": text, "valid": valid, "expected": expected})


def _share(default: float, text: str) -> Any:
    return _option(default, text, lambda value: 0 < value <= 1, "a number in (0, 1]")


def _rate(default: float, text: str) -> Any:
    return _option(default, text, lambda value: 0 <= value < 1, "a number in [0, 1)")


def _positive(default: float, text: str) -> Any:
    return _option(default, text, lambda value: 0 < value < float("inf"), "a positive number")


def _count(default: int, text: str, least: int = 1) -> Any:
    return _option(default, text, lambda value: value >= least, f"an integer of at least {least}")


def _choice(default: str, choices: Iterable[str], text: str) -> Any:
    choices = tuple(choices)
    return _option(default, text, lambda value: value in choices, " or ".join(choices))


_SELECT = re.compile(r"best|last|epoch:[1-9][0-9]*")


def _select(text: str) -> Any:
    return _option("best", text, lambda value: bool(_SELECT.fullmatch(value)), "best, last or epoch:K")


@dataclass(frozen=True)
class Recipe:
    """The options of a run; spec.md §3 gives the source of every default."""

    method: str = _option("adaptssr", "Pre-training method.")
    preset: str = _option("paper", "Named set of options: the paper's, or those of the authors' code.")

    dim: int = _count(64, "Length d of item and user vectors.")
    n_layers: int = _count(2, "Transformer layers.")
    n_heads: int = _count(2, "Attention heads; a divisor of dim.")
    ff_dim: int = _count(256, "Width of the feed-forward part.")
    max_len: int = _count(100, "Newest behaviours kept of a user.")
    embed_norm: bool = _option(True, "Layer norm on item + position (as the authors' code; Eq. 2 has none).")
    embed_dropout: bool = _option(True, "Dropout on item + position (as the authors' code; Eq. 2 has none).")

    warm_start: str = _choice("mlm", ("mlm", "none"), "Stage before the method's own: masked items, or nothing.")
    mlm_epochs: int = _count(20, "Epochs of masked items.")
    mlm_learning_rate: float = _positive(2e-4, "Adam's learning rate for masked items.")
    mlm_dropout: float = _rate(0.1, "Dropout during masked items.")
    mlm_ratio: float = _share(0.3, "Share of behaviours masked.")
    mlm_select: str = _select("Which epoch of masked items moves on: best (validation accuracy), last or epoch:K.")

    loss: str = _choice("adaptssr", ("adaptssr", "infonce"), "Loss on the two views: the ranking, or InfoNCE.")
    mask_ratio: float = _share(0.6, "Share of behaviours that the mask operator hides.")
    crop_ratio: float = _share(0.4, "Share of behaviours that the crop operator keeps.")
    reorder_ratio: float = _share(0.6, "Share of behaviours that the reorder operator shuffles.")
    distinct_ops: bool = _option(False, "Never the same operator for both views of a user.")
    lambda_mode: str = _choice("sample", ("sample", "batch", "const"), "λ per user (Eq. 7), per batch, or constant.")
    lambda_terms: int = _option(4, "Similarities in λ: 4 (Eq. 7) or 2.", lambda value: value in (4, 2), "4 or 2")
    lambda_clamp: bool = _option(True, "max(·, 0) on the similarities in λ (Eq. 7).")
    lambda_detach: bool = _option(True, "No gradient through λ.")
    lambda_value: float = _option(0.5, "λ for lambda_mode const.", lambda value: 0 <= value <= 1, "in [0, 1]")
    negatives: str = _choice(
        "auto",
        ("auto", "hardest", "all"),
        "In-batch negatives: the hardest (Eq. 6, Eq. 8) or all (Eq. 5, Eq. 9); auto: Eq. 6 and Eq. 9.",
    )
    scale: float = _positive(1.0, "Multiplies the bracket of Eq. 6 before the sigmoid.")
    temperature: float = _positive(1.0, "Temperature τ of InfoNCE; the paper has none.")

    epochs: int = _count(20, "Epochs of the method's own stage; 0 leaves it out.", least=0)
    learning_rate: float = _positive(2e-4, "Adam's learning rate.")
    dropout: float = _rate(0.1, "Dropout of the encoder; the implicit view lives by it.")
    batch_size: int = _count(128, "Users in a batch.", least=2)
    select: str = _select("Which epoch becomes the model: best (validation criterion), last or epoch:K.")
    valid_share: float = _option(
        0.1, "Share of users held out for validation.", lambda value: 0 < value < 1, "a number in (0, 1)"
    )
    stopping_step: int = _count(10, "Epochs without a better one after which a stage stops.")
    clip_grad_norm: float = _option(
        0.0, "Largest norm of the gradient; 0: no clipping.", lambda value: 0 <= value < float("inf"), "0 or more"
    )
    amp_dtype: str = _choice(
        "auto", ("auto", "bfloat16", "float16"), "Precision under RecBole's enable_amp; auto: torch's default."
    )
    seed: int = _count(2020, "Seed of initialisation, order, dropout and augmentation.", least=0)
    split_seed: int = _count(2023, "Seed of all splits.", least=0)

    ft_epochs: int = _count(5, "Epochs of fine-tuning.")
    ft_learning_rate: float = _positive(2e-4, "Adam's learning rate in fine-tuning.")
    ft_batch_size: int = _count(128, "Users in a batch of fine-tuning.")
    ft_dropout: float = _rate(0.1, "Dropout of the encoder in fine-tuning.")
    ft_hidden: int = _count(64, "Hidden width of the two-layer head.")
    ft_shuffle: bool = _option(True, "New order of users in every epoch of fine-tuning.")

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            InputError: a value of the wrong type or outside its range, an unknown method or preset.
        """
        for field in dataclasses.fields(self):
            value = _typed(field.name, getattr(self, field.name), _TYPES[field.name])
            object.__setattr__(self, field.name, value)
            valid = field.metadata["valid"]
            if valid is not None and not valid(value):
                raise InputError(f"{field.name}: expected {field.metadata['expected']}, got {value!r}")
        _check_name("method", self.method, available())
        _check_name("preset", self.preset, presets())
        if self.dim % self.n_heads:
            raise InputError(f"n_heads: expected a divisor of dim = {self.dim}, got {self.n_heads}")
        for name, epochs, runs in (
            ("mlm_select", self.mlm_epochs, self.warm_start == "mlm"),
            ("select", self.epochs, self.epochs > 0),
        ):
            value = getattr(self, name)
            if runs and value.startswith("epoch:") and int(value.removeprefix("epoch:")) > epochs:
                raise InputError(f"{name}: expected one of the {epochs} epochs, got {value!r}")

    def encoder_arguments(self, n_items: int) -> dict[str, Any]:
        """Arguments of :class:`UserEncoder` but dropout, which differs from stage to stage."""
        names = ("dim", "n_layers", "n_heads", "ff_dim", "max_len", "embed_norm", "embed_dropout")
        return {"n_items": n_items, **{name: getattr(self, name) for name in names}}

    def departures(self, other: "Recipe | None" = None) -> dict[str, tuple[Any, Any]]:
        """Options that differ from those of ``other`` (None: the paper's recipe of this method): (there, here)."""
        reference = other or recipe(self.method)
        return {
            field.name: (getattr(reference, field.name), getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name not in ("preset", "seed", "split_seed")
            and getattr(reference, field.name) != getattr(self, field.name)
        }


_TYPES: dict[str, type] = get_type_hints(Recipe)


def available() -> list[str]:
    """Names of the methods."""
    return _names("defaults")


def presets() -> list[str]:
    """Names of the presets."""
    return _names("presets")


def recipe(
    method: str = "adaptssr",
    preset: str = "paper",
    options: Mapping[str, Any] | None = None,
    yaml_files: Iterable[str | Path] = (),
) -> Recipe:
    """Put a recipe together.

    Args:
        method: one of :func:`available`.
        preset: one of :func:`presets`.
        options: single options, which win over everything else.
        yaml_files: files of options, later ones winning.

    Raises:
        InputError: an unknown name, an unreadable file, a value outside its range, or another method or preset
            among the options.
    """
    _check_name("method", method, available())
    _check_name("preset", preset, presets())
    merged: dict[str, Any] = {}
    packaged = [_PACKAGE / "defaults" / f"{method}.yaml", _PACKAGE / "presets" / f"{preset}.yaml"]
    for source in [*packaged, *map(Path, yaml_files)]:
        merged |= _read_yaml(source)
    merged |= dict(options or {})
    for name, value in (("method", method), ("preset", preset)):
        if merged.setdefault(name, value) != value:
            raise InputError(f"{name}: expected {value!r} as asked for, got {merged[name]!r} among the options")
    unknown = sorted(map(str, set(merged) - set(_TYPES)))
    if unknown:
        raise InputError(f"{unknown[0]}: expected an option of a recipe ({', '.join(_TYPES)}), got an unknown name")
    return Recipe(**merged)


def _names(folder: str) -> list[str]:
    entries = (entry.name for entry in (_PACKAGE / folder).iterdir())
    return sorted(name.removesuffix(".yaml") for name in entries if name.endswith(".yaml"))


def _check_name(what: str, name: object, known: list[str]) -> None:
    if name not in known:
        raise InputError(f"{what}: expected one of {', '.join(known)}, got {name!r}")


def _read_yaml(source: Any) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"config: cannot read {source}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict | None):
        raise InputError(f"config: expected 'option: value' lines in {source}, got {type(content).__name__}")
    return content or {}


def _typed(name: str, value: Any, kind: type) -> Any:
    """Return ``value`` as ``kind``: an integer may stand for a number, and text such as 2e-4 is read as one."""
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    word = {int: "an integer", float: "a number", bool: "true or false", str: "text"}[kind]
    raise InputError(f"{name}: expected {word}, got {value!r}")
