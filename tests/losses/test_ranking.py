"""`AdaptSSRLoss` and its fusion against the literal oracle, values and gradients."""

import itertools

import pytest
import torch
from loss_cases import (
    COLUMNS,
    EVERY_VARIANT,
    NEGATIVES,
    REDUCTIONS,
    SOME_VARIANTS,
    USERS,
    assert_agrees,
    assert_one_winner,
    encodings,
    fusion_of,
    gradients,
    ranking_truth,
    tied_encodings,
    user_ids_of,
)
from oracle import (
    OFFICIAL_CODE,
    PAPER,
    Variant,
    literal_adaptssr,
    literal_coefficients,
    literal_terms,
    reduce_rows,
    same_user,
    straightforward_adaptssr,
)

from adaptssr_plugin import AdaptSSRLoss, AugmentationAdaptiveFusion
from adaptssr_plugin.functional import order_hits, unit_vectors

SHAPES = [(2, 1), (2, 5), (3, 2), (3, 64), (5, 1), (5, 5), (7, 2), (7, 64), (17, 1), (17, 5)]
CHUNK_SIZES = [1, 2, 3, 7, 128, None]


EVERY_CASE = [*itertools.product(EVERY_VARIANT, USERS), *itertools.product(SOME_VARIANTS, COLUMNS)]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize(("variant", "users"), EVERY_CASE)
def test_every_variant_and_reduction_is_the_literal_one(variant, negatives, users, reduction):
    inputs, ids, terms = ranking_truth(EVERY_VARIANT[variant], negatives, users)
    fusion = fusion_of(EVERY_VARIANT[variant])
    criterion = AdaptSSRLoss(fusion=fusion, negatives=negatives, reduction=reduction, chunk_size=3)
    assert_agrees(criterion(*inputs, ids), reduce_rows(terms.loss, terms.valid, reduction), inputs)
    torch.testing.assert_close(criterion.terms(*inputs, ids).hardest, terms.hardest.detach())


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize(("n_rows", "dim"), SHAPES)
def test_odd_shapes_and_chunks(n_rows, dim, negatives, chunk_size):
    inputs, _, terms = ranking_truth(PAPER, negatives, "one-each", n_rows, dim)
    criterion = AdaptSSRLoss(negatives=negatives, reduction="none", chunk_size=chunk_size)
    # With one dimension every similarity is a tie at ±1, so there is no one gradient to agree on.
    assert_agrees(criterion(*inputs), terms.loss, inputs, check_gradients=dim > 1)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("scale", [0.1, 5.0, 30.0])
def test_scale(scale, negatives):
    inputs, _, terms = ranking_truth(PAPER, negatives, scale=scale)
    criterion = AdaptSSRLoss(negatives=negatives, scale=scale, reduction="none")
    assert_agrees(criterion(*inputs), terms.loss, inputs)


# λ that is detached is no constant to a finite difference, hence only the variants through which gradient flows.
DIFFERENTIABLE = {n: r for n, r in EVERY_VARIANT.items() if not (isinstance(r, Variant) and r.detach)}


@pytest.mark.parametrize("users", ["one-each", "repeats"])
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("variant", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
def test_gradcheck(variant, negatives, users):
    inputs, ids = encodings(3, 2, seed=1), user_ids_of(users, 3)
    criterion = AdaptSSRLoss(fusion=fusion_of(variant), negatives=negatives, reduction="none", chunk_size=2)
    assert torch.autograd.gradcheck(lambda *u: criterion(*u, ids), inputs)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (3,), (0, 2), (1, 3)])
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("variant", SOME_VARIANTS.values(), ids=SOME_VARIANTS)
def test_some_inputs_without_gradient(variant, negatives, wanted):
    inputs = [u if i in wanted else u.detach() for i, u in enumerate(encodings(4, 3))]
    criterion = AdaptSSRLoss(fusion=fusion_of(variant), negatives=negatives, chunk_size=3)
    right = literal_adaptssr(*inputs, fusion=variant, negatives=negatives)
    assert_agrees(criterion(*inputs), right, [inputs[i] for i in wanted])


