"""``gather=True`` on 2, 3 and 4 gloo processes: values and gradients of the single-process batch, to 1e-10."""

import re
import subprocess
import sys
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from distributed_cases import (
    CASES,
    DDP_CASES,
    DDP_RUNS,
    DIM,
    SIZES,
    VARIANTS,
    WORLDS,
    LengthFusion,
    TinyEncoder,
    encodings_for,
    ids_of,
    inputs_of,
    losses,
    own_rows,
    views_of,
    weights_of,
)
from loss_cases import encodings
from oracle import literal_info_nce_rows, literal_terms, reduce_rows, straightforward_adaptssr

from adaptssr_plugin import AdaptSSRLoss, InfoNCELoss, distributed
from adaptssr_plugin.distributed import gather_rows

LAYOUTS = [(world, layout) for world in WORLDS for layout in SIZES[world]]
every_layout = pytest.mark.parametrize(("world", "layout"), LAYOUTS, ids=[f"{w}-{name}" for w, name in LAYOUTS])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What every rank of every world got: results[world][rank][name]."""
    folder = tmp_path_factory.mktemp("gloo")
    script = Path(__file__).with_name("distributed_cases.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", script, folder], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return {world: [torch.load(folder / f"{world}-{rank}.pt") for rank in range(world)] for world in WORLDS}


def close(got, truth):
    torch.testing.assert_close(got, truth, rtol=1e-10, atol=1e-12)


def rows_and_valid(case, inputs, ids):
    """The literal losses of all rows, and which have a negative."""
    options = dict(case.options)
    if case.kind == "info-nce":
        return literal_info_nce_rows(*inputs, ids, **options)
    terms = literal_terms(*inputs, ids, fusion=VARIANTS[options.pop("variant")], **options)
    return terms.loss, terms.valid


@cache
def truth_of(name, n_rows, reduction):
    """The whole batch's loss and gradients, on one process."""
    case = CASES[name]
    inputs, (rows, valid) = rows_of(name, n_rows)
    loss = reduce_rows(rows, valid, reduction)
    total = (rows * weights_of(n_rows)).sum() if reduction == "none" else loss
    gradients = torch.autograd.grad(total, inputs, retain_graph=True, allow_unused=True, materialize_grads=True)
    assert case.users == "one-only" or all((g != 0).any() for g in gradients)
    return loss.detach(), gradients


@cache
def rows_of(name, n_rows):
    inputs = inputs_of(CASES[name], n_rows)
    return inputs, rows_and_valid(CASES[name], inputs, ids_of(CASES[name].users, n_rows))


def assert_whole(of_ranks, reduction, truth, gradients):
    """Losses and rows' gradients of all ranks make those of the whole batch."""
    values, *rows = zip(*of_ranks, strict=True)
    if reduction == "none":
        close(torch.cat(values), truth)
    else:
        close(torch.stack(values).mean() if reduction == "mean" else torch.stack(values).sum(), truth)
    # A rank's rows get their gradient from every rank's loss; DistributedDataParallel divides it by their number.
    share = len(of_ranks) if reduction == "mean" else 1
    for own, whole in zip(rows, gradients, strict=True):
        close(torch.cat(own) / share, whole)


LOSSES = [(world, *chosen) for world in WORLDS for chosen in losses(world)]


@pytest.mark.parametrize(("world", "layout", "name", "reduction"), LOSSES, ids=["-".join(map(str, x)) for x in LOSSES])
def test_value_and_gradients(results, world, layout, name, reduction):
    truth = truth_of(name, sum(SIZES[world][layout]), reduction)
    assert_whole([rank[f"{layout} {name} {reduction}"] for rank in results[world]], reduction, *truth)


def test_what_the_kinds_of_users_are_for():
    """Rows valid through other ranks alone, a row valid through none, and both beside valid ones."""
    assert ids_of("blocks", 6)[own_rows((2, 2, 2), 0)].unique().numel() == 1
    valid = {users: rows_of(f"paper-hardest-{users}", 6)[1][1].tolist() for users in ("blocks", "lonely", "one-only")}
    assert valid == {"blocks": [True] * 6, "lonely": [False] + [True] * 5, "one-only": [False] * 6}


@every_layout
def test_terms(results, world, layout):
    n_rows = sum(SIZES[world][layout])
    case = CASES["official-hardest-repeats"]
    literal = literal_terms(
        *inputs_of(case, n_rows), ids_of("repeats", n_rows), fusion=VARIANTS["official"], scale=case.options["scale"]
    )
    of_ranks = [rank[f"{layout} terms"] for rank in results[world]]
    for field, got in enumerate(zip(*(own[:5] for own in of_ranks), strict=True)):
        truth = (literal.loss, literal.coefficient, literal.positive, literal.augmented, literal.hardest)[field]
        close(torch.cat(got), truth.detach())
    assert_whole([own[5:] for own in of_ranks], "mean", *truth_of("official-hardest-repeats", n_rows, "mean"))


