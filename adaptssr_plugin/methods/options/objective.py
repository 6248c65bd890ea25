"""Options of the objective of a method's own stage."""

from dataclasses import dataclass

from .declaring import OptionGroup, choice, not_negative


@dataclass(frozen=True)
class ObjectiveOptions(OptionGroup):
    """Which loss on two views is taken, and what is added to it."""

    group = "objective"

    loss: str = choice(
        "adaptssr", ("adaptssr", "infonce"), "Loss on the two views: the ranking, or InfoNCE.", "the paper, Eq. 6"
    )
    mlm_beside: float = not_negative(
        0.0,
        "Weight of a masked-item loss added to the loss on two views, in the method's own stage.",
        "ours; the paper has no such term",
    )
    interest_penalty: float = not_negative(
        1.0,
        "Weight of the penalty on the overlap of several interests, added to the loss on two views.",
        "the authors' code, whose scripts use one interest",
    )
