"""Every argument of every public call, replaced by wrong values: InputError, TypeError, or it is taken."""
# ruff: noqa: E501 - tables

import re
import warnings

import numpy as np
import pytest
import torch
from fuzz_callables import CALLEES, sequences
from time_limits import time_limit

from adaptssr_plugin.errors import InputError


class Thing:
    """Something of no use."""

    def __repr__(self):
        return "Thing()"


_PLAIN = [None, True, "text", "", 0, -1, 3, 1.5, float("nan"), float("inf"), [], [None], {}, Thing(), int, b"x", 1j,
          np.float32(0.3), np.zeros((2, 2)), np.array([None, "x"], dtype=object), lambda *_, **__: None]  # fmt: skip
_LARGE = 10**30  # for all but counts of things that are made

# Where exceptions of torch, numpy or Python come through, and why.
_LIMITS = [
    (r"functional\..*", r".*", "the maths alone: the losses check"),
    (r"(AttentionPooling|InterestPooling|ItemEmbedding|MaskedItemHead).*", r".*", "parts of encoders, which check"),
    (r".*\(…\)", r"item_seq|item_seq_len|rows", "values are not looked at on a device"),
    (r"target_ranks", r".*", "values are not looked at on a device"),
    (r"NegativeItems\(\)\(…\)", r".*", "a part of a stage, which checks"),
    (r"(MaskedItem|NextItem|NextBehaviour)Stage", r"encoder|pooled|weight", "stages are made by recipes, which check"),
    (r"BatchLoader", r"labels", "taken as they are"),
    (r"MLPHead\(\)\(…\)", r"user", "another dtype than that of its weights"),
    (r"ColdRecommendationTask", r"rows", "MemoryError for rows beyond any memory"),
    (r"ranking_metrics|replace_neighbours", r"ranks|neighbours", "a meta tensor has no values to look at"),
    (r"transfer", r"parts", "a tensor in place of names"),
    (r"tfidf_logistic_regression", r"C_grid", "an array of two dimensions in place of numbers"),
]
# Taken as they are: names, keys of random streams, and what has to be callable and nothing more.
_TAKEN = {
    ("stream_seed", "key"), ("stream_generator", "key"), ("BatchLoader", "seed"),
    ("functional.adaptive_coefficient", "clamp"),
    ("MaskedItemFiller", "head"), ("NextBehaviourStage", "negatives"),
    *(("PairwiseStage", name) for name in ("encoder", "views", "criterion")),
    *((stage, "name") for stage in ("PairwiseStage", "MaskedItemStage", "NextItemStage")),
    *((other, "name") for other in ("NextBehaviourStage", "BatchLoader")),
    *((task, "name") for task in ("ProfileTask", "ColdRecommendationTask", "cold_task")),
}  # fmt: skip
_CALLS = [(callee, name) for callee in CALLEES.values() for name in callee.arguments()]


def limited(callee, name):
    return any(re.fullmatch(one, callee.name) and re.fullmatch(other, name) for one, other, _ in _LIMITS)


def tensors_like(value):
    """Tensors of other shapes, dtypes, devices and values."""
    tensor = value if isinstance(value, torch.Tensor) else torch.tensor([1.0, 2.0])
    found = [torch.tensor(1.0), torch.tensor(1), tensor.new_zeros(0), tensor[:0], tensor[:1], tensor[None],
             torch.cat([tensor, tensor]), tensor.flatten(), tensor[..., :0], torch.cat([tensor, tensor], -1),
             tensor.double(), tensor.int(), tensor.bool(), tensor.to(torch.complex64), tensor.to("meta"),
             tensor.float().to_sparse(), tensor.float().requires_grad_()]  # fmt: skip
    if tensor.is_floating_point():
        found += [tensor.half(), tensor * torch.nan, tensor * torch.inf, tensor * 0]
    elif tensor.dtype == torch.int64:
        found += [-tensor, tensor * 10**6, tensor * 0]
    return found


def arrays_like(array):
    """Arrays of other shapes, dtypes and values."""
    found = [np.array(1.0), array[:0], array[:1], np.concatenate([array, array]), array[None], array[::-1]]
    found += [array.astype(object), array.astype(str)]
    if array.dtype.kind in "if":
        found += [array * np.nan, -array - 1, (array.astype(np.int64) + 1) * 10**17]
        found += [array.astype(kind) for kind in (float, np.int32, np.int8, np.uint64, bool, complex)]
    return found


