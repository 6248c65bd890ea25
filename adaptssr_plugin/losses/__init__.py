"""The losses as modules, which check their arguments and call :mod:`adaptssr_plugin.functional`."""

from .adaptssr import AdaptSSRLoss, RankingTerms
from .fusion import AugmentationAdaptiveFusion
from .info_nce import InfoNCELoss

__all__ = ["AdaptSSRLoss", "AugmentationAdaptiveFusion", "InfoNCELoss", "RankingTerms"]
