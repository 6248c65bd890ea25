"""The faster parts against RecBole's own: masking by whole batches, and indexing of an Interaction."""

import itertools
import random

import numpy as np
import pytest
import torch
from recbole.data import create_dataset
from recbole.data.interaction import Interaction
from recbole.data.transform import MaskItemSequence
from recbole.model.sequential_recommender import SASRec
from run_cases import SMALL
from torch import nn
from torch.utils.data import DataLoader

from adaptssr_plugin.encoders.dropout import Dropout
from adaptssr_plugin.recbole import compat_patches
from adaptssr_plugin.recbole.compat.layers import BatchMaskItemSequence, index_interaction, speed_up
from adaptssr_plugin.recbole.recommender.config import RunConfig

N_ITEMS, LENGTH = 40, 10
FIELDS = ("Mask_item_id_list", "Pos_item_id", "Neg_item_id", "MASK_INDEX")


class Options(dict):
    """What the transforms ask of a config."""

    __getitem__ = dict.get

    def __getattr__(self, name):
        if name not in self:
            raise AttributeError(name)
        return self[name]


class Items:
    """What the transforms ask of a dataset."""

    def num(self, field):
        assert field == "item_id"
        return N_ITEMS


def options(mask_ratio=0.3, ft_ratio=0.0, seed=2020):
    fields = {"ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "ITEM_LIST_LENGTH_FIELD": "item_length"}
    rest = {"MAX_ITEM_LIST_LENGTH": LENGTH, "mask_ratio": mask_ratio, "ft_ratio": ft_ratio, "seed": seed}
    return Options(**fields, **rest)


def batch(rows, seed=0, n_items=N_ITEMS):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, LENGTH + 1, (rows,), generator=generator)
    items = torch.randint(1, n_items, (rows, LENGTH), generator=generator)
    items = items.masked_fill(torch.arange(LENGTH) >= lengths[:, None], 0)  # (B, L)
    return Interaction({"item_id_list": items, "item_length": lengths})


def masked_by(transform, rows, seed=0):
    return transform(Items(), batch(rows, seed))


@pytest.fixture
def decided(monkeypatch):
    """Let the draws of the batched transform mask given positions, or the newest items alone."""

    def decide(mask):
        def rand(shape, generator):
            newest = mask is None
            return torch.tensor(0.0 if newest else 1.0) if shape == () else 1 - mask.float()

        monkeypatch.setattr(torch, "rand", rand)

    return decide


@pytest.mark.parametrize("mask_ratio", [0.1, 0.3, 0.7])
def test_of_the_same_decisions_the_layout_is_recboles(decided, mask_ratio):
    random.seed(1)
    rows = batch(300)
    theirs = MaskItemSequence(options(mask_ratio))(Items(), batch(300))
    mask = theirs["Mask_item_id_list"] == N_ITEMS
    assert (mask.sum(1) > int(mask_ratio * LENGTH)).any()  # rows whose oldest masked items are left out
    decided(mask)
    ours = BatchMaskItemSequence(options(mask_ratio), "train")(Items(), rows)
    for field in ("Mask_item_id_list", "Pos_item_id", "MASK_INDEX"):
        assert ours[field].dtype == theirs[field].dtype
        assert torch.equal(ours[field], theirs[field]), field
    assert torch.equal(ours["Neg_item_id"] > 0, theirs["Neg_item_id"] > 0)


def test_a_batch_of_newest_items_is_laid_out_as_recboles(decided):
    theirs = MaskItemSequence(options(ft_ratio=1.0))(Items(), batch(50))
    decided(None)
    ours = BatchMaskItemSequence(options(ft_ratio=1.0), "train")(Items(), batch(50))
    for field in ("Mask_item_id_list", "Pos_item_id", "MASK_INDEX"):
        assert torch.equal(ours[field], theirs[field]), field
    assert (ours["Neg_item_id"][:, -1] > 0).all()
    assert not ours["Neg_item_id"][:, :-1].any()


