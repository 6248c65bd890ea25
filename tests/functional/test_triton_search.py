"""The Triton search against the torch one: interpreted on a CPU, compiled for devices, and on CUDA (pytest -m gpu)."""

import importlib.util
import json
import sys
from functools import partial

import pytest
import torch
from core_only import ROOT, run_python
from readbacks import no_waiting
from refusals import refusal_of
from torch.testing import assert_close
from triton_search_cases import CASES, LOSSES, WINNERS_BY_PLACE, hardest_and_gradient, ranking_and_gradient

from adaptssr_plugin import AdaptSSRLoss, InfoNCELoss
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.functional import triton_search
from adaptssr_plugin.functional.search import check_implementation, choose_search, search

CPU = torch.device("cpu")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton (pip install triton; Linux)"
)


def run_json(*arguments, **environment):
    done = run_python(*arguments, PYTHONPATH=str(ROOT), **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- values, places and gradients --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interpreted():
    return run_json(ROOT / "tests" / "helpers" / "processes" / "triton_search_cases.py", TRITON_INTERPRET="1")


def found_of(interpreted, name):
    vectors, stride, ids = CASES[name]
    found = interpreted["searches"][name]
    values = torch.tensor(found["values"], dtype=vectors.dtype)
    return vectors, stride, ids, values, torch.tensor(found["winners"]), found["dtypes"]


def all_similarities(vectors, stride, ids):
    """(anchors, B * m) in at least float32, -inf for what is no negative, written another way than in the package."""
    flat = vectors.to(torch.promote_types(vectors.dtype, torch.float32)).reshape(-1, vectors.shape[-1])
    users = torch.arange(len(vectors)).repeat_interleave(vectors.shape[1])
    ids = torch.arange(len(vectors))[:, None] if ids is None else ids.reshape(len(vectors), -1)
    shared = (ids[users[::stride], None] == ids[users][None]).any(-1)
    return (flat[::stride] @ flat.T).masked_fill(shared, -torch.inf)


@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_the_torch_search(interpreted, name):
    vectors, stride, ids, values, _, dtypes = found_of(interpreted, name)
    wide = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    right = search(wide, stride, ids, None)[0].to(vectors.dtype)
    assert dtypes == [str(vectors.dtype), "torch.int64"]
    # As far as a dot product can be off by its rounding; half precision: by the last digit of the result besides.
    tolerance = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[vectors.dtype]
    assert_close(values, right, rtol=tolerance, atol=10 * tolerance, equal_nan=True)


@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_winners_are_the_first_of_the_largest(interpreted, name):
    vectors, stride, ids, _, winners, _ = found_of(interpreted, name)
    similarities = all_similarities(vectors, stride, ids)
    assert winners.shape == (len(similarities),)
    assert ((winners >= 0) & (winners < similarities.shape[1])).all()
    top = similarities.amax(1)  # NaN where there is one
    at_winner = similarities.gather(1, winners[:, None])[:, 0]
    if name in ("zeros", "ties", "odd", "two-columns"):  # float64, every row with a negative, ties exact or none
        assert torch.equal(winners, similarities.argmax(1))
    assert_close(at_winner, top, rtol=2e-6, atol=2e-5, equal_nan=True)


@needs_triton
def test_every_place_can_hold_the_winner(interpreted):
    winners = interpreted["searches"]["every-place"]["winners"]
    assert winners == [*range(1, WINNERS_BY_PLACE), WINNERS_BY_PLACE - 2]


def test_the_cases_hold_what_their_names_say():
    nan = all_similarities(*CASES["nan-and-infinity"])
    assert (nan.isnan().any(1) & nan.isinf().any(1) & (nan == torch.inf).any(1)).sum() > 5
    lonely = (all_similarities(*CASES["one-without-negatives"]) == -torch.inf).all(1)
    assert lonely.nonzero().flatten().tolist() == [0, 1]  # both anchors of row 0
    assert (all_similarities(*CASES["all-one-user"]) == -torch.inf).all()
    assert (all_similarities(*CASES["negative-only"]).amax(1) < 0).all()
    ties = all_similarities(*CASES["ties"])
    assert ((ties == ties.amax(1, keepdim=True)).sum(1) > 1).any()


@needs_triton
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("what", "computed"), [("ranking", ranking_and_gradient), ("hardest", hardest_and_gradient)])
def test_gradients_through_the_winners(interpreted, what, computed, name):
    assert interpreted["interpreted"]
    assert interpreted["searches_under_the_losses"] == 2 * len(LOSSES)
    right = computed(name, "torch")
    tolerance = 1e-12 if right[0].dtype == torch.float64 else 2e-5
    for got, truth in zip(interpreted[what][name], right, strict=True):
        assert_close(torch.tensor(got, dtype=truth.dtype), truth, rtol=tolerance, atol=tolerance)


