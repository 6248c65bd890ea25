"""Every argument of every public call, replaced by wrong values: InputError, TypeError, or it is taken."""

import re
import warnings

import numpy as np
import pytest
import torch
from fuzz_callables import CALLEES
from fuzz_cases import Thing
from time_limits import time_limit

from adaptssr_plugin.errors import InputError

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
