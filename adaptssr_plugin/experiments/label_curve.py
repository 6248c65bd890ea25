"""Results with few labels: the metric of every row against the number of training labels, as table and figure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from adaptssr_plugin.downstream.significance import Summary, shown, shown_decimals, summarise
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.experiments.figures.drawing import draw_band, label_percent, percent_cells, save_figure
from adaptssr_plugin.experiments.records import LSA, MAJORITY, TFIDF, Record, paper_name
from adaptssr_plugin.experiments.tables import aligned_text, csv_text, markdown_table, rows_in_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE = (50, 100, 200, 500, 1000, None)
"""The numbers of labels by default; None: all."""
HOW = (
    "n training labels are the first of a seeded order of each split's training rows; a third as many validation rows "
    "choose penalty or epoch; the largest n is all. Features are made without labels, from the inputs of all training "
    "rows (LSA: of all users)."
)
_PLAIN = {MAJORITY: ("0.6", ":", ""), TFIDF: ("0.1", "--", "x"), LSA: ("0.1", "-.", "+")}
_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C564B",
    "#7F7F7F",
    "#BCBD22",
    "#9467BD",
)


@dataclass(frozen=True)
class LabelCurves:
    """The curves of one task: for each row the test metric over splits and seeds, by number of labels, ascending."""

    task: str
    metric: str
    rows: Mapping[str, Mapping[float, Summary]]

    def strings(self) -> list[list[str]]:
        """The table as strings, headings first; the best of a column between ``**``."""
        counts = sorted({int(n) for row in self.rows.values() for n in row})
        means = {n: [row[n].mean for row in self.rows.values() if n in row] for n in counts}
        lines = [[f"{self.task} ({self.metric})", *map(str, counts)]]
        for name, row in self.rows.items():
            cells = [shown(row[n], shown_decimals(means[n]), width=5) if n in row else "-" for n in counts]
            best = [n in row and row[n].mean == max(means[n]) for n in counts]
            lines.append(
                [name, *(f"**{cell.strip()}**" if top else cell for cell, top in zip(cells, best, strict=True))]
            )
        return lines


def label_curves(
    records: Iterable[Record], n_train: Mapping[str, int], rows: Sequence[str] | None = None
) -> list[LabelCurves]:
    """Gather the test values of each task by row and number of labels.

    Args:
        records: of one corpus and one metric for each task; those with ``labels`` None used all training rows.
        n_train: how many training rows each task has.
        rows: the order of the rows; None: the records'.

    Raises:
        InputError: no test value, or a row that ``rows`` does not name.
    """
    values: dict[tuple[str, str], dict[str, dict[int, list[float]]]] = {}
    for one in records:
        if one.split == "test":
            by_row = values.setdefault((one.task, one.metric), {})
            n = n_train[one.task] if one.labels is None else one.labels
            by_row.setdefault(paper_name(one.method), {}).setdefault(n, []).append(one.value)
    if not values:
        raise InputError("records: expected at least one with split test, got none")
    return [
        LabelCurves(task, metric, {
            name: {n: summarise(by_row[name][n]) for n in sorted(by_row[name])}
            for name in rows_in_order(rows or list(by_row), by_row, "records")
        })
        for (task, metric), by_row in values.items()
    ]  # fmt: skip


def curves_text(curves: Sequence[LabelCurves], footer: Sequence[str]) -> str:
    """Aligned plain text, a table for each task; the best of a column is marked with ``*``."""
    grids = [
        [[f"{cell.strip('*')}*" if cell.startswith("**") else cell for cell in line] for line in one.strings()]
        for one in curves
    ]
    return "\n".join([*(aligned_text(grid) for grid in grids), *footer]) + "\n"


def write_label_curves(
    curves: Sequence[LabelCurves], stem: Path, *, conditions: str, footer: Sequence[str]
) -> list[Path]:
    """Draw a panel for each task, and write ``STEM.png``, ``STEM.svg``, ``STEM.csv`` and ``STEM.md``.

    Bands, drawn for up to three encoders, are ± one standard deviation over splits and seeds. ``conditions`` are for
    the title, e.g. corpus and number of splits. The folder is made.
    """
    numbers = [["task", "metric", "method", "labels", "mean", "std", "runs"]]
    for one in curves:
        for name, row in one.rows.items():
            numbers += [[one.task, one.metric, name, str(n), *percent_cells(point)] for n, point in row.items()]
    tables = "\n".join(markdown_table(one.strings()) for one in curves)
    texts = {".csv": csv_text(numbers), ".md": tables + "".join(f"\n{line}\n" for line in footer)}
    return save_figure(_figure(curves, conditions), stem, texts)


def _figure(curves: Sequence[LabelCurves], conditions: str) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.4, 1.2 + 3.6 * len(curves)), 4.8), layout="constrained")
    for ax, one in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        banded = len(set(one.rows) - set(_PLAIN)) <= 3  # more bands hide each other
        looks = cycle(zip(_COLOURS, "osD^vP*<>h", strict=True))
        for name, row in one.rows.items():
            if name in _PLAIN:
                colour, line, marker = _PLAIN[name]
            else:
                (colour, marker), line = next(looks), "-"
            alpha = 0.1 if name not in _PLAIN and banded else 0.0
            draw_band(ax, row, color=colour, alpha=alpha, linestyle=line, marker=marker, markersize=5, label=name)
        counts = sorted({int(n) for row in one.rows.values() for n in row})
        ax.set_xscale("log")
        follow = [*counts[1:], math.inf]  # a label gives way to one that is close
        labels = [f"{n:,}" if more > 1.3 * n else "" for n, more in zip(counts, follow, strict=True)]
        ax.set_xticks(counts, labels, fontsize="small")
        ax.set_xticks([], minor=True)
        ax.set_xlabel("training labels")
        ax.set_title(one.task, fontsize="medium", fontweight="bold")
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        label_percent(ax, one.metric)
    figure.suptitle(f"Metric against the number of labels\n{conditions}", fontsize="medium")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False, fontsize="small"
    )
    return figure
