"""From a recipe to the stages that a trainer runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..augment import ItemCrop, ItemMask, ItemReorder, RandomPair
from ..encoders import UserEncoder
from ..errors import InputError
from ..losses import AdaptSSRLoss, AugmentationAdaptiveFusion, InfoNCELoss
from ..training import MLM_TO_RANKING, MaskedItemStage, PairwiseStage, Stage
from .recipe import Recipe


@dataclass(frozen=True)
class StagePlan:
    """One stage of a recipe.

    Attributes:
        name: of the stage.
        make: puts the stage around a fresh encoder.
        epochs: how many.
        learning_rate: Adam's.
        dropout: of the encoder in this stage.
        select: which epoch moves on: best, last or epoch:K.
        takes: parts of the encoder that come from the stage before.
    """

    name: str
    make: Callable[[UserEncoder], Stage]
    epochs: int
    learning_rate: float
    dropout: float
    select: str
    takes: tuple[str, ...] = ()


def stage_plans(recipe: Recipe) -> list[StagePlan]:
    """Lay out the stages of a recipe: the warm-up, if it has one, and the method's own, if it has one.

    Raises:
        InputError: a ranking without dropout, which its first step would refuse, but only after the warm-up.
    """
    plans = []
    if recipe.warm_start == "mlm":
        plans.append(
            StagePlan(
                name="mlm",
                make=lambda encoder: _masked_items(recipe, encoder, "mlm"),
                epochs=recipe.mlm_epochs,
                learning_rate=recipe.mlm_learning_rate,
                dropout=recipe.mlm_dropout,
                select=recipe.mlm_select,
            )
        )
    make = _OWN_STAGE[recipe.method]
    if make is not None and recipe.epochs:
        if make is _views_compared and recipe.loss == "adaptssr" and not recipe.dropout:
            raise InputError("dropout: expected a number above 0, by which the implicit view lives, got 0.0")
        plans.append(
            StagePlan(
                name=recipe.method,
                make=lambda encoder: make(recipe, encoder),
                epochs=recipe.epochs,
                learning_rate=recipe.learning_rate,
                dropout=recipe.dropout,
                select=recipe.select,
                takes=MLM_TO_RANKING,
            )
        )
    return plans


def _views_compared(recipe: Recipe, encoder: UserEncoder) -> Stage:
    return PairwiseStage(encoder, random_pair(recipe, encoder.n_items), pairwise_loss(recipe), recipe.method)


def _masked_items(recipe: Recipe, encoder: UserEncoder, name: str | None = None) -> Stage:
    softmax: Literal["full", "sampled"] = "sampled" if recipe.mlm_softmax == "sampled" else "full"
    return MaskedItemStage(encoder, recipe.mlm_ratio, name or recipe.method, softmax, recipe.mlm_sample_share)


_OWN_STAGE: dict[str, Callable[[Recipe, UserEncoder], Stage] | None] = {
    "none": None,
    "peterrec": _masked_items,
    "adaptssr": _views_compared,
}


def random_pair(recipe: Recipe, n_items: int) -> RandomPair:
    """Two views by operators drawn per user from mask, crop and reorder (spec §1.4)."""
    operators = [
        ItemMask(recipe.mask_ratio, mask_id=n_items),
        ItemCrop(recipe.crop_ratio),
        ItemReorder(recipe.reorder_ratio),
    ]
    return RandomPair(operators, distinct=recipe.distinct_ops)


def pairwise_loss(recipe: Recipe) -> AdaptSSRLoss | InfoNCELoss:
    """Make the loss of a recipe: Eq. 5-7, or InfoNCE (Eq. 8-9) in its place."""
    hardest = recipe.negatives == "hardest" or (recipe.negatives == "auto" and recipe.loss == "adaptssr")
    negatives: Literal["hardest", "all"] = "hardest" if hardest else "all"
    if recipe.loss == "infonce":
        return InfoNCELoss(recipe.temperature, negatives)
    fusion: AugmentationAdaptiveFusion | float = recipe.lambda_value
    if recipe.lambda_mode != "const":
        fusion = AugmentationAdaptiveFusion(
            "batch" if recipe.lambda_mode == "batch" else "sample",
            2 if recipe.lambda_terms == 2 else 4,
            recipe.lambda_clamp,
            recipe.lambda_detach,
        )
    return AdaptSSRLoss(fusion, negatives, recipe.scale)
