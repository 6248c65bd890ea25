"""Augmentation-adaptive self-supervised ranking (AdaptSSR, NeurIPS 2023) for sequential recommenders.

The core needs only torch and numpy. The package ``recbole`` and the commands need the extra ``recbole`` and RecBole
1.2.1, which is installed without its dependencies.
"""

from .augment import (
    Compose,
    ItemCrop,
    ItemInsert,
    ItemMask,
    ItemReorder,
    ItemSubstitute,
    MaskAndFill,
    RandomChoice,
    RandomPair,
)
from .encoders import UserEncoder
from .losses import AdaptSSRLoss, AugmentationAdaptiveFusion, InfoNCELoss, RankingTerms

__version__ = "0.1.0"

__all__ = [
    "AdaptSSRLoss",
    "AugmentationAdaptiveFusion",
    "Compose",
    "InfoNCELoss",
    "ItemCrop",
    "ItemInsert",
    "ItemMask",
    "ItemReorder",
    "ItemSubstitute",
    "MaskAndFill",
    "RandomChoice",
    "RandomPair",
    "RankingTerms",
    "UserEncoder",
]
