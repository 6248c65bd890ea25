"""Operators that turn behaviour sequences into augmented views, on whole batches and on any device."""

from adaptssr_plugin.augment.curriculum import ScoredFillPair, equal_stages
from adaptssr_plugin.augment.dropout import DropoutPair
from adaptssr_plugin.augment.operators.base import Operator, Sequences, ViewPair
from adaptssr_plugin.augment.operators.choice import RandomChoice
from adaptssr_plugin.augment.operators.compose import Compose
from adaptssr_plugin.augment.operators.correlated import (
    CorrelatedOperator,
    ItemInsert,
    ItemSubstitute,
    replace_neighbours,
)
from adaptssr_plugin.augment.operators.crop import ItemCrop
from adaptssr_plugin.augment.operators.from_length import FromLength, coserec_pair
from adaptssr_plugin.augment.operators.mask import ItemMask
from adaptssr_plugin.augment.operators.mask_and_fill import Filler, MaskAndFill, MaskAndFillPair, linear_ratios
from adaptssr_plugin.augment.operators.reorder import ItemReorder
from adaptssr_plugin.augment.pair import RandomPair
from adaptssr_plugin.augment.periods import PeriodPair
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
