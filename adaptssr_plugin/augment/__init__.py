"""Operators that turn behaviour sequences into augmented views, on whole batches and on any device."""

from adaptssr_plugin.augment.base import Operator, Sequences, ViewPair
from adaptssr_plugin.augment.choice import RandomChoice
from adaptssr_plugin.augment.compose import Compose
from adaptssr_plugin.augment.crop import ItemCrop
from adaptssr_plugin.augment.mask import ItemMask
from adaptssr_plugin.augment.pair import RandomPair
from adaptssr_plugin.augment.reorder import ItemReorder

__all__ = [
    "Compose",
    "ItemCrop",
    "ItemMask",
    "ItemReorder",
    "Operator",
    "RandomChoice",
    "RandomPair",
    "Sequences",
    "ViewPair",
]
