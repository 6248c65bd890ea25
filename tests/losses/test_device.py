"""The losses without read-backs, on ``meta``, under ``torch.compile``, and within their memory."""

import pytest
import torch
from core_only import run_python
from loss_cases import NEGATIVES, encodings
from readbacks import count_readbacks
from torch.testing import assert_close
from tracing import Largest, compiling

from adaptssr_plugin import AdaptSSRLoss, AugmentationAdaptiveFusion, InfoNCELoss

CASES = {
    "adaptssr-hardest": (AdaptSSRLoss, 4, {"negatives": "hardest"}),
    "adaptssr-all": (AdaptSSRLoss, 4, {"negatives": "all"}),
    "adaptssr-soft": (AdaptSSRLoss, 4, {"negatives": 0.1}),
    "adaptssr-constant": (AdaptSSRLoss, 4, {"fusion": 0.4}),
    "adaptssr-undetached": (
        AdaptSSRLoss,
        4,
        {"fusion": AugmentationAdaptiveFusion("batch", 2, clamp=False, detach=False)},
    ),
    "info-nce-hardest": (InfoNCELoss, 2, {"negatives": "hardest", "temperature": 0.2}),
    "info-nce-all": (InfoNCELoss, 2, {"negatives": "all", "temperature": 0.2}),
    "info-nce-soft": (InfoNCELoss, 2, {"negatives": 0.1, "temperature": 0.2}),
    "info-nce-dot-hardest": (InfoNCELoss, 2, {"negatives": "hardest", "similarity": "dot"}),
    "info-nce-dot-all": (InfoNCELoss, 2, {"negatives": "all", "similarity": "dot"}),
}
every_case = pytest.mark.parametrize(("module", "count", "options"), CASES.values(), ids=CASES)