def wrong_values(value):
    found = [*_PLAIN]
    if isinstance(value, torch.Tensor):
        found += tensors_like(value)
    if isinstance(value, np.ndarray):
        found += arrays_like(value)
    if isinstance(value, (float, str, torch.Tensor)):
        found.append(_LARGE)
    return found


def cases():
    """Every argument of every call; those beyond one of each call, another one from call to call, are slow."""
    for number, callee in enumerate(CALLEES.values()):
        names = [*callee.arguments()]
        for place, name in enumerate(names):
            marks = () if place == number % len(names) else pytest.mark.slow
            yield pytest.param(callee, name, id=f"{callee.name}-{name}", marks=marks)


@pytest.mark.parametrize(("callee", "name"), [*cases()])
def test_wrong_arguments(callee, name):
    original = callee.arguments()[name]
    refused = 0
    for value in wrong_values(original):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with time_limit(30):
                    callee.call(**{**callee.arguments(), name: value})
            except InputError as error:
                refused += 1
                assert str(error).isprintable()  # noqa: PT017
            except TypeError:
                refused += 1
            except Exception as error:
                refused += 1
                assert limited(callee, name), f"{type(error).__name__} for {value!r}: {error}"  # noqa: PT017
    assert refused or (callee.name, name) in _TAKEN


def test_what_is_called_takes_its_own_arguments():
    taken = 0
    for callee in CALLEES.values():
        try:
            callee.call(**callee.arguments())
        except InputError:  # a file that is not there, a task too small
            continue
        taken += 1
    assert taken > 0.9 * len(CALLEES)


def test_every_limit_is_of_use():
    assert {(callee.name, name) for callee, name in _CALLS} >= _TAKEN
    for one, other, _ in _LIMITS:
        assert any(re.fullmatch(one, callee.name) and re.fullmatch(other, name) for callee, name in _CALLS), one