def test_as_many_items_are_masked_as_by_recbole_everywhere_in_a_row():
    random.seed(2)
    rows = 4000
    lengths = batch(rows)["item_length"]
    for transform in (MaskItemSequence(options()), BatchMaskItemSequence(options(), "train")):
        masked = masked_by(transform, rows)["Mask_item_id_list"] == N_ITEMS
        assert not (masked & (torch.arange(LENGTH) >= lengths[:, None])).any()
        there = (torch.arange(LENGTH) < lengths[:, None]).sum(0)  # rows that reach a position
        share = masked.sum(0) / there
        deviation = (0.3 * 0.7 / there).sqrt()
        assert ((share - 0.3).abs() < 4.5 * deviation).all()
        pairs = masked[lengths > 1].float()
        assert abs((pairs[:, 0] * pairs[:, 1]).mean() - 0.09) < 4.5 * (0.09 * 0.91 / len(pairs)) ** 0.5


def test_as_many_batches_as_asked_for_have_their_newest_items_masked():
    transform = BatchMaskItemSequence(options(mask_ratio=0.3, ft_ratio=0.4), "train")
    rows = torch.full((6, LENGTH), 5)
    newest = 0
    for _ in range(1500):
        drawn = transform(Items(), Interaction({"item_id_list": rows, "item_length": torch.full((6,), LENGTH)}))
        masked = drawn["Mask_item_id_list"] == N_ITEMS
        newest += bool((masked.sum(1) == 1).all() and masked[:, -1].all())
    assert abs(newest / 1500 - 0.4) < 4.5 * (0.4 * 0.6 / 1500) ** 0.5


def test_negatives_are_uniform_among_the_items_that_the_row_lacks():
    held = torch.tensor([3, 8, 8, 21, 39, 1])
    rows = held.repeat(3000, 1)
    transform = BatchMaskItemSequence(options(mask_ratio=0.99), "train")
    transform.mask_item_length = 6
    drawn = transform(Items(), Interaction({"item_id_list": rows, "item_length": torch.full((3000,), 6)}))
    negatives = drawn["Neg_item_id"][drawn["Pos_item_id"] > 0]
    counts = torch.bincount(negatives, minlength=N_ITEMS)
    assert len(counts) == N_ITEMS
    assert not counts[held].any()
    assert counts[0] == 0
    free = N_ITEMS - 1 - len(set(held.tolist()))
    expected = len(negatives) / free
    chi_square = (((counts[counts > 0] - expected) ** 2) / expected).sum()
    assert (counts > 0).sum() == free
    assert chi_square < free + 4.5 * (2 * free) ** 0.5


def test_a_row_that_holds_every_item_has_no_negative():
    rows = Interaction({"item_id_list": torch.arange(1, 8)[None], "item_length": torch.tensor([7])})

    class Few(Items):
        def num(self, field):
            return 8

    drawn = BatchMaskItemSequence(options(ft_ratio=1.0), "train")(Few(), rows)
    assert drawn["Neg_item_id"].tolist() == [[0] * BatchMaskItemSequence(options(), "train").mask_item_length]
    assert drawn["Pos_item_id"][0, -1] == 7
    almost = Interaction({"item_id_list": torch.arange(1, 8)[None].clamp(max=6), "item_length": torch.tensor([7])})
    drawn = BatchMaskItemSequence(options(ft_ratio=1.0), "train")(Few(), almost)
    assert drawn["Neg_item_id"][0, -1] == 7


def test_the_rows_that_come_in_stay_as_they_are():
    rows = batch(64)
    before = {field: rows[field].clone() for field in rows}
    out = BatchMaskItemSequence(options(ft_ratio=0.5), "train")(Items(), rows)
    assert set(out.columns) == {*before, *FIELDS}
    for field, values in before.items():
        assert torch.equal(out[field], values)


