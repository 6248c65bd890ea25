"""IDICL: two periods of one history, pooled by a dictionary of interests, whose directions are kept apart.

Evidence: our reconstruction. Published are "different time periods" and an interest dictionary;
how long the periods are (``crop_ratio``), how they are drawn (``period``), the number of interests, how they are
compared and the weight of the penalty are ours, and options all. The dictionary is the encoder's (``interests``):
any method that compares views may have one, and a RecBole model, which pools as it does, gets the periods alone.
"""

from typing import Literal

from ...augment import PeriodPair
from ...training.stages.pairwise import Views
from ..comparison import ComparisonOptions
from ..registry import Method, register
from ..views import ViewSource


def two_periods(options: ComparisonOptions, _source: ViewSource) -> Views:
    """Two windows of the sequence, disjoint wherever both fit."""
    period: Literal["disjoint", "independent"] = "independent" if options.period == "independent" else "disjoint"
    return PeriodPair(options.crop_ratio, period)


METHOD = register(Method("idicl", "periods and dictionary: our reconstruction", views=two_periods))
