"""The most correlated items of each item, which CoSeRec substitutes and inserts."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..errors import InputError, check_count
from .behaviours import BehaviourCorpus
from .correlation_sources import item_cf, nearest_by_product


@dataclass(frozen=True, eq=False)
class ItemCorrelation:
    """The k most correlated items of every item.

    Make one by :meth:`from_histories` (memory-based), :meth:`from_item_weight` (model-based) or :meth:`hybrid`, or from
    arrays of any other source. The operators take ``torch.from_numpy(correlation.neighbours)``.

    Attributes:
        neighbours: (n_items, k) int64, the most correlated item first, among equal ones the smaller id; 0 if an item
            has fewer neighbours (an operator then draws one). Never the item itself, the padding or [MASK].
        scores: (n_items, k) float32, their correlations; 0 where there is no neighbour.
        lowest: the smallest score of all pairs before the cut to k, the zero point of :meth:`hybrid`; None: the
            smallest score of the kept pairs.

    Raises:
        InputError: shapes, dtypes or values other than these.
    """

    neighbours: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    lowest: float | None = None

    def __post_init__(self) -> None:
        _check_table("neighbours", self.neighbours, np.int64)
        _check_table("scores", self.scores, np.float32)
        if self.scores.shape != self.neighbours.shape:
            raise InputError(f"scores: expected shape {self.neighbours.shape} as neighbours, got {self.scores.shape}")
        n_items = len(self.neighbours)
        low, high = int(self.neighbours.min()), int(self.neighbours.max())
        if low < 0 or high >= n_items:
            raise InputError(f"neighbours: expected ids from 0 to {n_items - 1}, got {low if low < 0 else high}")
        if self.neighbours[0].any():
            raise InputError(f"neighbours: expected none in row 0, the padding, got {self.neighbours[0].max()}")
        own = (self.neighbours[1:] == np.arange(1, n_items)[:, None]).any(axis=1)
        if own.any():
            raise InputError(f"neighbours: expected other items in row {own.argmax() + 1}, got the item itself")
        if not np.isfinite(self.scores).all():
            raise InputError("scores: expected finite numbers, got NaN or infinity among them")

    @classmethod
    def from_histories(cls, corpus: BehaviourCorpus, k: int = 1, *, iuf: bool = True) -> "ItemCorrelation":
        """Correlate items by the users who have both, the default of CoSeRec; needs scipy.

        Args:
            corpus: only the training histories: held-out behaviours would leak into the views.
            k: the number of items to keep for each, at least 1.
            iuf: ItemCF-IUF, in which a user counts less the more items the user has; False: ItemCF.

        Returns:
            The correlation; an item that shares no user with another has no neighbours.

        Raises:
            InputError: a ``k`` below 1.
        """
        nearest = item_cf(corpus, _check_k(k), iuf)
        return cls(nearest.neighbours, nearest.scores, nearest.lowest)

    @classmethod
    def from_item_weight(cls, item_weight: Tensor, k: int = 1) -> "ItemCorrelation":
        """Correlate items by the dot products of their vectors.

        Args:
            item_weight: (n_items, d) floating on any device, row 0 the padding: ``encoder.item_weight``.
            k: the number of items to keep for each, at least 1.

        Raises:
            InputError: another shape or dtype, products that are not finite, or a ``k`` below 1.
        """
        nearest = nearest_by_product(item_weight, _check_k(k))
        return cls(nearest.neighbours, nearest.scores, nearest.lowest)

    @staticmethod
    def hybrid(memory: "ItemCorrelation", item_weight: Tensor) -> "ItemCorrelation":
        """Take for each item the stronger of its first neighbours in ``memory`` and in the model.

        Both are scaled to [0, 1] by their smallest and largest score over all items. An item without neighbour has
        score 0, and so have all items of a source whose scores are all equal. On a tie ``memory`` is taken.

        Args:
            memory: of the histories.
            item_weight: (n_items, d) as in :meth:`from_item_weight`.

        Returns:
            A correlation with k = 1 and scores in [0, 1].

        Raises:
            InputError: an ``item_weight`` that does not fit.
        """
        model = nearest_by_product(item_weight, 1)
        n_items = len(memory.neighbours)
        if len(model.neighbours) != n_items:
            raise InputError(f"item_weight: expected {n_items} rows as in memory, got {len(model.neighbours)}")
        first = memory.neighbours[:, :1], memory.scores[:, :1]
        of_memory = _scaled(*first, *memory._range())
        of_model = _scaled(model.neighbours, model.scores, model.lowest, model.highest)
        from_model = of_model > of_memory
        return ItemCorrelation(
            np.where(from_model, model.neighbours, first[0]), np.where(from_model, of_model, of_memory), 0.0
        )

    def save(self, path: Path) -> None:
        """Write a safetensors file, completely or not at all."""
        from safetensors.numpy import save

        lowest = np.array([self._range()[0]], dtype=np.float32)
        content = save({"neighbours": self.neighbours, "scores": self.scores, "lowest": lowest})
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> "ItemCorrelation":
        """Read what :meth:`save` wrote.

        Raises:
            InputError: a file that is missing, damaged or of another kind.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            found = load(path.read_bytes())
            return cls(found["neighbours"], found["scores"], float(found["lowest"].item()))
        except FileNotFoundError:
            raise InputError(f"correlation: expected a file, got {path}, which does not exist") from None
        except KeyError as error:
            raise InputError(f"correlation: expected an item correlation in {path}, which has no {error}") from None
        except (SafetensorError, OSError, ValueError, TypeError) as error:
            raise InputError(f"correlation: cannot read {path}: {' '.join(str(error).split())}") from None

    def _range(self) -> tuple[float, float]:
        """Return the smallest and the largest score of all pairs; zeros if there is no pair."""
        scores = self.scores[self.neighbours > 0]
        if len(scores) == 0:
            return 0.0, 0.0
        return float(scores.min()) if self.lowest is None else self.lowest, float(scores.max())


def _scaled(
    neighbours: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], lowest: float, highest: float
) -> npt.NDArray[np.float32]:
    """Scale scores from [lowest, highest] to [0, 1]; 0 without neighbour or if both bounds are equal."""
    if highest <= lowest:
        return np.zeros_like(scores)
    scaled = np.where(neighbours > 0, (scores.astype(np.float64) - lowest) / (highest - lowest), 0)
    return scaled.astype(np.float32)


def _check_k(k: int) -> int:
    check_count("k", k)
    return int(k)


def _check_table(name: str, array: object, dtype: type[np.generic]) -> None:
    expected = f"{np.dtype(dtype).name} of shape (n_items, k)"
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name}: expected a numpy array, {expected}, got {type(array).__name__}")
    if array.ndim != 2 or array.size == 0 or array.dtype != dtype:
        raise InputError(f"{name}: expected {expected}, both at least 1, got {array.dtype} of shape {array.shape}")
