"""Whole users, split into those that a stage trains on and those that choose its epoch, and their batches."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ...corpus import BatchLoader, BehaviourCorpus
from ...errors import InputError
from ...training.processes import Processes


@dataclass(frozen=True)
class UserSplit:
    """Users of a corpus in two parts.

    Attributes:
        corpus: their histories.
        train: (R,) int64, ascending rows of the users that are trained on.
        valid: (V,) int64, ascending rows of the users that choose the epoch.
    """

    corpus: BehaviourCorpus
    train: npt.NDArray[np.int64]
    valid: npt.NDArray[np.int64]

    @classmethod
    def draw(cls, corpus: BehaviourCorpus, seed: int, share: float, option: str) -> "UserSplit":
        """Split at random; ``share`` is that of the users that choose the epoch, and ``option`` its name for users.

        Raises:
            InputError: fewer than two users in one of the parts.
        """
        n_users = len(corpus)
        n_valid = round(share * n_users)
        if n_valid < 2 or n_users - n_valid < 2:
            raise InputError(
                f"dataset: expected at least two users for training and two for validation ({option} {share}), "
                f"got {n_users} users"
            )
        order = np.random.default_rng(seed).permutation(n_users)
        return cls(corpus, np.sort(order[n_valid:]), np.sort(order[:n_valid]))

    def loaders(
        self, processes: Processes, *, batch_size: int, max_len: int, seed: int, prefix: str = ""
    ) -> tuple[BatchLoader, BatchLoader]:
        """Make the loaders for training, whose batches the processes share out, and for validation, alike on all."""
        loader = partial(BatchLoader, self.corpus, batch_size=batch_size, max_len=max_len, seed=seed)
        return (
            loader(self.train, name=f"{prefix}train", part=processes.rank, parts=processes.number),
            loader(self.valid, name=f"{prefix}valid", shuffle=False),
        )
