"""CCL (Bian et al., CIKM 2021): behaviours are masked and filled by a masked-item model, from few to many.

Evidence: our reconstruction from the abstract, except the ratio that grows in equal steps (``curriculum:
ratio_linear``), which is in the authors' code. That code has neither the generator (here: the filler) nor the evaluator
of difficulty. Sorting candidates by how far the filler sees them from the sequence (``curriculum: scored``) replaces
the learnable evaluator.
"""

from ...augment import MaskAndFill, MaskAndFillPair, ScoredFillPair, equal_stages, linear_ratios
from ...errors import InputError
from ...training.stages.pairwise import Views
from ..options.comparison import ComparisonOptions
from ..recipe import Recipe
from ..registry import Method, register
from ..views import ViewSource


def filled_pair(options: ComparisonOptions, source: ViewSource) -> Views:
    """Two independent draws of mask-and-fill by the recipe's own masked-item stage.

    Raises:
        InputError: the source has no filler, as in a RecBole run.
    """
    filler = getattr(source, "filler", None)
    if filler is None:
        raise InputError(
            "method: expected one whose views need no trained model, got one that needs a stage of masked items before "
            "it, as adaptssr pretrain lays it (ccl)"
        )
    recipe = options if isinstance(options, Recipe) else Recipe()
    operator = MaskAndFill(
        recipe.fill_ratio,
        filler,
        top_k=recipe.fill_top_k,
        temperature=recipe.fill_temperature,
        fill=recipe.fill,  # type: ignore[arg-type]
        ban_original=recipe.fill_ban_original,
    )
    if recipe.curriculum == "scored":
        candidates = recipe.curriculum_candidates
        ranks = equal_stages(recipe.epochs, candidates, recipe.curriculum_stages or candidates)
        return ScoredFillPair(operator, candidates, ranks, recipe.fill_one_side)
    return MaskAndFillPair(operator, recipe.fill_one_side, _ratios(recipe))


def _ratios(recipe: Recipe) -> tuple[float, ...]:
    if recipe.curriculum == "none":
        return ()
    epochs_per_stage = recipe.curriculum_epochs or min(5, -(-recipe.epochs // 4))
    return linear_ratios(recipe.fill_ratio, recipe.epochs, epochs_per_stage)


METHOD = register(
    Method(
        "ccl",
        "mask-and-fill and scored curriculum: our reconstruction; curriculum by ratio: public code",
        views=filled_pair,
        needs_filler=True,
    )
)
