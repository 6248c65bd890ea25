"""The plan of a comparison, read from YAML."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...errors import InputError, check_count
from ...methods import Recipe, available, recipe
from ...methods.options.declaring import read_yaml
from ...recbole.user_model.pretrain import Source
from ..label_curve import CURVE

_PACKAGED = files(__package__) / "plans"
# Rows 1-5 of METHODS.md, where paper and code differ, and other uncertain choices.
_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "λ per batch": {"lambda_mode": "batch"},
    "λ of two terms": {"lambda_terms": 2},
    "λ not clamped": {"lambda_clamp": False},
    "λ as the authors' code": {"lambda_mode": "batch", "lambda_terms": 2, "lambda_clamp": False},
    "gradient through λ": {"lambda_detach": False},
    "κ = 10": {"scale": 10.0},
    "all negatives, κ = 10": {"negatives": "all", "scale": 10.0},
    "κ = 10, masked items beside it": {"scale": 10.0, "mlm_beside": 1.0},
    "no warm-up": {"warm_start": "none"},
}


@dataclass(frozen=True)
class TaskSpec:
    """A task in the form of ``adaptssr finetune --task``, and bins for a column of numbers."""

    word: str
    bins: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ComparePlan:
    """A comparison.

    Attributes:
        name: of the corpus, for tables.
        dataset: a RecBole dataset by name, or a folder with its atomic files.
        recbole: RecBole's own options.
        tasks: on what the models are fine-tuned; re-identification alone needs none.
        methods: rows of the tables, by the names of :func:`~adaptssr_plugin.methods.available`.
        rows: further rows of the controlled tables and of re-identification: AdaptSSR with other options, by name. They
            are not tuned.
        preset: of every recipe, see :func:`~adaptssr_plugin.methods.presets`.
        options: options of every recipe, over the preset's, for example for the size of the corpus.
        controlled: further options in the controlled comparison, the same for all methods, usually the warm-up.
        seeds: runs of fine-tuning for a row.
        splits: random splits of every task's rows, each with all runs of fine-tuning; the first is that of one split.
        linear_splits: the same for the table ``linear``, whose runs take seconds.
        label_curve: numbers of training labels, null for all, of a curve that reads frozen vectors linearly; empty: no
            curve. In a file, true stands for 50, 100, 200, 500, 1,000 and all.
        pretrain_seeds: pre-trainings for a row; run s of fine-tuning starts from pre-training ``s % pretrain_seeds``.
        tuning_seeds: runs of fine-tuning for every value that is tried.
        temperatures: values of τ for contrastive methods to choose from on validation rows, in the controlled
            comparison.
        strengths: values of ρ to choose from once τ is chosen, in addition to the method's own.
        scales: values of κ in the row "AdaptSSR, tuned", which also chooses from ``strengths``; empty: no such row.
        figure_strengths: values of ρ in Figures 3 and 7.
        figure_seeds: runs of fine-tuning for a point of them.
        ablation_seeds: runs of fine-tuning for a bar of Figure 4.
        lambdas: constant values of λ in Figure 4.
        variants: variants of AdaptSSR, options by name: bars of Figure 4, and rows of a separate table.
        note: a line below every table.
    """

    name: str
    dataset: str
    tasks: tuple[TaskSpec, ...] = ()
    recbole: Mapping[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] = tuple(available())
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    preset: str = "paper"
    options: Mapping[str, Any] = field(default_factory=dict)
    controlled: Mapping[str, Any] = field(default_factory=lambda: {"warm_start": "mlm"})
    seeds: int = 5
    splits: int = 1
    linear_splits: int = 8
    label_curve: tuple[int | None, ...] = ()
    pretrain_seeds: int = 1
    tuning_seeds: int = 2
    temperatures: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0)
    strengths: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    scales: tuple[float, ...] = ()
    figure_strengths: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    figure_seeds: int = 3
    ablation_seeds: int = 3
    lambdas: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: dict(_VARIANTS))
    note: str = ""

    def __post_init__(self) -> None:
        """Check what can be checked without the data.

        Raises:
            InputError: a value of the wrong type or out of range.
        """
        for name in (
            "seeds",
            "splits",
            "linear_splits",
            "pretrain_seeds",
            "tuning_seeds",
            "figure_seeds",
            "ablation_seeds",
        ):
            check_count(name, getattr(self, name))
        for name in ("temperatures", "strengths", "scales", "figure_strengths", "lambdas"):
            value = getattr(self, name)
            if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in value):
                raise InputError(f"{name}: expected a list of numbers, got {list(value)!r}")
        for count in self.label_curve:
            check_count("label_curve", count, 2, optional=True)
        for name in ("strengths", "figure_strengths"):
            if not all(0 < one < 1 for one in getattr(self, name)):
                raise InputError(f"{name}: expected numbers in (0, 1), got {list(getattr(self, name))!r}")
        if not self.methods:
            raise InputError("methods: expected one or more, got none")
        for method in self.methods:
            self.recipe(method, controlled=True)
            self.recipe(method, controlled=False)
        for which, rows in (("rows", self.rows), ("variants", self.variants)):
            for name, options in rows.items():
                if not isinstance(options, Mapping):
                    raise InputError(f"{which}: expected options by name for {name}, got {options!r}")
                self.recipe("adaptssr", True, **options)

    def source(self) -> Source:
        """The source of behaviours."""
        return Source(self.dataset, self.recbole)

    def recipe(self, method: str, controlled: bool, **options: Any) -> Recipe:
        """Make the recipe of a row; ``none`` and the stages before a controlled start are not changed."""
        merged = {**self.options, **(self.controlled if controlled and method != "none" else {})}
        if method == "none":
            merged["item_init"] = "random"
        merged |= options
        key = f"{method} {merged}"
        if key not in self._made:
            self._made[key] = recipe(method, self.preset, merged)
        return self._made[key]

    @cached_property
    def _made(self) -> dict[str, Recipe]:
        """Recipes made before, by method and options: grids ask for all of them after every finished cell."""
        return {}

    def linear(self) -> "ComparePlan":
        """Return the plan whose tasks are read linearly from frozen vectors."""
        return dataclasses.replace(self, options={**self.options, "ft_tune": "linear"}, splits=self.linear_splits)


def packaged_plans() -> list[str]:
    """Names of the plans that come with the package."""
    return names_within(_PACKAGED)


def read_plan(
    name_or_file: str, changes: Mapping[str, Any] | None = None, recbole: Mapping[str, Any] | None = None
) -> ComparePlan:
    """Read a packaged plan by its name, or a user's file.

    Args:
        name_or_file: one of :func:`packaged_plans`, or a path.
        changes: fields that override the file's; None values are ignored.
        recbole: RecBole's options, over the file's.

    Raises:
        InputError: no such plan, an unreadable file, an unknown field, or a value out of range.
    """
    values = plan_values(_PACKAGED, name_or_file, changes)
    check_fields(ComparePlan, values)
    values["tasks"] = tuple(_task(one) for one in as_sequence("tasks", values.get("tasks", ())))
    curve = values.get("label_curve", ())
    values["label_curve"] = CURVE if curve is True else () if curve is False else curve
    for name in ("methods", "label_curve", "temperatures", "strengths", "scales", "figure_strengths", "lambdas"):
        if name in values:
            values[name] = tuple(as_sequence(name, values[name]))
    for name in ("recbole", "options", "controlled", "rows", "variants"):
        if not isinstance(values.get(name, {}), Mapping):
            raise InputError(f"{name}: expected options by name, got {values[name]!r}")
    values["recbole"] = {**values.get("recbole", {}), **(recbole or {})}
    return ComparePlan(**values)


def names_within(packaged: Any) -> list[str]:
    """Names of the plans in a folder of the package."""
    return sorted(path.name.removesuffix(".yaml") for path in packaged.iterdir() if path.name.endswith(".yaml"))


def plan_values(packaged: Any, name_or_file: str, changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Read the fields of a plan, packaged or of a file, with changes as :func:`read_plan` takes them."""
    if name_or_file in names_within(packaged):
        values = read_yaml(packaged / f"{name_or_file}.yaml")
    elif Path(name_or_file).is_file():
        values = read_yaml(Path(name_or_file))
    else:
        known = ", ".join(names_within(packaged))
        raise InputError(f"plan: expected one of {known} or a YAML file, got {name_or_file!r}")
    return values | {name: value for name, value in (changes or {}).items() if value is not None}


