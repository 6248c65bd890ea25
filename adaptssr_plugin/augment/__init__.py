"""Operators that turn behaviour sequences into augmented views, on whole batches and on any device."""

from adaptssr_plugin.augment.base import Operator, Sequences, ViewPair
from adaptssr_plugin.augment.choice import RandomChoice
from adaptssr_plugin.augment.compose import Compose
from adaptssr_plugin.augment.correlated import CorrelatedOperator, ItemInsert, ItemSubstitute, replace_neighbours
from adaptssr_plugin.augment.crop import ItemCrop
from adaptssr_plugin.augment.curriculum import ScoredFillPair, equal_stages
from adaptssr_plugin.augment.dropout import DropoutPair
from adaptssr_plugin.augment.from_length import FromLength, coserec_pair
from adaptssr_plugin.augment.mask import ItemMask
from adaptssr_plugin.augment.mask_and_fill import Filler, MaskAndFill, MaskAndFillPair, linear_ratios
from adaptssr_plugin.augment.pair import RandomPair
from adaptssr_plugin.augment.periods import PeriodPair
from adaptssr_plugin.augment.reorder import ItemReorder
from adaptssr_plugin.augment.same_target import SameTargetPair

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
