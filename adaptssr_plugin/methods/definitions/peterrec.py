"""PeterRec's pre-training (Yuan et al., SIGIR 2020) as AdaptSSR's paper uses it: masked items alone.

Evidence: verified against AdaptSSR's code. PeterRec's adapters are not part of that comparison. With a causal encoder,
whose states see no later behaviour, next items are predicted instead, as in PeterRec's causal variant.
"""

from typing import Literal

from ...encoders import UserEncoder, encoder_kind
from ...errors import InputError
from ...training import ItemPredictionStage, MaskedItemStage, NextItemStage
from ..recipe import Recipe
from ..registry import Method, register
from ..views import ViewSource


def masked_items(
    recipe: Recipe, encoder: UserEncoder, _source: ViewSource, name: str = "peterrec"
) -> ItemPredictionStage:
    """Predict the items at masked positions; with a causal encoder, the next items."""
    softmax: Literal["full", "sampled"] = "sampled" if recipe.mlm_softmax == "sampled" else "full"
    if encoder_kind(recipe.encoder).causal:
        if recipe.mlm_pooled:
            raise InputError(f"mlm_pooled: expected 0 for encoder {recipe.encoder}, got {recipe.mlm_pooled}")
        return NextItemStage(encoder, name, softmax, recipe.mlm_sample_share)
    return MaskedItemStage(encoder, recipe.mlm_ratio, name, softmax, recipe.mlm_sample_share, recipe.mlm_pooled)


METHOD = register(Method("peterrec", "masked items: AdaptSSR's code", stage=masked_items))
