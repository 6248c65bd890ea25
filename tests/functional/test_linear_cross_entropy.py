"""The chunked cross-entropy over items: torch's own on all scores is the truth, in values and gradients."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from core_only import run_python
from loss_cases import distance
from readbacks import count_readbacks
from refusals import refusal_of
from torch.testing import assert_close
from tracing import Largest, compiling

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.functional import linear_cross_entropy, sampled_cross_entropy, score_targets

TIGHT = {"rtol": 1e-11, "atol": 1e-13}


def drawn(n_rows, n_items, dim, dtype=torch.float64, seed=0, scale=1.0, with_bias=True):
    """hidden, weight, bias as leaves, and targets, of which some repeat if there are many rows."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(n, dim, generator=generator, dtype=torch.float64) for n in (n_rows, n_items))
    bias = torch.randn(n_items, generator=generator, dtype=torch.float64) * scale
    targets = torch.randint(n_items, (n_rows,), generator=generator)
    leaves = [(scale * hidden).to(dtype), weight.to(dtype), bias.to(dtype) if with_bias else None]
    return [None if leaf is None else leaf.requires_grad_() for leaf in leaves], targets


def naive(hidden, weight, bias, targets, reduction="mean"):
    return F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction=reduction)


def gradients(loss, leaves, upstream=None):
    leaves = [leaf for leaf in leaves if leaf is not None]
    return torch.autograd.grad(loss, leaves, upstream, retain_graph=True)


def assert_agrees(ours, right, leaves, upstream=None):
    assert_close(ours, right, **TIGHT)
    for mine, true in zip(gradients(ours, leaves, upstream), gradients(right, leaves, upstream), strict=True):
        assert_close(mine, true, **TIGHT)


SHAPES = {
    "one-row": (1, 7, 3),
    "two-items": (5, 2, 3),
    "one-row-two-items-one-number": (1, 2, 1),
    "every-target-often": (50, 4, 6),
    "more-items": (6, 97, 5),
}


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 64, 1000, None])
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_torch(shape, with_bias, chunk_size):
    leaves, targets = drawn(*shape, with_bias=with_bias)
    for reduction in ("mean", "sum", "none"):
        ours = linear_cross_entropy(*leaves, targets, reduction, chunk_size)
        upstream = torch.linspace(-1, 2, len(targets), dtype=torch.float64) if reduction == "none" else None
        assert_agrees(ours, naive(*leaves, targets, reduction), leaves, upstream)


def test_mean_is_the_default():
    leaves, targets = drawn(5, 6, 3)
    assert linear_cross_entropy(*leaves, targets) == linear_cross_entropy(*leaves, targets, "mean")
    assert linear_cross_entropy(*leaves, targets) != linear_cross_entropy(*leaves, targets, "sum")


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_inputs_without_gradient_are_left_alone(wanted):
    leaves, targets = drawn(9, 11, 4)
    right = dict(enumerate(gradients(naive(*leaves, targets), leaves)))
    for place, leaf in enumerate(leaves):
        leaf.requires_grad_(place in wanted)
    linear_cross_entropy(*leaves, targets, chunk_size=4).backward()
    for place, leaf in enumerate(leaves):
        if place in wanted:
            assert_close(leaf.grad, right[place], **TIGHT)
        else:
            assert leaf.grad is None
    with torch.no_grad():
        assert not linear_cross_entropy(*leaves, targets).requires_grad


def test_a_graph_that_is_kept_gives_the_same_gradients_again():
    leaves, targets = drawn(9, 11, 4)
    loss = 3 * linear_cross_entropy(*leaves, targets, chunk_size=4)
    first = gradients(loss, leaves)
    assert all(torch.equal(one, again) for one, again in zip(first, gradients(loss, leaves), strict=True))
    assert_agrees(loss, 3 * naive(*leaves, targets), leaves)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradcheck(reduction):
    leaves, targets = drawn(4, 5, 3)
    assert torch.autograd.gradcheck(lambda *given: linear_cross_entropy(*given, targets, reduction, 2), leaves)


