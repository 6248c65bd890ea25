"""The plan of a comparison of losses, read from YAML."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...errors import InputError, check_count
from ...recbole.compat.safe_config import literals
from ...recbole.recommender.settings import ITEM_INITS, LOSSES, MODES, self_supervision
from ..compare.plan import as_sequence, check_fields, names_within, plan_values

_PACKAGED = files(__package__) / "plans"
# Options of every run; a plan's ``recbole`` overrides them.
_OPTIONS: Mapping[str, Any] = {
    "metrics": ["Recall", "NDCG"],
    "topk": [10, 20],
    "valid_metric": "NDCG@10",
    "metric_decimal_place": 6,
    "faster_layers": True,
}
# Options in which rows differ, and options by which a run would use another's work.
_RESERVED = (
    "model", "dataset", "seed", "ssl_loss", "ssl_mode", "ssl_weight", "ssl_temperature", "ssl_scale", "ssl_item_init",
    "pretrained", "resume", "checkpoint_dir", "save_dataset", "save_dataloaders", "dataloaders_save_path",
)  # fmt: skip


@dataclass(frozen=True)
class LossPlan:
    """A comparison of self-supervised losses in RecBole models.

    Attributes:
        dataset: a RecBole dataset by name, or a folder with its atomic files.
        name: of the dataset, for tables; the folder's by default.
        models: names of sequential models. One with a published loss (CL4SRec, CoSeRec, DuoRec) is compared under that
            loss and under ``adaptssr``.
        losses: ``none``, which the others are tested against, and of ``infonce`` and ``adaptssr``.
        modes: of ``joint`` and ``pretrain``.
        item_inits: of ``random`` and ``svd``, the initial item embedding. Every row is trained from each, and tested
            against the row without an added loss from the same one.
        weights: values of ``ssl_weight`` to choose from, in joint mode.
        temperatures: values of ``ssl_temperature`` to choose from, for InfoNCE.
        scales: values of ``ssl_scale`` to choose from, for AdaptSSR.
        shares: of the training users, in (0, 1]; all users are tested.
        seeds: runs of a row, seeds 0, 1, …; the search uses the first one.
        recbole: options of all runs: RecBole's, and ``ssl_`` options in which rows do not differ.
        note: a line below the table.
    """

    dataset: str
    name: str = ""
    models: tuple[str, ...] = ("SASRec",)
    losses: tuple[str, ...] = ("none", "infonce", "adaptssr")
    modes: tuple[str, ...] = MODES
    item_inits: tuple[str, ...] = ITEM_INITS
    weights: tuple[float, ...] = (0.1, 0.02)
    temperatures: tuple[float, ...] = (1.0, 0.2)
    scales: tuple[float, ...] = (1.0, 10.0)
    shares: tuple[float, ...] = (1.0,)
    seeds: int = 3
    recbole: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        """Check what can be checked without the data; raises InputError."""
        if not self.name:
            object.__setattr__(self, "name", Path(self.dataset).name)
        check_count("seeds", self.seeds)
        for name, known in (("losses", LOSSES), ("modes", MODES), ("item_inits", ITEM_INITS)):
            for value in getattr(self, name):
                if value not in known:
                    raise InputError(f"{name}: expected one or more of {', '.join(known)}, got {value!r}")
        if "none" not in self.losses:
            raise InputError(
                f"losses: expected none among them, which the others are compared with, got {', '.join(self.losses)}"
            )
        for name in ("weights", "temperatures", "scales", "shares"):
            for value in getattr(self, name):
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                    raise InputError(f"{name}: expected positive numbers, got {value!r}")
        for name, texts in (("models", self.models), ("recbole", self.recbole)):
            for text in texts:
                if not isinstance(text, str):
                    raise InputError(f"{name}: expected names, got {text!r}")
        for name in ("models", "modes", "item_inits", "weights", "temperatures", "scales", "shares"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise InputError(f"{name}: expected one or more different values, got {list(values)!r}")
        if max(self.shares) > 1:
            raise InputError(f"shares: expected numbers in (0, 1], got {max(self.shares)}")
        for name in self.recbole:
            if name in _RESERVED:
                raise InputError(f"{name}: expected no such option in a comparison, which sets it itself")
        given = literals(self.recbole)
        for model in self.models:
            self_supervision(model, given)

    def options(self, own: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """Return all options of a run, ``own`` those of its row; the self-supervised ones only if there is a loss."""
        shared = dict(self.recbole)
        if own.get("ssl_loss") == "none":
            shared = {name: value for name, value in shared.items() if not name.startswith("ssl_")}
        return {**_OPTIONS, **shared, **own, "seed": seed}


def has_own_loss(model: str) -> bool:
    """Tell whether a model has a self-supervised loss without ``ssl_loss``."""
    return self_supervision(model, {}).active


def packaged_loss_plans() -> list[str]:
    """Names of the plans that come with the package."""
    return names_within(_PACKAGED)


def read_loss_plan(
    name_or_file: str | None = None,
    changes: Mapping[str, Any] | None = None,
    recbole: Mapping[str, Any] | None = None,
) -> LossPlan:
    """Read a packaged plan by its name, or a user's file.

    Args:
        name_or_file: one of :func:`packaged_loss_plans`, or a path; None: the defaults of :class:`LossPlan`.
        changes: fields that override the file's; None values are ignored.
        recbole: RecBole's options, over the file's.

    Raises:
        InputError: no such plan, an unreadable file, an unknown field, or a value out of range.
    """
    if name_or_file is None:
        values = {name: value for name, value in (changes or {}).items() if value is not None}
    else:
        values = plan_values(_PACKAGED, name_or_file, changes)
    check_fields(LossPlan, values)
    for name in ("models", "losses", "modes", "item_inits", "weights", "temperatures", "scales", "shares"):
        if name in values:
            values[name] = tuple(as_sequence(name, values[name]))
    if not isinstance(values.get("recbole", {}), Mapping):
        raise InputError(f"recbole: expected options by name, got {values['recbole']!r}")
    values["recbole"] = {**values.get("recbole", {}), **(recbole or {})}
    return LossPlan(**values)