class TestTies:
    @pytest.mark.parametrize("chunk_size", [1, 2, 3, None])
    def test_one_winner_takes_the_gradient(self, chunk_size):
        tied = tied_encodings(4)
        loss = AdaptSSRLoss(reduction="none", chunk_size=chunk_size)(*tied)
        assert_one_winner(loss, literal_adaptssr(*tied, reduction="none"), tied)

    def test_duplicates_of_the_anchor_itself(self):
        inputs = [u[:1].detach().repeat(6, 1).requires_grad_() for u in encodings(1, 4)]
        loss = AdaptSSRLoss(chunk_size=4)(*inputs)
        torch.testing.assert_close(loss, literal_adaptssr(*inputs), rtol=1e-12, atol=0)
        loss.backward()
        right = torch.autograd.grad(literal_adaptssr(*inputs), inputs)
        for u, gradient in zip(inputs, right, strict=True):
            assert u.grad.isfinite().all()
            torch.testing.assert_close(u.grad.sum(0), gradient.sum(0), rtol=1e-10, atol=1e-13)

    def test_one_dimension_is_all_ties(self):
        inputs = encodings(7, 1)
        for gradient in torch.autograd.grad(AdaptSSRLoss(chunk_size=3)(*inputs), inputs):
            # A one-dimensional unit vector is ±1 whatever the length, so nothing can flow.
            torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


@pytest.mark.parametrize("users", USERS)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("variant", SOME_VARIANTS.values(), ids=SOME_VARIANTS)
class TestTerms:
    def test_fields(self, variant, negatives, users):
        inputs, ids, truth = ranking_truth(variant, negatives, users)
        terms = AdaptSSRLoss(fusion=fusion_of(variant), negatives=negatives, chunk_size=3).terms(*inputs, ids)
        assert terms._fields == ("loss", "coefficient", "positive", "augmented", "hardest")
        for field in terms._fields:
            expected = getattr(truth, field).detach()
            got = getattr(terms, field).detach()
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14, msg=lambda m, f=field: f"{f}: {m}")
        assert [getattr(terms, field).requires_grad for field in terms._fields] == [True] + [False] * 4

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_loss_has_its_gradient_per_row_whatever_the_reduction(self, variant, negatives, users, reduction):
        inputs, ids, truth = ranking_truth(variant, negatives, users)
        criterion = AdaptSSRLoss(fusion=fusion_of(variant), negatives=negatives, reduction=reduction, chunk_size=3)
        assert_agrees(criterion.terms(*inputs, ids).loss, truth.loss, inputs)


ALL_FUSIONS = {n: r for n, r in EVERY_VARIANT.items() if isinstance(r, Variant)}


class TestFusion:
    @pytest.mark.parametrize("variant", ALL_FUSIONS.values(), ids=ALL_FUSIONS)
    def test_against_the_literal_one(self, variant):
        inputs = encodings(5, 3)
        got = fusion_of(variant)(*inputs)
        right = torch.stack(literal_coefficients(*inputs, variant))
        assert got.shape == (5,)
        assert got.requires_grad == (not variant.detach)
        assert_agrees(got, right, inputs, check_gradients=not variant.detach)

    def test_one_row(self):
        inputs = encodings(1, 3)
        for variant in (PAPER, OFFICIAL_CODE):
            right = torch.stack(literal_coefficients(*inputs, variant))
            torch.testing.assert_close(fusion_of(variant)(*inputs), right, rtol=1e-12, atol=1e-14)

    def test_defaults_are_the_paper(self):
        inputs = encodings(5, 3)
        assert torch.equal(AugmentationAdaptiveFusion()(*inputs), fusion_of(PAPER)(*inputs))

    def test_a_fusion_of_ones_own_is_asked_once_per_side(self):
        class Recorded(AugmentationAdaptiveFusion):
            def __init__(self):
                super().__init__()
                self.calls = []

            def forward(self, anchor, anchor_pos, view, view_pos):
                self.calls.append((anchor, anchor_pos, view, view_pos))
                return anchor.new_full((len(anchor),), 0.2 if len(self.calls) == 1 else 0.7)

        inputs = encodings(4, 3)
        fusion = Recorded()
        terms = AdaptSSRLoss(fusion=fusion).terms(*inputs)
        assert len(fusion.calls) == 2
        cosine = torch.nn.functional.cosine_similarity
        for call, order in zip(fusion.calls, ((0, 1, 2, 3), (2, 3, 0, 1)), strict=True):
            for given, i in zip(call, order, strict=True):  # as directions: it may get unit vectors
                torch.testing.assert_close(cosine(given, inputs[i]), given.new_ones(4))
        torch.testing.assert_close(terms.coefficient, terms.coefficient.new_full((4,), 0.45))


