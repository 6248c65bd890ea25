"""PTUM (Wu et al., Findings of EMNLP 2020): classify a masked behaviour, and the next K, among negatives.

Evidence: verified against the authors' code (wuch15/PTUM); the paper's text was not read. Not reproduced: the code's
second task uses the positions of the last user for all rows, and leaves hidden behaviours in place as blanks. Here
[MASK] is a learned vector; there it is an empty behaviour.
"""

from ...encoders import UserEncoder
from ...training import NegativeItems, NextBehaviourStage, Stage
from ..recipe import Recipe
from ..registry import Method, register
from ..views import ViewSource


def next_behaviours(recipe: Recipe, encoder: UserEncoder, source: ViewSource) -> Stage:
    """Both of PTUM's objectives, with negatives from the training histories or the whole catalogue."""
    from_histories = recipe.ptum_negatives_from == "history"
    return NextBehaviourStage(
        encoder,
        NegativeItems.from_histories(source.histories()) if from_histories else NegativeItems.uniform(source.n_items),
        recipe.ptum_negatives,
        recipe.ptum_next,
        recipe.ptum_weight,
    )


METHOD = register(Method("ptum", "both objectives: the authors' code", stage=next_behaviours))