_T, _nan = torch.tensor, float("nan")
_WRONG = {
    "AdaptSSRLoss": {"fusion": [1.5, "x"], "negatives": ["random"], "scale": [0, _nan, float("inf")], "reduction": ["max"], "gather": [1], "chunk_size": [0, 2.5]},
    "AdaptSSRLoss()(…)": {"u1": [None, torch.ones(4), torch.ones(4, 3, dtype=torch.int64)], "u1_pos": [torch.ones(4, 2)], "u2": [torch.ones(4, 3, dtype=torch.float64), torch.ones(4, 3, device="meta")], "user_ids": [_T([1, 2]), torch.ones(4)]},
    "InfoNCELoss": {"temperature": [0, -1, "x"], "similarity": ["euclid"]},
    "AugmentationAdaptiveFusion": {"granularity": ["user"], "terms": [3]},
    "functional.linear_cross_entropy": {"targets": [_T([1, 5, 6]), _T([-1, 0, 0]), torch.ones(3)], "weight": [torch.ones(6, 5)]},
    "ItemMask": {"ratio": [0, 1.5, _nan, "x"], "mask_id": [0, -1, 10**30, None]},
    "ItemCrop()(…)": {"item_seq": [[[1, 2]], torch.ones(3, 0, dtype=torch.int64), torch.ones(3, 4)], "item_seq_len": [_T([1, 2]), _T([1.0, 2, 3]), torch.ones(3, dtype=torch.int64, device="meta")], "generator": [7]},
    "ItemSubstitute": {"neighbours": [_T([1, 2]), None, _T([[0], [9]])]},
    "RandomPair": {"operators": [[], [Thing()], None], "distinct": ["yes"]},
    "Compose": {"operators": [[int]]},
    "MaskAndFill": {"filler": [None], "top_k": [0], "temperature": [_nan], "fill": ["beam"]},
    "UserEncoder": {"n_items": [0, -1, 2.5], "dim": [3], "dropout": [1, _nan], "max_len": [None]},
    "UserEncoder()(…)": {"item_seq": [torch.ones(3, 5, dtype=torch.int64), torch.ones(3, 4), torch.ones(0, dtype=torch.int64)], "item_seq_len": [_T([1]), None]},
    "GRUEncoder()(…)": {"item_seq": [torch.ones(3, 4), None, torch.ones(3, 9, dtype=torch.int64)], "item_seq_len": [torch.ones(3, dtype=torch.int64, device="meta")]},
    "make_encoder": {"kind": ["lstm", None]},
    "MLPHead()(…)": {"user": [torch.ones(4, 5), torch.ones(4, 3, dtype=torch.int64)]},
    "BehaviourCorpus": {"items": [np.array([1, 3, 1]), np.array([0, 1, 1]), np.array([-1, 1, 1]), [1, 2, 1], np.array([1.0, 2, 1])], "offsets": [np.array([0, 3, 3]), np.array([0, 2, 9])], "item_tokens": [np.array(["a", "b", "c"])]},
    "BehaviourCorpus.from_lists": {"histories": [[[1], []], [[1.5]], [["a"]]]},
    "BehaviourCorpus.padded": {"rows": [np.array([12]), np.array([-1]), np.array([0.5]), np.array([], dtype=np.int64)], "max_len": [0, 2.5]},
    "BehaviourCorpus.history": {"row": [12, "x"]},
    "BatchLoader": {"corpus": [None, [[1, 2]]], "shuffle": ["no"], "batch_size": [0, "x"], "max_len": [0], "rows": [np.array([99])]},
    "recipe": {"method": ["simclr", None], "preset": ["fast"], "options": [{"epochs": -1}, {"mask_ratio": 2}, {"lr": 1}, 5]},
    "ProfileTask": {"labels": [np.arange(10), np.ones(10), np.arange(9) % 2], "kind": ["ordinal"], "rows": [np.zeros(10, dtype=np.int64)]},
    "split_rows": {"n_rows": [2, -5, "x"], "ratios": [(0.5, 0.5), (1, 1, 1)]},
    "accuracy": {"scores": [torch.full((4, 3), _nan), torch.ones(4), torch.ones(4, 3, device="meta")], "labels": [_T([0, 1, 2, 3]), torch.ones(4)]},
    "auc": {"labels": [_T([1, 1, 1, 1])]},
    "target_ranks": {"targets": [_T([1]), torch.ones(2)], "ties": ["worst"]},
    "welch": {"a": [[0.1], [0.1, _nan], "x", ["a", "b"]]},
    "relative_improvement": {"mean": ["x"]},
    "load_checkpoint": {"path": ["nowhere.pt"]},
    "transfer": {"source": [{}]},
}  # fmt: skip
_RAISED = {
    # Values are not looked at, for the sake of GPUs: readers and BehaviourCorpus do.
    ("UserEncoder()(…)", "item_seq", "ids out of range"): (sequences()["item_seq"] + 9, IndexError),
    ("UserEncoder()(…)", "item_seq_len", "lengths out of range"): (_T([9, 9, 9]), RuntimeError),
    ("GRUEncoder()(…)", "item_seq", "negative ids"): (-sequences()["item_seq"], IndexError),
    # functional is the maths alone, and a part of an encoder is behind the encoder's checks.
    ("functional.intra_user_similarities", "units", "text"): ("x", AttributeError),
    ("AttentionPooling()(…)", "hidden", "another width"): (torch.ones(2, 4, 9), RuntimeError),
    # What is no path, and what is no list.
    ("read_interactions", "path", "a number"): (3.5, TypeError),
    ("BehaviourCorpus.from_lists", "histories", "a number"): (5, TypeError),
}


def call_with(callee, name, value):
    CALLEES[callee].call(**{**CALLEES[callee].arguments(), name: value})


@pytest.mark.parametrize(
    ("callee", "name", "value"),
    [(callee, name, value) for callee, wrong in _WRONG.items() for name, values in wrong.items() for value in values],
)
def test_values_that_are_refused(callee, name, value):
    with pytest.raises(InputError) as refused:
        call_with(callee, name, value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(("callee", "name", "tried"), _RAISED)
def test_exceptions_from_elsewhere(callee, name, tried):
    value, error = _RAISED[callee, name, tried]
    with pytest.raises(error) as raised:
        call_with(callee, name, value)
    assert not isinstance(raised.value, InputError)
