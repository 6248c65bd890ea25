"""The masked-item head: chunked cross-entropy over all items against F.linear and F.cross_entropy, and its memory."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptssr_plugin.functional import linear_cross_entropy, sampled_cross_entropy
from benchmarks.support.measure import (
    PHASES,
    Phased,
    added_mb,
    conditions,
    default_device,
    is_over,
    lacks_memory,
    phases_side_by_side,
    quantiles,
    timed,
    write_csv,
)
from benchmarks.support.plots import Point, hardware, line_chart, median_point, read_csv

ROWS = 1_400  # masked positions in a batch
DIM = 64
SEED = 0
SAMPLE_SHARE = 0.2
CHUNKED = "linear_cross_entropy"
STRAIGHTFORWARD = "straightforward"
REPEATS = {4_047: 41, 50_000: 9, 200_000: 5, 645_972: 3, 1_000_000: 3}
CUDA_REPEATS = 41  # of every size: milliseconds each
QUICK_REPEATS = {101: 3, 500: 3}
MEMORY_SIZES = (50_000, 200_000, 645_972)
QUICK_MEMORY_SIZES = (500,)


def _sampled(leaves: list[Tensor], targets: Tensor) -> Tensor:
    n_samples = math.ceil(SAMPLE_SHARE * (len(leaves[1]) - 1))
    generator = torch.Generator(targets.device).manual_seed(SEED)
    hidden, table, bias = leaves
    return sampled_cross_entropy(hidden, table, bias, targets, n_samples, generator)


def _chunked(leaves: list[Tensor], targets: Tensor) -> Tensor:
    hidden, table, bias = leaves
    return linear_cross_entropy(hidden, table, bias, targets)


FORMS: dict[str, Callable[[list[Tensor], Tensor], Tensor]] = {
    CHUNKED: _chunked,
    "sampled_cross_entropy": _sampled,
    STRAIGHTFORWARD: lambda leaves, targets: F.cross_entropy(F.linear(*leaves), targets),
}


def inputs(n_items: int, device: torch.device | str = "cpu") -> tuple[list[Tensor], Tensor]:
    """Hidden states, item table and bias as leaves, and the targets."""
    generator = torch.Generator().manual_seed(SEED)
    shapes = ((ROWS, DIM), (n_items, DIM), (n_items,))
    leaves = [torch.randn(shape, generator=generator).mul_(0.1).to(device).requires_grad_() for shape in shapes]
    return leaves, torch.randint(n_items, (ROWS,), generator=generator).to(device)


def once(name: str, n_items: int, device: str) -> None:
    """Compute a loss and its gradients once, item table included, to measure peak memory."""
    leaves, targets = inputs(n_items, device)
    FORMS[name](leaves, targets).backward()  # type: ignore[no-untyped-call]


def run(output: Path, quick: bool) -> None:
    """Measure, print and write ``masked_items-memory.csv`` and ``masked_items.csv``, as it goes."""
    device = default_device()
    found = conditions(SEED)
    names = (CHUNKED, STRAIGHTFORWARD) if quick else tuple(FORMS)
    _memory(output, names, QUICK_MEMORY_SIZES if quick else MEMORY_SIZES, device, found)
    rows: list[dict[str, object]] = []
    for n_items, times in (QUICK_REPEATS if quick else REPEATS).items():
        if is_over(f"n = {n_items:7d}"):
            break
        if device.type == "cuda" and not quick:
            times = CUDA_REPEATS
        calls = phased(n_items, device)
        for call in calls.values():
            timed(call, device)
        measured = phases_side_by_side(calls, times, device)
        for phase in PHASES:
            reference = quantiles(measured[CHUNKED][phase])["median_ms"]
            for name, phases in measured.items():
                numbers = quantiles(phases[phase])
                ratio = numbers["median_ms"] / reference
                print(
                    f"n = {n_items:7d}  {phase:8s}  {name:21s} {numbers['median_ms']:9.2f} ms  {ratio:5.2f} x chunked"
                )
                row = {"candidate": name, "phase": phase, "M": ROWS, "n": n_items, "d": DIM, **numbers}
                rows.append({**row, "repeats": times, "times_chunked": ratio, "note": "", **found})
        for name in FORMS.keys() - calls.keys():
            note = f"left out: {_no_memory(name, n_items, device)}"
            print(f"n = {n_items:7d}  {name} {note}")
            row = {"candidate": name, "phase": "full", "M": ROWS, "n": n_items, "d": DIM, "repeats": 0, "note": note}
            rows.append({**dict.fromkeys(rows[0], ""), **row, **found})
        write_csv(output / "masked_items.csv", rows)


def phased(n_items: int, device: torch.device) -> dict[str, Phased]:
    """Forward and backward of every form that fits."""
    leaves, targets = inputs(n_items, device)

    def of(form: Callable[[list[Tensor], Tensor], Tensor]) -> Phased:
        return Phased(lambda: form(leaves, targets), lambda made: torch.autograd.grad(made, leaves))

    return {name: of(form) for name, form in FORMS.items() if not _no_memory(name, n_items, device)}


def _no_memory(name: str, n_items: int, device: torch.device) -> str:
    """Say why the straightforward form, which holds the scores three to four times, does not fit; "" if it does."""
    return lacks_memory(4 * ROWS * n_items * 4, device) if name == STRAIGHTFORWARD else ""


def _memory(
    output: Path, names: tuple[str, ...], sizes: tuple[int, ...], device: torch.device, found: dict[str, object]
) -> None:
    rows: list[dict[str, object]] = []
    for n_items in sizes:
        if is_over(f"n = {n_items:7d}: memory"):
            break
        for name in names:
            note = _no_memory(name, n_items, device)
            added: float | str = "" if note else round(added_mb(once, (name, 8), (name, n_items), device), 1)
            shown = f"left out: {note}" if note else f"adds {added:8} MB to peak memory, item table included"
            print(f"n = {n_items:7d}  {name:21s} {shown}", flush=True)
            row = {"candidate": name, "M": ROWS, "n": n_items, "d": DIM, "added_mb": added}
            rows.append({**row, "note": f"left out: {note}" if note else "", **found})
        write_csv(output / "masked_items-memory.csv", rows)


def plot(output: Path) -> None:
    """Draw ``masked_items.png`` and ``masked_items-memory.png`` from the CSV files of those names."""
    rows = [row for row in read_csv(output / "masked_items.csv") if row["phase"] == "full" and row["median_ms"]]
    lines: dict[str, list[Point]] = {name: [] for name in FORMS}
    for row in rows:
        lines[row["candidate"]].append(median_point(row, "n"))
    shape = f"{rows[0]['M']} masked positions, d = {rows[0]['d']}\n{hardware(rows[0])}"
    line_chart(
        output / "masked_items.png", lines, title=f"Cross-entropy over all items, forward and backward: {shape}",
        x_label="items", y_label="ms (median, 20 % to 80 %)",
    )  # fmt: skip
    lines = {name: [] for name in FORMS}
    for row in read_csv(output / "masked_items-memory.csv"):
        if row["added_mb"] and float(row["added_mb"]) > 0:
            lines[row["candidate"]].append(Point(int(row["n"]), float(row["added_mb"])))
    line_chart(
        output / "masked_items-memory.png", lines, title=f"Peak memory that forward and backward add: {shape}",
        x_label="items", y_label="MB, item table included",
    )  # fmt: skip
