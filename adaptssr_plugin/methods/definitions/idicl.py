"""IDICL: two periods of one history, pooled by a dictionary of interests with a penalty on their overlap.

Evidence: our reconstruction. Published are only "different time periods" and an interest dictionary. The length of the
periods (``crop_ratio``), how they are drawn (``period``), the number of interests, how they are compared and the weight
of the penalty are ours, and all are options. The dictionary belongs to the encoder (``interests``), so any method that
compares views can use one. A RecBole model pools in its own way and gets only the periods.
"""

from ...augment import PeriodPair
from ..options.comparison import ComparisonOptions
from ..registry import Method, register
from ..views import ViewSource


def two_periods(options: ComparisonOptions, _source: ViewSource) -> PeriodPair:
    """Two windows of the sequence, disjoint where both fit."""
    return PeriodPair(options.crop_ratio, options.period)  # type: ignore[arg-type]


METHOD = register(Method("idicl", "periods and dictionary: our reconstruction", views=two_periods))
