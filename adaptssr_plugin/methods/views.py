"""The training data from which view providers are made."""

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from ..augment import Filler, SameTargetPair
from ..corpus import BehaviourCorpus, same_target_pair


class ViewSource(Protocol):
    """The training data that some view providers need; each part is computed only when it is asked for."""

    @property
    def n_items(self) -> int:
        """The number of items, including the padding id 0."""
        ...

    @property
    def max_len(self) -> int:
        """The longest sequence that the encoder accepts."""
        ...

    def histories(self) -> BehaviourCorpus:
        """Return the training histories, one row per user."""
        ...

    def same_target(self) -> SameTargetPair:
        """Return pairs of rows with the same key item."""
        ...


class UserHistories:
    """Training histories, one row per user, as a source of views.

    Args:
        corpus: all histories; the rows of batches are its rows.
        max_len: the longest sequence that the encoder accepts.
        train_rows: (R,) integers, the users of whom views may be made: those of the training split. None: all.

    Attributes:
        filler: a trained masked-item model, for views that need one; None before it is trained.
    """

    def __init__(self, corpus: BehaviourCorpus, max_len: int, train_rows: npt.NDArray[np.int64] | None = None) -> None:
        self.n_items = corpus.n_items
        self.max_len = max_len
        self.filler: Filler | None = None
        self._corpus = corpus
        self._train_rows = train_rows

    def histories(self) -> BehaviourCorpus:
        """Return the histories of the training split."""
        return self._corpus if self._train_rows is None else self._corpus.select(self._train_rows)

    def same_target(
        self, key: Literal["last_kept", "last_dropped"] = "last_kept", *, skip_identical: bool = False
    ) -> SameTargetPair:
        """Return pairs of users whose last behaviour is the same item; arguments as :func:`same_target_pair`."""
        return same_target_pair(self._corpus, key, skip_identical=skip_identical, candidates=self._train_rows)
