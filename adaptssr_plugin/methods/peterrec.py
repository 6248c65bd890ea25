"""PeterRec's pre-training (Yuan et al., SIGIR 2020) as AdaptSSR's paper uses it: masked items alone.

Evidence: verified against AdaptSSR's code (spec §2.2); PeterRec's adapters are no part of that comparison.
"""

from typing import Literal

from ..encoders import UserEncoder
from ..training import MaskedItemStage, Stage
from .recipe import Recipe
from .registry import Method, register
from .views import ViewSource


def masked_items(recipe: Recipe, encoder: UserEncoder, _source: ViewSource, name: str = "peterrec") -> Stage:
    """Predict the items at masked positions."""
    softmax: Literal["full", "sampled"] = "sampled" if recipe.mlm_softmax == "sampled" else "full"
    return MaskedItemStage(encoder, recipe.mlm_ratio, name, softmax, recipe.mlm_sample_share)


METHOD = register(Method("peterrec", "masked items: AdaptSSR's code", stage=masked_items))
