"""The ``ssl_*`` options of a RecBole run: meaning, type, range and default of each.

A value comes from, later ones first: what the user says (command line, ``config_dict``, YAML files, in RecBole's
order), ``defaults/models/<Model>.yaml``, ``defaults/methods/<ssl_method>.yaml``, the defaults here.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np

from ...errors import InputError
from ...methods import view_methods
from ...methods.options.comparison import ComparisonOptions
from ...methods.options.declaring import (
    check_options,
    choice,
    count,
    meaning,
    not_negative,
    option,
    positive,
    rate,
    read_yaml,
)

PREFIX = "ssl_"
_DEFAULTS = files(__package__) / "defaults"
LOSSES = ("adaptssr", "infonce", "none")
MODES = ("joint", "pretrain")
ITEM_INITS = ("random", "svd")


@dataclass(frozen=True)
class SelfSupervision(ComparisonOptions):
    """What is added to a RecBole model; users write ``ssl_`` before each name."""

    loss: str = choice("none", LOSSES, "Self-supervised loss: the ranking of AdaptSSR, InfoNCE, or none.", "ours")
    method: str = choice(
        "cl4srec", partial(view_methods, with_filler=False), "Method that makes the two views of a sequence.", "ours"
    )
    mode: str = choice(
        "pretrain",
        MODES,
        "pretrain: stages on whole users, then the model's own loss; joint: own loss + weight · self-supervised loss.",
        "the paper, which pre-trains first",
    )
    weight: float = not_negative(
        0.1, "Weight of the self-supervised loss in joint mode.", "CoSeRec's code and DuoRec's"
    )
    rows: str = choice(
        "newest",
        ("newest", "user", "all"),
        "Rows of a batch that are compared: newest, those with a user's whole training history, so each user once an "
        "epoch; user, one per user, whichever prefix comes first; all.",
        "ours",
    )
    mask_same_target: bool = option(
        False, "Rows with the same target item are not negatives of each other either.", "DuoRec's code"
    )

    dropout: float = option(
        0.1,
        "Dropout on the item vectors in self-supervised encoding, for a model without active dropout.",
        "ours",
        lambda value: 0 < value < 1,
        "a number in (0, 1)",
    )

    item_init: str = choice(
        "random",
        ITEM_INITS,
        "Initial item embedding: random, the model's own; svd, a truncated SVD of the training histories.",
        "RecBole",
    )
    warmup_epochs: int = count(5, "pretrain mode: epochs of the model's own loss before the views.", "ours", least=0)
    epochs: int = count(20, "pretrain mode: epochs of the self-supervised loss on whole users.", "the authors' code")
    learning_rate: float = positive(2e-4, "pretrain mode: Adam's learning rate on whole users.", "the paper")
    batch_size: int = count(128, "pretrain mode: users in a batch.", "the paper", least=2)
    valid_share: float = rate(0.1, "pretrain mode: share of users for choosing the epoch.", "the paper")

    def __post_init__(self) -> None:
        """Check every option; raises InputError."""
        check_options(self, PREFIX)

    @property
    def active(self) -> bool:
        """Whether anything is added to the model."""
        return self.loss != "none"

    def as_options(self) -> dict[str, Any]:
        """Return the options by the names that users write."""
        return {PREFIX + name: value for name, value in dataclasses.asdict(self).items()}


_NAMES = [field.name for field in dataclasses.fields(SelfSupervision)]


def self_supervision(model: str, given: Mapping[str, Any]) -> SelfSupervision:
    """Make the options of a run.

    Args:
        model: name of the RecBole model.
        given: every option that the user gave; those whose names do not begin with ``ssl`` are ignored.

    Raises:
        InputError: an unknown ``ssl_`` option (SSL_, ssl- and the like included), or a value of the wrong type or out
            of range.
    """
    foreign, own = _options_of_recbole(model), {}
    for name, value in given.items():
        option = str(name).removeprefix(PREFIX)
        if not str(name).lower().startswith("ssl") or option in foreign:
            continue
        if option not in _NAMES or option == name:
            known = ", ".join(PREFIX + known for known in _NAMES)
            raise InputError(f"{name}: expected one of {known}, got an unknown name")
        own[option] = _drawn(value)
    if "loss" in own and own["loss"] is None:
        own["loss"] = "none"  # YAML's and Python's way to write it
    merged = _own_part(packaged_defaults("models", model)) | own
    method = merged.get("method", "cl4srec")
    return SelfSupervision(**(_own_part(packaged_defaults("methods", str(method))) | merged))


def meanings(model: str, ssl: SelfSupervision) -> dict[str, str]:
    """Describe every option by the name that users write, with the default that the model or its method gives it."""
    of_method = _own_part(packaged_defaults("methods", ssl.method))
    of_model = _own_part(packaged_defaults("models", model))
    given = {name: (value, f"ssl_method {ssl.method}") for name, value in of_method.items()}
    given |= {name: (value, f"model {model}") for name, value in of_model.items()}
    fields = {field.name: field for field in dataclasses.fields(ssl)}
    given = {name: here for name, here in given.items() if here[0] != fields[name].default}
    return {PREFIX + name: meaning(field, *given.get(name, ())) for name, field in fields.items()}


def settings_of(config: Any) -> SelfSupervision:
    """Read the options of a RecBole config again: it may have been made before install(), or changed since."""
    return self_supervision(config.model, config.final_config_dict)


def packaged_defaults(kind: str, name: str) -> dict[str, Any]:
    """Read ``defaults/<kind>/<name>.yaml``; empty if there is no such file."""
    source = _DEFAULTS / kind / f"{name}.yaml"
    return read_yaml(source) if source.is_file() else {}


def _drawn(value: Any) -> Any:
    """Convert a number drawn by hyperopt (numpy's, or a whole number as a float) to a plain Python number."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _options_of_recbole(model: str) -> dict[str, Any]:
    """Read the ``ssl_`` options in RecBole's own YAML file of a model: SGL and NCL have some."""
    source = files("recbole") / "properties" / "model" / f"{model}.yaml"
    return _own_part(read_yaml(source)) if source.is_file() else {}


def _own_part(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(PREFIX): value for name, value in options.items() if name.startswith(PREFIX)}
