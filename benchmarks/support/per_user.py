"""Augmentation one user at a time, as recommenders do it: the comparison for the batched operators.

:class:`PerUser` works on Python lists, as a ``Dataset.__getitem__`` does, and pads what comes out;
:class:`PerUserArrays` does the same on one NumPy array per user. :class:`RecBole` calls the transforms of
``recbole.data.transform`` as RecBole's data loaders call them.
"""

import math
import random
from collections.abc import Callable, Sequence
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Views = list[tuple[Tensor, Tensor]]
Items = npt.NDArray[np.int64]
Row = Any  # a list of items, or Items


def padded(rows: Sequence[list[int]], width: int) -> tuple[Tensor, Tensor]:
    """Write the newest ``width`` items of every row into (B, L) int64, right-padded with 0; and their number (B,).

    All items at once: a third of the time of ``torch.tensor`` of lists that were filled up with 0.
    """
    kept = [items[-width:] for items in rows]
    lengths = np.fromiter(map(len, kept), np.int64, len(kept))
    item_seq = np.zeros((len(kept), width), dtype=np.int64)
    item_seq[np.arange(width) < lengths[:, None]] = np.fromiter(chain.from_iterable(kept), np.int64, lengths.sum())
    return torch.from_numpy(item_seq), torch.from_numpy(lengths)


def padded_arrays(rows: Sequence[Items], width: int) -> tuple[Tensor, Tensor]:
    """Do the same to arrays, which are copied row by row."""
    lengths = np.empty(len(rows), dtype=np.int64)
    item_seq = np.zeros((len(rows), width), dtype=np.int64)
    for row, items in enumerate(rows):
        kept = items[-width:]
        item_seq[row, : len(kept)] = kept
        lengths[row] = len(kept)
    return torch.from_numpy(item_seq), torch.from_numpy(lengths)


class PerUser:
    """The operators on lists of items, with Python's ``random``, and the padding of a batch of them.

    Counts and places are those of the batched operators, so that the work is the same; ratios are the defaults.
    ``neighbours`` has the most correlated item of every item, 0 for none.
    """

    padded: Callable[..., tuple[Tensor, Tensor]] = staticmethod(padded)

    def __init__(self, mask_id: int, neighbours: Sequence[int], seed: int) -> None:
        self.mask_id = mask_id
        self.neighbours: Any = neighbours
        self.rng = random.Random(seed)

    def mask(self, items: Row, ratio: float = 0.6) -> Row:
        """Replace a share of the items, but never all of them, by the id of [MASK]."""
        n = len(items)
        result = items.copy()
        for place in self.rng.sample(range(n), min(_up(ratio, n), n - 1)):
            result[place] = self.mask_id
        return result

    def crop(self, items: Row, ratio: float = 0.4) -> Row:
        """Keep one window."""
        length = _up(ratio, len(items))
        start = self.rng.randrange(len(items) - length + 1)
        return items[start : start + length]

    def reorder(self, items: Row, ratio: float = 0.6) -> Row:
        """Shuffle one window."""
        length = _up(ratio, len(items))
        start = self.rng.randrange(len(items) - length + 1)
        window = items[start : start + length]
        self.rng.shuffle(window)
        return items[:start] + window + items[start + length :]

    def substitute(self, items: Row, ratio: float = 0.1) -> Row:
        """Replace a share of the items by their neighbours."""
        result = items.copy()
        for place in self.rng.sample(range(len(items)), max(_down(ratio, len(items)), 1)):
            result[place] = self._neighbour(items[place])
        return result

    def insert(self, items: Row, ratio: float = 0.4) -> Row:
        """Put their neighbours before a share of the items."""
        drawn = set(self.rng.sample(range(len(items)), max(_down(ratio, len(items)), 1)))
        result = []
        for place, item in enumerate(items):
            if place in drawn:
                result.append(self._neighbour(item))
            result.append(item)
        return result

    def view(self, items: Row) -> Row:
        """Apply one of mask, crop and reorder; a single item is not masked."""
        operators = (self.crop, self.reorder, self.mask) if len(items) > 1 else (self.crop, self.reorder)
        return self.rng.choice(operators)(items)

    def batch(self, what: str, histories: Sequence[Row], width: int) -> Views:
        """Do ``what`` ("pair" or the name of an operator) to every user; give each view as (B, L) and (B,) int64."""
        operator = self.view if what == "pair" else getattr(self, what)
        times = 2 if what == "pair" else 1
        return [self.padded([operator(items) for items in histories], width) for _ in range(times)]

    def _neighbour(self, item: int) -> int:
        neighbour: int = self.neighbours[item] or self.rng.randrange(1, len(self.neighbours))
        return neighbour


