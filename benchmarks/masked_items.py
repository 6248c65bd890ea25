"""The masked-item head: chunked cross-entropy over all items against F.linear and F.cross_entropy, and its memory."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptssr_plugin.functional import linear_cross_entropy, sampled_cross_entropy
from benchmarks.measure import added_memory_mb, conditions, quantiles, side_by_side, write_csv

ROWS = 1_400  # masked positions in a batch
DIM = 64
SEED = 0
SAMPLE_SHARE = 0.2
_STRAIGHTFORWARD = "straightforward"
_SETUP = """
import torch
from benchmarks import masked_items
def run(name, n_items):
    leaves, targets = masked_items.inputs(n_items)
    masked_items.FORMS[name](leaves, targets).backward()
for name in masked_items.FORMS:
    run(name, 8)
"""


def _sampled(leaves: list[Tensor], targets: Tensor) -> Tensor:
    n_samples = math.ceil(SAMPLE_SHARE * (len(leaves[1]) - 1))
    return sampled_cross_entropy(*leaves, targets, n_samples, torch.Generator().manual_seed(SEED))


FORMS: dict[str, Callable[[list[Tensor], Tensor], Tensor]] = {
    "linear_cross_entropy": lambda leaves, targets: linear_cross_entropy(*leaves, targets),
    "sampled_cross_entropy": _sampled,
    _STRAIGHTFORWARD: lambda leaves, targets: F.cross_entropy(F.linear(*leaves), targets),
}


def inputs(n_items: int) -> tuple[list[Tensor], Tensor]:
    """Hidden states, item table and bias as leaves, and the targets."""
    generator = torch.Generator().manual_seed(SEED)
    shapes = ((ROWS, DIM), (n_items, DIM), (n_items,))
    leaves = [torch.randn(shape, generator=generator).mul_(0.1).requires_grad_() for shape in shapes]
    return leaves, torch.randint(n_items, (ROWS,), generator=generator)


def run(output: Path, quick: bool) -> None:
    """Measure, print and write ``masked_items.csv`` and ``masked_items-memory.csv``."""
    repeats = {101: 3, 500: 3} if quick else {4_047: 21, 50_000: 5, 200_000: 3, 645_972: 3, 1_000_000: 3}
    rows = []
    for n_items, times in repeats.items():
        leaves, targets = inputs(n_items)
        for phase, calls in _phases(leaves, targets).items():
            measured = {name: quantiles(values) for name, values in side_by_side(calls, times).items()}
            reference = measured["linear_cross_entropy"]["median_ms"]
            for name, numbers in measured.items():
                ratio = numbers["median_ms"] / reference
                print(
                    f"n = {n_items:7d}  {phase:8s}  {name:21s} {numbers['median_ms']:9.2f} ms  {ratio:5.2f} x chunked"
                )
                row = {"M": ROWS, "n": n_items, "d": DIM, "phase": phase, "form": name, **numbers}
                rows.append({**row, "times_chunked": ratio, "repeats": times, **conditions(SEED)})
    write_csv(output / "masked_items.csv", rows)
    _memory(output, (500,) if quick else (50_000, 645_972))


def _phases(leaves: list[Tensor], targets: Tensor) -> dict[str, dict[str, Callable[[], object]]]:
    """Forward, backward and both, each of every form that fits."""
    forms = {name: form for name, form in FORMS.items() if name != _STRAIGHTFORWARD or _fits(len(leaves[1]))}

    def full(form: Callable[[list[Tensor], Tensor], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(form(leaves, targets), leaves)

    def forward(form: Callable[[list[Tensor], Tensor], Tensor]) -> Callable[[], object]:
        return lambda: form(leaves, targets)

    def backward(form: Callable[[list[Tensor], Tensor], Tensor]) -> Callable[[], object]:
        made: list[Tensor] = []  # when it is first called, so that no graph is held while others are measured

        def again() -> object:
            if not made:
                made.append(form(leaves, targets))
            return torch.autograd.grad(made[0], leaves, retain_graph=True)

        return again

    phases = {"full": full, "forward": forward, "backward": backward}
    return {phase: {name: make(form) for name, form in forms.items()} for phase, make in phases.items()}


def _fits(n_items: int) -> bool:
    """Whether the straightforward form, which makes the scores three to four times, leaves room on this machine."""
    needed = 4 * ROWS * n_items * 4
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        print(
            f"n = {n_items:7d}  {_STRAIGHTFORWARD} left out: needs up to {needed / 1e9:.0f} of {free / 1e9:.0f} GB free"
        )
    return needed <= free


def _memory(output: Path, sizes: tuple[int, ...]) -> None:
    rows = []
    for n_items in sizes:
        for name in FORMS:
            if name == _STRAIGHTFORWARD and not _fits(n_items):
                continue
            added = added_memory_mb(_SETUP, f"run({name!r}, {n_items})")
            print(f"n = {n_items:7d}  {name:21s} adds {added:8.0f} MB to peak memory, item table included")
            row = {"M": ROWS, "n": n_items, "d": DIM, "form": name, "added_mb": round(added, 1)}
            rows.append({**row, **conditions(SEED)})
    write_csv(output / "masked_items-memory.csv", rows)