@every_layout
def test_a_fusion_of_the_users_own_sees_the_whole_batch(results, world, layout):
    inputs = encodings(sum(SIZES[world][layout]), DIM)
    truth = AdaptSSRLoss(LengthFusion(), reduction="sum")(*inputs)
    gradients = torch.autograd.grad(truth, inputs)
    assert_whole([rank[f"{layout} subclass"] for rank in results[world]], "sum", truth.detach(), gradients)


# --- DistributedDataParallel -----------------------------------------------------------------------------------


@cache
def accumulated(name, n_rows, reduction):
    """Weights' gradients of two whole batches on one process."""
    case, encoder = CASES[name], TinyEncoder()
    for seed in (0, 1):
        encoded = encodings_for(case, encoder(views_of(n_rows, seed)))
        loss = reduce_rows(*rows_and_valid(case, encoded, ids_of(case.users, n_rows)), reduction)
        loss.backward()
    return [p.grad for p in encoder.parameters()]


@pytest.mark.parametrize(("reduction", "micro_batch"), DDP_RUNS)
@pytest.mark.parametrize("name", DDP_CASES)
@pytest.mark.parametrize("layout", ["uneven", "empty"])
@pytest.mark.parametrize("world", WORLDS)
def test_ddp_and_accumulation(results, world, layout, name, reduction, micro_batch):
    truth = accumulated(name, sum(SIZES[world][layout]), reduction)
    for rank in results[world]:
        for got, whole in zip(rank[f"{layout} ddp {name} {reduction} {micro_batch}"], truth, strict=True):
            close(got * (world if reduction == "sum" else 1), whole)


@pytest.mark.parametrize("world", WORLDS)
def test_a_rank_without_rows_needs_no_graph(results, world):
    inputs = encodings(4, DIM)
    truth = straightforward_adaptssr(*inputs, reduction="sum")
    loss, *gradients = results[world][0]["without-rows"]
    close(loss, truth.detach())
    for got, whole in zip(gradients, torch.autograd.grad(truth, inputs), strict=True):
        close(got, whole)


@pytest.mark.parametrize("world", WORLDS)
def test_half_precision(results, world):
    """The numbers of one process: the sum of gradients is rounded to bfloat16 once, at the end."""
    of_ranks = [rank["precision"] for rank in results[world]]
    first = 0
    for criterion, count in ((AdaptSSRLoss(), 4), (InfoNCELoss(), 2)):
        inputs = [u.detach().bfloat16().requires_grad_() for u in encodings(3 * world, 8, count=count)]
        truth = criterion(*inputs)
        mean, *gradients = (torch.stack(x) for x in zip(*(r[first : first + count + 1] for r in of_ranks), strict=True))
        torch.testing.assert_close(mean.mean(), truth.detach(), rtol=1e-6, atol=0)
        for got, whole in zip(gradients, torch.autograd.grad(truth, inputs), strict=True):
            assert got.dtype == torch.bfloat16
            torch.testing.assert_close(got.flatten(0, 1) / world, whole, rtol=2**-7, atol=1e-6)
        first += count + 1


# --- a stage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["adaptssr", "info-nce"])
@pytest.mark.parametrize("world", WORLDS)
def test_a_stage_takes_ranks_with_one_row_or_none(results, world, kind):
    for rank in results[world]:
        got = rank["stage"]
        assert (got[f"{kind}-usable"], got[f"{kind}-one-usable"], got[f"{kind}-finite"]) == (True, False, True)


@pytest.mark.parametrize("kind", ["adaptssr", "info-nce"])
@pytest.mark.parametrize("world", WORLDS)
def test_one_rank_can_validate_alone(results, world, kind):
    got = results[world][0]["stage"]
    assert got[f"{kind}-validated"] == got[f"{kind}-alone"]


# --- agreement -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", WORLDS)
def test_agreement(results, world):
    for number, rank in enumerate(results[world]):
        total = world * (world + 1) // 2
        assert rank["agreement"] == {"total": total, "all": True, "not-all": False, "sum": total, "rank": number}