class PerUserArrays(PerUser):
    """The same on arrays; NumPy's generator draws several numbers at once, and takes ten times as long for one."""

    padded = staticmethod(padded_arrays)

    def __init__(self, mask_id: int, neighbours: Sequence[int], seed: int) -> None:
        super().__init__(mask_id, np.array(neighbours), seed)  # type: ignore[arg-type]
        self.several = np.random.default_rng(seed)

    def mask(self, items: Items, ratio: float = 0.6) -> Items:
        """Replace a share of the items, but never all of them, by the id of [MASK]."""
        n = len(items)
        result = items.copy()
        result[self.several.permutation(n)[: min(_up(ratio, n), n - 1)]] = self.mask_id
        return result

    def reorder(self, items: Items, ratio: float = 0.6) -> Items:
        """Shuffle one window."""
        length = _up(ratio, len(items))
        start = self.rng.randrange(len(items) - length + 1)
        result = items.copy()
        result[start : start + length] = self.several.permutation(items[start : start + length])
        return result

    def substitute(self, items: Items, ratio: float = 0.1) -> Items:
        """Replace a share of the items by their neighbours."""
        places = self.several.permutation(len(items))[: max(_down(ratio, len(items)), 1)]
        result = items.copy()
        result[places] = self._neighbours(items[places])
        return result

    def insert(self, items: Items, ratio: float = 0.4) -> Items:
        """Put their neighbours before a share of the items."""
        places = self.several.permutation(len(items))[: max(_down(ratio, len(items)), 1)]
        return np.insert(items, places, self._neighbours(items[places]))

    def _neighbours(self, items: Items) -> Items:
        found: Items = self.neighbours[items]
        if not found.all():
            missing = found == 0
            found[missing] = self.several.integers(1, len(self.neighbours), missing.sum())
        return found


class RecBole:
    """RecBole's transforms of a batch, which go through it user by user; it has none for correlated items.

    They differ a little: mask draws every item on its own and samples a negative item for each, which its BERT4Rec
    needs; counts are rounded down, so that a crop of a short history may be empty. RecBole has no pair of views: here
    one of the three is drawn for every row of both, as above, and each transform is called on the rows that drew it.
    ``n_items`` is the id of [MASK].
    """

    def __init__(self, n_items: int, width: int) -> None:
        from recbole.data.interaction import Interaction
        from recbole.data.transform import CropItemSequence, MaskItemSequence, ReorderItemSequence

        config: dict[str, Any] = {
            "ITEM_ID_FIELD": "item_id",
            "LIST_SUFFIX": "_list",
            "ITEM_LIST_LENGTH_FIELD": "item_length",
            "MAX_ITEM_LIST_LENGTH": width,
            "mask_ratio": 0.6,
            "eta": 0.4,
            "beta": 0.6,
        }
        self._interaction = Interaction
        self._dataset = SimpleNamespace(num=lambda _: n_items)
        self._transforms: dict[str, Callable[[Any, Any], Any]] = {
            "mask": MaskItemSequence(config),
            "crop": CropItemSequence(config),
            "reorder": ReorderItemSequence(config),
        }

    def batch(self, what: str, item_seq: Tensor, item_seq_len: Tensor) -> Views:
        """Do ``what`` ("pair", "mask", "crop" or "reorder") to (B, L) and (B,) int64; give each view as such."""
        if what == "pair":
            return [self._view(item_seq, item_seq_len) for _ in range(2)]
        batch = self._interaction({"item_id_list": item_seq, "item_length": item_seq_len})
        done = self._transforms[what](self._dataset, batch)
        if what == "crop":
            return [(done["Crop_item_id_list"], done["Crop_item_id_listitem_length"])]
        return [(done[f"{what.capitalize()}_item_id_list"], item_seq_len)]

    def _view(self, item_seq: Tensor, item_seq_len: Tensor) -> tuple[Tensor, Tensor]:
        drawn = torch.randint(len(self._transforms), item_seq_len.shape)
        result = torch.empty_like(item_seq), torch.empty_like(item_seq_len)
        for number, what in enumerate(self._transforms):
            rows = (drawn == number).nonzero()[:, 0]
            if len(rows):
                ((result[0][rows], result[1][rows]),) = self.batch(what, item_seq[rows], item_seq_len[rows])
        return result


def _up(ratio: float, n: int) -> int:
    return math.ceil(ratio * n - 1e-9)


def _down(ratio: float, n: int) -> int:
    return math.floor(ratio * n + 1e-9)
