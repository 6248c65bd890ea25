"""Losses over several gloo processes; run as a script (``distributed_cases.py FOLDER``), it writes what each got.

One start of Python for all: the processes are forked from one that has imported everything and run nothing. The test
computes the whole batch literally and compares.
"""

from __future__ import annotations

import multiprocessing
import sys
import traceback
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from loss_cases import NEGATIVES, encodings, fusion_of, user_ids_of
from oracle import OFFICIAL_CODE, PAPER, Variant
from torch import _dynamo, nn  # noqa: F401 -- DistributedDataParallel imports it, for seconds: once, before the fork
from torch.nn.parallel import DistributedDataParallel
from tracing import Largest
from training_cases import N_ITEMS, batch_of, some_views, streams

from adaptssr_plugin import AdaptSSRLoss, AugmentationAdaptiveFusion, InfoNCELoss, UserEncoder, distributed
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.training import PairwiseStage, encode_in_micro_batches

DIM = 3
WORLDS = [2, 3, 4]
# Rows of each rank.
SIZES = {
    2: {"equal": (3, 3), "uneven": (5, 1), "empty": (0, 6)},
    3: {"equal": (2, 2, 2), "uneven": (3, 1, 2), "empty": (4, 0, 2)},
    4: {"equal": (2, 2, 2, 2), "uneven": (1, 3, 1, 1), "empty": (3, 0, 2, 1)},
}
UNDETACHED = Variant("batch", 4, clamp=True, detach=False)
VARIANTS = {"paper": PAPER, "official": OFFICIAL_CODE, "undetached": UNDETACHED, "constant": 0.35}


class Case(NamedTuple):
    kind: str  # "adaptssr" or "info-nce"
    users: str
    options: dict  # of the oracle: variant, negatives, scale; or negatives, temperature, similarity


def _cases():
    users = ["one-each", "repeats", "one-only", "blocks", "lonely", "three-columns"]
    for negatives in NEGATIVES:
        for variant in VARIANTS:
            options = {"variant": variant, "negatives": negatives, "scale": 1.0 if variant == "paper" else 3.0}
            yield from ((f"{variant}-{negatives}-{u}", Case("adaptssr", u, options)) for u in kept(users, variant))
        for similarity in ("cosine", "dot"):
            options = {"negatives": negatives, "similarity": similarity, "temperature": 0.5}
            yield from (
                (f"{similarity}-{negatives}-{u}", Case("info-nce", u, options)) for u in kept(users, similarity)
            )


def kept(users, option):
    """All kinds of users with the defaults, some with the rest."""
    return users if option in ("paper", "cosine") else users[1::3]


CASES = dict(_cases())


def ids_of(users, n_rows):
    """As ``user_ids_of``; "blocks": whole ranks hold one user; "lonely": row 0 alone has no negative anywhere."""
    if users == "blocks":
        return torch.arange(n_rows).ge(n_rows - 2).long()
    if users == "lonely":
        half = torch.arange(n_rows) < n_rows // 2
        first = torch.where(half, 0, torch.arange(n_rows))
        second = torch.where(half, torch.arange(n_rows), -7)
        second[0] = -7
        return torch.stack((first, second), 1)
    return user_ids_of(users, n_rows)


def loss_of(case, reduction, **options):
    chosen = dict(case.options)
    if case.kind == "info-nce":
        return InfoNCELoss(**chosen, reduction=reduction, chunk_size=3, **options)
    return AdaptSSRLoss(fusion_of(VARIANTS[chosen.pop("variant")]), **chosen, reduction=reduction, **options)


def inputs_of(case, n_rows):
    return encodings(n_rows, DIM, count=4 if case.kind == "adaptssr" else 2)


def own_rows(sizes, rank):
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def weights_of(n_rows):
    """Of the rows of a whole batch, none like another."""
    return 1 + 0.3 * torch.arange(n_rows, dtype=torch.float64)


# --- what a process does --------------------------------------------------------------------------------------


