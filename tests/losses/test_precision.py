"""Half precision, autocast, zero vectors and NaN."""

import pytest
import torch
import torch.nn.functional as F
from loss_cases import NEGATIVES, distance, encodings
from oracle import literal_adaptssr, literal_info_nce, straightforward_adaptssr, straightforward_info_nce
from torch.testing import assert_close

from adaptssr_plugin import AdaptSSRLoss, AugmentationAdaptiveFusion, InfoNCELoss

HALF = [torch.float16, torch.bfloat16]

CASES = {
    "adaptssr-hardest": (AdaptSSRLoss, straightforward_adaptssr, literal_adaptssr, 4, {"negatives": "hardest"}),
    "adaptssr-all": (AdaptSSRLoss, straightforward_adaptssr, literal_adaptssr, 4, {"negatives": "all"}),
    "adaptssr-soft": (AdaptSSRLoss, straightforward_adaptssr, literal_adaptssr, 4, {"negatives": 0.1}),
    "info-nce-hardest": (InfoNCELoss, straightforward_info_nce, literal_info_nce, 2, {"negatives": "hardest"}),
    "info-nce-all": (InfoNCELoss, straightforward_info_nce, literal_info_nce, 2, {"negatives": "all"}),
    "info-nce-soft": (InfoNCELoss, straightforward_info_nce, literal_info_nce, 2, {"negatives": 0.1}),
    "info-nce-sharp": (InfoNCELoss, straightforward_info_nce, literal_info_nce, 2, {"temperature": 0.05}),
    "info-nce-dot": (InfoNCELoss, straightforward_info_nce, literal_info_nce, 2, {"similarity": "dot"}),
}
every_case = pytest.mark.parametrize(
    ("module", "straightforward", "literal", "count", "options"), CASES.values(), ids=CASES
)
COSINE = {n: case for n, case in CASES.items() if n != "info-nce-dot"}  # see test_info_nce.py for large products
every_cosine = pytest.mark.parametrize(
    ("module", "straightforward", "literal", "count", "options"), COSINE.values(), ids=COSINE
)


@every_case
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dtype", HALF)
def test_no_worse_than_the_straightforward_code(module, straightforward, literal, count, options, dtype, seed):
    inputs = encodings(48, 16, count=count, seed=seed, dtype=dtype)
    exact = [u.detach().double().requires_grad_() for u in inputs]
    truth = straightforward(*exact, **options)
    right = torch.autograd.grad(truth, exact)
    naive = straightforward(*inputs, **options)
    naive_gradients = torch.autograd.grad(naive, inputs)
    ours = module(**options, chunk_size=20)(*inputs)
    our_gradients = torch.autograd.grad(ours, inputs)
    assert ours.dtype == torch.float32
    assert all(g.dtype == dtype for g in our_gradients)
    assert distance([ours], [truth]) <= distance([naive], [truth]) + 1e-7
    assert distance(our_gradients, right) <= distance(naive_gradients, right) + 1e-7
    # What remains is the rounding of the encodings' gradient to their dtype, and of float16 its smallest numbers.
    assert distance([ours], [truth]) < 1e-5
    assert distance(our_gradients, right) < (3e-3 if dtype == torch.bfloat16 else 1e-3)


@every_case
def test_float32_to_its_precision(module, straightforward, literal, count, options):
    inputs = encodings(48, 16, count=count, dtype=torch.float32)
    exact = [u.detach().double().requires_grad_() for u in inputs]
    truth = straightforward(*exact, **options)
    ours = module(**options, chunk_size=20)(*inputs)
    assert ours.dtype == torch.float32
    assert distance([ours], [truth]) < 1e-6
    assert distance(torch.autograd.grad(ours, inputs), torch.autograd.grad(truth, exact)) < 1e-5


@every_cosine
def test_users_left_out_leave_no_error_behind(module, straightforward, literal, count, options):
    # Rows of one user coincide while the others are far off. Left out by subtraction, they would take the digits
    # of the rest with them.
    inputs = [u.detach() for u in encodings(12, 8, count=count, dtype=torch.float32, alike=0.0)]
    for u in inputs:
        u[:6] = inputs[0][0]
        u[6:] = -inputs[0][0] + 0.1 * u[6:]
    inputs = [u.requires_grad_() for u in inputs]
    ids = torch.tensor([5] * 6 + [1, 2, 3, 4, 6, 7])
    exact = [u.detach().double().requires_grad_() for u in inputs]
    truth = straightforward(*exact, ids, **options, reduction="none")
    ours = module(**options, reduction="none", chunk_size=5)(*inputs, ids)
    assert_close(ours.double(), truth, rtol=1e-5, atol=1e-12)
    right = torch.autograd.grad(truth[:6].sum(), exact)
    assert distance(torch.autograd.grad(ours[:6].sum(), inputs), right) < 1e-3


