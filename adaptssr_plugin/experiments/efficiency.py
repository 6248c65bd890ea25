"""The paper's Table 3 from measured runs: time and memory of pre-training."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..downstream.significance import Summary, summarise
from ..errors import InputError
from .records import paper_name
from .tables import PAPER_ROWS, PrintedTable, rows_in_order


@dataclass(frozen=True)
class Efficiency:
    """The cost of one pre-training run, without validation; several runs of a method on a device are repeats."""

    method: str
    hours: float  # wall-clock time of the method's own stage, all its epochs, without warm-up and filler
    warm_up_hours: float | None  # None if there is none
    seconds_per_epoch: float  # of the method's own stage
    sequences_per_second: float  # training sequences in that time
    epochs_to_best: int | None  # the selected epoch; None if none is selected, e.g. when the last is taken
    peak_memory_mb: float | None  # of the device if there is one, otherwise of the process
    device: str  # its name, and the number of cores or threads
    filler_hours: float | None = None  # of training CCL's filler


# What a run has, in the order of the columns; a heading in the CSV is the attribute's own name.
_TIMES = {"hours": "training", "warm_up_hours": "warm-up", "filler_hours": "filler"}
_OTHERS = {
    "seconds_per_epoch": "s/epoch",
    "sequences_per_second": "sequences/s",
    "epochs_to_best": "epochs to best",
    "peak_memory_mb": "peak memory (MB)",
}
_UNITS = (("h", 1.0), ("min", 60.0), ("s", 3600.0))

_APART = {"warm_up_hours": "warm-up", "filler_hours": "CCL's filler"}

DEFINITION = (
    "Training: wall-clock time of the method's own pre-training stage over all its epochs, validation excluded{apart}. "
    "s/epoch and sequences/s are of that stage; peak memory is the accelerator's, without one the process's."
)


def table_3(
    dataset: str, runs: Iterable[Efficiency], rows: Sequence[str] = PAPER_ROWS, footer: Sequence[str] = ()
) -> PrintedTable:
    """Lay out what pre-training cost in the form of the paper's Table 3.

    Runs on different devices are in separate rows, since their times cannot be compared. Times are in hours, minutes
    or seconds, whichever is readable; the heading names the unit. The CSV has the mean and the standard deviation of
    all quantities, in hours, seconds and MB.

    Args:
        dataset: name of the corpus.
        runs: one for each repeat.
        rows: the order of the rows. A method without runs is left out; every method with runs has to be named.
        footer: further lines to stand below the table.

    Raises:
        InputError: no runs, or a method that ``rows`` does not name.
    """
    gathered: dict[tuple[str, str], list[Efficiency]] = {}
    for run in runs:
        gathered.setdefault((run.device, paper_name(run.method)), []).append(run)
    if not gathered:
        raise InputError("runs: expected at least one, got none")
    devices = list(dict.fromkeys(device for device, _ in gathered))
    order = rows_in_order(rows, (row for _, row in gathered), "runs")
    cells = {key: _summaries(gathered[key]) for key in itertools.product(devices, order) if key in gathered}
    hidden = 1 if len(devices) == 1 else 0  # a single device is named below the table
    present = {name for cell in cells.values() for name in cell}  # empty columns are left out
    unit, factor = _unit(cells.values())
    columns = [(name, f"{heading} ({unit})", factor) for name, heading in _TIMES.items() if name in present]
    columns += [(name, heading, 1.0) for name, heading in _OTHERS.items() if name in present]
    lines = [["Device", "Method", *(heading for _, heading, _ in columns)]]
    names = [*_TIMES, *_OTHERS]
    head = ["dataset", "device", "method", "repeats", *(f"{n}{end}" for n in names for end in ("", "_std"))]
    numbers: list[list[object]] = [[*head]]
    for key, cell in cells.items():
        lines.append([*key, *(_shown(cell.get(name), scale) for name, _, scale in columns)])
        exact = [number for name in names for number in _mean_and_std(cell.get(name))]
        shown = ["" if math.isnan(number) else f"{number:.6g}" for number in exact]
        numbers.append([dataset, *key, len(gathered[key]), *shown])
    where = f"Device: {devices[0]}." if hidden else "Compare times of one device only."
    apart = [word for name, word in _APART.items() if name in present]
    definition = DEFINITION.format(apart=f"; {' and '.join(apart)} apart" if apart else "")
    repeats = _repeats({" ".join(key[hidden:]): len(gathered[key]) for key in cells})
    below = [f"Dataset: {dataset}. {where}", definition, repeats, *footer]
    return PrintedTable([line[hidden:] for line in lines], below, 2 - hidden, numbers)


def _unit(cells: Iterable[Mapping[str, Summary]]) -> tuple[str, float]:
    """The largest unit in which the shortest training takes at least one."""
    shortest = min((cell["hours"].mean for cell in cells if cell["hours"].mean), default=1.0)
    return next(((unit, factor) for unit, factor in _UNITS if shortest * factor >= 1), _UNITS[-1])


def _repeats(of_rows: Mapping[str, int]) -> str:
    counts = set(of_rows.values())
    if counts == {1}:
        return "One run of each method: no spread."
    if len(counts) == 1:
        return f"Mean±standard deviation over {counts.pop()} repeats."
    return f"Mean±standard deviation over repeats: {', '.join(f'{name} {count}' for name, count in of_rows.items())}."


def _summaries(runs: Sequence[Efficiency]) -> dict[str, Summary]:
    """Summarise each quantity over the repeats that have it."""
    values = {name: [v for run in runs if (v := getattr(run, name)) is not None] for name in (*_TIMES, *_OTHERS)}
    return {name: summarise(of_name) for name, of_name in values.items() if of_name}


def _mean_and_std(summary: Summary | None) -> tuple[float, float]:
    if summary is None:
        return math.nan, math.nan
    # A spread of equal values is rounding.
    return summary.mean, 0.0 if summary.std <= 1e-12 * summary.mean else summary.std


def _shown(summary: Summary | None, factor: float) -> str:
    """``12.4±0.3``: at least three significant digits of the mean, the spread with as many decimals."""
    if summary is None:
        return "-"
    mean, std = summary.mean * factor, summary.std * factor
    decimals = max(0, 2 - math.floor(math.log10(mean))) if mean > 0 else 0
    shown = f"{mean:,.{decimals}f}"
    return shown if math.isnan(std) else f"{shown}±{std:,.{decimals}f}"