def check_fields(plan: type[Any], values: Mapping[str, Any]) -> None:
    """Raise InputError for an unknown field, a missing one without a default, or one of text with another value."""
    fields = dataclasses.fields(plan)
    known = {one.name for one in fields}
    if unknown := sorted(set(values) - known):
        raise InputError(f"{unknown[0]}: expected a field of a plan ({', '.join(sorted(known))}), got an unknown name")
    for one in fields:
        if one.default is one.default_factory is dataclasses.MISSING and one.name not in values:
            raise InputError(f"{one.name}: expected in the plan, got none")
        if one.type is str and not isinstance(values.get(one.name, ""), str):
            raise InputError(f"{one.name}: expected text, got {values[one.name]!r}")


def as_sequence(name: str, value: Any) -> Sequence[Any]:
    """Return a list of a plan; raises InputError for anything else."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputError(f"{name}: expected a list, got {value!r}")
    return value


def _task(value: Any) -> TaskSpec:
    """Read ``age``, or ``{age: [18, 25]}`` for a column of numbers and its bins."""
    if isinstance(value, TaskSpec):
        return value
    if isinstance(value, str):
        return TaskSpec(value)
    if isinstance(value, Mapping) and len(value) == 1:
        [(word, bins)] = value.items()
        if isinstance(word, str) and isinstance(bins, Sequence) and not isinstance(bins, str):
            return TaskSpec(word, tuple(float(one) for one in bins))
    raise InputError(f"tasks: expected a name, or a name with a list of bins, got {value!r}")
