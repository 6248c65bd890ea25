"""PTUM (Wu et al., Findings of EMNLP 2020): a masked behaviour, and the next K, told from behaviours of others.

Evidence: verified against the authors' code (wuch15/PTUM), whose second task takes the positions of the last user for
all rows and leaves hidden behaviours in place as blanks: neither is reproduced, and here [MASK] is a learned vector
where theirs is an empty behaviour. The paper's text was not read.
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
