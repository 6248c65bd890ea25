"""Within `linear_scores` a loss is what it is outside, whether it is by cross-entropy or by something else."""

import pytest
import torch
import torch.nn.functional as F

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.functional import linear_scores as module
from adaptssr_plugin.functional.linear_scores import LinearScores, linear_scores

N_ITEMS, DIM, ROWS = 13, 4, 6
TARGETS = torch.tensor([1, 5, 12, 0, 5, 3])


def mean_of_others(scores):
    scores.masked_fill_(F.one_hot(TARGETS, N_ITEMS).bool(), -torch.inf)
    return F.cross_entropy(scores, (TARGETS + 1) % N_ITEMS)


def with_accuracy(scores):
    with torch.no_grad():
        right = (scores.argmax(1) == TARGETS).float().mean()
    return F.cross_entropy(scores, TARGETS) * (1 + right)


# What is done with (6, 13) scores, and whether they are computed for it.
LOSSES = {
    "mean": (lambda s, b: torch.nn.CrossEntropyLoss()(s, TARGETS), False),
    "sum": (lambda s, b: F.cross_entropy(s, TARGETS, reduction="sum"), False),
    "none": (lambda s, b: (F.cross_entropy(s, TARGETS, reduction="none") * torch.arange(6)).sum(), False),
    "ignored": (lambda s, b: F.cross_entropy(s, TARGETS, ignore_index=5), False),
    "ignored by default": (lambda s, b: F.cross_entropy(s, TARGETS.where(TARGETS < 9, -100)), False),
    "temperature": (lambda s, b: F.cross_entropy(s / 0.07, TARGETS), False),
    "bias": (lambda s, b: F.cross_entropy(s + b + 2 * b, TARGETS), False),
    "bias first": (lambda s, b: F.cross_entropy(b + s, TARGETS), True),
    "bias, then temperature": (lambda s, b: F.cross_entropy((s + b) / 0.5, TARGETS), True),
    "number": (lambda s, b: F.cross_entropy(s + 1.0, TARGETS), True),
    "smoothed": (lambda s, b: F.cross_entropy(s, TARGETS, label_smoothing=0.1), True),
    "weighted": (lambda s, b: F.cross_entropy(s, TARGETS, weight=torch.linspace(1, 2, 13).to(s)), True),
    "soft targets": (lambda s, b: F.cross_entropy(s, F.one_hot(TARGETS, N_ITEMS).to(s)), True),
    "by keyword": (lambda s, b: F.cross_entropy(input=s, target=TARGETS), False),
    "log-softmax": (lambda s, b: F.nll_loss(F.log_softmax(s, dim=1), TARGETS), True),
    "changed in place": (lambda s, b: mean_of_others(s), True),
    "looked at": (lambda s, b: with_accuracy(s), True),
    "concatenated": (lambda s, b: F.cross_entropy(torch.cat([s, s[:, :2]], 1), TARGETS), True),
    "two parts": (lambda s, b: F.cross_entropy(s, TARGETS) + s.square().mean(), False),
}
PRODUCTS = {
    "matmul": lambda hidden, table: torch.matmul(hidden, table.transpose(0, 1)),
    "@": lambda hidden, table: hidden @ table.T,
}


def value_and_gradients(loss, product=PRODUCTS["matmul"], within=False, dtype=torch.float64, shape=(ROWS,)):
    draw = torch.Generator().manual_seed(3)
    sizes = ((*shape, DIM), (N_ITEMS, DIM), (N_ITEMS,))
    leaves = [torch.randn(size, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() for size in sizes]
    if within:
        with linear_scores(N_ITEMS):
            value = loss(product(*leaves[:2]), leaves[2])
    else:
        value = loss(product(*leaves[:2]), leaves[2])
    value.backward()
    return [value.detach(), *(leaf.grad for leaf in leaves)]


@pytest.fixture
def chunked(monkeypatch):
    """Calls of the chunked cross-entropy."""
    calls, own = [], module.linear_cross_entropy
    monkeypatch.setattr(module, "linear_cross_entropy", lambda *a, **k: calls.append(a) or own(*a, **k))
    return calls


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
@pytest.mark.parametrize(("loss", "computed"), LOSSES.values(), ids=LOSSES)
def test_loss_and_gradients_are_those_of_plain_scores(chunked, loss, computed, product, dtype, rtol):
    plain = value_and_gradients(loss, product, dtype=dtype)
    assert not chunked
    lazy = value_and_gradients(loss, product, within=True, dtype=dtype)
    assert bool(chunked) != computed
    for ours, theirs in zip(lazy, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("flat", [lambda s: s.view(-1, N_ITEMS), lambda s: s.reshape(-1, N_ITEMS)])
def test_scores_of_rows_of_several_places(chunked, flat):
    def loss(scores, bias):
        return F.cross_entropy(flat(scores + bias), TARGETS)

    plain, lazy = (value_and_gradients(loss, within=within, shape=(2, 3)) for within in (False, True))
    assert len(chunked) == 1
    for ours, theirs in zip(lazy, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_scores_of_classes_at_the_second_of_three_dimensions_are_computed(chunked):
    def loss(scores, _):
        return F.cross_entropy(scores, torch.tensor([[0] * N_ITEMS, [2] * N_ITEMS]))

    plain, lazy = (value_and_gradients(loss, within=within, shape=(2, 3)) for within in (False, True))
    assert not chunked
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(lazy[:3], plain[:3], strict=True) if ours is not None)


TABLE, HIDDEN = torch.randn(N_ITEMS, DIM, requires_grad=True), torch.randn(ROWS, DIM)
OTHERS = {
    "another table": lambda: HIDDEN @ TABLE[1:].T,
    "no rows of vectors": lambda: HIDDEN @ torch.randn(DIM, N_ITEMS, requires_grad=True),
    "fixed table": lambda: HIDDEN @ TABLE.detach().T,
    "one row": lambda: HIDDEN[0] @ TABLE.T,
    "half precision": lambda: HIDDEN.bfloat16() @ TABLE.bfloat16().T,
    "no gradient": torch.no_grad()(lambda: HIDDEN @ TABLE.T),
    "autocast": torch.autocast("cpu", torch.bfloat16)(lambda: HIDDEN @ TABLE.T),
}


@pytest.mark.parametrize("product", OTHERS.values(), ids=OTHERS)
def test_other_products_are_plain(product):
    with linear_scores(N_ITEMS):
        assert type(product()) is torch.Tensor


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(_, scores):
        return scores.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient * 2


def test_a_loss_that_torchs_functions_do_not_tell_of_is_refused():
    """Its gradient would end at the scores."""
    with linear_scores(N_ITEMS):
        scores = HIDDEN @ TABLE.T
    assert type(scores) is LinearScores
    with pytest.raises(InputError, match=r"^faster_layers: expected a model whose loss[^\n]*$"):
        _Double.apply(scores).sum().backward()
