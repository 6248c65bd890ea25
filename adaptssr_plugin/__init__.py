"""Augmentation-adaptive self-supervised ranking (AdaptSSR, NeurIPS 2023) for sequential recommenders.

The core needs torch and numpy alone. RecBole and the commands: ``pip install "adaptssr-plugin[recbole]"``.
"""

from .losses import AdaptSSRLoss, AugmentationAdaptiveFusion, InfoNCELoss, RankingTerms

__version__ = "0.1.0"

__all__ = [
    "AdaptSSRLoss",
    "AugmentationAdaptiveFusion",
    "InfoNCELoss",
    "RankingTerms",
]