# --- compiled, but not run ---------------------------------------------------------------------------------

# The interpreter runs what the compiler refuses. No device is needed to compile for one.
COMPILE = """
import json, sys
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from adaptssr_plugin.functional.triton_search import _kernel, blocks_for

from adaptssr_plugin.functional.search import choose_search

results = {"refusals": []}
for device in ("cpu", "meta"):
    try:
        choose_search("triton", torch.device(device))
    except ValueError as error:
        results["refusals"].append(str(error))
for name, dtype, dim, columns in (("fp32", torch.float32, 64, 2), ("fp64", torch.float64, 7, 0)):
    kernel, blocks = _kernel(), blocks_for(dim, dtype)
    types = dict(vectors=f"*{name}", ids="*i64" if columns else "*i32", values=f"*{name}", winners="*i32")
    types |= dict(n_anchors="i32", n_keys="i32", keys_per_share="i32")
    constants = dict(per_user=4, stride=2, dim=dim, n_columns=columns)
    constants |= dict(block_anchors=blocks.anchors, block_keys=blocks.keys, block_dim=blocks.dim)
    constants |= dict(precision="tf32x3" if name == "fp32" else "ieee")
    signature = {n: types.get(n, "constexpr") for n in kernel.arg_names}
    at = {(kernel.arg_names.index(n),): value for n, value in constants.items()}
    source = ASTSource(kernel, signature, at)
    compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": blocks.warps})
    binary, shared = len(compiled.asm["cubin"]), compiled.metadata.shared
    results[name] = {"ptx": compiled.asm["ptx"], "binary": binary, "shared": shared}
json.dump(results, sys.stdout)
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return run_json("-c", COMPILE, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path_factory.mktemp("triton")))


@needs_triton
def test_compiles_for_a_cuda_device(compiled):
    for name in ("fp32", "fp64"):
        assert compiled[name]["binary"] > 0
        assert compiled[name]["shared"] <= 99 * 1024  # what every device of compute capability 8 and above can give
    assert "tf32" in compiled["fp32"]["ptx"]
    assert "tf32" not in compiled["fp64"]["ptx"]
    assert "f64" in compiled["fp64"]["ptx"]


# --- which one -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cuda", "meta"])
@pytest.mark.parametrize("implementation", ["auto", "torch"])
def test_auto_is_torch_where_there_is_no_cuda_device(implementation, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check_implementation(implementation)
    assert choose_search(implementation, torch.device(device)) is search


@needs_triton
@pytest.mark.parametrize(
    ("major", "dtype", "is_kernel"),
    [(9, torch.float32, True), (9, torch.bfloat16, True), (9, torch.float64, False), (8, torch.float32, False)],
)
def test_auto_is_the_kernel_where_it_was_measured(major, dtype, is_kernel, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))
    chosen = choose_search("auto", torch.device("cuda"), dtype)
    assert chosen is (triton_search.search if is_kernel else search)
    assert choose_search("torch", torch.device("cuda"), dtype) is search


@pytest.mark.parametrize("wrong", ["cuda", "", None, True, 1])
def test_other_implementations_are_refused(wrong):
    for call in (lambda: check_implementation(wrong), lambda: choose_search(wrong, CPU)):
        with pytest.raises(InputError, match=r"^implementation: expected 'auto' or 'torch' or 'triton', got "):
            call()


@needs_triton
def test_triton_on_cuda_is_the_kernel():
    check_implementation("triton")
    assert choose_search("triton", torch.device("cuda", 1)) is triton_search.search


@needs_triton
def test_compiled_triton_refuses_other_devices(compiled):
    expected = "implementation: 'triton' needs encodings on a CUDA device, got"
    assert compiled["refusals"] == [f"{expected} cpu", f"{expected} meta"]


def test_without_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)  # as good as not installed
    triton_search._kernel.cache_clear()
    line = "implementation: 'triton' needs triton, which is not installed: pip install triton"
    vectors = torch.ones(2, 4, 3)
    for call in (
        lambda: check_implementation("triton"),
        lambda: choose_search("triton", CPU),
        lambda: choose_search("triton", torch.device("cuda")),
        lambda: triton_search.search(vectors, 2, None, None),
    ):
        assert refusal_of(call) == line
    assert choose_search("auto", CPU)(vectors, 2, None, None)[0].eq(3).all()


def test_triton_is_not_imported_before_it_is_asked_for():
    code = """
