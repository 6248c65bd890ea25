"""Faster parts for RecBole's models: the same functions and distributions, with other random numbers."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.data.transform import MaskItemSequence
from recbole.model.layers import FeedForward
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from ...encoders.dropout import replace_dropout
from ...seeding import stream_generator

_MANY_TRIES = 100


def speed_up(model: nn.Module) -> None:
    """Replace a model's dropout and its written-out GELU; parameters and their names stay."""
    replace_dropout(model)
    for module in model.modules():
        # RecBole writes out x · 0.5 · (1 + erf(x / √2)) (model/layers.py:521): six passes over the widest tensor.
        if isinstance(module, FeedForward) and module.intermediate_act_fn == module.gelu:
            module.intermediate_act_fn = F.gelu


class BatchMaskItemSequence(MaskItemSequence):
    """RecBole's ``mask_itemseq`` for a whole batch at once (RecBole's goes through every item in Python).

    Each item is masked with probability ``mask_ratio``; with probability ``ft_ratio`` only the newest items of a batch
    are masked instead. If a row has more masked items than ``int(mask_ratio · L)``, the newest count in the loss.

    Args:
        config: RecBole's config.
        stream: name of the random stream; its state is that of :attr:`generator`. A worker process of a loader
            (RecBole's option ``worker``) draws from torch's own generator, which torch seeds anew in every epoch.
    """

    def __init__(self, config: Any, stream: str) -> None:
        super().__init__(config)
        self.generator = stream_generator("cpu", int(config["seed"]), "mask item sequence", stream)

    def __call__(self, dataset: Any, interaction: Interaction) -> Interaction:
        """Add the masked sequence, its masked items, their positions, and as many items that are not in the row."""
        sequences, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        n_items = int(dataset.num(self.ITEM_ID))
        places = torch.arange(sequences.shape[1])
        generator = self._source()
        if float(torch.rand((), generator=generator)) < self.ft_ratio:
            masked = places == lengths[:, None] - 1
        else:
            draws = torch.rand(sequences.shape, generator=generator)
            masked = (draws < self.mask_ratio) & (places < lengths[:, None])  # (B, L)
        # Masked items fill the last slots, oldest first; those beyond the first slot are left out.
        slots = self.mask_item_length - masked.flip(1).cumsum(1).flip(1)
        rows, columns = (masked & (slots >= 0)).nonzero(as_tuple=True)
        to = rows, slots[rows, columns]

        def slotted(values: Tensor) -> Tensor:
            filled = torch.zeros(len(sequences), self.mask_item_length, dtype=torch.int64)
            filled[to] = values
            return filled

        interaction.update(
            Interaction(
                {
                    self.MASK_ITEM_SEQ: sequences.masked_fill(masked, n_items),
                    self.POS_ITEMS: slotted(sequences[rows, columns]),
                    self.NEG_ITEMS: slotted(self._negatives(sequences[rows], n_items)),
                    self.MASK_INDEX: slotted(columns),
                }
            )
        )
        return interaction

    def _negatives(self, sequences: Tensor, n_items: int) -> Tensor:
        """Draw, uniformly for every row, an item that the row does not contain, by redrawing; 0 if it contains all."""
        generator = self._source()
        drawn = torch.randint(1, n_items, (len(sequences),), generator=generator)
        for tries in itertools.count():
            clash = ((sequences == drawn[:, None]).any(1) & (drawn > 0)).nonzero()[:, 0]
            if len(clash) == 0:
                break
            if tries == _MANY_TRIES:
                drawn[clash[[holds_all(row, n_items) for row in sequences[clash].tolist()]]] = 0
            else:
                drawn[clash] = torch.randint(1, n_items, (len(clash),), generator=generator)
        return drawn

    def _source(self) -> torch.Generator | None:
        """Return the generator to draw from. A worker's copy of ours would begin every epoch in the same state."""
        return self.generator if get_worker_info() is None else None


def holds_all(row: Sequence[int], n_items: int) -> bool:
    """Tell whether a list, with or without padding, contains every item from 1 to ``n_items - 1``."""
    return len({*row} - {0}) == n_items - 1


def sampled_negative(_transform: MaskItemSequence, row: Sequence[int], n_items: int) -> int:
    """Replace ``MaskItemSequence._neg_sample``, which never ends for a row of all items (data/transform.py:67): 0."""
    item, tries = random.randint(1, n_items - 1), 0
    while item in row:
        tries += 1
        if tries == _MANY_TRIES and holds_all(row, n_items):
            return 0
        item = random.randint(1, n_items - 1)
    return item


def mask_whole_batches(loader: Any, config: Any, stream: str) -> None:
    """Replace a loader's ``mask_itemseq`` by :class:`BatchMaskItemSequence`, if that is its transform."""
    if type(getattr(loader, "transform", None)) is MaskItemSequence:
        loader.transform = BatchMaskItemSequence(config, stream)


def index_interaction(interaction: Interaction, index: Any) -> Any:
    """Replace ``Interaction.__getitem__``, which converts an array of indices to a list for every field."""
    if isinstance(index, str):
        return interaction.interaction[index]
    if isinstance(index, list):
        index = torch.tensor(index)
    if isinstance(index, np.ndarray):
        index = torch.from_numpy(np.array(index))  # a copy: torch accepts no read-only or reversed arrays
    if isinstance(index, Tensor):
        if index.dtype != torch.bool or index.numel() == 0:
            index = index.long()  # torch would take bytes as a mask
        return Interaction({name: values[index.to(values.device)] for name, values in interaction.interaction.items()})
    return Interaction({name: values[index] for name, values in interaction.interaction.items()})