def test_differentiable_once():
    leaves, targets = drawn(4, 5, 3)
    (gradient,) = torch.autograd.grad(linear_cross_entropy(*leaves, targets).square(), leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("given", ["transposed", "expanded", "strided"])
def test_memory_formats(given):
    leaves, targets = drawn(6, 8, 4)
    hidden, weight, bias = (leaf.detach() for leaf in leaves)
    hidden, weight = {
        "transposed": (hidden.t().contiguous().t(), weight.t().contiguous().t()),
        "expanded": (hidden[:1].expand(6, 4), weight),
        "strided": (torch.cat([hidden, hidden], 1)[:, ::2], torch.cat([weight, weight], 1)[:, 1::2]),
    }[given]
    assert not hidden.is_contiguous()
    leaves = [hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    assert_agrees(linear_cross_entropy(*leaves, targets, chunk_size=3), naive(*leaves, targets), leaves)


# --- numbers at their limits -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("chunk_size", [1, 4, None])
def test_scores_of_ten_thousand(dtype, chunk_size):
    leaves, targets = drawn(20, 30, 8, scale=3e3, dtype=dtype)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    assert F.linear(*exact).abs().max() > 1e4
    ours, right = linear_cross_entropy(*leaves, targets, chunk_size=chunk_size), naive(*exact, targets)
    digits = 1e-12 if dtype == torch.float64 else 1e-6
    assert distance([ours], [right]) < digits
    truth, theirs = gradients(right, exact), gradients(naive(*leaves, targets), leaves)
    assert distance(gradients(ours, leaves), truth) <= distance(theirs, truth) + digits


@pytest.mark.parametrize("chunk_size", [1, 3, None])
def test_a_target_far_ahead_of_the_rest_keeps_its_digits(chunk_size):
    # Others enter by exp(-20) = 2e-9, which float32 loses beside 1; the naive form gives 0 for loss and gradient.
    leaves, _ = drawn(3, 7, 4, scale=0.01)
    targets = torch.full((3,), 2)
    with torch.no_grad():
        leaves[2][2] += 20
    exact = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    leaves = [leaf.detach().float().requires_grad_() for leaf in leaves]
    others = torch.ones(3, 7, dtype=torch.bool).scatter_(1, targets[:, None], False)
    scores = F.linear(*exact)
    behind = (scores - scores.gather(1, targets[:, None]))[others].view(3, 6)
    right = torch.log1p(behind.exp().sum(1))
    ours = linear_cross_entropy(*leaves, targets, "none", chunk_size)
    assert (right < 1e-7).all()
    assert_close(ours.double(), right, rtol=1e-5, atol=0)
    assert distance(gradients(ours.sum(), leaves), gradients(right.sum(), exact)) < 1e-5


@pytest.mark.parametrize("chunk_size", [1, 2, None])
def test_an_item_left_out_by_its_bias(chunk_size):
    leaves, _ = drawn(5, 6, 3)
    targets = torch.tensor([0, 5, 2, 2, 0])
    with torch.no_grad():
        leaves[2][[1, 3, 4]] = -torch.inf
    assert_agrees(linear_cross_entropy(*leaves, targets, chunk_size=chunk_size), naive(*leaves, targets), leaves)


@pytest.mark.parametrize("place", [0, 1, 2], ids=["hidden", "weight", "bias"])
def test_nan_in_is_nan_out(place):
    leaves, targets = drawn(5, 6, 3)
    with torch.no_grad():
        leaves[place].view(-1)[-1] = torch.nan
    losses = linear_cross_entropy(*leaves, targets, "none", 2)
    assert torch.equal(losses.isnan(), naive(*leaves, targets, "none").isnan())
    assert losses.isnan().any()


# --- precision ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_no_worse_than_the_naive_code(dtype, seed):
    leaves, targets = drawn(60, 150, 16, dtype, seed)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    truth, ours, theirs = naive(*exact, targets), linear_cross_entropy(*leaves, targets), naive(*leaves, targets)
    assert ours.dtype == torch.float32
    right, mine, others = gradients(truth, exact), gradients(ours, leaves), gradients(theirs, leaves)
    assert [gradient.dtype for gradient in mine] == [dtype] * 3
    assert distance([ours], [truth]) <= distance([theirs], [truth]) + 1e-7
    assert distance(mine, right) <= distance(others, right) + 1e-7
    assert distance([ours], [truth]) < 1e-6  # of float32, whatever the inputs
    assert distance(mine, right) < {torch.float16: 1e-3, torch.bfloat16: 3e-3, torch.float32: 1e-6}[dtype]


def test_dtypes_of_their_own():
    """As under autocast: half-precision hidden states, parameters in float32."""
    (hidden, weight, bias), targets = drawn(9, 12, 4, torch.float32)
    leaves = [hidden.detach().bfloat16().requires_grad_(), weight, bias]
    whole = [leaves[0].detach().float().requires_grad_(), weight, bias]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = linear_cross_entropy(*leaves, targets, chunk_size=5)
        assert sampled_cross_entropy(*leaves, targets, 3).dtype == torch.float32
        assert score_targets(*leaves, targets).margin.dtype == torch.float32
    assert_close(ours, linear_cross_entropy(*whole, targets, chunk_size=5), rtol=0, atol=0)
    mine, right = gradients(ours, leaves), gradients(linear_cross_entropy(*whole, targets, chunk_size=5), whole)
    assert [gradient.dtype for gradient in mine] == [torch.bfloat16, torch.float32, torch.float32]
    assert torch.equal(mine[0], right[0].bfloat16())
    assert torch.equal(mine[1], right[1])
    double = linear_cross_entropy(hidden, weight.double(), bias, targets)
    assert double.dtype == torch.float64


# --- target against the others -----------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [1, 4, 30, None])
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no-bias"])
def test_loss_and_margin_of_targets(with_bias, chunk_size):
    leaves, targets = drawn(40, 30, 5, with_bias=with_bias)
    scores = F.linear(*leaves)
    targets[::2] = scores.argmax(1)[::2]
    found = score_targets(*leaves, targets, chunk_size)
    assert not found.loss.requires_grad
    assert_close(found.loss, naive(*leaves, targets, "none").detach(), **TIGHT)
    assert torch.equal(found.margin > 0, scores.argmax(1) == targets)
    of_target = scores.gather(1, targets[:, None])
    others = scores.scatter(1, targets[:, None], -torch.inf).amax(1, keepdim=True)
    assert_close(found.margin, (of_target - others)[:, 0].detach(), **TIGHT)
    assert 0 < (found.margin > 0).sum() < 40


def test_a_shared_first_place_has_no_margin():
    hidden, weight = torch.zeros(3, 2), torch.ones(4, 2)
    found = score_targets(hidden, weight, None, torch.tensor([0, 1, 3]))
    assert found.margin.tolist() == [0, 0, 0]
    assert_close(found.loss, torch.full((3,), 4.0).log())


# --- sampled -----------------------------------------------------------------------------------------------


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("chunk_size", [1, 3, None])
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("n_samples", [1, 4, 10])
def test_sampled_is_the_cross_entropy_among_target_and_samples(n_samples, with_bias, chunk_size):
    leaves, targets = drawn(25, 11, 3, with_bias=with_bias)
    candidates = torch.randperm(11, generator=generator())[: n_samples + 1].tolist()
    met = set()
    expected = []
    for hidden, target in zip(leaves[0], targets.tolist(), strict=True):
        met.add(target in candidates)
        others = [item for item in candidates if item != target][:n_samples]
        assert len(others) == n_samples
        rows = torch.tensor([target, *others])
        scores = leaves[1][rows] @ hidden + (leaves[2][rows] if with_bias else 0)
        expected.append(scores.logsumexp(0) - scores[0])
    assert True in met
    for reduction, right in (("none", torch.stack(expected)), ("mean", torch.stack(expected).mean())):
        ours = sampled_cross_entropy(*leaves, targets, n_samples, generator(), reduction, chunk_size)
        upstream = torch.linspace(-1, 2, 25, dtype=torch.float64) if reduction == "none" else None
        assert_agrees(ours, right, leaves, upstream)


def test_samples_are_uniform_over_the_other_items():
    # The target scores 0, every other item log 3^j: the loss of a single sample says which item it was.
    n_items, target = 6, 2
    bias = torch.arange(n_items) * torch.tensor(3.0).log()
    bias -= bias[target].clone()
    counts = torch.zeros(n_items)
    for seed in range(600):
        loss = sampled_cross_entropy(
            torch.zeros(1, 1), torch.zeros(6, 1), bias, torch.tensor([target]), 1, generator(seed)
        )
        score = loss.expm1().log()
        counts[(bias - score).abs().argmin()] += 1
    assert counts[target] == 0
    expected = 600 / (n_items - 1)
    statistic = ((counts - expected) ** 2 / expected)[torch.arange(n_items) != target].sum()
    assert statistic < 18.5  # chi-squared with 4 degrees of freedom: p = 0.001


def test_sampled_of_all_is_full_and_of_less_is_below():
    leaves, targets = drawn(8, 12, 4)
    full = linear_cross_entropy(*leaves, targets)
    assert_close(sampled_cross_entropy(*leaves, targets, 11, generator()), full, **TIGHT)
    assert sampled_cross_entropy(*leaves, targets, 10, generator()) < full
    assert sampled_cross_entropy(*leaves, targets, 4, generator()) != sampled_cross_entropy(
        *leaves, targets, 4, generator(1)
    )


# --- devices, tracing, memory ------------------------------------------------------------------------------

FORMS = {
    "full": lambda leaves, targets, **options: linear_cross_entropy(*leaves, targets, **options),
    "sampled": lambda leaves, targets, **options: sampled_cross_entropy(
        *leaves, targets, len(leaves[1]) // 2, **options
    ),
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@every_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("chunk_size", [3, None])
def test_on_meta(form, dtype, chunk_size):
    leaves = [torch.empty(shape, device="meta", dtype=dtype, requires_grad=True) for shape in ((7, 4), (9, 4), (9,))]
    targets = torch.empty(7, device="meta", dtype=torch.int64)
    for reduction, shape in (("mean", ()), ("none", (7,))):
        loss = form(leaves, targets, reduction=reduction, chunk_size=chunk_size)
        assert (loss.device.type, loss.shape, loss.dtype) == ("meta", shape, torch.float32)
        for leaf, gradient in zip(leaves, gradients(loss.sum(), leaves), strict=True):
            assert (gradient.device.type, gradient.shape, gradient.dtype) == ("meta", leaf.shape, dtype)
    assert score_targets(*leaves, targets).margin.shape == (7,)


@every_form
def test_no_read_back(form):
    leaves, targets = drawn(7, 9, 4, torch.float32)
    with count_readbacks() as reads:
        form(leaves, targets, chunk_size=4).backward()
        score_targets(*leaves, targets)
    assert reads == []


@every_form
def test_inputs_are_not_written_to(form):
    leaves, targets = drawn(7, 9, 4, torch.float32)
    before = [tensor.detach().clone() for tensor in (*leaves, targets)]
    form(leaves, targets, chunk_size=4).backward()
    score_targets(*leaves, targets)
    assert all(torch.equal(now, then) for now, then in zip((*leaves, targets), before, strict=True))


@every_form
def test_no_matrix_of_scores_is_made_or_kept(form):
    leaves, targets = drawn(200, 300, 4, torch.float32)
    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(largest.keep, lambda t: t):
        form(leaves, targets, chunk_size=8).backward()
    assert largest.entries == 8 * 200 < 200 * 300  # a chunk
    assert largest.kept < 2 * (200 + 300) * 6


@compiling
def test_compile_without_graph_breaks():
    torch._dynamo.reset()
    leaves, targets = drawn(5, 7, 4, torch.float32)
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager")
    got, right = compiled(*leaves, targets, chunk_size=3), linear_cross_entropy(*leaves, targets, chunk_size=3)
    assert_close(got, right)
    for mine, true in zip(gradients(got, leaves), gradients(right, leaves), strict=True):
        assert_close(mine, true)


PEAK = """
import torch
from adaptssr_plugin.functional import linear_cross_entropy, sampled_cross_entropy, score_targets

def peak():  # in MB; getrusage would also count the peak of the process that started this one
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024 / 1e6

def inputs(n_rows, n_items):
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator) for shape in ((n_rows, 64), (n_items, 64), (n_items,))]
    return [one.mul_(0.1).requires_grad_() for one in made], torch.randint(n_items, (n_rows,), generator=generator)

def run(leaves, targets):
    {call}

run(*inputs(8, 8))
given = inputs(1_400, 645_972)
before = peak()
run(*given)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads VmHWM")
@pytest.mark.parametrize(
    ("call", "limit"),
    [
        ("linear_cross_entropy(*leaves, targets).backward()", 1_500),
        ("linear_cross_entropy(*leaves, targets, 'none').sum().backward()", 1_500),
        ("sampled_cross_entropy(*leaves, targets, max(1, len(leaves[1]) // 5)).backward()", 1_500),
        ("score_targets(*leaves, targets)", 100),
    ],
    ids=["full", "full-none", "sampled", "score"],
)
def test_peak_memory(call, limit):
    """On the paper's TTL; its scores alone take 3,617 MB, and the straightforward form makes them three times."""
    done = run_python("-c", PEAK.format(call=call))
    assert done.returncode == 0, done.stderr
    added = float(done.stdout)
    print(f"{call}: {added:.0f} MB added")
    assert added < limit


# --- wrong calls -------------------------------------------------------------------------------------------


def replaced(name, value):
    (hidden, weight, bias), targets = drawn(5, 6, 3, torch.float32)
    return {"hidden": hidden, "weight": weight, "bias": bias, "targets": targets} | {name: value}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("hidden", torch.ones(3), "hidden: expected shape (M, d) with M >= 1, got (3,)"),
        ("hidden", torch.ones(0, 3), "hidden: expected shape (M, d) with M >= 1, got (0, 3)"),
        ("hidden", torch.ones(5, 3, dtype=torch.int64), "hidden: expected a floating dtype, got torch.int64"),
        ("hidden", [1.0], "hidden: expected a tensor, got list"),
        ("weight", torch.ones(6, 4), "weight: expected shape (n, 3) with n >= 2, d as in hidden, got (6, 4)"),
        ("weight", torch.ones(1, 3), "weight: expected shape (n, 3) with n >= 2, d as in hidden, got (1, 3)"),
        ("weight", torch.ones(6, 3, device="meta"), "weight: expected device cpu as hidden, got meta"),
        ("bias", torch.ones(5), "bias: expected shape (6,), one per item, got (5,)"),
        ("targets", torch.ones(4, dtype=torch.int64), "targets: expected shape (5,), one per row of hidden, got (4,)"),
        ("targets", torch.ones(5, dtype=torch.int32), "targets: expected int64, got torch.int32"),
        ("targets", torch.tensor([0, 5, 6, 1, 9]), "targets: expected items in 0..5, got 6"),
        ("targets", torch.tensor([0, 5, -100, 1, 9]), "targets: expected items in 0..5, got -100"),
        ("chunk_size", 0, "chunk_size: expected a positive integer or None, got 0"),
        ("chunk_size", 2.0, "chunk_size: expected a positive integer or None, got 2.0"),
    ],
)
def test_a_wrong_argument_gets_one_line(name, value, message):
    for function, options in (
        (linear_cross_entropy, {}),
        (sampled_cross_entropy, {"n_samples": 2}),
        (score_targets, {}),
    ):
        assert refusal_of(function, **replaced(name, value), **options) == message


@pytest.mark.parametrize("n_samples", [0, 6, 2.0, True, -1])
def test_a_wrong_number_of_samples(n_samples):
    with pytest.raises(InputError) as refused:
        sampled_cross_entropy(**replaced("chunk_size", None), n_samples=n_samples)
    assert str(refused.value) == f"n_samples: expected an integer in 1 .. 5, got {n_samples!r}"


@pytest.mark.parametrize("options", [{}, {"n_samples": 2}], ids=["full", "sampled"])
def test_a_wrong_reduction(options):
    function = sampled_cross_entropy if options else linear_cross_entropy
    with pytest.raises(InputError) as refused:
        function(**replaced("reduction", "max"), **options)
    assert str(refused.value) == "reduction: expected 'mean' or 'sum' or 'none', got 'max'"