class TestPresets:
    @pytest.mark.parametrize(
        ("preset", "variant"), [("paper", PAPER), ("official_code", OFFICIAL_CODE)], ids=["paper", "official_code"]
    )
    def test_presets(self, preset, variant):
        inputs, _, terms = ranking_truth(variant)
        assert_agrees(AdaptSSRLoss.from_preset(preset)(*inputs), terms.loss.mean(), inputs)

    def test_default_is_the_paper(self):
        inputs, _, terms = ranking_truth(PAPER)
        assert_agrees(AdaptSSRLoss()(*inputs), terms.loss.mean(), inputs)

    def test_overrides(self):
        inputs, _, terms = ranking_truth(OFFICIAL_CODE, "all", scale=5.0)
        criterion = AdaptSSRLoss.from_preset("official_code", negatives="all", scale=5.0, reduction="none")
        assert_agrees(criterion(*inputs), terms.loss, inputs)

    def test_official_code_gives_one_scalar_per_side(self):
        inputs = encodings(5, 3)
        inputs[1] = -inputs[1]  # the sides differ where û⁺ and ũ⁺ do
        truth = literal_terms(*inputs, fusion=OFFICIAL_CODE)
        coefficient = AdaptSSRLoss.from_preset("official_code").terms(*inputs).coefficient
        torch.testing.assert_close(coefficient, coefficient[:1].expand(5))
        torch.testing.assert_close(coefficient, truth.coefficient)


@pytest.mark.parametrize(("negatives", "n_rows"), [("hardest", 96), ("hardest", 1_100), ("all", 96)])
def test_a_batch_of_real_size(negatives, n_rows):
    inputs = encodings(n_rows, 16)
    ids = torch.arange(n_rows) % 61
    criterion = AdaptSSRLoss(negatives=negatives, chunk_size=n_rows // 5)
    assert_agrees(criterion(*inputs, ids), straightforward_adaptssr(*inputs, ids, negatives=negatives), inputs)


@pytest.mark.parametrize("n_rows", [9, 17, 37])
def test_every_place_can_hold_the_hardest_negative(n_rows):
    # Wherever the search for the largest similarity cuts its rows up, no seam may lose or misname a winner.
    plain = [u.detach() for u in encodings(n_rows, 6, alike=0.0)]
    criterion = AdaptSSRLoss(fusion=0.35, reduction="none", chunk_size=10)
    for place in range(4 * n_rows):
        inputs = [u.clone() for u in plain]
        view, row = place % 4, place // 4
        for anchor in (0, 2):  # those of the row before it point almost the same way
            inputs[anchor][row - 1] = inputs[view][row] + 0.01 * plain[anchor][row - 1]
        inputs = [u.requires_grad_() for u in inputs]
        right = straightforward_adaptssr(*inputs, fusion=0.35, reduction="none")
        assert_agrees(criterion(*inputs), right, inputs)


def order_hits_one_by_one(units, user_ids):
    """Strict comparisons of P with v and of v with w over both anchors of every row, and their numbers."""
    hits = [0, 0, 0, 0]
    for i in range(len(units)):
        others = [j for j in range(len(units)) if j != i and not same_user(user_ids, i, j)]
        for own, other in ((0, 2), (2, 0)):
            anchor = units[i, own]
            p = anchor.dot(units[i, own + 1])
            for v in (anchor.dot(units[i, other]), anchor.dot(units[i, other + 1])):
                hits[0] += int(p > v)
                hits[1] += 1
                for w in (anchor.dot(units[j, x]) for j in others for x in range(4)):
                    hits[2] += int(v > w)
                    hits[3] += 1
    return hits


@pytest.mark.parametrize("users", [*USERS, *COLUMNS])
@pytest.mark.parametrize("with_ties", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 3, None])
def test_order_hits(with_ties, users, chunk_size):
    units = unit_vectors(torch.stack([u.detach() for u in encodings(5, 2)], 1))
    if with_ties:
        units = units.round().clamp(-1, 1)  # corners and axes: similarities are whole numbers, many of them equal
    ids = user_ids_of(users, 5)
    hits = order_hits(units, ids, chunk_size)
    got = [hits.positive_over_augmented, hits.positive_pairs, hits.augmented_over_negative, hits.negative_pairs]
    assert [int(x) for x in got] == order_hits_one_by_one(units, ids)


def test_holds_no_state():
    criterion = AdaptSSRLoss()
    assert not criterion.state_dict()
    assert not list(criterion.parameters())
    inputs = encodings(4, 3)
    criterion.eval()
    assert torch.equal(criterion(*inputs), criterion.train()(*inputs))
    assert not any(g.abs().sum() == 0 for g in gradients(criterion(*inputs), inputs))
