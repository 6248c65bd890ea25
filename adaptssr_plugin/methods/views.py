"""What view providers are made of."""

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from ..augment import Filler, SameTargetPair
from ..corpus import BehaviourCorpus, same_target_pair
from ..errors import InputError


class ViewSource(Protocol):
    """The training data that some view providers are made of; nothing of it is computed unless asked for."""

    @property
    def n_items(self) -> int:
        """Items, the padding id 0 included."""
        ...

    @property
    def max_len(self) -> int:
        """The longest sequence that the encoder takes."""
        ...

    def histories(self) -> BehaviourCorpus:
        """Give the training histories, one row per user."""
        ...

    def same_target(self) -> SameTargetPair:
        """Give pairs of rows that share their key item."""
        ...


class UserHistories:
    """Training histories, one row per user, as a source of views.

    Args:
        corpus: all histories; the rows of batches are its rows.
        max_len: the longest sequence that the encoder takes.
        train_rows: (R,) integers, the users that views may be made of: those of the training split. None: all.

    Attributes:
        filler: a trained masked-item model, for views that need one; None until there is one.
    """

    def __init__(self, corpus: BehaviourCorpus, max_len: int, train_rows: npt.NDArray[np.int64] | None = None) -> None:
        self.n_items = corpus.n_items
        self.max_len = max_len
        self.filler: Filler | None = None
        self._corpus = corpus
        self._train_rows = train_rows

    def histories(self) -> BehaviourCorpus:
        """Give the histories of the training split."""
        return self._corpus if self._train_rows is None else self._corpus.select(self._train_rows)

    def same_target(
        self, key: Literal["last_kept", "last_dropped"] = "last_kept", *, skip_identical: bool = False
    ) -> SameTargetPair:
        """Give pairs of users whose last behaviour is the same item; arguments as :func:`same_target_pair`."""
        return same_target_pair(self._corpus, key, skip_identical=skip_identical, candidates=self._train_rows)


def filler_of(source: ViewSource) -> Filler:
    """Give the masked-item model that a source of views has.

    Raises:
        InputError: it has none.
    """
    filler: Filler | None = getattr(source, "filler", None)
    if filler is None:
        raise InputError(
            "method: expected one whose views need no trained model, got one that needs a stage of masked items before "
            "it, as adaptssr pretrain lays it (ccl)"
        )
    return filler
