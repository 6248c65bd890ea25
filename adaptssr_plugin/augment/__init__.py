"""Operators that turn behaviour sequences into augmented views, on whole batches and on any device."""

from .curriculum import ScoredFillPair, equal_stages
from .dropout import DropoutPair
from .operators.base import Operator, Sequences, ViewPair
from .operators.choice import RandomChoice
from .operators.compose import Compose
from .operators.correlated import CorrelatedOperator, ItemInsert, ItemSubstitute, replace_neighbours
from .operators.crop import ItemCrop
from .operators.from_length import FromLength, coserec_pair
from .operators.mask import ItemMask
from .operators.mask_and_fill import Filler, MaskAndFill, MaskAndFillPair, linear_ratios
from .operators.reorder import ItemReorder
from .pair import RandomPair
from .periods import PeriodPair
from .same_target import SameTargetPair

__all__ = [
    "Compose",
    "CorrelatedOperator",
    "DropoutPair",
    "Filler",
    "FromLength",
    "ItemCrop",
    "ItemInsert",
    "ItemMask",
    "ItemReorder",
    "ItemSubstitute",
    "MaskAndFill",
    "MaskAndFillPair",
    "Operator",
    "PeriodPair",
    "RandomChoice",
    "RandomPair",
    "SameTargetPair",
    "ScoredFillPair",
    "Sequences",
    "ViewPair",
    "coserec_pair",
    "equal_stages",
    "linear_ratios",
    "replace_neighbours",
]