@every_cosine
def test_float16_lengths_whose_square_overflows(module, straightforward, literal, count, options):
    inputs = [(2e4 * F.normalize(u.detach(), dim=-1)).half().requires_grad_() for u in encodings(6, 4, count=count)]
    exact = [u.detach().double() for u in inputs]
    loss = module(**options)(*inputs)
    assert_close(loss.double(), literal(*exact, **options), rtol=1e-5, atol=1e-6)
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, inputs))


@every_case
@pytest.mark.parametrize("backward_inside", [False, True])
@pytest.mark.parametrize("gather", [False, True])
@pytest.mark.parametrize("autocast", HALF, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
def test_autocast_leaves_the_similarities_in_float32(
    module, straightforward, literal, count, options, dtype, autocast, gather, backward_inside
):
    inputs = encodings(24, 16, count=count, dtype=dtype)
    criterion = module(**options, chunk_size=10, gather=gather)
    outside = criterion(*inputs)
    right = torch.autograd.grad(outside, inputs)
    with torch.autocast("cpu", dtype=autocast):
        inside = criterion(*inputs)
        if backward_inside:
            got = torch.autograd.grad(inside, inputs)
    if not backward_inside:
        got = torch.autograd.grad(inside, inputs)
    assert inside.dtype == torch.float32
    assert_close(inside, outside, rtol=1e-6, atol=0)
    assert distance(got, right) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
def test_fusion_and_terms_under_autocast(dtype):
    inputs = encodings(9, 16, dtype=dtype)
    fusion = AugmentationAdaptiveFusion()
    outside = AdaptSSRLoss().terms(*inputs)
    with torch.autocast("cpu", dtype=torch.float16 if dtype == torch.float16 else torch.bfloat16):
        coefficient = fusion(*inputs)
        inside = AdaptSSRLoss().terms(*inputs)
    assert coefficient.dtype == torch.float32
    assert_close(coefficient, fusion(*inputs), rtol=1e-6, atol=1e-6)
    for mine, right in zip(inside, outside, strict=True):
        assert mine.dtype == torch.float32
        assert_close(mine, right, rtol=1e-6, atol=1e-6)


@every_case
@pytest.mark.parametrize("where", ["one-row", "one-input", "everywhere"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF], ids=str)
def test_zero_vectors(module, straightforward, literal, count, options, where, dtype):
    inputs = [u.detach() for u in encodings(5, 4, count=count, dtype=dtype)]
    if where == "one-row":
        inputs[0][2] = 0
    elif where == "one-input":
        inputs[1].zero_()
    else:
        inputs = [torch.zeros_like(u) for u in inputs]
    truth = literal(*(u.double() for u in inputs), **options)
    inputs = [u.requires_grad_() for u in inputs]
    loss = module(**options, chunk_size=2)(*inputs)
    assert_close(loss.double(), truth, rtol=1e-5, atol=1e-6)
    for gradient in torch.autograd.grad(loss, inputs):
        assert gradient.isfinite().all()


@every_case
@pytest.mark.parametrize(("dtype", "tiny"), [(torch.float32, 1e-25), (torch.float16, 6e-8)], ids=str)
def test_all_but_zero_vectors_give_no_nan(module, straightforward, literal, count, options, dtype, tiny):
    inputs = [u.detach() for u in encodings(5, 4, count=count, dtype=dtype)]
    inputs[0][2] = torch.tensor([tiny, 0.0, -tiny, tiny], dtype=dtype)
    inputs = [u.requires_grad_() for u in inputs]
    loss = module(**options, chunk_size=2)(*inputs)
    assert loss.isfinite()
    for gradient in torch.autograd.grad(loss, inputs):
        assert not gradient.isnan().any()


@every_case
@pytest.mark.parametrize("chunk_size", [1, 2, None])
@pytest.mark.parametrize("position", range(4))
def test_nan_in_gives_nan_out(module, straightforward, literal, count, options, position, chunk_size):
    for reduction in ("mean", "sum", "none"):
        inputs = [u.detach() for u in encodings(5, 4, count=count, dtype=torch.float32)]
        inputs[position % count][3, 1] = torch.nan
        inputs = [u.requires_grad_() for u in inputs]
        loss = module(**options, reduction=reduction, chunk_size=chunk_size)(*inputs)
        assert (loss[3] if reduction == "none" else loss).isnan()
        gradient = torch.autograd.grad(loss.sum(), inputs)[position % count]
        assert gradient[3].isnan().any()


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_nan_in_shows_in_the_terms(negatives):
    inputs = [u.detach() for u in encodings(5, 4)]
    inputs[1][3, 1] = torch.nan  # û⁺ of row 3: among the negatives of every other row
    terms = AdaptSSRLoss(negatives=negatives, chunk_size=2).terms(*inputs)
    assert terms.positive.isnan().tolist() == [False, False, False, True, False]
    assert terms.coefficient.isnan().tolist() == [False, False, False, True, False]
    assert terms.hardest[[0, 1, 2, 4]].isnan().all()
