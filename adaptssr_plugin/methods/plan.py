"""From a recipe to the stages that a trainer runs."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..encoders import InterestPooling, UserEncoder, encoder_kind
from ..errors import InputError
from ..training import MLM_TO_RANKING, WHOLE_ENCODER, PairwiseStage, Stage, WithMaskedItemsStage
from .definitions.peterrec import masked_items
from .options.comparison import pairwise_loss
from .recipe import Recipe
from .registry import Method, make_views, method_named
from .views import ViewSource


@dataclass(frozen=True)
class StagePlan:
    """One stage of a recipe.

    Attributes:
        name: of the stage.
        make: makes the stage for a fresh encoder; views come from the source.
        epochs: the number of epochs.
        learning_rate: Adam's.
        dropout: of the encoder in this stage.
        select: which epoch is passed to the next stage: best, last or epoch:K.
        takes: parts of the encoder that come from the stage before.
        fills: whether its masked-item model, frozen, makes the views of the next stage.
        item_lr_share: learning rate of the item table as a share of ``learning_rate``; with 0 it is frozen.
    """

    name: str
    make: Callable[[UserEncoder, ViewSource], Stage]
    epochs: int
    learning_rate: float
    dropout: float
    select: str
    takes: tuple[str, ...] = ()
    fills: bool = False
    item_lr_share: float = 1.0


def stage_plans(recipe: Recipe) -> list[StagePlan]:
    """List the stages of a recipe: the warm-up and the method's own stage, as far as it has them.

    A method whose views need a filler always has the stage of masked items. With ``warm_start: mlm`` that stage is
    also its warm-up; otherwise none of its weights are passed on.

    Raises:
        InputError: a ranking without dropout; its first step would refuse it, but only after the warm-up.
    """
    plans = []
    method = method_named(recipe.method)
    has_own = bool((method.stage or method.views) and recipe.epochs)
    fills = method.needs_filler and has_own
    if fills and encoder_kind(recipe.encoder).causal:
        raise InputError(
            f"encoder: expected one that predicts masked items, for the views of {recipe.method}, got {recipe.encoder}"
        )
    if recipe.warm_start == "mlm" or fills:
        plans.append(
            StagePlan(
                name="mlm",
                make=lambda encoder, source: masked_items(recipe, encoder, source, "mlm"),
                epochs=recipe.mlm_epochs,
                learning_rate=recipe.mlm_learning_rate,
                dropout=recipe.mlm_dropout,
                select=recipe.mlm_select,
                item_lr_share=recipe.item_lr_share,
                fills=fills,
            )
        )
    if has_own:
        if method.views and recipe.loss == "adaptssr" and not recipe.dropout:
            raise InputError("dropout: expected a number above 0, which the implicit view needs, got 0.0")
        plans.append(
            StagePlan(
                name=recipe.method,
                make=lambda encoder, source: _own_stage(method, recipe, encoder, source),
                epochs=recipe.epochs,
                learning_rate=recipe.learning_rate,
                dropout=recipe.dropout,
                select=recipe.select,
                takes=_from_warm_up(recipe),
                item_lr_share=recipe.item_lr_share,
            )
        )
    return plans


def _from_warm_up(recipe: Recipe) -> tuple[str, ...]:
    """Return the parts of the encoder that the warm-up passes on: the pooling query only if it was trained."""
    if recipe.warm_start != "mlm":
        return ()
    return WHOLE_ENCODER if recipe.mlm_pooled else MLM_TO_RANKING


def _own_stage(method: Method, recipe: Recipe, encoder: UserEncoder, source: ViewSource) -> Stage:
    if method.stage is not None:
        return method.stage(recipe, encoder, source)
    views = make_views(method.name, recipe, source)
    penalty = _interest_penalty(encoder, recipe.interest_penalty)
    criterion = pairwise_loss(recipe.loss, recipe)
    stage = PairwiseStage(encoder, views, criterion, method.name, penalty, recipe.mask_same_key, recipe.micro_batch)
    if not recipe.mlm_beside:
        return stage
    return WithMaskedItemsStage(stage, masked_items(recipe, encoder, source, method.name), recipe.mlm_beside)


def _interest_penalty(encoder: UserEncoder, weight: float) -> Callable[[], Tensor] | None:
    """Return the weighted overlap of an encoder's interests; None if it has only one or the weight is 0."""
    pooling = getattr(encoder, "pooling", None)  # other kinds of encoder need not have it
    if not isinstance(pooling, InterestPooling) or not weight:
        return None
    return lambda: weight * pooling.overlap()
