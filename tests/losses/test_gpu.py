"""The exactness tests once more on CUDA, with every wait for the device an error (pytest -m gpu)."""

import pytest
import torch
from loss_cases import NEGATIVES, SOME_VARIANTS, USERS, encodings, fusion_of, user_ids_of, weights_for
from oracle import PAPER, literal_adaptssr, literal_info_nce, literal_terms, straightforward_adaptssr
from readbacks import no_waiting
from torch.testing import assert_close

from adaptssr_plugin import AdaptSSRLoss, AugmentationAdaptiveFusion, InfoNCELoss

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def on_cuda(inputs):
    return [u.detach().cuda().requires_grad_() for u in inputs]


def assert_agrees_on_cuda(criterion, truth, inputs, ids, *, rtol=1e-10, atol=1e-12):
    """Value and gradients of the loss on CUDA against the truth on the CPU, the loss without a single wait."""
    right = torch.autograd.grad(truth, inputs, weights_for(truth))
    device_inputs = on_cuda(inputs)
    device_ids = None if ids is None else ids.cuda()
    weights = weights_for(truth).detach().cuda().to(torch.promote_types(inputs[0].dtype, torch.float32))
    # Handles and workspaces are made on first use, and may wait.
    torch.autograd.grad(criterion(*device_inputs, device_ids), device_inputs, weights)
    with no_waiting():
        loss = criterion(*device_inputs, device_ids)
        got = torch.autograd.grad(loss, device_inputs, weights)
    assert loss.is_cuda
    assert_close(loss.cpu(), truth, rtol=rtol, atol=atol)
    for mine, gradient in zip(got, right, strict=True):
        assert_close(mine.cpu(), gradient, rtol=rtol, atol=atol)


@pytest.mark.parametrize("users", USERS)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("variant", SOME_VARIANTS.values(), ids=SOME_VARIANTS)
def test_adaptssr(variant, negatives, users):
    for reduction in ("mean", "sum", "none"):
        inputs, ids = encodings(6, 5), user_ids_of(users, 6)
        truth = literal_adaptssr(*inputs, ids, fusion=variant, negatives=negatives, reduction=reduction)
        criterion = AdaptSSRLoss(fusion_of(variant), negatives, reduction=reduction, chunk_size=4)
        assert_agrees_on_cuda(criterion, truth, inputs, ids)


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 128, None])
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize(("n_rows", "dim"), [(2, 2), (3, 64), (17, 5), (300, 64)])
def test_adaptssr_at_odd_shapes(n_rows, dim, negatives, chunk_size):
    inputs = encodings(n_rows, dim)
    truth = straightforward_adaptssr(*inputs, negatives=negatives)
    assert_agrees_on_cuda(AdaptSSRLoss(negatives=negatives, chunk_size=chunk_size), truth, inputs, None)


@pytest.mark.parametrize("users", USERS)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_info_nce(temperature, negatives, users):
    for reduction in ("mean", "sum", "none"):
        inputs, ids = encodings(6, 5, count=2), user_ids_of(users, 6)
        options = {"temperature": temperature, "negatives": negatives, "reduction": reduction}
        truth = literal_info_nce(*inputs, ids, **options)
        assert_agrees_on_cuda(InfoNCELoss(**options, chunk_size=4), truth, inputs, ids)


@pytest.mark.parametrize("users", USERS)
def test_terms_and_fusion(users):
    inputs, ids = encodings(6, 5), user_ids_of(users, 6)
    truth = literal_terms(*inputs, ids, fusion=PAPER)
    device_inputs, device_ids = on_cuda(inputs), None if ids is None else ids.cuda()
    AdaptSSRLoss().terms(*device_inputs, device_ids)
    with no_waiting():
        terms = AdaptSSRLoss().terms(*device_inputs, device_ids)
        coefficient = AugmentationAdaptiveFusion()(*device_inputs)
    for field in terms._fields:
        assert_close(getattr(terms, field).cpu(), getattr(truth, field), rtol=1e-11, atol=1e-13)
    assert_close(coefficient.cpu(), truth.coefficient, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("autocast", [False, True])
def test_low_precision(autocast, dtype, negatives):
    inputs = encodings(64, 32, dtype=dtype)
    exact = [u.detach().double().requires_grad_() for u in inputs]
    truth = straightforward_adaptssr(*exact, negatives=negatives)
    right = torch.cat(torch.autograd.grad(truth, exact))
    device_inputs = on_cuda(inputs)
    criterion = AdaptSSRLoss(negatives=negatives, chunk_size=24)
    with torch.autocast("cuda", torch.float16 if dtype == torch.float16 else torch.bfloat16, enabled=autocast):
        loss = criterion(*device_inputs)
    got = torch.cat(torch.autograd.grad(loss, device_inputs))
    assert loss.dtype == torch.float32
    assert got.dtype == dtype
    # In float32 one similarity may change places with a rival as near as the last digit; the loss barely moves.
    assert_close(loss.double().cpu(), truth.detach(), rtol=1e-5, atol=0)
    allowed = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 4e-3}[dtype]
    assert (got.double().cpu() - right).norm() / right.norm() < allowed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("negatives", NEGATIVES)
def test_zero_vectors(negatives, dtype):
    inputs = [u.detach() for u in encodings(5, 4, dtype=dtype)]
    inputs[0][2], inputs[1][:] = 0, 0
    inputs = on_cuda(inputs)
    for criterion, arguments in (
        (AdaptSSRLoss(negatives=negatives), inputs),
        (InfoNCELoss(negatives=negatives), inputs[:2]),
    ):
        loss = criterion(*arguments)
        assert loss.isfinite()
        assert all(g.isfinite().all() for g in torch.autograd.grad(loss, arguments))
