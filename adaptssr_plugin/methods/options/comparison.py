"""The options of two views and of the loss that compares them, and the loss that they describe."""

from dataclasses import dataclass
from typing import Any

from ...losses import AdaptSSRLoss, AugmentationAdaptiveFusion, InfoNCELoss
from .declaring import OptionGroup, choice, choice_or_positive, option, positive, share


@dataclass(frozen=True)
class ViewOptions(OptionGroup):
    """Options of the two views of a sequence."""

    group = "views"

    mask_ratio: float = share(0.6, "Share of behaviours that the mask operator hides.", "the authors' code")
    crop_ratio: float = share(
        0.4,
        "Share of behaviours that the crop operator keeps; also the length of periods.",
        "the paper and the authors' code",
    )
    reorder_ratio: float = share(0.6, "Share of behaviours that the reorder operator shuffles.", "the authors' code")
    substitute_ratio: float = share(0.1, "Share of behaviours that the substitute operator replaces.", "CoSeRec's code")
    insert_ratio: float = share(
        0.4, "Share of behaviours before which the insert operator puts another one.", "CoSeRec's code"
    )
    distinct_ops: bool = option(False, "Never use the same operator for both views of a row.", "the authors' code")
    views: str = choice(
        "operators",
        ("operators", "periods"),
        "The two views of adaptssr and cl4srec: one random operator of mask, crop and reorder each, or two periods as "
        "idicl's, for histories of ten behaviours or more.",
        "the paper; periods are ours",
    )
    period: str = choice(
        "disjoint",
        ("disjoint", "independent"),
        "The two periods of idicl and of views periods: disjoint where both fit, or drawn independently.",
        "ours",
    )


@dataclass(frozen=True)
class LossOptions(OptionGroup):
    """Options of the loss on two views."""

    group = "objective"

    lambda_mode: str = choice(
        "sample", ("sample", "batch", "const"), "λ per row, per batch, or constant.", "the paper, Eq. 7"
    )
    lambda_terms: int = option(
        4, "Number of similarities in λ: 4 or 2.", "the paper, Eq. 7", lambda value: value in (4, 2), "4 or 2"
    )
    lambda_clamp: bool = option(True, "max(·, 0) on the similarities in λ.", "the paper, Eq. 7")
    lambda_detach: bool = option(True, "No gradient through λ.", "the authors' code")
    lambda_value: float = option(0.5, "λ for lambda_mode const.", "ours", lambda value: 0 <= value <= 1, "in [0, 1]")
    scale: float = positive(
        1.0, "Factor on the bracket of Eq. 6, before the sigmoid.", "the paper, Eq. 6, without a factor"
    )
    negatives: str | float = choice_or_positive(
        "auto",
        ("auto", "hardest", "all"),
        "Negatives within the batch: hardest (Eq. 6, 8), all (Eq. 5, 9), auto (hardest for the ranking, all for "
        "InfoNCE), or a number τ, which is ours: τ log mean exp(·/τ) over all in place of the hardest.",
        "the paper, Eq. 6 and 9",
    )
    temperature: float = positive(1.0, "Temperature τ of InfoNCE.", "the paper, Eq. 9, without a temperature")
    similarity: str = choice(
        "cosine", ("cosine", "dot"), "Similarity in InfoNCE; the ranking uses the cosine.", "the paper, Eq. 9"
    )


@dataclass(frozen=True)
class ComparisonOptions(LossOptions, ViewOptions):
    """Options of views and losses, shared by recipes and RecBole runs."""


def pairwise_loss(loss: str, options: ComparisonOptions) -> AdaptSSRLoss | InfoNCELoss:
    """Make the loss on two views: "adaptssr" (Eq. 5-7) or "infonce" (Eq. 8-9)."""
    negatives: Any = options.negatives
    if negatives == "auto":
        negatives = "hardest" if loss == "adaptssr" else "all"
    if loss == "infonce":
        return InfoNCELoss(options.temperature, negatives, similarity=options.similarity)  # type: ignore[arg-type]
    if options.lambda_mode == "const":
        return AdaptSSRLoss(options.lambda_value, negatives, options.scale)
    fusion = AugmentationAdaptiveFusion(
        options.lambda_mode,  # type: ignore[arg-type]
        options.lambda_terms,  # type: ignore[arg-type]
        options.lambda_clamp,
        options.lambda_detach,
    )
    return AdaptSSRLoss(fusion, negatives, options.scale)
