"""What every pair of views promises: the input and the other view untouched, seeds, no waiting, no state."""

import copy
from itertools import chain

import augment_reference as reference
import pytest
import torch
from augment_reference import N_ITEMS, NEIGHBOURS, ROWS, generator, three
from readbacks import count_readbacks

from adaptssr_plugin.augment import (
    DropoutPair,
    MaskAndFill,
    MaskAndFillPair,
    PeriodPair,
    RandomPair,
    SameTargetPair,
    ScoredFillPair,
    coserec_pair,
)
from adaptssr_plugin.errors import InputError


class Filler:
    """A masked-item model in which the seen items decide."""

    n_items = N_ITEMS

    def __call__(self, item_seq, item_seq_len, rows, positions):
        items = torch.arange(N_ITEMS, device=item_seq.device)
        return torch.sin(items * (1 + item_seq.sum(1)[rows] + positions)[:, None])

    def mean_states(self, item_seq, item_seq_len):
        return torch.stack([item_seq.sum(1), item_seq.square().sum(1), item_seq_len], 1).float()


def same_target(**options):
    lengths = torch.tensor([len(row) for row in ROWS])
    items, keys = torch.tensor([*chain(*ROWS)]), torch.tensor([row[-1] for row in ROWS])
    return SameTargetPair(items, lengths.cumsum(0) - lengths, lengths, keys, **options)


PAIRS = {
    "random": RandomPair(three()),
    "distinct": RandomPair(three(), distinct=True),
    "coserec": coserec_pair(NEIGHBOURS, mask_id=N_ITEMS),
    "coserec-many": coserec_pair(NEIGHBOURS, mask_id=N_ITEMS, max_insert_per_position=3),
    "disjoint": PeriodPair(),
    "independent": PeriodPair(period="independent"),
    "dropout": DropoutPair(),
    "fill": MaskAndFillPair(MaskAndFill(0.5, Filler())),
    "fill-one-side": MaskAndFillPair(MaskAndFill(0.5, Filler()), one_side=True),
    "scored": ScoredFillPair(MaskAndFill(0.5, Filler()), candidates=3, ranks=[2]),
    "scored-one-side": ScoredFillPair(MaskAndFill(0.5, Filler()), candidates=3, ranks=[2], one_side=True),
    "same-target": same_target(),
    "same-target-dropped": same_target(drop_last=True),
}
each_pair = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)


def views_of(pair, item_seq, lengths, source=None):
    """Both views, one tensor after the other."""
    rows = torch.arange(len(item_seq), device=item_seq.device)
    first, second, _ = pair(item_seq, lengths, source, **({"rows": rows} if hasattr(pair, "needs_rows") else {}))
    return [*first, *second]


@each_pair
def test_the_input_the_data_and_one_view_outlive_writes_to_the_other(pair):
    given = [*reference.padded(ROWS, 40), *pair.buffers()]
    before = [tensor.clone() for tensor in given]
    views = views_of(pair, *given[:2], generator())
    kept = [tensor.clone() for tensor in views[2:]]
    for tensor in views[:2]:
        tensor.fill_(77)
    assert all(torch.equal(*both) for both in zip(views[2:], kept, strict=True))
    for tensor in views[2:]:
        tensor.fill_(78)
    assert all(torch.equal(*both) for both in zip(given, before, strict=True))


@each_pair
def test_same_seed_same_views_and_another_seed_others(pair):
    item_seq, lengths = reference.padded(ROWS, 40)
    first, again, other = (views_of(pair, item_seq, lengths, generator(seed)) for seed in (4, 4, 6))
    assert all(torch.equal(*both) for both in zip(first, again, strict=True))
    differ = any(not torch.equal(*both) for both in zip(first, other, strict=True))
    assert differ != isinstance(pair, DropoutPair)


@each_pair
@pytest.mark.parametrize("elsewhere", [False, True], ids=["cpu", "as on a gpu"])
def test_nothing_is_read_back(monkeypatch, pair, elsewhere):
    fills = hasattr(pair, "fill")
    if elsewhere:
        for module in ("choice", "draws", "mask_and_fill"):
            monkeypatch.setattr(f"adaptssr_plugin.augment.operators.{module}.on_cpu", lambda tensor: False)
    item_seq, lengths = reference.padded(ROWS, 40)
    with count_readbacks() as reads:
        views_of(pair, item_seq, lengths, generator())
    assert reads == (["aten.nonzero.default"] if fills and not elsewhere else [])  # where it costs no waiting


@each_pair
def test_on_meta(pair):
    """No tensor is born on another device, and nothing is read back: on meta there is nothing to read."""
    item_seq, lengths = (tensor.to("meta") for tensor in reference.padded(ROWS, 40))
    views = views_of(copy.deepcopy(pair).to("meta"), item_seq, lengths)
    for tensor, like in zip(views, [item_seq, lengths] * 2, strict=True):
        assert (tensor.device.type, tensor.shape, tensor.dtype) == ("meta", like.shape, torch.int64)


@each_pair
def test_views_have_nothing_beyond_their_lengths_and_nothing_is_state(pair):
    for width in (31, 40):
        item_seq, lengths = reference.padded(ROWS, width)
        seq, length, other_seq, other_length = views_of(pair, item_seq, lengths, generator(1))
        for view, n in ((seq, length), (other_seq, other_length)):
            assert torch.equal(view > 0, torch.arange(width) < n[:, None])
    assert not pair.state_dict()
    assert not list(pair.parameters())


@each_pair
def test_wrong_batches(pair):
    with pytest.raises(InputError, match=r"^item_seq: expected int64, got float32$"):
        views_of(pair, torch.ones(2, 3), torch.ones(2, dtype=torch.int64))
    with pytest.raises(InputError, match=r"^item_seq_len: expected shape \(2,\)"):
        views_of(pair, torch.ones(2, 3, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