import json, sys, torch
torch.ones(2).sum()
before = "triton" in sys.modules
import adaptssr_plugin
from adaptssr_plugin.functional.search import check_implementation, choose_search
adaptssr_plugin.AdaptSSRLoss()(*torch.ones(4, 2, 3))
choose_search("auto", torch.device("cpu"))
json.dump([before, "triton" in sys.modules], sys.stdout)
"""
    before, after = run_json("-c", code)
    assert after == before


# --- on CUDA -------------------------------------------------------------------------------------------------

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def unit_batch(n_rows, per_user, dim, dtype):
    generator = torch.Generator().manual_seed(n_rows + dim)
    vectors = torch.randn(n_rows, per_user, dim, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=-1).to("cuda", dtype)


@pytest.mark.gpu
@needs_cuda
@needs_triton
class TestOnCuda:
    @pytest.mark.parametrize("name", CASES)
    def test_cases(self, name):
        vectors, stride, ids = CASES[name]
        values, winners = triton_search.search(vectors.cuda(), stride, None if ids is None else ids.cuda(), None)
        similarities = all_similarities(vectors.double(), stride, ids)
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
        allowed = tolerance[vectors.dtype]
        top = similarities.amax(1)
        assert_close(values.flatten().double().cpu(), top, rtol=allowed, atol=allowed, equal_nan=True)
        at_winner = similarities.gather(1, winners.cpu()[:, None])[:, 0]
        has_negative = top != -torch.inf
        assert_close(at_winner[has_negative], top[has_negative], rtol=1e-5, atol=1e-5, equal_nan=True)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize(("n_rows", "dim"), [(128, 64), (1_000, 100), (4_096, 64), (3_001, 256)])
    @pytest.mark.parametrize("n_ids", [None, 500])
    def test_equals_torch_at_real_sizes(self, n_rows, dim, n_ids, dtype):
        vectors = unit_batch(n_rows, 4, dim, dtype)
        ids = None if n_ids is None else torch.arange(n_rows, device="cuda") % n_ids
        right = search(vectors, 2, ids, None)
        got = triton_search.search(vectors, 2, ids, None)
        allowed = 1e-5 if dtype == torch.float32 else 1e-12
        assert_close(got[0], right[0], rtol=allowed, atol=allowed)
        # Rivals as near as the last digit may change places.
        assert (got[1] != right[1]).double().mean() < (1e-2 if dtype == torch.float32 else 1e-9)

    def test_neither_waits_nor_holds_rows_of_the_matrix(self):
        vectors = unit_batch(16_384, 4, 64, torch.float32)
        triton_search.search(vectors, 2, None, None)  # compiles
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with no_waiting():
            triton_search.search(vectors, 2, None, None)
        assert torch.cuda.max_memory_allocated() - before < 2**22 * 4  # a hundred rows of the matrix would be 26 MB


# --- what the losses do with the argument -------------------------------------------------------------------


@needs_triton
@pytest.mark.parametrize("make", [AdaptSSRLoss, partial(InfoNCELoss, negatives="hardest")], ids=["adaptssr", "infonce"])
def test_the_losses_pass_it_on(make):
    views = torch.randn(4, 5, 3).unbind()[: 4 if make is AdaptSSRLoss else 2]
    with pytest.raises(InputError, match=r"^implementation: expected 'auto' or 'torch' or 'triton', got 'cuda'$"):
        make(implementation="cuda")
    assert torch.equal(make(implementation="torch")(*views), make()(*views))
    asked = make(implementation="triton")
    with pytest.raises(InputError, match=r"^implementation: 'triton' needs encodings on a CUDA device, got cpu$"):
        asked(*views)


@needs_triton
@pytest.mark.parametrize(
    ("module", "negatives"), [(InfoNCELoss, "all"), (InfoNCELoss, 0.1), (AdaptSSRLoss, 0.1)], ids=str
)
def test_what_is_no_search_has_no_kernel(module, negatives):
    refusal = rf"^implementation: expected 'auto' or 'torch' with negatives={negatives!r}, got"
    with pytest.raises(InputError, match=refusal):
        module(negatives=negatives, implementation="triton")
