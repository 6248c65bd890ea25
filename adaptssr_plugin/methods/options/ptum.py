"""Options of the method ptum."""

from dataclasses import dataclass

from .declaring import OptionGroup, choice, count, positive


@dataclass(frozen=True)
class PtumOptions(OptionGroup):
    """The objective of ptum: a masked behaviour and the next ones, each among negatives."""

    group = "objective"

    ptum_negatives: int = count(4, "ptum: negatives for every predicted behaviour.", "PTUM's code")
    ptum_next: int = count(2, "ptum: number K of newest behaviours that are hidden and predicted.", "PTUM's code")
    ptum_weight: float = positive(1.0, "ptum: weight of the next behaviours against the masked one.", "PTUM's code")
    ptum_negatives_from: str = choice(
        "history", ("history", "uniform"), "ptum: negatives from random users' histories, or uniform.", "PTUM's code"
    )
