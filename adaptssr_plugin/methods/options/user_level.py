"""Options of views that need more than the batch: whole users, epochs, or a model trained first.

Recipes have these options. A RecBole run, whose rows are prefixes of histories, does not.
"""

from dataclasses import dataclass

from ...errors import InputError
from .comparison import ComparisonOptions
from .declaring import choice, count, option, positive, share


@dataclass(frozen=True)
class UserLevelOptions(ComparisonOptions):
    """Options of ccl's filler and curriculum, duorec's key and coserec's correlation."""

    group = "views"

    fill_ratio: float = share(
        0.3, "ccl: share of behaviours that are masked and filled.", "ours; CCL's code increases its mask up to it"
    )
    fill: str = choice("sample", ("sample", "argmax"), "ccl: draw the filled item, or take the likeliest.", "ours")
    fill_top_k: int = count(50, "ccl: number of likeliest items to draw from.", "ours")
    fill_temperature: float = positive(1.0, "ccl: temperature of that draw.", "ours")
    fill_ban_original: bool = option(False, "ccl: never fill in the original item.", "ours")
    fill_one_side: bool = option(False, "ccl: the first view is the unchanged sequence.", "ours")
    curriculum: str = choice(
        "none",
        ("none", "ratio_linear", "scored"),
        "ccl: none: constant fill_ratio; ratio_linear: it grows in equal steps; scored: candidates from easy to hard.",
        "ours",
    )
    curriculum_epochs: int = count(
        0,
        "ccl: epochs per step of ratio_linear; 0: five, or a quarter of the epochs if that is less.",
        "CCL's code has five; the quarter is ours",
        least=0,
    )
    curriculum_candidates: int = count(5, "ccl: candidates per view that scored sorts by difficulty.", "ours")
    curriculum_stages: int = count(
        0, "ccl: number of stages of scored, which share the epochs equally; 0: one per candidate.", "ours", least=0
    )
    duorec_key: str = choice(
        "last_kept",
        ("last_kept", "last_dropped"),
        "duorec: key of a user: last_kept, the last behaviour; last_dropped, the same, hidden from both views.",
        "the paper, on DuoRec for user models",
    )
    skip_identical: bool = option(False, "duorec: never pair two users with the same history.", "DuoRec's code")
    mask_same_key: bool = option(
        False, "duorec: users with the same key are not negatives of each other.", "DuoRec's code"
    )
    correlation: str = choice(
        "memory",
        ("memory", "model", "hybrid", "random"),
        "coserec: correlation by common users (memory), by the model's item table, by the stronger of both, or random.",
        "ours; CoSeRec's code switches to the hybrid",
    )
    correlation_warmup: int = option(
        -1,
        "coserec: epochs of memory before model or hybrid; -1: half of the epochs.",
        "ours; CoSeRec's code has 160 of 300",
        lambda value: value >= -1,
        "an integer of at least -1",
    )

    def check_curriculum(self, epochs: int) -> None:
        """Check the stages of a scored curriculum.

        Args:
            epochs: of the method's own stage; 0: no such stage.

        Raises:
            InputError: options that exclude each other.
        """
        if self.curriculum != "scored" or not epochs:
            return
        if self.curriculum_epochs:
            raise InputError(
                "curriculum_epochs: expected 0 beside curriculum scored, whose stages share the epochs equally, "
                f"got {self.curriculum_epochs}"
            )
        if self.curriculum_stages > self.curriculum_candidates:
            raise InputError(
                f"curriculum_stages: expected at most curriculum_candidates = {self.curriculum_candidates}, "
                f"got {self.curriculum_stages}"
            )
        stages = self.curriculum_stages or self.curriculum_candidates
        if epochs < stages:
            raise InputError(
                f"epochs: expected at least {stages}, one for each stage of curriculum scored, got {epochs}"
            )
