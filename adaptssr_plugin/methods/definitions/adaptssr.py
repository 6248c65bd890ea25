"""AdaptSSR (Yu et al., NeurIPS 2023): ranking of two randomly augmented views, after masked items.

Evidence: verified against the authors' code. Where code and paper differ, there is a preset for each (METHODS.md).
"""

from ...augment import ItemCrop, ItemMask, ItemReorder, RandomPair
from ...augment.periods import ByLength
from ...training.stages.pairwise import Views
from ..options.comparison import ComparisonOptions
from ..registry import Method, register
from ..views import ViewSource
from .idicl import two_periods

_LONG = 10  # behaviours; two periods of fewer would be too short


def two_views(options: ComparisonOptions, source: ViewSource) -> Views:
    """Two views; an operator is drawn for each row from mask, crop and reorder, or both are periods (``views``)."""
    operators = [
        ItemMask(options.mask_ratio, mask_id=source.n_items),
        ItemCrop(options.crop_ratio),
        ItemReorder(options.reorder_ratio),
    ]
    pair = RandomPair(operators, distinct=options.distinct_ops)
    return ByLength(two_periods(options, source), pair, _LONG) if options.views == "periods" else pair


METHOD = register(Method("adaptssr", "operators, ranking and fusion: the authors' code", views=two_views))