def one_loss(case, sizes, reduction, rank):
    """This rank's loss, and the gradient of its rows."""
    n_rows, rows = sum(sizes), own_rows(sizes, rank)
    inputs = [u.detach()[rows].requires_grad_() for u in inputs_of(case, n_rows)]
    ids = ids_of(case.users, n_rows)
    loss = loss_of(case, reduction, gather=True)(*inputs, None if ids is None else ids[rows])
    (loss * weights_of(n_rows)[rows] if reduction == "none" else loss).sum().backward()
    return [loss.detach(), *(u.grad for u in inputs)]


def terms_of(sizes, rank):
    """Everything that ``terms`` gives, and the reduced loss with its gradient."""
    case, rows = CASES["official-hardest-repeats"], own_rows(sizes, rank)
    inputs = [u.detach()[rows].requires_grad_() for u in inputs_of(case, sum(sizes))]
    criterion = loss_of(case, "mean", gather=True)
    terms = criterion.terms(*inputs, ids_of(case.users, sum(sizes))[rows])
    reduced = criterion.reduce(terms)
    reduced.backward()
    return [*(t.detach() for t in terms), reduced.detach(), *(u.grad for u in inputs)]


class LengthFusion(AugmentationAdaptiveFusion):
    """A variant of the user's own, which looks at the encodings, and at those of the whole batch."""

    def forward(self, anchor, anchor_pos, view, view_pos):
        length = anchor.detach().norm(dim=1)
        return length / (length + view.detach().norm(dim=1).mean())


def subclass_of_fusion(sizes, rank):
    rows = own_rows(sizes, rank)
    inputs = [u.detach()[rows].requires_grad_() for u in encodings(sum(sizes), DIM)]
    loss = AdaptSSRLoss(LengthFusion(), reduction="sum", gather=True)(*inputs)
    loss.backward()
    return [loss.detach(), *(u.grad for u in inputs)]


class TinyEncoder(nn.Module):
    """``(n, 2, 5)``, two views, to four (or two) encodings; its dropout makes the second of each."""

    def __init__(self, dropout=0.0):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(5)
            self.layers = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, DIM)).double()

    def forward(self, views):
        return tuple(self.layers(x) for x in (views[:, 0], views[:, 0] * 0.7, views[:, 1], views[:, 1] * 0.7))


class MicroBatched(nn.Module):
    """An encoder a few rows at a time: what DistributedDataParallel wraps."""

    def __init__(self, encoder, micro_batch):
        super().__init__()
        self.encoder, self.micro_batch = encoder, micro_batch

    def forward(self, views):
        return encode_in_micro_batches(self.encoder, views, micro_batch=self.micro_batch)