REFUSALS = {
    "one-row": "batch: expected at least 2 rows to compare, got 1 on all processes together",
    "no-row": "batch: expected at least 2 rows to compare, got 0 on all processes together",
    "dimension": "gather: expected dimension 3 as rank 0, got 4 from rank {last}",
    "dtype": "gather: expected dtype torch.float32 as rank 0, got torch.float16 from rank {last}",
    "ids": "gather: expected columns of user_ids 1 as rank 0, got 0 from rank {last}",
    "columns": "gather: expected columns of user_ids 1 as rank 0, got 2 from rank {last}",
    "losses": "gather: expected encodings per row 4 as rank 0, got 2 from rank {last}",
    "elsewhere": "gather: expected encodings on cpu or cuda, by the backend, got meta",
    "graph": "gather: expected a graph on every process or on none, got none from rank {last}",
    "right": "",
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("world", WORLDS)
def test_every_rank_refuses(results, world, name):
    assert [rank["refusals"][name] for rank in results[world]] == [REFUSALS[name].format(last=world - 1)] * world


@pytest.mark.parametrize("world", WORLDS)
def test_a_wrong_call_of_one_rank_is_told_to_the_others(results, world):
    *others, own = (rank["refusals"]["bad-shape"] for rank in results[world])
    assert own == "u2_pos: expected shape (2, 3) as u1, got (2, 5)"
    assert others == [f"gather: expected encodings from every process, got a refusal from rank {world - 1}"] * len(
        others
    )


# --- what travels ----------------------------------------------------------------------------------------------

N_OWN, D = 128, 4
TRAFFIC = {
    ("adaptssr", "one-each"): (4, 0),
    ("adaptssr", "repeats"): (4, 8),
    ("info-nce", "one-each"): (2, 0),
    ("info-nce", "repeats"): (2, 8),
}


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].users in ("one-each", "repeats")])
def test_two_gathers_forward_and_one_reduction_backward(results, name):
    case = CASES[name]
    per_row, id_bytes = TRAFFIC[case.kind, case.users]
    for rank in results[2]:
        calls = rank["traffic"][name]["calls"]
        header, rows, *count, back = (re.sub(r"_|base|single", "", call) for call in calls)
        assert header == "allgather int64 6"
        assert rows == f"allgather uint8 {N_OWN * (8 * per_row * D + id_bytes)}"
        assert count == (["allreduce int64 1"] if id_bytes else [])
        assert back == f"reducescatter float64 {2 * N_OWN * per_row * D}"


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].users in ("one-each", "repeats")])
def test_no_matrix_of_all_rows_is_made_or_kept(results, name):
    n_rows, chunk = 2 * N_OWN, 8
    for rank in results[2]:
        got = rank["traffic"][name]
        assert got["kept"] < 64 * n_rows * D // 2
        # Rows travel as bytes: 8 of every number, and of the id.
        assert got["largest"] <= max(8 * chunk, 8 * (4 * D + 1)) * n_rows < n_rows**2


# --- one process -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("criterion", "count"), [(AdaptSSRLoss, 4), (InfoNCELoss, 2)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_one_process_gathers_nothing(criterion, count, reduction):
    inputs, ids = encodings(5, 3, count=count, dtype=torch.float32), torch.tensor([1, 2, 1, 3, 4])
    for user_ids in (None, ids):
        plain, gathered = (criterion(reduction=reduction, gather=g)(*inputs, user_ids) for g in (False, True))
        assert torch.equal(plain, gathered)
        pairs = zip(*(torch.autograd.grad(x.sum(), inputs) for x in (plain, gathered)), strict=True)
        assert all(torch.equal(mine, right) for mine, right in pairs)


def test_one_process_is_alone():
    assert (distributed.world_size(), distributed.rank(), distributed.total(3)) == (1, 0, 3)
    assert (distributed.all_agree(True), distributed.all_agree(False)) == (True, False)
    number = torch.tensor(3.0, requires_grad=True)
    assert distributed.sum_over_processes(number) == 3
    assert not distributed.sum_over_processes(number).requires_grad
    vectors = torch.randn(3, 2, 4)
    assert gather_rows(vectors) == (vectors, None, None)


@pytest.mark.parametrize(("criterion", "count"), [(AdaptSSRLoss, 4), (InfoNCELoss, 2)])
@pytest.mark.parametrize("n_rows", [0, 1])
def test_one_process_with_too_few_rows(criterion, count, n_rows):
    with pytest.raises(ValueError, match=f"^batch: expected at least 2 rows to compare, got {n_rows}"):
        criterion(gather=True)(*torch.ones(count, n_rows, 3))


def test_layouts_are_what_they_are_called():
    for world, (name, sizes) in product(WORLDS, SIZES[2].items()):
        sizes = SIZES[world][name]
        assert len(sizes) == world
        assert {"equal": len(set(sizes)) == 1, "uneven": min(sizes) == 1, "empty": min(sizes) == 0}[name]
