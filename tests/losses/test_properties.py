"""What must hold for the losses whatever the encodings: bounds, symmetries, and how the equations relate."""

from itertools import pairwise
from math import exp, log, log1p

import pytest
import torch
from loss_cases import EVERY_VARIANT, NEGATIVES, SOME_VARIANTS, encodings, fusion_of, name
from oracle import OFFICIAL_CODE, PAPER, Variant
from torch.testing import assert_close

from adaptssr_plugin import AdaptSSRLoss, AugmentationAdaptiveFusion, InfoNCELoss
from adaptssr_plugin.functional import intra_user_similarities, unit_vectors

SEEDS = range(4)
CLAMPED = {n: r for n, r in EVERY_VARIANT.items() if isinstance(r, Variant) and r.clamp}
WITHIN_ONE = {name(r): r for r in (*CLAMPED.values(), 0.0, 0.35, 1.0)}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("variant", CLAMPED.values(), ids=CLAMPED)
def test_clamped_coefficients_lie_between_zero_and_one(variant, seed):
    for alike in (0.0, 1.0, 10.0):
        coefficient = fusion_of(variant)(*encodings(9, 2, seed=seed, alike=alike))
        assert (coefficient >= 0).all()
        assert (coefficient <= 1).all()


@pytest.mark.parametrize("variant", [PAPER, OFFICIAL_CODE], ids=["paper", "official-code"])
def test_no_gradient_goes_through_a_detached_coefficient(variant):
    inputs = encodings(5, 3)
    coefficient = fusion_of(variant)(*inputs)
    assert not coefficient.requires_grad
    ours = AdaptSSRLoss(AugmentationAdaptiveFusion(detach=True))(*inputs)
    loose = AdaptSSRLoss(AugmentationAdaptiveFusion(detach=False))(*inputs)
    gradients = (torch.autograd.grad(loss, inputs) for loss in (ours, loose))
    assert any(not torch.allclose(one, other, rtol=1e-6) for one, other in zip(*gradients, strict=True))


def test_coefficients_at_the_ends():
    u = encodings(3, 4, count=1)[0]
    for variant in (PAPER, OFFICIAL_CODE):
        fusion = fusion_of(variant)
        assert_close(fusion(u, u, u, u), torch.zeros(3, dtype=u.dtype), rtol=0, atol=1e-12)
    assert_close(AugmentationAdaptiveFusion()(u, u, -u, -u), torch.ones(3, dtype=u.dtype))
    assert_close(AugmentationAdaptiveFusion(clamp=False)(u, u, -u, -u), torch.full((3,), 2.0, dtype=u.dtype))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scale", [1.0, 8.0])
