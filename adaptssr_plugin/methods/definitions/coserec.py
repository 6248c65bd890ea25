"""CoSeRec (Liu et al., 2021): the operators of CL4SRec, and substitution and insertion of correlated items.

Evidence: operators, ItemCF-IUF and the rule for short sequences verified against the authors' code. Its masking with
the padding id and its crops that never include the newest item are not reproduced.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...augment import ViewPair, coserec_pair, replace_neighbours
from ...corpus import ItemCorrelation
from ...errors import InputError
from ...training.stages.pairwise import Views
from ..options.comparison import ComparisonOptions
from ..recipe import Recipe
from ..registry import Method, register
from ..views import ViewSource


def correlated_pair(options: ComparisonOptions, source: ViewSource) -> Views:
    """Two views from five operators, with the correlation of the training histories."""
    recipe = options if isinstance(options, Recipe) else Recipe()  # a RecBole run uses the defaults: memory only
    memory = None if recipe.correlation == "random" else ItemCorrelation.from_histories(source.histories())
    # Without neighbours the operators draw from the catalogue.
    neighbours = torch.zeros(source.n_items, dtype=torch.int64) if memory is None else _first(memory)
    pair = coserec_pair(
        neighbours,
        mask_id=source.n_items,
        substitute=options.substitute_ratio,
        insert=options.insert_ratio,
        crop=options.crop_ratio,
        mask=options.mask_ratio,
        reorder=options.reorder_ratio,
    )
    if memory is None or recipe.correlation == "memory":
        return _Padded(pair, source.max_len)
    warmup = recipe.epochs // 2 if recipe.correlation_warmup < 0 else recipe.correlation_warmup
    return _Refreshed(pair, source.max_len, memory, recipe.correlation == "hybrid", warmup)


class _Padded(nn.Module):
    """Views of rows that are first padded to the full width, so that an inserted item pushes none out needlessly."""

    def __init__(self, views: nn.Module, width: int) -> None:
        super().__init__()
        self.views = views
        self.width = width

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> ViewPair:
        pair: ViewPair = self.views(F.pad(item_seq, (0, self.width - item_seq.shape[1])), item_seq_len, generator)
        return pair


class _Refreshed(_Padded):
    """Views whose correlation follows the item table in training: updated every epoch, after epochs of memory.

    Validation always correlates by memory, so that its views are the same in every epoch.
    """

    def __init__(self, views: nn.Module, width: int, memory: ItemCorrelation, hybrid: bool, warmup: int) -> None:
        super().__init__(views, width)
        self.memory = memory
        self.hybrid, self.warmup = hybrid, warmup
        self._neighbours = _first(memory)

    def set_epoch(self, epoch: int | None, encoder: object) -> None:
        """Correlate by memory; after the warm-up epochs, by the encoder's item table."""
        if epoch is None or epoch < self.warmup:
            correlation = self.memory
        elif not hasattr(encoder, "item_weight"):
            raise InputError(f"encoder: expected one with item_weight, to correlate by, got {type(encoder).__name__}")
        elif self.hybrid:
            correlation = ItemCorrelation.hybrid(self.memory, encoder.item_weight.detach())
        else:
            correlation = ItemCorrelation.from_item_weight(encoder.item_weight.detach())
        self._correlate(_first(correlation))

    def epoch_state(self) -> dict[str, Tensor]:
        """Return the neighbours of this epoch, for a checkpoint within it."""
        return {"neighbours": self._neighbours}

    def load_epoch_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        self._correlate(state["neighbours"])

    def _correlate(self, neighbours: Tensor) -> None:
        self._neighbours = neighbours
        replace_neighbours(self.views, neighbours)


def _first(correlation: ItemCorrelation) -> Tensor:
    """Return the most correlated item of every item: (n_items,) int64, 0 for none."""
    return torch.from_numpy(correlation.neighbours[:, 0].copy())


METHOD = register(Method("coserec", "operators and correlation: the authors' code", views=correlated_pair))