def ids_of(first, n_columns):
    """No ids for None, ``(B,)`` for 0, else ``(B, n_columns)`` with other rows alike in each further column."""
    if n_columns is None:
        return None
    return torch.stack([first.roll(k) // (k + 1) for k in range(n_columns)], 1) if n_columns else first


@every_case
@pytest.mark.parametrize("n_columns", [None, 0, 2, 3])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_no_read_back(module, count, options, n_columns, reduction):
    inputs = encodings(9, 4, count=count, dtype=torch.float32)
    ids = ids_of(torch.tensor([1, 2, 3, 1, 4, 5, 6, 1, 7]), n_columns)
    criterion = module(**options, reduction=reduction, chunk_size=4)
    with count_readbacks() as reads:
        criterion(*inputs, ids).sum().backward()
    assert reads == []


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_no_read_back_in_terms(negatives):
    inputs = encodings(9, 4, dtype=torch.float32)
    criterion = AdaptSSRLoss(negatives=negatives, chunk_size=4)
    with count_readbacks() as reads:
        criterion.terms(*inputs, torch.arange(9) // 2).loss.sum().backward()
    assert reads == []


@every_case
@pytest.mark.parametrize(("n_columns", "chunk_size"), [(None, None), (0, 2), (2, 2), (3, None)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_meta(module, count, options, n_columns, chunk_size, dtype):
    inputs = [torch.empty(3, 4, device="meta", dtype=dtype, requires_grad=True) for _ in range(count)]
    ids = ids_of(torch.empty(3, device="meta", dtype=torch.int64), n_columns)
    for reduction, shape in (("mean", ()), ("none", (3,))):
        loss = module(**options, reduction=reduction, chunk_size=chunk_size)(*inputs, ids)
        assert (loss.device.type, loss.shape, loss.dtype) == ("meta", shape, torch.float32)
        for u, gradient in zip(inputs, torch.autograd.grad(loss.sum(), inputs), strict=True):
            assert (gradient.device.type, gradient.shape, gradient.dtype) == ("meta", u.shape, dtype)


@pytest.mark.parametrize("with_ids", [False, True])
def test_terms_and_fusion_on_meta(with_ids):
    inputs = [torch.empty(5, 4, device="meta") for _ in range(4)]
    ids = torch.empty(5, device="meta", dtype=torch.int64) if with_ids else None
    for made in (*AdaptSSRLoss().terms(*inputs, ids), AugmentationAdaptiveFusion()(*inputs)):
        assert (made.device.type, made.shape) == ("meta", (5,))


@every_case
@pytest.mark.parametrize("n_columns", [None, 0, 2, 3])
def test_no_matrix_of_all_rows_is_made_or_kept(module, count, options, n_columns):
    n_rows, dim, chunk = 256, 4, 8
    inputs = encodings(n_rows, dim, count=count, dtype=torch.float32)
    ids = ids_of(torch.arange(n_rows) // 2, n_columns)
    criterion = module(**options, chunk_size=chunk)
    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(largest.keep, lambda t: t):
        loss = criterion(*inputs, ids)
        loss.backward()
    # The inputs, their unit vectors and a few numbers per row and anchor; a matrix of all rows has 65,536 entries.
    assert largest.kept < 64 * n_rows * dim // 2
    # At most (chunk, 2, 4B) quadruples, or a few copies of all encodings.
    assert largest.entries <= max(8 * chunk, 8 * dim) * n_rows < n_rows**2


def compiled_agrees(module, count, options, ids, backend):
    torch._dynamo.reset()
    criterion = module(**options, chunk_size=2)
    compiled = torch.compile(criterion, fullgraph=True, backend=backend)
    for seed in (0, 1):
        inputs = encodings(3, 4, count=count, dtype=torch.float32, seed=seed)
        right, got = criterion(*inputs, ids), compiled(*inputs, ids)
        assert_close(got, right, rtol=1e-5, atol=1e-6)
        for mine, gradient in zip(torch.autograd.grad(got, inputs), torch.autograd.grad(right, inputs), strict=True):
            assert_close(mine, gradient, rtol=1e-4, atol=1e-6)


IDS = torch.tensor([1, 2, 1])
COLUMNS = torch.tensor([[1, 4], [2, 4], [1, 5]])


@compiling
@pytest.mark.parametrize(
    ("case", "ids"),
    [("adaptssr-hardest", IDS), ("info-nce-all", None), ("adaptssr-all", COLUMNS), ("adaptssr-soft", COLUMNS)],
)
def test_compile_without_graph_breaks(case, ids):
    compiled_agrees(*CASES[case], ids, backend="aot_eager")


@compiling
@pytest.mark.slow
@every_case
@pytest.mark.parametrize("ids", [None, IDS, COLUMNS], ids=["no-ids", "ids", "columns"])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_every_loss(module, count, options, ids, backend):
    compiled_agrees(module, count, options, ids, backend)


PEAK = """
import resource
from pathlib import Path
import torch
from adaptssr_plugin import AdaptSSRLoss, InfoNCELoss

def peak():  # in MB
    try:  # getrusage also counts the peak of the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

generator = torch.Generator().manual_seed(0)
criterion = {criterion}
inputs = [torch.randn({n_rows}, 64, generator=generator).requires_grad_() for _ in range({count})]
criterion(*(u[:8].detach().clone().requires_grad_() for u in inputs)).backward()
before = peak()
loss = criterion(*inputs)
loss.backward()
assert loss.isfinite() and all(u.grad.isfinite().all() for u in inputs)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("criterion", "count", "n_rows", "limit"),
    [
        ("AdaptSSRLoss()", 4, 16_384, 700),
        ("AdaptSSRLoss(chunk_size=64)", 4, 16_384, 700),
        ("AdaptSSRLoss(negatives='all')", 4, 2_048, 300),
        ("AdaptSSRLoss(negatives=0.1)", 4, 16_384, 700),
        ("InfoNCELoss()", 2, 16_384, 700),
        ("InfoNCELoss(negatives='hardest')", 2, 16_384, 700),
    ],
)
def test_peak_memory(criterion, count, n_rows, limit, threads):
    """What the straightforward form needs: 8,600 MB for the ranking's matrix alone, 4,300 for InfoNCE's."""
    code = PEAK.format(criterion=criterion, count=count, n_rows=n_rows)
    done = run_python("-c", code, OMP_NUM_THREADS=str(threads))
    assert done.returncode == 0, done.stderr
    added = float(done.stdout)
    print(f"{criterion} at {n_rows} rows, {threads} threads: {added:.0f} MB added")
    assert added < limit
