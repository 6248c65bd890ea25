"""Stages whose steps CUDA graphs can capture, and batches of changing lengths."""

import dataclasses

import numpy as np
import torch
from training_cases import N_ITEMS, batch_of, encoder_of, some_views

from adaptssr_plugin import AdaptSSRLoss, InfoNCELoss, UserEncoder
from adaptssr_plugin.augment import DropoutPair, PeriodPair, coserec_pair
from adaptssr_plugin.downstream import ProfileTask
from adaptssr_plugin.downstream.tasks.cold import ColdRecommendationStage, ColdRecommendationTask
from adaptssr_plugin.downstream.tasks.profile import ProfileStage
from adaptssr_plugin.encoders import CausalTransformer, GRUEncoder
from adaptssr_plugin.training import (
    MaskedItemStage,
    NegativeItems,
    NextBehaviourStage,
    NextItemStage,
    PairwiseStage,
    WithMaskedItemsStage,
)

MAX_LEN = 12
USERS = 8


class Reading(UserEncoder):
    """Reads a value of the device."""

    def forward(self, item_seq, item_seq_len):
        return super().forward(item_seq, item_seq_len) * float(item_seq_len.max() > 0)


def _encoder(kind=UserEncoder, **options):
    return encoder_of(kind, max_len=MAX_LEN, **options)


def _causal(kind):
    torch.manual_seed(0)
    return kind(N_ITEMS, dim=8, max_len=MAX_LEN)


def _views(criterion, views=None, encoder=None):
    return PairwiseStage(encoder or _encoder(), views or some_views(), criterion)


def _beside():
    encoder = _encoder()
    return WithMaskedItemsStage(_views(AdaptSSRLoss(), encoder=encoder), MaskedItemStage(encoder), 0.5)


def _cold(loss):
    rows = np.arange(USERS)
    task = ColdRecommendationTask("cold", rows, rows % 3, np.array(["a", "b", "c"]))
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return ColdRecommendationStage(_encoder(), task, 8, 6, task.split(0), loss=loss)


def _profile():
    task = ProfileTask.from_labels("job", np.arange(USERS), np.arange(USERS) % 3, "abc")
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return ProfileStage(_encoder(), task, 8, 6)


CASES = {
    "masked items": lambda: MaskedItemStage(_encoder()),
    "masked items, pooled": lambda: MaskedItemStage(_encoder(), pooled=0.5),
    "masked items, sampled": lambda: MaskedItemStage(_encoder(), softmax="sampled", sample_share=0.5),
    "next items": lambda: NextItemStage(_causal(CausalTransformer)),
    "next items, GRU": lambda: NextItemStage(_causal(GRUEncoder)),
    "adaptssr": lambda: _views(AdaptSSRLoss()),
    "adaptssr, soft": lambda: _views(AdaptSSRLoss(negatives=0.1, scale=10)),
    "adaptssr, all": lambda: _views(AdaptSSRLoss(negatives="all")),
    "adaptssr, interests": lambda: _views(AdaptSSRLoss(), encoder=_encoder(interests=2)),
    "infonce": lambda: _views(InfoNCELoss()),
    "infonce, hardest dot": lambda: _views(InfoNCELoss(negatives="hardest", similarity="dot")),
    "clue": lambda: _views(InfoNCELoss(), DropoutPair()),
    "idicl": lambda: _views(AdaptSSRLoss(), PeriodPair(0.5, "disjoint")),
    "coserec": lambda: _views(InfoNCELoss(), coserec_pair(torch.zeros(N_ITEMS, dtype=torch.int64), mask_id=N_ITEMS)),
    "adaptssr beside masked items": _beside,
    "ptum": lambda: NextBehaviourStage(_encoder(), NegativeItems.uniform(N_ITEMS)),
    "profile": _profile,
    "cold, bpr": lambda: _cold("bpr"),
    "cold, ce": lambda: _cold("ce"),
}


def lengths_of(number, longest=MAX_LEN):
    """Lengths of a batch, which change from an even number to an odd one; the largest does not."""
    generator = torch.Generator().manual_seed(number % 2)
    return [longest, *torch.randint(1, longest + 1, (USERS - 1,), generator=generator).tolist()]


def graph_batch(number, longest=MAX_LEN):
    """One of the batches, with labels."""
    batch = batch_of(*lengths_of(number, longest), seed=number)
    return dataclasses.replace(batch, labels=(batch.user_ids + number) % 3)
