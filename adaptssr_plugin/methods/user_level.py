"""Options of views that need more than the batch: whole users, epochs, or a model trained before.

A recipe has them; a RecBole run, whose rows are prefixes of histories, does not.
"""

from dataclasses import dataclass

from ..errors import InputError
from .comparison import ComparisonOptions
from .options import choice, count, option, positive, share


@dataclass(frozen=True)
class UserLevelOptions(ComparisonOptions):
    """Options of ccl's filler and curriculum, of duorec's key and of coserec's correlation."""

    fill_ratio: float = share(
        0.3, "ccl: share of behaviours that are masked and filled.", "ours; CCL's code grows its mask to it"
    )
    fill: str = choice("sample", ("sample", "argmax"), "ccl: draw the filled item, or take the likeliest.", "ours")
    fill_top_k: int = count(50, "ccl: how many of the likeliest items are drawn from.", "ours")
    fill_temperature: float = positive(1.0, "ccl: temperature of that draw.", "ours")
    fill_ban_original: bool = option(False, "ccl: never fill in the item that stood there.", "ours")
    fill_one_side: bool = option(False, "ccl: the first view is the sequence as it is.", "ours")
    curriculum: str = choice(
        "none",
        ("none", "ratio_linear", "scored"),
        "ccl: the same fill_ratio throughout, growing to it by equal steps, or candidates from easy to hard.",
        "ours",
    )
    curriculum_epochs: int = count(
        0,
        "ccl: epochs of one step of ratio_linear; 0: five, or a quarter of the epochs where that is less.",
        "CCL's code has five; the quarter is ours",
        least=0,
    )
    curriculum_candidates: int = count(
        5, "ccl: candidates for each view that scored sorts by their difficulty.", "ours"
    )
    curriculum_stages: int = count(
        0, "ccl: stages of scored, which share the epochs equally; 0: as many as candidates.", "ours", least=0
    )
    duorec_key: str = choice(
        "last_kept",
        ("last_kept", "last_dropped"),
        "duorec: the last behaviour is the key and stays, or is hidden from both views, as a next item is.",
        "the paper, of DuoRec for user models",
    )
    skip_identical: bool = option(False, "duorec: never pair two users of the same history.", "DuoRec's code")
    mask_same_key: bool = option(
        False, "duorec: users of the same key are no negatives of each other.", "DuoRec's code"
    )
    correlation: str = choice(
        "memory",
        ("memory", "model", "hybrid", "random"),
        "coserec: correlated by users in common, by the model's item table, by the stronger of both; or random items.",
        "ours; CoSeRec's code goes on to the hybrid",
    )
    correlation_warmup: int = option(
        -1,
        "coserec: epochs of memory before model or hybrid; -1: half of the epochs.",
        "ours; CoSeRec's code has 160 of 300",
        lambda value: value >= -1,
        "an integer of at least -1",
    )

    def check_curriculum(self, epochs: int) -> None:
        """Check what the stages of a scored curriculum ask for.

        Args:
            epochs: of the method's own stage; 0: there is none.

        Raises:
            InputError: options that do not go together.
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
