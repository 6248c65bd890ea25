"""Augmentation of whole batches against augmentation user by user, and the memory of a pair of views.

Targets: faster than well-written per-user Python (``per_user``) from 128 users on, and at most 2 % of the training step
for a pair of views in :mod:`benchmarks.step`. More speed would not be noticeable in training.
"""

import importlib.util
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from adaptssr_plugin import ItemCrop, ItemInsert, ItemMask, ItemReorder, ItemSubstitute, RandomPair
from benchmarks.support.lengths import ttl_lengths
from benchmarks.support.measure import (
    Phased,
    added_cuda_memory_mb,
    added_memory_mb,
    conditions,
    default_device,
    is_over,
    phases_side_by_side,
    quantiles,
    synchronize,
    write_csv,
)
from benchmarks.support.per_user import PerUser, PerUserArrays, RecBole, Views
from benchmarks.support.plots import Point, hardware, line_chart, median_point, read_csv

N_ITEMS = 50_000
SEED = 0
BATCHED = "batched"
CANDIDATES = {  # and what the picture calls them
    BATCHED: "whole batches (ours)",
    "per_user": "per user, lists",
    "per_user_numpy": "per user, NumPy arrays",
    "recbole": "RecBole's transforms",
}
WHAT = ("pair", "mask", "crop", "reorder", "substitute", "insert")
RECBOLE_HAS = ("pair", "mask", "crop", "reorder")
RECBOLE_MOST = 4096  # rows: ten seconds and more a call beyond
SINGLE_MOST = (4096, 100)  # rows and width, one of which may be more for the pair alone
MEMORY_OF = (BATCHED, "per_user", "per_user_numpy")
_SECONDS = 1.0  # for all candidates of a case together, but _FEWEST rounds at least
_FEWEST, _MOST = 3, 60


class Data(NamedTuple):
    """Histories as tensors, and the most correlated item of every item."""

    item_seq: Tensor
    item_seq_len: Tensor
    neighbours: Tensor


def data(batch: int, width: int) -> Data:
    """Draw histories of TTL's lengths."""
    generator = torch.Generator().manual_seed(SEED)
    lengths = ttl_lengths(batch, width, generator)
    item_seq = torch.randint(1, N_ITEMS, (batch, width), generator=generator)
    item_seq *= torch.arange(width) < lengths[:, None]
    return Data(item_seq, lengths, torch.randint(1, N_ITEMS, (N_ITEMS,), generator=generator))


def operators(neighbours: Tensor) -> dict[str, torch.nn.Module]:
    """Make what is measured, at the ratios of the methods that use it."""
    three = [ItemMask(0.6, mask_id=N_ITEMS), ItemCrop(0.4), ItemReorder(0.6)]
    return {
        "pair": RandomPair(three),
        "mask": three[0],
        "crop": three[1],
        "reorder": three[2],
        "substitute": ItemSubstitute(0.1, neighbours=neighbours),
        "insert": ItemInsert(0.4, neighbours=neighbours),
    }


def make_call(candidate: str, what: str, given: Data, device: torch.device) -> Callable[[], object]:
    """Return the call that is measured.

    It starts from the form in which the candidate keeps histories and ends with padded tensors on the device: views
    made user by user are copied there. ``what`` is "pair" or the name of an operator.
    """
    item_seq, length, neighbours = given
    if candidate == BATCHED:
        operator = operators(neighbours)[what].to(device)
        generator = torch.Generator(device).manual_seed(SEED)
        item_seq, length = item_seq.to(device), length.to(device)
        return lambda: operator(item_seq, length, generator)

    def there(views: Views) -> Views:
        return views if device.type == "cpu" else [(seq.to(device), n.to(device)) for seq, n in views]

    if candidate == "recbole":
        recbole = RecBole(N_ITEMS, item_seq.shape[1])
        return lambda: there(recbole.batch(what, item_seq, length))
    rows = [row[:n] for row, n in zip(item_seq, length.tolist(), strict=True)]
    if candidate == "per_user":
        lists, histories = PerUser(N_ITEMS, neighbours.tolist(), SEED), [row.tolist() for row in rows]
        return lambda: there(lists.batch(what, histories, item_seq.shape[1]))
    arrays, as_arrays = PerUserArrays(N_ITEMS, neighbours.tolist(), SEED), [row.numpy() for row in rows]
    return lambda: there(arrays.batch(what, as_arrays, item_seq.shape[1]))


