"""The same-target views of a corpus (DuoRec)."""

import warnings
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from adaptssr_plugin.augment import SameTargetPair
from adaptssr_plugin.corpus.behaviours import BehaviourCorpus
from adaptssr_plugin.errors import InputError, check_choice, check_kind


def same_target_pair(
    corpus: BehaviourCorpus,
    key: Literal["last_kept", "last_dropped"] = "last_kept",
    *,
    skip_identical: bool = False,
    candidates: npt.NDArray[np.int64] | None = None,
) -> SameTargetPair:
    """Make the view provider that pairs users whose last behaviour is the same item.

    Args:
        corpus: the histories; the provider's ``rows`` are its rows. The items are shared, not copied.
        key: "last_kept": the last behaviour stays in both views, as in the paper for user models; "last_dropped":
            it is hidden from both, like DuoRec's next-item target.
        skip_identical: never pair two users with the same history.
        candidates: (R,) integers, the rows that may be drawn: those of the training split, so that no other history
            is seen in training. None: all. Other rows still get a partner.

    Raises:
        InputError: an unknown key, or rows outside the corpus.
    """
    check_kind("corpus", corpus, BehaviourCorpus, "a BehaviourCorpus")
    check_choice("key", key, ("last_kept", "last_dropped"))
    drawable = None
    if candidates is not None:
        try:
            rows = corpus.check_rows(candidates)
        except InputError as error:
            raise InputError(f"candidates: {str(error).removeprefix('rows: ')}") from None
        drawable = torch.zeros(len(corpus), dtype=torch.bool)
        drawable[torch.from_numpy(np.ascontiguousarray(rows))] = True
    with warnings.catch_warnings():
        # The array may be a read-only mapping of a file; nothing here writes to it.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        items = torch.from_numpy(corpus.items)
    starts = torch.from_numpy(corpus.offsets[:-1].copy())
    lengths = torch.from_numpy(corpus.lengths)
    keys = torch.from_numpy(corpus.items[corpus.offsets[1:] - 1].astype(np.int64))
    return SameTargetPair(items, starts, lengths, keys, key == "last_dropped", skip_identical, drawable)
