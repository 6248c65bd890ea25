"""The loss at B from 32 to 65,536, against other ways to write it, other losses and other packages; and its memory."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.support.loss_peers import (
    CANDIDATES,
    COMPILED,
    NT_XENT,
    OURS,
    OURS_COMPILED,
    PACKAGES,
    PRODUCT,
    STRAIGHTFORWARD,
    TRITON,
    available,
    inputs,
    once,
    phased,
)
from benchmarks.support.measure import (
    Phased,
    added_cuda_memory_mb,
    conditions,
    default_device,
    fitted_exponent,
    is_over,
    lacks_memory,
    peak_of_process,
    phases_side_by_side,
    quantiles,
    timed,
    write_csv,
)
from benchmarks.support.plots import Point, hardware, line_chart, median_point, read_csv

DIM = 64
SEED = 0
SIZES = (32, 128, 512, 1024, 2048, 4096, 8192, 16384, 65536)
QUICK_SIZES = (32, 64)
# Compiling takes far more memory than the loss at these sizes, so the compiled form is timed alone.
MEMORY_SIZES: dict[str, tuple[int, ...]] = {
    OURS: (4096, 8192, 16384, 65536),
    "InfoNCELoss": (4096, 8192, 16384),
    STRAIGHTFORWARD: (1024, 2048, 4096, 8192),
    NT_XENT: (1024, 2048, 4096, 8192),
    "pytorch-metric-learning": (64, 128, 256),
    "info-nce-pytorch": (1024, 2048, 4096, 8192),
    "lightly": (1024, 2048, 4096, 8192),
    TRITON: (4096, 8192, 16384, 65536),
}
QUICK_MEMORY_SIZES = {OURS: (256, 512)}
SECONDS_PER_CALL = 90.0  # longer ones are left out
SECONDS_EACH = 1.0  # for each candidate at each B, within the fewest and the most repeats
SLOW_SECONDS = 4.0  # calls that take longer are made once, not warmed up: those at a smaller B did that
MOST_REPEATS = 300

Seconds = dict[str, float]  # of every phase of a call


class _Ready(NamedTuple):
    call: Phased
    seconds: float
    warm_up: int


def run(output: Path, quick: bool) -> None:
    """Measure, print and write ``loss-memory.csv`` and ``loss.csv``, as it goes."""
    device = default_device()
    found = {**conditions(SEED, PACKAGES), "d": DIM}
    names = available(quick, device.type)
    alone = _memory(output, QUICK_MEMORY_SIZES if quick else MEMORY_SIZES, device, names, found)
    latest: dict[str, tuple[int, float]] = {}
    rows: list[dict[str, object]] = []
    for size in QUICK_SIZES if quick else SIZES:
        if is_over(f"B = {size:5d}"):
            break
        known = {name: seconds for (name, of), seconds in alone.items() if of == size and _is_slow(name, seconds)}
        ready, reasons = _get_ready(size, device, quick, latest, known)
        repeats = {name: 3 if quick else _repeats(one.seconds) for name, one in ready.items()}
        seconds = phases_side_by_side({name: one.call for name, one in ready.items()}, repeats, device)
        seconds |= {name: {phase: [value] for phase, value in parts.items()} for name, parts in known.items()}
        latest.update({name: (size, sum(parts["full"]) / len(parts["full"])) for name, parts in seconds.items()})
        measured = {name: {key: quantiles(part) for key, part in parts.items()} for name, parts in seconds.items()}
        for name, phases in measured.items():
            for phase, numbers in phases.items():
                row = {"candidate": name, "phase": phase, "B": size, "products": CANDIDATES[name].products, **numbers}
                ours = measured.get(OURS, {}).get(phase)
                ratio = numbers["median_ms"] / ours["median_ms"] if ours else ""
                note = "timed with its memory, in a separate process" if name in known else ""
                row |= {"repeats": len(seconds[name]["full"]), "warm_up": 0 if name in known else ready[name].warm_up}
                rows.append({**row, "times_adaptssr": ratio, "note": note, **found})
            _print(size, name, measured, len(seconds[name]["full"]))
        for name, reason in reasons.items():
            print(f"B = {size:5d}  {name:25s} left out: {reason}")
            row = {"candidate": name, "phase": "full", "B": size, "products": CANDIDATES[name].products}
            rows.append({**dict.fromkeys(rows[0], ""), **row, "repeats": 0, "note": f"left out: {reason}", **found})
        write_csv(output / "loss.csv", rows)


def _is_slow(name: str, seconds: Seconds) -> bool:
    return seconds.get("full", 0.0) > SLOW_SECONDS and name != COMPILED


def _get_ready(
    size: int,
    device: torch.device,
    quick: bool,
    latest: Mapping[str, tuple[int, float]],
    known: Mapping[str, object] | None = None,
) -> tuple[dict[str, _Ready], dict[str, str]]:
    """Warm up all candidates that time and memory allow at this B, except the known ones; say why not others."""
    ready, reasons = {}, {}
    views = inputs(size, DIM, SEED, device)
    for name in available(quick, device.type):
        if name in (known or {}):
            continue
        smaller, seconds = latest.get(name, (size, 0.0))
        expected = seconds * (size / smaller) ** CANDIDATES[name].power
        reason = lacks_memory(CANDIDATES[name].bytes_needed(size), device)
        if not reason and expected > SECONDS_PER_CALL:
            reason = f"would take about {expected:.0f} s a call, more than {SECONDS_PER_CALL:.0f}"
        if reason:
            reasons[name] = reason
            continue
        try:
            ready[name] = _warm_up(phased(name, views), device, expected, must=name in (COMPILED, OURS_COMPILED))
        except Exception as error:  # out of memory all the same, no compiler, no Triton for this device
            reasons[name] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    return ready, reasons


def _warm_up(call: Phased, device: torch.device, expected: float, must: bool) -> _Ready:
    """Call a fast candidate twice (the first call may compile or load), a slower one once, the slowest not at all."""
    if expected > SLOW_SECONDS and not must:
        return _Ready(call, expected, 0)
    seconds = timed(call, device)["full"]
    if seconds > 1 and not must:
        return _Ready(call, seconds, 1)
    if must and expected > 1:  # compiled by now; not called once more
        return _Ready(call, expected, 1)
    return _Ready(call, timed(call, device)["full"], 2)


def _repeats(seconds: float) -> int:
    fewest = 5 if seconds < 1 else 3 if seconds < 4 else 1
    return min(MOST_REPEATS, max(fewest, round(SECONDS_EACH / max(seconds, 1e-6))))


def _print(size: int, name: str, measured: Mapping[str, Mapping[str, Mapping[str, float]]], repeats: int) -> None:
    shown = "  ".join(
        f"{phase} {measured[name][phase]['median_ms']:9.2f}" if phase in measured[name] else " " * (len(phase) + 10)
        for phase in ("forward", "backward", "full")
    )
    against = ""
    if OURS in measured:
        ratio = measured[name]["full"]["median_ms"] / measured[OURS]["full"]["median_ms"]
        against = f"  {ratio:6.2f} x {OURS}" if name != PRODUCT else f"  {ratio:.0%} of {OURS}"
    print(f"B = {size:5d}  {name:25s} {shown} ms{against}  ({repeats} times)", flush=True)


def _memory(
    output: Path,
    sizes: Mapping[str, tuple[int, ...]],
    device: torch.device,
    names: tuple[str, ...],
    found: Mapping[str, object],
) -> dict[tuple[str, int], Seconds]:
    """Peak memory that one call adds, and the exponent that fits it over all sizes of a candidate.

    Returns:
        Seconds of these calls by candidate and B, where each had a separate process.
    """
    rows: list[dict[str, object]] = []
    alone: dict[tuple[str, int], Seconds] = {}
    for name in (name for name in sizes if name in names):
        if is_over(f"{name}: memory"):
            break
        added: dict[int, float] = {}
        of_this: list[dict[str, object]] = []
        for size in sizes[name]:
            reason = lacks_memory(CANDIDATES[name].bytes_needed(size), device)
            if not reason:
                try:
                    added_mb, alone[name, size] = _added_mb(name, size, device)
                    added[size] = round(added_mb, 1)
                    print(f"B = {size:5d}  {name:25s} adds {added[size]:8.1f} MB to peak memory, encodings included")
                except Exception as error:  # as where it is timed
                    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if reason:
                print(f"B = {size:5d}  {name:25s} left out: {reason}")
            note = f"left out: {reason}" if reason else ""
            of_this.append({"candidate": name, "B": size, "added_mb": added.get(size, ""), "note": note})
        positive = {size: value for size, value in added.items() if value > 0}
        exponent: float | str = ""
        if len(positive) > 1:
            exponent = round(fitted_exponent(list(positive), list(positive.values())), 3)
            print(f"{name}: memory grows as B to the power {exponent}", flush=True)
        rows += [{**row, "exponent": exponent, **found} for row in of_this]
        write_csv(output / "loss-memory.csv", rows)
    return alone


def _added_mb(name: str, size: int, device: torch.device) -> tuple[float, Seconds]:
    if device.type == "cuda":  # in this process, whose call at 8 users comes first: its time would say nothing
        once(name, 8, DIM, SEED, "cuda")
        return added_cuda_memory_mb(lambda: once(name, size, DIM, SEED, "cuda")), {}
    setup = f"import json\nfrom benchmarks.support.loss_peers import once\nonce({name!r}, 8, {DIM}, {SEED}, 'cpu')"
    added, printed = peak_of_process(setup, f"print(json.dumps(once({name!r}, {size}, {DIM}, {SEED}, 'cpu')))")
    return added, json.loads(printed[-1])


def plot(output: Path) -> None:
    """Draw ``loss.png`` and ``loss-memory.png`` from ``loss.csv`` and ``loss-memory.csv``."""
    rows = [row for row in read_csv(output / "loss.csv") if row["phase"] == "full" and row["median_ms"]]
    lines: dict[str, list[Point]] = {name: [] for name in CANDIDATES}
    for row in rows:
        lines[row["candidate"]].append(median_point(row, "B"))
    line_chart(
        output / "loss.png", lines,
        title=f"Forward and backward of a batch, d = {rows[0]['d']}\n{hardware(rows[0])}",
        x_label="users in the batch, B", y_label="ms (median, 20 % to 80 %)",
    )  # fmt: skip
    rows = [row for row in read_csv(output / "loss-memory.csv") if row["added_mb"] and float(row["added_mb"]) > 0]
    exponents = {row["candidate"]: row["exponent"] for row in rows}
    lines = {name: [] for name in CANDIDATES}
    for row in rows:
        lines[row["candidate"]].append(Point(int(row["B"]), float(row["added_mb"])))
    line_chart(
        output / "loss-memory.png",
        {f"{name}: B^{exponents[name]}" if exponents.get(name) else name: line for name, line in lines.items()},
        title=f"Peak memory that forward and backward add, d = {rows[0]['d']}\n{hardware(rows[0])}",
        x_label="users in the batch, B", y_label="MB",
    )  # fmt: skip
