"""The paper's formulas as functions: ranking (Eq. 5-7), InfoNCE (Eq. 8-9), hardest negatives, masked items."""

from .contrastive import hardest_info_nce, info_nce
from .hardest_negative import hardest_negative
from .linear_cross_entropy import TargetScores, linear_cross_entropy, sampled_cross_entropy, score_targets
from .ranking import (
    OrderHits,
    RankedPairs,
    adaptive_coefficient,
    all_pairs_ranking,
    hardest_pair_ranking,
    intra_user_similarities,
    order_hits,
)
from .similarity import stacked_unit_vectors, unit_vectors
from .soft_negative import soft_negative

__all__ = [
    "OrderHits",
    "RankedPairs",
    "TargetScores",
    "adaptive_coefficient",
    "all_pairs_ranking",
    "hardest_info_nce",
    "hardest_negative",
    "hardest_pair_ranking",
    "info_nce",
    "intra_user_similarities",
    "linear_cross_entropy",
    "order_hits",
    "sampled_cross_entropy",
    "score_targets",
    "soft_negative",
    "stacked_unit_vectors",
    "unit_vectors",
]
