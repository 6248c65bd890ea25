"""All users' behaviour sequences in one flat array."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adaptssr_plugin.errors import InputError, check_count

PAD_TOKEN = "[PAD]"
_ROWS = 1 << 14  # users whose behaviours are gathered at once

IntArray = npt.NDArray[np.int32] | npt.NDArray[np.int64]
StrArray = npt.NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class BehaviourCorpus:
    """The histories of all users, concatenated; a user is identified by the row number.

    Attributes:
        items: (n_behaviours,) int32 or int64, ids ``1 .. n_items - 1``, each user's oldest behaviour first.
        offsets: (n_users + 1,) int64; the history of row r is ``items[offsets[r]:offsets[r + 1]]``.
        n_items: the number of items, including the padding id 0.
        user_tokens: (n_users,) str, the names of the users in the source.
        item_tokens: (n_items,) str, the names of the items in the source; ``"[PAD]"`` for id 0.

    Raises:
        InputError: ids outside ``1 .. n_items - 1``, a user without behaviour, or arrays that do not fit together.
    """

    items: IntArray
    offsets: npt.NDArray[np.int64]
    n_items: int
    user_tokens: StrArray
    item_tokens: StrArray

    def __post_init__(self) -> None:
        _check_array("items", self.items, "int32 or int64", (np.int32, np.int64))
        _check_array("offsets", self.offsets, "int64", (np.int64,))
        _check_array("user_tokens", self.user_tokens, "str", (np.str_,))
        _check_array("item_tokens", self.item_tokens, "str", (np.str_,))
        self._check_offsets()
        self._check_ids()

    @classmethod
    def from_lists(
        cls,
        histories: Sequence[Sequence[int]],
        n_items: int | None = None,
        *,
        user_tokens: Sequence[str] | None = None,
        item_tokens: Sequence[str] | None = None,
    ) -> "BehaviourCorpus":
        """Make a corpus of one list of item ids per user.

        Args:
            histories: the ids of each user, at least 1 each, oldest first.
            n_items: the number of items with the padding id; by default the largest id and one.
            user_tokens: names of the users; by default "0", "1", ...
            item_tokens: names of the items from id 0 on; by default "[PAD]", "1", "2", ...

        Raises:
            InputError: as the constructor.
        """
        offsets = np.zeros(len(histories) + 1, dtype=np.int64)
        np.cumsum([len(history) for history in histories], out=offsets[1:])
        flat = [item for history in histories for item in history]
        if not all(isinstance(item, (int, np.integer)) for item in flat):
            raise InputError("histories: expected lists of integer ids, got something else among them")
        items = np.array(flat, dtype=np.int64)
        if n_items is None:
            n_items = int(items.max(initial=0)) + 1
        users = user_tokens if user_tokens is not None else [str(row) for row in range(len(histories))]
        names = item_tokens if item_tokens is not None else [PAD_TOKEN, *map(str, range(1, n_items))]
        return cls(items, offsets, n_items, np.array(users, dtype=np.str_), np.array(names, dtype=np.str_))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(n_users,) int64, the number of behaviours of each user."""
        return np.diff(self.offsets)

    def history(self, row: int) -> IntArray:
        """Return the ids of one user's behaviours, oldest first, as a view of ``items``."""
        if not isinstance(row, int | np.integer) or not 0 <= row < len(self):
            raise InputError(f"row: expected one of 0 to {len(self) - 1}, got {row}")
        return self.items[self.offsets[row] : self.offsets[row + 1]]

    def padded(self, rows: npt.NDArray[np.int64], max_len: int) -> tuple[Tensor, Tensor]:
        """Make a batch of some users' newest behaviours.

        Args:
            rows: (B,) integers, rows of the corpus, at least one.
            max_len: the number of newest behaviours to keep.

        Returns:
            item_seq (B, L) int64, oldest first, right-padded with 0, where L is the length of the longest row; and
            item_seq_len (B,) int64. Both own their memory.

        Raises:
            InputError: no rows, rows outside the corpus, or a ``max_len`` below 1.
        """
        rows = self.check_rows(rows)
        check_count("max_len", max_len)
        if len(rows) == 0:
            raise InputError("rows: expected at least one row, got none")
        length = np.minimum(self.offsets[rows + 1] - self.offsets[rows], min(max_len, len(self.items)))
        inside = np.arange(length.max()) < length[:, None]  # (B, L)
        item_seq = np.zeros(inside.shape, dtype=np.int64)
        item_seq[inside] = self._before(self.offsets[rows + 1], length)
        return torch.from_numpy(item_seq), torch.from_numpy(length)

    def select(self, rows: npt.NDArray[np.int64]) -> "BehaviourCorpus":
        """Make a corpus of some users, in the order of ``rows``; all items keep their ids."""
        rows = self.check_rows(rows)
        return self._parts(self.offsets[rows + 1], self.lengths[rows], self.user_tokens[rows])

    def halves(self) -> "tuple[BehaviourCorpus, BehaviourCorpus]":
        """Cut every history of n behaviours into the oldest ``n // 2`` and the rest.

        Returns:
            The older and the newer halves, copied, of the users with two behaviours or more, in their order: row r
            is the same user in both. All items keep their ids.
        """
        rows = np.flatnonzero(self.lengths > 1)
        older, tokens = self.lengths[rows] // 2, self.user_tokens[rows]
        middle, end = self.offsets[rows] + older, self.offsets[rows + 1]
        return self._parts(middle, older, tokens), self._parts(end, end - middle, tokens)

    def checksum(self) -> int:
        """Return the CRC-32 of all histories."""
        return zlib.crc32(self.offsets.data, zlib.crc32(self.items.data))

    def check_rows(self, rows: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return ``rows`` as (B,) int64; raise InputError unless they are rows of this corpus."""
        array = np.asarray(rows)
        if array.size == 0:
            array = array.astype(np.int64)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InputError(f"rows: expected integers of shape (B,), got {array.dtype} of shape {array.shape}")
        outside = (array < 0) | (array >= len(self))
        if outside.any():
            raise InputError(f"rows: expected rows from 0 to {len(self) - 1}, got {array[outside][0]}")
        return array.astype(np.int64, copy=False)

    def _parts(
        self, end: npt.NDArray[np.int64], length: npt.NDArray[np.int64], user_tokens: StrArray
    ) -> "BehaviourCorpus":
        """Make a corpus of the ``length[i]`` behaviours before each place ``end[i]`` of items."""
        offsets = np.zeros(len(end) + 1, dtype=np.int64)
        np.cumsum(length, out=offsets[1:])
        items = np.empty(offsets[-1], dtype=self.items.dtype)
        for start in range(0, len(end), _ROWS):  # in blocks, so that the indices take no more memory than the copy
            part = slice(start, start + _ROWS)
            items[offsets[start] : offsets[min(start + _ROWS, len(end))]] = self._before(end[part], length[part])
        return BehaviourCorpus(items, offsets, self.n_items, user_tokens, self.item_tokens)

    def _before(self, end: npt.NDArray[np.int64], length: npt.NDArray[np.int64]) -> IntArray:
        """Return the ``length[i]`` behaviours before each place ``end[i]`` of items, user after user."""
        ahead = end - np.cumsum(length)  # offset from a place in the result to the place in items
        found: IntArray = self.items[np.arange(length.sum()) + np.repeat(ahead, length)]
        return found

    def _check_offsets(self) -> None:
        n_users = len(self.user_tokens)
        if self.offsets.shape != (n_users + 1,):
            raise InputError(
                f"offsets: expected shape ({n_users + 1},), one more than user_tokens, got {self.offsets.shape}"
            )
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.items):
            raise InputError(
                f"offsets: expected to go from 0 to {len(self.items)}, the length of items, "
                f"got {self.offsets[0]} to {self.offsets[-1]}"
            )
        empty = np.flatnonzero(np.diff(self.offsets) < 1)
        if len(empty):
            raise InputError(
                f"offsets: expected at least one behaviour per user, "
                f"got {self.offsets[empty[0] + 1] - self.offsets[empty[0]]} in row {empty[0]}"
            )

    def _check_ids(self) -> None:
        check_count("n_items", self.n_items)
        if self.item_tokens.shape != (self.n_items,):
            raise InputError(
                f"item_tokens: expected shape ({self.n_items},), one per item with the padding, "
                f"got {self.item_tokens.shape}"
            )
        if self.item_tokens[0] != PAD_TOKEN:
            raise InputError(f"item_tokens: expected {PAD_TOKEN!r} for id 0, got {str(self.item_tokens[0])!r}")
        if len(self.items) == 0:
            return
        low, high = int(self.items.min()), int(self.items.max())
        if low < 1 or high >= self.n_items:
            came = low if low < 1 else high
            raise InputError(f"items: expected ids from 1 to {self.n_items - 1}, got {came}")


def blocks(sizes: npt.NDArray[Any], limit: int) -> Iterator[tuple[int, int]]:
    """Cut a list into runs whose sizes add up to at most ``limit``, or that have a single entry."""
    total = np.cumsum(sizes, dtype=np.int64)
    start, before = 0, 0
    while start < len(total):
        stop = max(start + 1, int(np.searchsorted(total, before + limit, side="right")))
        yield start, stop
        start, before = stop, int(total[stop - 1])


def _check_array(name: str, array: object, expected: str, kinds: tuple[type[np.generic], ...]) -> None:
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name}: expected a numpy array, got {type(array).__name__}")
    if array.ndim != 1 or not issubclass(array.dtype.type, kinds):
        raise InputError(f"{name}: expected {expected} of shape (n,), got {array.dtype} of shape {array.shape}")
