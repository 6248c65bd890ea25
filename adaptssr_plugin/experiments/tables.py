"""The paper's Table 2 from records: a row for each method, ``mean±std`` and Impr for each task (spec 4.4)."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from adaptssr_plugin.downstream.significance import Summary, relative_improvement, summarise
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.experiments.records import PAPER_NAMES, Record, paper_name

PAPER_ROWS = tuple(PAPER_NAMES.values())


class Column(NamedTuple):
    """A task of a corpus and its metric."""

    dataset: str
    task: str
    metric: str


Values = dict[int | None, float]  # a row's test values on one task, by seed


def values_by_seed(records: Iterable[Record]) -> dict[tuple[str, Column], Values]:
    """Gather the test values by (row, column) and seed, in the order of the records.

    Raises:
        InputError: two test values of one method, task and seed, e.g. from two presets: choose first.
    """
    table: dict[tuple[str, Column], Values] = {}
    for record in records:
        if record.split != "test":
            continue
        row, column = paper_name(record.method), Column(record.dataset, record.task, record.metric)
        values = table.setdefault((row, column), {})
        if record.seed in values:
            raise InputError(
                f"records: expected one test value for {row}, {record.dataset} {record.task} "
                f"{record.metric}, seed {record.seed}, got two"
            )
        values[record.seed] = record.value
    return table


@dataclass(frozen=True)
class Table2:
    """A table in the form of the paper's Table 2; :func:`table_2` makes one from records.

    Attributes:
        rows: methods from top to bottom.
        columns: tasks from left to right.
        summaries: mean and spread of the test values, fractions in [0, 1], by (row, column).
        footer: lines to stand below the table.
        baseline: the row that Impr is measured against.
    """

    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    summaries: Mapping[tuple[str, Column], Summary]
    footer: tuple[str, ...] = ()
    baseline: str = "None"

    def improvement(self, row: str, column: Column) -> float:
        """Impr in percent against the baseline row; NaN for that row itself and where one is missing."""
        cell, none = self.summaries.get((row, column)), self.summaries.get((self.baseline, column))
        if cell is None or none is None or row == self.baseline:
            return math.nan
        return relative_improvement(cell.mean, none.mean)

    def best(self, column: Column) -> set[str]:
        """The rows with the largest mean of a column, compared as printed; several if they tie."""
        shown = {
            row: round(100 * self.summaries[row, column].mean, 2)
            for row in self.rows
            if (row, column) in self.summaries
        }
        return {row for row, value in shown.items() if value == max(shown.values())}

    def text(self) -> str:
        """Aligned plain text; the best of a column is marked with ``*``."""
        lines = self._strings(lambda cell: f"{cell}*")
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        drawn = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        rule = "-" * max(len(line) for line in drawn)
        below = ["", *self.footer] if self.footer else []
        return "\n".join([drawn[0], rule, *drawn[1:], *below]) + "\n"

    def markdown(self) -> str:
        """A Markdown table; the best of a column is bold."""
        head, *body = self._strings(lambda cell: f"**{cell.strip()}**")
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
        drawn = ["| " + " | ".join(cell.strip().replace("|", "\\|") for cell in line) + " |" for line in lines]
        # A blank line between footer lines keeps them apart in Markdown.
        below = [part for line in self.footer for part in ("", line)]
        return "\n".join([*drawn, *below]) + "\n"

    def csv(self) -> str:
        """Summary form: a line for each column and row; mean, std and Impr in percent, two decimals."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["dataset", "task", "metric", "method", "n_seeds", "mean", "std", "impr"])
        for column in self.columns:
            for row in self.rows:
                if (cell := self.summaries.get((row, column))) is not None:
                    numbers = (100 * cell.mean, 100 * cell.std, self.improvement(row, column))
                    shown = ["" if math.isnan(number) else f"{number:.2f}" for number in numbers]
                    writer.writerow([*column, row, cell.n, *shown])
        return out.getvalue()

    def _strings(self, best: Callable[[str], str]) -> list[list[str]]:
        """The table as strings, headings first; ``best`` marks the cell of a column's best row."""
        one_dataset = len({column.dataset for column in self.columns}) == 1
        head = ["Method"]
        for column in self.columns:
            task = column.task if one_dataset else f"{column.dataset} {column.task}"
            head += [f"{task} ({column.metric})", "Impr %"]
        lines = [head]
        for row in self.rows:
            line = [row]
            for column in self.columns:
                cell = _cell(self.summaries.get((row, column)))
                impr = self.improvement(row, column)
                line += [best(cell) if row in self.best(column) else cell, "-" if math.isnan(impr) else f"{impr:+.2f}"]
            lines.append(line)
        return lines


def table_2(
    records: Iterable[Record],
    rows: Sequence[str] = PAPER_ROWS,
    footer: Sequence[str] = (),
    baseline: str = "None",
) -> Table2:
    """Lay out test values in the form of the paper's Table 2.

    Args:
        records: results; those of other splits than "test" are left out.
        rows: the order of the rows. One without results is left out; every method with results has to be
            named, so that the caller says where rows that the paper does not have are to stand.
        footer: lines to stand below the table.
        baseline: the row that Impr is measured against.

    Raises:
        InputError: no test values, a method that ``rows`` does not name, or two values for one seed.
    """
    values = values_by_seed(records)
    if not values:
        raise InputError("records: expected at least one with split test, got none")
    rows = [paper_name(row) for row in rows]
    present = dict.fromkeys(row for row, _ in values)
    if strangers := [row for row in present if row not in rows]:
        raise InputError(f"rows: expected to name every method among the records, missing {strangers}")
    return Table2(
        rows=tuple(row for row in rows if row in present),
        columns=tuple(dict.fromkeys(column for _, column in values)),
        summaries={key: summarise(list(by_seed.values())) for key, by_seed in values.items()},
        footer=tuple(footer),
        baseline=paper_name(baseline),
    )


def _cell(summary: Summary | None) -> str:
    if summary is None:
        return "-"
    mean = f"{100 * summary.mean:5.2f}"
    return mean if math.isnan(summary.std) else f"{mean}±{100 * summary.std:.2f}"