@pytest.mark.parametrize("negatives", ["hardest", 0.2])
def test_coefficient_zero_with_a_single_pass_is_eq8(negatives, scale, seed):
    u1, u2 = encodings(6, 3, count=2, seed=seed)
    ranking = AdaptSSRLoss(0.0, negatives, scale, chunk_size=4)(u1, u1, u2, u2)
    eq8 = InfoNCELoss(temperature=1 / scale, negatives=negatives)(u1, u2)
    assert_close(ranking, eq8, rtol=1e-12, atol=0)
    for mine, right in zip(torch.autograd.grad(ranking, (u1, u2)), torch.autograd.grad(eq8, (u1, u2)), strict=True):
        assert_close(mine, right, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("variant", WITHIN_ONE.values(), ids=WITHIN_ONE)
def test_eq6_is_never_below_eq5(variant, seed):
    inputs = encodings(6, 3, seed=seed)
    hardest = AdaptSSRLoss(fusion_of(variant), negatives="hardest", reduction="none")(*inputs)
    every = AdaptSSRLoss(fusion_of(variant), negatives="all", reduction="none")(*inputs)
    assert (hardest >= every - 1e-12).all()
    assert (hardest > every + 1e-6).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_soft_negative_lies_between_the_mean_and_the_hardest(seed):
    inputs = encodings(6, 3, seed=seed)
    hardest, *softer = (
        AdaptSSRLoss(0.4, negatives, reduction="none")(*inputs) for negatives in ("hardest", 1e-3, 0.1, 1.0, 1e6)
    )
    assert_close(softer[0], hardest, rtol=0, atol=0.6 * 1e-3 * log(20))  # (1 - λ) τ log |W|
    for sharp, soft in pairwise([hardest, *softer]):
        assert (sharp > soft).all()
    units = unit_vectors(torch.stack(inputs, 1))
    own = intra_user_similarities(units)
    similarities = torch.einsum("iad,jbd->iajb", units[:, ::2], units)
    similarities[torch.arange(6), :, torch.arange(6)] = 0
    mean = similarities.sum((2, 3)) / 20
    views = torch.stack((own[:, 0, 2:], own[:, 2, :2]), 1)
    implicit = torch.stack((own[:, 0, 1], own[:, 2, 3]), 1)
    bracket = 0.4 * (implicit - views.amax(2)) + 0.6 * (views.amin(2) - mean)
    assert_close(softer[-1], -torch.nn.functional.logsigmoid(bracket).mean(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_eq8_is_never_above_eq9(seed):
    z1, z2 = encodings(6, 3, count=2, seed=seed)
    hardest = InfoNCELoss(negatives="hardest", reduction="none")(z1, z2)
    assert (hardest <= InfoNCELoss(negatives="all", reduction="none")(z1, z2) + 1e-12).all()


@pytest.mark.parametrize("alike", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("negatives", NEGATIVES)
def test_bounds_at_scale_one(negatives, alike):
    rows = AdaptSSRLoss(negatives=negatives, reduction="none")(*encodings(8, 3, alike=alike))
    assert (rows >= log1p(exp(-2))).all()
    assert (rows <= log1p(exp(2))).all()


def every_loss():
    cases = [
        (f"adaptssr-{negatives}-{variant_name}", 4, AdaptSSRLoss(fusion_of(r), negatives, chunk_size=4))
        for negatives in NEGATIVES
        for variant_name, r in SOME_VARIANTS.items()
    ]
    cases += [
        (f"info-nce-{negatives}", 2, InfoNCELoss(temperature=0.3, negatives=negatives, chunk_size=4))
        for negatives in NEGATIVES
    ]
    return pytest.mark.parametrize(("count", "criterion"), [c[1:] for c in cases], ids=[c[0] for c in cases])


def value_and_gradients(criterion, inputs, ids=None):
    loss = criterion(*inputs, ids)
    return loss, torch.autograd.grad(loss, inputs)


@every_loss()
class TestSymmetries:
    IDS = torch.tensor([4, 1, 4, 2, 9, 2, 5])

    @pytest.mark.parametrize("with_ids", [False, True])
    def test_order_of_rows(self, criterion, count, with_ids):
        inputs = encodings(7, 3, count=count)
        ids = self.IDS if with_ids else None
        order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
        loss, right = value_and_gradients(criterion, inputs, ids)
        shuffled = [u.detach()[order].requires_grad_() for u in inputs]
        permuted, got = value_and_gradients(criterion, shuffled, ids[order] if with_ids else None)
        assert_close(permuted, loss, rtol=1e-12, atol=0)
        for mine, gradient in zip(got, right, strict=True):
            assert_close(mine, gradient[order], rtol=1e-10, atol=1e-13)

    def test_names_of_users(self, criterion, count):
        inputs = encodings(7, 3, count=count)
        renamed = torch.tensor([0, -7, 0, 2**60, 3, 2**60, 1])
        assert_close(criterion(*inputs, renamed), criterion(*inputs, self.IDS), rtol=1e-12, atol=0)

    def test_lengths_of_encodings(self, criterion, count):
        inputs = encodings(7, 3, count=count)
        loss, right = value_and_gradients(criterion, inputs)
        lengths = torch.logspace(-3, 3, 7, dtype=torch.float64)[:, None]
        scaled = [(u.detach() * lengths.roll(k, 0)).requires_grad_() for k, u in enumerate(inputs)]
        rescaled, got = value_and_gradients(criterion, scaled)
        assert_close(rescaled, loss, rtol=1e-11, atol=0)
        for k, (mine, gradient) in enumerate(zip(got, right, strict=True)):
            assert_close(mine * lengths.roll(k, 0), gradient, rtol=1e-8, atol=1e-12)

    def test_no_gradient_along_an_encoding(self, criterion, count):
        inputs = encodings(7, 3, count=count)
        for u, gradient in zip(inputs, value_and_gradients(criterion, inputs)[1], strict=True):
            assert gradient.abs().sum() > 0
            assert_close((u * gradient).sum(-1), torch.zeros(7, dtype=u.dtype), rtol=0, atol=1e-13)

    def test_rotation_of_the_space(self, criterion, count):
        inputs = encodings(7, 3, count=count)
        generator = torch.Generator().manual_seed(0)
        rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
        assert_close(criterion(*(u @ rotation for u in inputs)), criterion(*inputs), rtol=1e-11, atol=0)

    def test_order_of_the_two_views(self, criterion, count):
        inputs = encodings(7, 3, count=count)
        order = (2, 3, 0, 1) if count == 4 else (1, 0)
        loss, right = value_and_gradients(criterion, inputs)
        swapped, got = value_and_gradients(criterion, [inputs[i] for i in order])
        assert_close(swapped, loss, rtol=1e-12, atol=0)
        for mine, i in zip(got, order, strict=True):
            assert_close(mine, right[i], rtol=1e-10, atol=1e-13)