def run(output: Path, quick: bool) -> None:
    """Measure, print and write ``augment.csv`` and ``augment-memory.csv``."""
    random.seed(SEED)  # RecBole draws from the module itself
    torch.manual_seed(SEED)
    found = conditions(SEED)
    rows: list[dict[str, object]] = []
    for width in (9,) if quick else (50, 100, 256):
        for batch in (16, 48) if quick else (128, 512, 4096, 65536):
            given = data(batch, width)
            for what in WHAT:
                if is_over(f"{what:10s}  B = {batch:5d}  L = {width:3d}"):
                    continue
                if what == "pair" or batch <= SINGLE_MOST[0] or width == SINGLE_MOST[1]:
                    rows += [{**row, **found} for row in _measure(what, given, quick)]
            if rows:
                write_csv(output / "augment.csv", rows)  # as it goes: a run that is stopped leaves what it has
    _memory(output, 64 if quick else 65536, 9 if quick else 100)


def _measure(what: str, given: Data, quick: bool) -> list[dict[str, object]]:
    batch, width = given.item_seq.shape
    device = default_device()
    ready = {name: make_call(name, what, given, device) for name in CANDIDATES if _takes_part(name, what, batch)}
    repeats = dict.fromkeys(ready, _FEWEST)
    _seconds_of(ready, device)  # the first calls build tables
    if not quick and batch <= RECBOLE_MOST:
        repeats = dict.fromkeys(ready, min(_MOST, max(_FEWEST, round(_SECONDS / _seconds_of(ready, device)))))
    if not quick and device.type == "cuda":
        repeats[BATCHED] = _MOST  # a thousandth of what the others take
    calls = {name: Phased(call, None) for name, call in ready.items()}  # type: ignore[arg-type]
    measured = {name: quantiles(parts["full"]) for name, parts in phases_side_by_side(calls, repeats, device).items()}
    rows: list[dict[str, object]] = []
    for name, numbers in measured.items():
        times = numbers["median_ms"] / measured[BATCHED]["median_ms"]
        per_second = batch / (1e-3 * numbers["median_ms"])
        print(
            f"{what:10s}  B = {batch:5d}  L = {width:3d}  {name:14s} {numbers['median_ms']:9.2f} ms"
            f"  {per_second:11,.0f} sequences/s  {times:6.2f} x batched  ({repeats[name]} times)",
            flush=True,
        )
        row = {"what": what, "candidate": name, "B": batch, "L": width, "phase": "full", **numbers}
        row |= {"repeats": repeats[name], "sequences_per_s": round(per_second), "times_batched": times}
        rows.append(row)
    return rows


def _takes_part(candidate: str, what: str, batch: int) -> bool:
    if candidate != "recbole":
        return True
    return what in RECBOLE_HAS and batch <= RECBOLE_MOST and importlib.util.find_spec("recbole") is not None


def _seconds_of(calls: dict[str, Callable[[], object]], device: torch.device) -> float:
    """Time one round."""
    synchronize(device)
    started = time.perf_counter()
    for call in calls.values():
        call()
    synchronize(device)
    return time.perf_counter() - started


def _memory(output: Path, batch: int, width: int) -> None:
    device = default_device()
    rows: list[dict[str, object]] = []
    for name in MEMORY_OF:
        if is_over(f"{name}: memory"):
            break
        added = _added_mb(name, batch, width, device)
        print(
            f"pair        B = {batch:5d}  L = {width:3d}  {name:14s} adds {added:6.0f} MB at its peak, views included"
        )
        row = {"what": "pair", "candidate": name, "B": batch, "L": width, "added_mb": round(added, 1)}
        rows.append({**row, **conditions(SEED)})
        write_csv(output / "augment-memory.csv", rows)


def _added_mb(name: str, batch: int, width: int, device: torch.device) -> float:
    """Peak memory of the device: what is made user by user takes memory of the processor besides, not counted."""
    if device.type == "cuda":
        make_call(name, "pair", data(8, width), device)()
        return added_cuda_memory_mb(make_call(name, "pair", data(batch, width), device))
    small, call = (
        f"augment.make_call({name!r}, 'pair', augment.data({n}, {width}), torch.device('cpu'))" for n in (8, batch)
    )
    return added_memory_mb(f"import torch\nfrom benchmarks import augment\n{small}()\ncall = {call}", "call()")


def plot(output: Path) -> None:
    """Draw ``augment.png``, a pair of views at L = 100, from ``augment.csv`` alone."""
    rows = read_csv(output / "augment.csv")
    widths = {int(row["L"]) for row in rows}
    width = 100 if 100 in widths else max(widths)
    lines: dict[str, list[Point]] = {}
    for row in rows:
        if row["what"] == "pair" and int(row["L"]) == width:
            lines.setdefault(CANDIDATES[row["candidate"]], []).append(median_point(row, "B"))
    title = f"A pair of views of every user, histories of TTL's lengths cut at L = {width}\n{hardware(rows[0])}"
    line_chart(output / "augment.png", lines, title=title, x_label="users B", y_label="milliseconds")
