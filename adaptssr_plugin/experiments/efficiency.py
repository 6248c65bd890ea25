"""The paper's Table 3 from measured runs: time and memory of pre-training."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..downstream.significance import Summary, summarise
from ..errors import InputError
from .records import paper_name
from .tables import PAPER_ROWS, aligned_text, csv_text, latex_table, markdown_table, rows_in_order


@dataclass(frozen=True)
class Efficiency:
    """The cost of one pre-training run; several runs of a method on a device are repeats.

    Attributes:
        method: row of the table, e.g. "adaptssr".
        hours: wall-clock time of the method's own stage, all its epochs, without validation, warm-up and filler.
        warm_up_hours: wall-clock time of the warm-up, without validation; None if there is none.
        seconds_per_epoch: of the method's own stage, without validation.
        sequences_per_second: training sequences in that time.
        epochs_to_best: the selected epoch; None if none is selected, e.g. when the last is taken.
        peak_memory_mb: peak memory in MB (10^6 bytes), of the device if there is one, otherwise of the process.
        device: its name, and the number of cores or threads.
        filler_hours: wall-clock time of training CCL's filler; None for other methods.
    """

    method: str
    hours: float
    warm_up_hours: float | None
    seconds_per_epoch: float
    sequences_per_second: float
    epochs_to_best: int | None
    peak_memory_mb: float | None
    device: str
    filler_hours: float | None = None


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


@dataclass(frozen=True)
class Table3:
    """A table in the form of the paper's Table 3; :func:`table_3` makes one from runs.

    Attributes:
        dataset: name of the corpus.
        rows: methods from top to bottom, for each device.
        devices: from top to bottom.
        summaries: mean and spread over repeats, by (device, row) and attribute of :class:`Efficiency`.
        repeats: number of runs by (device, row).
        footer: lines to stand below the table, after the definition.
    """

    dataset: str
    rows: tuple[str, ...]
    devices: tuple[str, ...]
    summaries: dict[tuple[str, str], dict[str, Summary]]
    repeats: dict[tuple[str, str], int]
    footer: tuple[str, ...] = ()

    def text(self) -> str:
        """Aligned plain text."""
        return aligned_text(self._strings(), self._below())

    def markdown(self) -> str:
        """A Markdown table."""
        return markdown_table(self._strings(), self._below(), left=self._labels())

    def latex(self) -> str:
        """A LaTeX tabular for the package booktabs, the footer below it."""
        return latex_table(self._strings(), self._below(), left=self._labels())

    def csv(self) -> str:
        """A line for each device and method; mean and std of all quantities, in hours, seconds and MB."""
        names = [*_TIMES, *_OTHERS]
        head = ["dataset", "device", "method", "repeats", *(f"{n}{end}" for n in names for end in ("", "_std"))]
        lines: list[list[object]] = [[*head]]
        for (device, row), cell in self._cells():
            numbers = [number for name in names for number in _mean_and_std(cell.get(name))]
            shown = ["" if math.isnan(number) else f"{number:.6g}" for number in numbers]
            lines.append([self.dataset, device, row, self.repeats[device, row], *shown])
        return csv_text(lines)

    def _cells(self) -> list[tuple[tuple[str, str], dict[str, Summary]]]:
        keys = [(device, row) for device in self.devices for row in self.rows]
        return [(key, self.summaries[key]) for key in keys if key in self.summaries]

    def _labels(self) -> int:
        """The number of columns before the numbers: a single device is named below the table."""
        return 2 if len(self.devices) > 1 else 1

    def _strings(self) -> list[list[str]]:
        """The table as strings, headings first; empty columns are left out."""
        present = {name for cell in self.summaries.values() for name in cell}
        unit, factor = self._unit()
        columns = [(name, f"{heading} ({unit})", factor) for name, heading in _TIMES.items() if name in present]
        columns += [(name, heading, 1.0) for name, heading in _OTHERS.items() if name in present]
        lines = [["Device", "Method", *(heading for _, heading, _ in columns)]]
        for key, cell in self._cells():
            lines.append([*key, *(_shown(cell.get(name), scale) for name, _, scale in columns)])
        return [line[2 - self._labels() :] for line in lines]

    def _unit(self) -> tuple[str, float]:
        """The largest unit in which the shortest training takes at least one."""
        shortest = min((cell["hours"].mean for cell in self.summaries.values() if cell["hours"].mean), default=1.0)
        return next(((unit, factor) for unit, factor in _UNITS if shortest * factor >= 1), _UNITS[-1])

    def _below(self) -> list[str]:
        """Corpus and device, definition and repeats, then the lines that were given."""
        present = {name for cell in self.summaries.values() for name in cell}
        one_device = len(self.devices) == 1
        where = f"Device: {self.devices[0]}." if one_device else "Compare times of one device only."
        apart = [word for name, word in _APART.items() if name in present]
        definition = DEFINITION.format(apart=f"; {' and '.join(apart)} apart" if apart else "")
        return [f"Dataset: {self.dataset}. {where}", definition, self._repeats(), *self.footer]

    def _repeats(self) -> str:
        counts = set(self.repeats.values())
        if counts == {1}:
            return "One run of each method: no spread."
        if len(counts) == 1:
            return f"Mean±standard deviation over {counts.pop()} repeats."
        named = [f"{' '.join(key[2 - self._labels() :])} {self.repeats[key]}" for key, _ in self._cells()]
        return f"Mean±standard deviation over repeats: {', '.join(named)}."


def table_3(
    dataset: str, runs: Iterable[Efficiency], rows: Sequence[str] = PAPER_ROWS, footer: Sequence[str] = ()
) -> Table3:
    """Lay out what pre-training cost in the form of the paper's Table 3.

    Runs on different devices are in separate rows, since their times cannot be compared. Times are in hours, minutes
    or seconds, whichever is readable; the heading names the unit.

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
    return Table3(
        dataset=dataset,
        rows=rows_in_order(rows, (row for _, row in gathered), "runs"),
        devices=tuple(dict.fromkeys(device for device, _ in gathered)),
        summaries={key: _summaries(of_row) for key, of_row in gathered.items()},
        repeats={key: len(of_row) for key, of_row in gathered.items()},
        footer=tuple(footer),
    )


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