def test_streams_are_repeatable_and_differ_by_seed_and_name():
    drawn = [
        masked_by(BatchMaskItemSequence(options(seed=seed), stream), 64)["Mask_item_id_list"]
        for seed, stream in ((1, "train"), (1, "train"), (2, "train"), (1, "valid"))
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])


def test_worker_processes_mask_other_items_in_every_epoch_and_batch():
    transform = BatchMaskItemSequence(options(), "train")
    loader = DataLoader(
        range(2), collate_fn=lambda _: masked_by(transform, 64)["Mask_item_id_list"], num_workers=2,
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    masked = [rows for _ in range(2) for rows in loader]  # two batches of the same rows, in two epochs
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(masked, 2))


def test_global_random_numbers_are_not_drawn():
    states = torch.get_rng_state(), random.getstate()
    masked_by(BatchMaskItemSequence(options(ft_ratio=0.5), "train"), 64)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


# --- indexing --------------------------------------------------------------------------------------------------------

READ_ONLY = np.array([4, 0])
READ_ONLY.flags.writeable = False
INDICES = {
    "int": 3,
    "negative": -1,
    "numpy int": np.int64(2),
    "slice": slice(1, 6, 2),
    "empty slice": slice(4, 4),
    "list": [5, 0, 0],
    "bools": [True, False] * 3,
    "int64 array": np.array([5, 1, 1]),
    "int32 array": np.array([5, 1], dtype=np.int32),
    "uint8 array": np.array([1, 0, 1], dtype=np.uint8),
    "int16 array": np.array([2, 0], dtype=np.int16),
    "backwards": np.arange(6)[::-1],
    "read-only": READ_ONLY,
    "bool array": np.array([True, False, True, False, False, True]),
    "no bool": np.zeros(6, dtype=bool),
    "empty array": np.array([]),
    "float array": np.array([1.0, 4.0]),
    "0-d array": np.array(4),
    "int64 tensor": torch.tensor([5, 1, 1]),
    "int32 tensor": torch.tensor([0, 2], dtype=torch.int32),
    "uint8 tensor": torch.tensor([1, 0, 1], dtype=torch.uint8),
    "bool tensor": torch.tensor([False, True, True, False, False, True]),
    "empty tensor": torch.tensor([]),
    "0-d tensor": torch.tensor(4),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
def test_indexing_gives_what_recboles_gives(index):
    rows = Interaction({"a": torch.arange(6), "b": torch.rand(6, 2), "c": torch.tensor([True, False] * 3)})
    theirs, ours = Interaction.__getitem__(rows, index), index_interaction(rows, index)
    assert ours.columns == theirs.columns
    assert len(ours) == len(theirs)
    for name in theirs:
        assert ours[name].dtype == theirs[name].dtype
        assert torch.equal(ours[name], theirs[name])


@pytest.mark.parametrize("index", [[9], np.array([9]), torch.tensor([6]), np.array([True] * 7)])
def test_what_recbole_cannot_index_by_is_an_error_here_too(index):
    rows = Interaction({"a": torch.arange(6)})
    for getitem in (Interaction.__getitem__, index_interaction):
        with pytest.raises(IndexError):
            getitem(rows, index)


def test_a_name_gives_the_column_itself():
    rows = Interaction({"a": torch.arange(6)})
    assert index_interaction(rows, "a") is rows.interaction["a"]
    with pytest.raises(KeyError):
        index_interaction(rows, "b")


# --- a model's layers ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("slice_here")
def test_a_faster_model_computes_the_same_and_keeps_its_names():
    with compat_patches():
        config = RunConfig("SASRec", "slice", config_dict=SMALL)
        model = SASRec(config, create_dataset(config))
    rows = torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0]]), torch.tensor([3, 1])
    model.eval()
    before, names = model(*rows), list(model.state_dict())
    speed_up(model)
    assert torch.allclose(model(*rows), before, atol=1e-6)
    assert list(model.state_dict()) == names
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert dropouts
    assert all(type(module) is Dropout for module in dropouts)
