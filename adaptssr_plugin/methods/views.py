"""Where the two views of a sequence come from: one view provider per method that has one."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..augment import (
    DropoutPair,
    ItemCrop,
    ItemMask,
    ItemReorder,
    RandomPair,
    SameTargetPair,
    ViewPair,
    coserec_pair,
)
from ..corpus import BehaviourCorpus, ItemCorrelation, same_target_pair
from ..training.pairwise import Views
from .comparison import ComparisonOptions


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
    """

    def __init__(self, corpus: BehaviourCorpus, max_len: int, train_rows: npt.NDArray[np.int64] | None = None) -> None:
        self.n_items = corpus.n_items
        self.max_len = max_len
        self._corpus = corpus
        self._train_rows = train_rows

    def histories(self) -> BehaviourCorpus:
        """Give the histories of the training split."""
        return self._corpus if self._train_rows is None else self._corpus.select(self._train_rows)

    def same_target(self) -> SameTargetPair:
        """Give pairs of users whose last behaviour is the same item."""
        return same_target_pair(self._corpus, candidates=self._train_rows)


def make_views(method: str, options: ComparisonOptions, source: ViewSource) -> Views:
    """Make the view provider of a method (spec §1.4, §1.5, §1.7, §1.11)."""
    return _PROVIDERS[method](options, source)


def _random_pair(options: ComparisonOptions, source: ViewSource) -> Views:
    operators = [
        ItemMask(options.mask_ratio, mask_id=source.n_items),
        ItemCrop(options.crop_ratio),
        ItemReorder(options.reorder_ratio),
    ]
    return RandomPair(operators, distinct=options.distinct_ops)


def _coserec(options: ComparisonOptions, source: ViewSource) -> Views:
    neighbours = ItemCorrelation.from_histories(source.histories()).neighbours[:, 0]
    pair = coserec_pair(
        torch.from_numpy(neighbours),
        mask_id=source.n_items,
        substitute=options.substitute_ratio,
        insert=options.insert_ratio,
        crop=options.crop_ratio,
        mask=options.mask_ratio,
        reorder=options.reorder_ratio,
    )
    return _Padded(pair, source.max_len)


def _same_target(_options: ComparisonOptions, source: ViewSource) -> Views:
    return source.same_target()


def _dropout(_options: ComparisonOptions, _source: ViewSource) -> Views:
    return DropoutPair()


class _Padded(nn.Module):
    """Views of rows that are padded to the full width first, so that an inserted item pushes none out for nothing."""

    def __init__(self, views: nn.Module, width: int) -> None:
        super().__init__()
        self.views = views
        self.width = width

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> ViewPair:
        pair: ViewPair = self.views(F.pad(item_seq, (0, self.width - item_seq.shape[1])), item_seq_len, generator)
        return pair


_PROVIDERS: dict[str, Callable[[ComparisonOptions, ViewSource], Views]] = {
    "adaptssr": _random_pair,
    "cl4srec": _random_pair,
    "clue": _dropout,
    "coserec": _coserec,
    "duorec": _same_target,
}
METHODS = tuple(_PROVIDERS)
"""Methods that have a view provider."""