def views_of(n_rows, seed):
    return torch.randn(n_rows, 2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


REDUCED = [*(f"paper-hardest-{users}" for users in ("one-each", "one-only", "blocks", "lonely")), "cosine-all-lonely"]
DDP_RUNS = [("mean", 0), ("sum", 2)]  # reduction, rows encoded at once
DDP_CASES = ["paper-hardest-lonely", "undetached-all-repeats", "cosine-all-blocks", "cosine-hardest-repeats"]


def encodings_for(case, encoded):
    return encoded if case.kind == "adaptssr" else encoded[::2]


def ddp(case, sizes, reduction, micro_batch, rank):
    """Weights' gradients of two batches, the first of another order of sizes and without synchronisation."""
    model = DistributedDataParallel(MicroBatched(TinyEncoder(), micro_batch))
    criterion = loss_of(case, reduction, gather=True)
    n_rows = sum(sizes)
    for seed, of_ranks in enumerate((sizes[::-1], sizes)):
        rows = own_rows(of_ranks, rank)
        ids = ids_of(case.users, n_rows)
        arguments = views_of(n_rows, seed)[rows], None if ids is None else ids[rows]
        with model.no_sync() if seed == 0 else nullcontext():
            criterion(*encodings_for(case, model(arguments[0])), arguments[1]).backward()
    return [p.grad for p in model.parameters()]


def graph_of_a_rank_without_rows(rank):
    """A rank that has nothing to encode passes no graph, and still takes part in the backward."""
    n_rows = 4 if rank == 0 else 0
    inputs = [u.detach()[:n_rows] for u in encodings(4, DIM)]
    if rank == 0:
        inputs = [u.requires_grad_() for u in inputs]
    loss = AdaptSSRLoss(gather=True, reduction="sum")(*inputs)
    loss.backward()
    return [loss.detach(), *(u.grad for u in inputs)] if rank == 0 else []


def mixed_precision(rank):
    """bfloat16 travels as it is; gradients are added up in float32."""
    rows = slice(3 * rank, 3 * rank + 3)
    results = []
    for criterion in (AdaptSSRLoss(gather=True), InfoNCELoss(gather=True)):
        inputs = encodings(3 * distributed.world_size(), 8, count=4 if isinstance(criterion, AdaptSSRLoss) else 2)
        inputs = [u.detach().bfloat16()[rows].requires_grad_() for u in inputs]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = criterion(*inputs)
        loss.backward()
        results += [loss.detach(), *(u.grad for u in inputs)]
    return results


def refusals(rank):
    """Messages of wrong calls, on this rank; after each, all ranks go on together."""
    criterion, ids, messages = AdaptSSRLoss(gather=True), torch.arange(2), {}
    last = rank == distributed.world_size() - 1

    def message_of(name, call):
        try:
            call()
            messages[name] = ""
        except InputError as error:
            messages[name] = str(error)

    def rows(n, dim=DIM, **options):
        return torch.ones(4, n, dim, **options)

    message_of("one-row", lambda: criterion(*rows(1 if last else 0)))
    message_of("no-row", lambda: InfoNCELoss(gather=True)(*rows(0)[:2]))
    message_of("bad-shape", lambda: criterion(*rows(2)[:3], torch.ones(2, 5) if last else torch.ones(2, DIM)))
    message_of("dimension", lambda: criterion(*rows(2, 4 if last else DIM)))
    message_of("dtype", lambda: criterion(*rows(2, dtype=torch.float16 if last else torch.float32)))
    message_of("ids", lambda: criterion(*rows(2), None if last else ids))
    message_of("columns", lambda: criterion(*rows(2), torch.stack((ids, ids), 1) if last else ids))
    message_of("losses", lambda: InfoNCELoss(gather=True)(*rows(2)[:2]) if last else criterion(*rows(2)))
    message_of("elsewhere", lambda: criterion(*rows(2, device="meta")))

    def without_graph():
        with torch.set_grad_enabled(not last):
            criterion(*rows(2).requires_grad_())

    message_of("graph", without_graph)
    message_of("right", lambda: criterion(*encodings(2, DIM), ids + 2 * rank))
    return messages


class Traffic(Largest):
    """Also notes collectives with what this rank puts in."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            sent = args[1] if isinstance(args[1], torch.Tensor) else args[0][0]
            self.calls.append(f"{func.overloadpacket.__name__} {sent.dtype} {sent.numel()}".replace("torch.", ""))
        return super().__torch_dispatch__(func, types, args, kwargs)


def traffic(n_rows, rank):
    """Collectives and the largest tensor of each loss, and what its graph keeps."""
    results = {}
    inputs = {n: [u.detach().requires_grad_() for u in encodings(n_rows, 4, count=n)] for n in (2, 4)}
    ids = torch.arange(n_rows) // 2 + n_rows * rank
    for name, case in CASES.items():
        if case.users not in ("one-each", "repeats"):
            continue
        criterion = loss_of(case, "mean", gather=True)
        criterion.chunk_size = 8
        seen = Traffic()
        with seen, torch.autograd.graph.saved_tensors_hooks(seen.keep, lambda t: t):
            loss = criterion(*inputs[4 if case.kind == "adaptssr" else 2], None if case.users == "one-each" else ids)
            loss.backward()
        results[name] = {"calls": seen.calls, "largest": seen.entries, "kept": seen.kept}
    return results


def agreement(rank):
    n = distributed.world_size()
    return {
        "total": distributed.total(rank + 1),
        "all": distributed.all_agree(True),
        "not-all": distributed.all_agree(rank != n - 1),
        "sum": int(distributed.sum_over_processes(torch.tensor(rank + 1))),
        "rank": distributed.rank(),
    }


def stage_steps(sizes, rank):
    """Steps of a stage with a gathering loss: on a batch of several ranks' rows, and on one of a single row."""
    results = {}
    for name, criterion in (("adaptssr", AdaptSSRLoss(gather=True)), ("info-nce", InfoNCELoss(gather=True))):
        torch.manual_seed(3)
        encoder = UserEncoder(N_ITEMS, dim=8, ff_dim=16, dropout=0.3)
        stage = PairwiseStage(encoder, some_views(), criterion, micro_batch=2).train()
        whole = batch_of(*[3, 8, 5, 4, 6, 2, 7, 3][: sum(sizes)])
        batch = part_of(whole, own_rows(sizes, rank))
        results[f"{name}-usable"] = stage.usable(batch)
        results[f"{name}-one-usable"] = stage.usable(part_of(whole, slice(0, int(rank == 1))))
        step = stage.step(batch, streams(0, rank))
        step.loss.backward()
        results[f"{name}-finite"] = all(bool(p.grad.isfinite().all()) for p in stage.parameters())
        if rank == 0:  # while the others do something else
            results[f"{name}-validated"] = stage.validate([whole], streams())["loss"]
            stage.loss = type(criterion)()
            results[f"{name}-alone"] = stage.validate([whole], streams())["loss"]
    return results


def part_of(batch, rows):
    fields = ("item_seq", "item_seq_len", "user_ids", "lengths")
    return type(batch)(**{name: getattr(batch, name)[rows] for name in fields})


def losses(world):
    """(layout, case, reduction): every case by its rows once per world, and reduced where it makes a difference."""
    for layout, (name, case) in product(SIZES[world], CASES.items()):
        if layout == ("empty" if world == 3 else "uneven") or case.users == "repeats":
            yield layout, name, "none"
    for layout, name, reduction in product(SIZES[world], REDUCED, ("mean", "sum")):
        yield layout, name, reduction


def work(world):
    """Everything that a world of this size does: name to function of the rank."""
    jobs = {}
    for layout, name, reduction in losses(world):
        jobs[f"{layout} {name} {reduction}"] = partial(one_loss, CASES[name], SIZES[world][layout], reduction)
    for layout, sizes in SIZES[world].items():
        jobs[f"{layout} terms"] = partial(terms_of, sizes)
        jobs[f"{layout} subclass"] = partial(subclass_of_fusion, sizes)
        if layout == "equal":
            continue
        for name, (reduction, micro_batch) in product(DDP_CASES, DDP_RUNS):
            jobs[f"{layout} ddp {name} {reduction} {micro_batch}"] = partial(
                ddp, CASES[name], sizes, reduction, micro_batch
            )
    jobs["precision"] = mixed_precision
    jobs["refusals"] = refusals
    jobs["agreement"] = agreement
    jobs["without-rows"] = graph_of_a_rank_without_rows
    if world == 2:
        jobs["traffic"] = partial(traffic, 128)
    jobs["stage"] = partial(stage_steps, SIZES[world]["empty"])
    return jobs


def process(world, rank, folder):
    try:
        torch.set_num_threads(1)
        store = dist.FileStore(str(folder / f"store-{world}"), world)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
        torch.save({name: job(rank) for name, job in work(world).items()}, folder / f"{world}-{rank}.pt")
        dist.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        raise


def main(folder):
    context = multiprocessing.get_context("fork")
    for world in WORLDS:
        ranks = [context.Process(target=process, args=(world, rank, folder), daemon=True) for rank in range(world)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
        if any(rank.exitcode for rank in ranks):
            sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
