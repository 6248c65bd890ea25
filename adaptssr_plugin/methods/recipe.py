"""Every option of pre-training and fine-tuning: its meaning, type, range and default.

A value comes from, later ones first: the command line or ``options``, the user's YAML files, the preset, the method's
packaged YAML file, the defaults here.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import InputError, check_kind
from .options.declaring import check_options, option, read_yaml
from .options.encoder import EncoderOptions
from .options.fine_tuning import FineTuningOptions
from .options.objective import ObjectiveOptions
from .options.ptum import PtumOptions
from .options.training import TrainingOptions
from .options.user_level import UserLevelOptions
from .options.warm_up import WarmUpOptions
from .registry import available, defaults_of, method_named

_PACKAGE = files(__package__)


@dataclass(frozen=True)
class Recipe(
    FineTuningOptions, TrainingOptions, PtumOptions, UserLevelOptions, ObjectiveOptions, WarmUpOptions, EncoderOptions
):
    """The options of a run, each with its meaning and the origin of its default."""

    group = ""

    method: str = option("adaptssr", "Pre-training method.", "ours")
    preset: str = option("paper", "Named set of options; paper: the paper's settings.", "ours")

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            InputError: a value of the wrong type or outside its range, an unknown method or preset.
        """
        check_options(self)
        _check_name("method", self.method, available())
        _check_name("preset", self.preset, presets())
        self.check_curriculum(self.epochs)
        self.check_encoder()
        self.check_warm_up()
        self.check_fine_tuning()
        for name, epochs, runs in (
            ("mlm_select", self.mlm_epochs, self.warm_start == "mlm" or method_named(self.method).needs_filler),
            ("select", self.epochs, self.epochs > 0),
        ):
            value = getattr(self, name)
            if runs and value.startswith("epoch:") and int(value.removeprefix("epoch:")) > epochs:
                raise InputError(f"{name}: expected one of the {epochs} epochs, got {value!r}")

    def departures(self, other: "Recipe | None" = None) -> dict[str, tuple[Any, Any]]:
        """Options that differ from those of ``other`` (None: this method's of the preset ``paper``): (there, here).

        Options that change nothing here are left out.
        """
        reference = other or recipe(self.method)
        left_out = {"preset", "seed", "split_seed"} | self.unused_in_fine_tuning()
        return {
            field.name: (getattr(reference, field.name), getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name not in left_out and getattr(reference, field.name) != getattr(self, field.name)
        }


_OPTIONS = tuple(field.name for field in dataclasses.fields(Recipe))


def presets() -> list[str]:
    """Names of the presets."""
    entries = (entry.name for entry in (_PACKAGE / "presets").iterdir())
    return sorted(name.removesuffix(".yaml") for name in entries if name.endswith(".yaml"))


def recipe(
    method: str = "adaptssr",
    preset: str = "paper",
    options: Mapping[str, Any] | None = None,
    yaml_files: Iterable[str | Path] = (),
) -> Recipe:
    """Make a recipe.

    Args:
        method: one of :func:`available`.
        preset: one of :func:`presets`.
        options: single options, which override everything else.
        yaml_files: files of options; later ones override earlier ones.

    Raises:
        InputError: an unknown name, an unreadable file, a value out of range, another method or preset among the
            options, or a preset without values for this method.
    """
    _check_name("method", method, available())
    _check_name("preset", preset, presets())
    merged: dict[str, Any] = read_yaml(defaults_of(method)) | _preset_for(preset, method)
    for source in map(Path, yaml_files):
        merged |= read_yaml(source)
    if options is not None:
        check_kind("options", options, Mapping, "a mapping of options")
        merged |= options
    for name, value in (("method", method), ("preset", preset)):
        if merged.setdefault(name, value) != value:
            raise InputError(f"{name}: expected {value!r} as asked for, got {merged[name]!r} among the options")
    unknown = sorted(map(str, set(merged) - set(_OPTIONS)))
    if unknown:
        raise InputError(f"{unknown[0]}: expected an option of a recipe ({', '.join(_OPTIONS)}), got an unknown name")
    return Recipe(**merged)


def _preset_for(preset: str, method: str) -> dict[str, Any]:
    """Read a preset: its options for all methods, and those for this one under ``method: {option: value}``.

    Raises:
        InputError: a preset that has values for other methods only.
    """
    content = read_yaml(_PACKAGE / "presets" / f"{preset}.yaml")
    parts = {name: content.pop(name) for name in list(content) if isinstance(content[name], dict)}
    if parts and not content and method not in parts:
        raise InputError(f"preset: expected another one for {method}, got {preset}, which is for {', '.join(parts)}")
    return {**content, **parts.get(method, {})}


def _check_name(what: str, name: object, known: list[str]) -> None:
    if not isinstance(name, str) or name not in known:
        raise InputError(f"{what}: expected one of {', '.join(known)}, got {name!r}")
