"""Every option of pre-training and fine-tuning: its meaning, type, range and default.

A value comes from, later ones first: the command line or ``options``, the user's YAML files, the preset, the method's
packaged YAML file, the defaults here.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

from ..encoders import available_encoders, encoder_kind
from ..errors import InputError, check_kind
from .options import check_options, choice, count, fraction, not_negative, option, positive, rate, read_yaml, share
from .registry import available, defaults_of, method_named
from .user_level import UserLevelOptions

_PACKAGE = files(__package__)


_SELECT = re.compile(r"best|last|epoch:[1-9][0-9]*")


def _select(text: str, origin: str) -> Any:
    expected = "best, last or epoch:K"
    return option("best", text, origin, lambda value: bool(_SELECT.fullmatch(value)), expected, "best|last|epoch:K")


@dataclass(frozen=True)
class Recipe(UserLevelOptions):
    """The options of a run, each with its meaning and the origin of its default."""

    method: str = option("adaptssr", "Pre-training method.", "ours")
    preset: str = option("paper", "Named set of options; paper: the paper's settings.", "ours")

    encoder: str = choice(
        "transformer",
        available_encoders,
        "User model: transformer, the paper's; gru4rec, nextitnet, sasrec, which are causal; or a registered one.",
        "the paper",
    )
    dim: int = count(64, "Length d of item and user vectors.", "the paper")
    n_layers: int = count(2, "Transformer layers.", "the paper")
    n_heads: int = count(2, "Attention heads; a divisor of dim.", "the paper")
    ff_dim: int = count(256, "Width of the feed-forward part.", "the authors' code")
    max_len: int = count(100, "Number of newest behaviours of a user that are used.", "the paper, for TTL")
    embed_norm: bool = option(True, "Layer norm on item + position; the paper's Eq. 2 has none.", "the authors' code")
    embed_dropout: bool = option(True, "Dropout on item + position; the paper's Eq. 2 has none.", "the authors' code")
    interests: int = count(
        1, "Pooled vectors per user: 1 (Eq. 3-4), or a dictionary of several (idicl: 4).", "the paper, Eq. 3-4"
    )

    item_init: str = choice(
        "random",
        ("random", "svd"),
        "Initial item table of every stage: random, or svd, a truncated SVD of the training users' histories.",
        "the authors' code",
    )
    warm_start: str = option(
        "mlm",
        "Start of the method's own stage: mlm, a stage of masked items before it; none; or the folder of a "
        "finished pre-training, whose encoder is loaded (item vectors are matched by token).",
        "the paper",
        lambda value: bool(value.strip()),
        "mlm, none or the folder of a finished pre-training",
        "mlm|none|DIR",
    )
    mlm_epochs: int = count(20, "Epochs of the masked-item stage.", "the authors' code")
    mlm_learning_rate: float = positive(2e-4, "Adam's learning rate for masked items.", "the paper")
    mlm_dropout: float = rate(0.1, "Dropout in the masked-item stage.", "the paper")
    mlm_ratio: float = share(0.3, "Share of behaviours that are masked.", "the authors' code")
    mlm_softmax: str = choice(
        "full",
        ("full", "sampled"),
        "Masked items are compared with the full catalogue, or with a sample drawn in every step.",
        "the authors' code",
    )
    mlm_sample_share: float = share(0.2, "Share of the catalogue drawn by mlm_softmax sampled.", "PeterRec's code")
    mlm_pooled: float = fraction(
        0.0, "Share of the masked-item loss that predicts from the user vector.", "ours; the paper has no such term"
    )
    mlm_beside: float = not_negative(
        0.0,
        "Weight of a masked-item loss added to the loss on two views, in the method's own stage.",
        "ours; the paper has no such term",
    )
    mlm_select: str = _select(
        "Epoch of masked items that is passed on: best (validation accuracy), last or epoch:K.", "ours"
    )

    loss: str = choice(
        "adaptssr", ("adaptssr", "infonce"), "Loss on the two views: the ranking, or InfoNCE.", "the paper, Eq. 6"
    )
    interest_penalty: float = not_negative(
        1.0,
        "Weight of the penalty on the overlap of several interests, added to the loss on two views.",
        "the authors' code, whose scripts use one interest",
    )
    ptum_negatives: int = count(4, "ptum: negatives for every predicted behaviour.", "PTUM's code")
    ptum_next: int = count(2, "ptum: number K of newest behaviours that are hidden and predicted.", "PTUM's code")
    ptum_weight: float = positive(1.0, "ptum: weight of the next behaviours against the masked one.", "PTUM's code")
    ptum_negatives_from: str = choice(
        "history", ("history", "uniform"), "ptum: negatives from random users' histories, or uniform.", "PTUM's code"
    )

    epochs: int = count(20, "Epochs of the method's own stage; 0 skips it.", "the authors' code", least=0)
    learning_rate: float = positive(2e-4, "Adam's learning rate.", "the paper")
    item_lr_share: float = fraction(
        1.0,
        "Learning rate of the item table in pre-training, relative to all other weights; 0 freezes the table.",
        "the authors' code",
    )
    dropout: float = rate(0.1, "Dropout of the encoder; the implicit view needs it.", "the paper")
    batch_size: int = count(128, "Users in a batch.", "the paper", least=2)
    micro_batch: int = count(
        0, "Two views: users encoded at once, by gradient caching; 0: the whole batch.", "ours", least=0
    )
    select: str = _select(
        "Epoch that becomes the model: best (validation criterion), last or epoch:K.",
        "the paper; the criterion is ours",
    )
    history: str = choice(
        "whole",
        ("whole", "older"),
        "Part of every user's training history that is used: whole, or older, its older half, for adaptssr "
        "reidentify, which looks at the newer half.",
        "the paper",
    )
    valid_share: float = option(
        0.1, "Share of users held out for validation.", "the paper", lambda value: 0 < value < 1, "a number in (0, 1)"
    )
    stopping_step: int = count(10, "Epochs without improvement after which a stage stops.", "RecBole")
    clip_grad_norm: float = not_negative(0.0, "Largest norm of the gradient; 0: no clipping.", "the authors' code")
    amp_dtype: str = choice(
        "auto", ("auto", "bfloat16", "float16"), "Precision under RecBole's enable_amp; auto: torch's default.", "ours"
    )
    cuda_graphs: bool = option(
        False,
        "Steps on a CUDA device are captured as graphs and replayed, in pre-training and fine-tuning; batches are "
        "padded to quarters of max_len. Not measured yet. Where steps cannot be captured, one line says so.",
        "ours",
    )
    seed: int = count(2020, "Seed of initialisation, order, dropout and augmentation.", "RecBole", least=0)
    split_seed: int = count(2023, "Seed of all splits.", "ours", least=0)

    ft_epochs: int = count(5, "Epochs of fine-tuning.", "the authors' code")
    ft_learning_rate: float = positive(2e-4, "Adam's learning rate in fine-tuning.", "the paper")
    ft_item_lr_share: float = fraction(
        1.0, "Fine-tuning: as item_lr_share, for the item table of the pre-trained model.", "the authors' code"
    )
    ft_batch_size: int = count(128, "Users in a batch of fine-tuning.", "the paper")
    ft_dropout: float = rate(0.1, "Dropout of the encoder in fine-tuning.", "the paper")
    ft_hidden: int = count(64, "Hidden width of the two-layer head.", "the paper")
    ft_shuffle: bool = option(True, "New order of users in every epoch of fine-tuning.", "ours")
    ft_coldrec_loss: str = choice(
        "bpr",
        ("bpr", "ce"),
        "Cold recommendation: one negative per row, or cross-entropy over the label space.",
        "the authors' code",
    )
    ft_neg_exclude: str = choice(
        "all",
        ("all", "train"),
        "Cold recommendation: which positives of a user are never drawn as negatives: all, or the training rows'.",
        "the authors' code",
    )
    ft_split_unit: str = choice(
        "pair",
        ("pair", "user"),
        "Cold recommendation: split by pairs of user and item, or by users.",
        "the authors' code",
    )
    ft_ties: str = choice(
        "pessimistic",
        ("pessimistic", "optimistic", "mean"),
        "Cold recommendation: rank of a target among items of the same score.",
        "ours",
    )
    ft_tune: str = choice(
        "all",
        ("all", "head", "adapter", "lora", "item_adapter", "linear"),
        "What is trained: all weights; the head alone; the head with adapters, with low-rank updates (lora), or with "
        "one adapter after the item table. linear: nothing, a logistic regression reads the frozen user vectors.",
        "the authors' code",
    )
    ft_rank: int = count(8, "Width of adapters, and rank of low-rank updates.", "ours")

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            InputError: a value of the wrong type or outside its range, an unknown method or preset.
        """
        check_options(self)
        _check_name("method", self.method, available())
        _check_name("preset", self.preset, presets())
        self.check_curriculum(self.epochs)
        if self.dim % self.n_heads:
            raise InputError(f"n_heads: expected a divisor of dim = {self.dim}, got {self.n_heads}")
        if self.interests > 1 and "interests" not in encoder_kind(self.encoder).takes:
            raise InputError(f"interests: expected 1 for encoder {self.encoder}, got {self.interests}")
        if self.mlm_softmax == "full" and self.mlm_sample_share != Recipe.mlm_sample_share:
            raise InputError("mlm_sample_share: expected mlm_softmax sampled beside it, got full, which takes all")
        if self.item_init == "svd" and self.warm_start not in ("mlm", "none"):
            raise InputError(f"item_init: expected random beside the item table of {self.warm_start!r}, got svd")
        if self.ft_tune != "all" and self.ft_item_lr_share != 1:
            raise InputError(
                f"ft_item_lr_share: expected 1 with ft_tune {self.ft_tune}, which freezes the table, "
                f"got {self.ft_item_lr_share}"
            )
        for name, epochs, runs in (
            ("mlm_select", self.mlm_epochs, self.warm_start == "mlm" or method_named(self.method).needs_filler),
            ("select", self.epochs, self.epochs > 0),
        ):
            value = getattr(self, name)
            if runs and value.startswith("epoch:") and int(value.removeprefix("epoch:")) > epochs:
                raise InputError(f"{name}: expected one of the {epochs} epochs, got {value!r}")

    def encoder_arguments(self, n_items: int) -> dict[str, Any]:
        """Arguments of :func:`make_encoder` except dropout, which differs from stage to stage."""
        takes = encoder_kind(self.encoder).takes
        return {"kind": self.encoder, "n_items": n_items, **{name: getattr(self, name) for name in takes}}

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


def presets() -> list[str]:
    """Names of the presets."""
    return _names("presets")


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
    unknown = sorted(map(str, set(merged) - set(_TYPES)))
    if unknown:
        raise InputError(f"{unknown[0]}: expected an option of a recipe ({', '.join(_TYPES)}), got an unknown name")
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


def _names(folder: str) -> list[str]:
    entries = (entry.name for entry in (_PACKAGE / folder).iterdir())
    return sorted(name.removesuffix(".yaml") for name in entries if name.endswith(".yaml"))


def _check_name(what: str, name: object, known: list[str]) -> None:
    if not isinstance(name, str) or name not in known:
        raise InputError(f"{what}: expected one of {', '.join(known)}, got {name!r}")
