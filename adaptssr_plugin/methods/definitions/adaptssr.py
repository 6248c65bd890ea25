"""AdaptSSR (Yu et al., NeurIPS 2023): ranking of two randomly augmented views, after masked items.

Evidence: verified against the authors' code. Where code and paper differ, there is a preset for each (METHODS.md).
"""

from ...augment import ItemCrop, ItemMask, ItemReorder, RandomPair
from ...training.stages.pairwise import Views
from ..comparison import ComparisonOptions
from ..registry import Method, register
from ..views import ViewSource
from .idicl import two_periods


def two_views(options: ComparisonOptions, source: ViewSource) -> Views:
    """Two views; an operator is drawn for each row from mask, crop and reorder, or both are periods (``views``)."""
    if options.views == "periods":
        return two_periods(options, source)
    operators = [
        ItemMask(options.mask_ratio, mask_id=source.n_items),
        ItemCrop(options.crop_ratio),
        ItemReorder(options.reorder_ratio),
    ]
    return RandomPair(operators, distinct=options.distinct_ops)


METHOD = register(Method("adaptssr", "operators, ranking and fusion: the authors' code", views=two_views))
