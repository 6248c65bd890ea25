"""From a recipe to the stages that a trainer runs."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..encoders import InterestPooling, UserEncoder
from ..errors import InputError
from ..training import MLM_TO_RANKING, PairwiseStage, Stage
from .comparison import pairwise_loss
from .peterrec import masked_items
from .recipe import Recipe
from .registry import Method, method_named
from .views import ViewSource, make_views


@dataclass(frozen=True)
class StagePlan:
    """One stage of a recipe.

    Attributes:
        name: of the stage.
        make: puts the stage around a fresh encoder; views come from the source.
        epochs: how many.
        learning_rate: Adam's.
        dropout: of the encoder in this stage.
        select: which epoch moves on: best, last or epoch:K.
        takes: parts of the encoder that come from the stage before.
    """

    name: str
    make: Callable[[UserEncoder, ViewSource], Stage]
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
                make=lambda encoder, source: masked_items(recipe, encoder, source, "mlm"),
                epochs=recipe.mlm_epochs,
                learning_rate=recipe.mlm_learning_rate,
                dropout=recipe.mlm_dropout,
                select=recipe.mlm_select,
            )
        )
    method = method_named(recipe.method)
    if (method.stage or method.views) and recipe.epochs:
        if method.views and recipe.loss == "adaptssr" and not recipe.dropout:
            raise InputError("dropout: expected a number above 0, by which the implicit view lives, got 0.0")
        plans.append(
            StagePlan(
                name=recipe.method,
                make=lambda encoder, source: _own_stage(method, recipe, encoder, source),
                epochs=recipe.epochs,
                learning_rate=recipe.learning_rate,
                dropout=recipe.dropout,
                select=recipe.select,
                takes=MLM_TO_RANKING,
            )
        )
    return plans


def _own_stage(method: Method, recipe: Recipe, encoder: UserEncoder, source: ViewSource) -> Stage:
    if method.stage is not None:
        return method.stage(recipe, encoder, source)
    views = make_views(method.name, recipe, source)
    penalty = _interest_penalty(encoder, recipe.interest_penalty)
    return PairwiseStage(encoder, views, pairwise_loss(recipe.loss, recipe), method.name, penalty)


def _interest_penalty(encoder: UserEncoder, weight: float) -> Callable[[], Tensor] | None:
    """Give the weighted overlap of an encoder's interests; None where it has but one, or the weight is 0."""
    pooling = encoder.pooling
    if not isinstance(pooling, InterestPooling) or not weight:
        return None
    return lambda: weight * pooling.overlap()
