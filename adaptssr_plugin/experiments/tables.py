"""The paper's Table 2 from records: a row for each method, ``mean±std`` and Impr for each task."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..downstream.significance import Summary, paired, relative_improvement, shown, shown_decimals, summarise, welch
from ..downstream.splits import SPLIT_OVERLAP
from ..errors import InputError
from .records import LSA, MAJORITY, PAPER_NAMES, POPULARITY, TFIDF, Record, paper_name

PAPER_ROWS = tuple(PAPER_NAMES.values())
RESAMPLED = "the corrected resampled t-test over splits, which share users (Nadeau and Bengio, 2003)"
PLAIN_BASELINES = (TFIDF, LSA, MAJORITY, POPULARITY)  # rows without an encoder


class Column(NamedTuple):
    """A task of a corpus and its metric."""

    dataset: str
    task: str
    metric: str

    def heading(self, one_dataset: bool) -> str:
        """``age (accuracy)``, preceded by the dataset if there are several."""
        return f"{self.task if one_dataset else f'{self.dataset} {self.task}'} ({self.metric})"


class Run(NamedTuple):
    """The seeds of a value: that of the split and that of the run; None if there is none."""

    split_seed: int | None
    seed: int | None


Values = dict[Run, float]  # a row's test values on one task


def values_by_run(records: Iterable[Record]) -> dict[tuple[str, Column], Values]:
    """Gather the test values by (row, column), split and seed, in the order of the records.

    Raises:
        InputError: two test values of one method, task, split and seed, e.g. from two presets: choose first.
    """
    table: dict[tuple[str, Column], Values] = {}
    for record in records:
        if record.split != "test":
            continue
        row, column = paper_name(record.method), Column(record.dataset, record.task, record.metric)
        values = table.setdefault((row, column), {})
        run = Run(record.split_seed, record.seed)
        if run in values:
            raise InputError(
                f"records: expected one test value for {row}, {record.dataset} {record.task} "
                f"{record.metric}, seed {record.seed}, got two"
            )
        values[run] = record.value
    return table


def paired_values(ours: Values, theirs: Values) -> tuple[list[float], list[float]]:
    """Return the values that two rows share: means over seeds for each split, or by seed if there is one split."""
    if len({run.split_seed for run in ours}) > 1:
        ours, theirs = _by_split(ours), _by_split(theirs)
    common = [run for run in ours if run in theirs]
    return [ours[run] for run in common], [theirs[run] for run in common]


def _by_split(values: Values) -> Values:
    splits: dict[int | None, list[float]] = {}
    for run, value in values.items():
        splits.setdefault(run.split_seed, []).append(value)
    return {Run(split_seed, None): sum(some) / len(some) for split_seed, some in splits.items()}


@dataclass(frozen=True)
class Table2:
    """A table in the form of the paper's Table 2; :func:`table_2` makes one from records.

    Attributes:
        rows: methods from top to bottom.
        columns: tasks from left to right.
        summaries: mean and spread of the test values, fractions in [0, 1], by (row, column).
        footer: lines below the table.
        baseline: the reference row of Impr.
    """

    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    summaries: Mapping[tuple[str, Column], Summary]
    footer: tuple[str, ...] = ()
    baseline: str = "None"

    def decimals(self, column: Column) -> int:
        """Decimals of a column's means and spreads; see :func:`shown_decimals`."""
        return _decimals(self.summaries, column)

    def improvement(self, row: str, column: Column) -> float:
        """Impr in percent against the baseline row; NaN for that row itself and where a value is missing."""
        cell, none = self.summaries.get((row, column)), self.summaries.get((self.baseline, column))
        if cell is None or none is None or row == self.baseline:
            return math.nan
        return relative_improvement(cell.mean, none.mean, self.decimals(column))

    def best(self, column: Column) -> set[str]:
        """The rows with the largest mean of a column, compared as printed; several if they tie."""
        printed = {
            row: round(100 * self.summaries[row, column].mean, self.decimals(column))
            for row in self.rows
            if (row, column) in self.summaries
        }
        return {row for row, value in printed.items() if value == max(printed.values())}

    def text(self) -> str:
        """Aligned plain text; the best of a column is marked with ``*``."""
        return aligned_text(self._strings(lambda cell: f"{cell}*"), self.footer)

    def markdown(self) -> str:
        """A Markdown table; the best of a column is bold."""
        return markdown_table(self._strings(lambda cell: f"**{cell.strip()}**"), self.footer)

    def latex(self) -> str:
        """A LaTeX tabular for the package booktabs, the footer below it; the best of a column is bold."""
        # Marked as in Markdown, since bold text must not be escaped.
        return latex_table(self._strings(lambda cell: f"**{cell.strip()}**"), self.footer)

    def csv(self) -> str:
        """Summary form: a line for each column and row; mean and std in percent as printed, Impr to two decimals."""
        lines: list[list[object]] = [["dataset", "task", "metric", "method", "runs", "mean", "std", "impr"]]
        for column in self.columns:
            places = self.decimals(column)
            for row in self.rows:
                if (cell := self.summaries.get((row, column))) is not None:
                    numbers = ((100 * cell.mean, places), (100 * cell.std, places), (self.improvement(row, column), 2))
                    texts = ["" if math.isnan(number) else f"{number:.{digits}f}" for number, digits in numbers]
                    lines.append([*column, row, cell.n, *texts])
        return csv_text(lines)

    def _strings(self, best: Callable[[str], str]) -> list[list[str]]:
        """The table as strings, headings first; ``best`` marks the cell of a column's best row."""
        one_dataset = len({column.dataset for column in self.columns}) == 1
        head = ["Method"]
        for column in self.columns:
            head += [column.heading(one_dataset), "Impr %"]
        lines = [head]
        for row in self.rows:
            line = [row]
            for column in self.columns:
                summary = self.summaries.get((row, column))
                cell = "-" if summary is None else shown(summary, self.decimals(column), width=5)
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
        rows: the order of the rows. One without results is left out; every method with results has to be named, so
            that the caller decides where rows that the paper lacks are placed.
        footer: lines below the table.
        baseline: the reference row of Impr.

    Raises:
        InputError: no test values, a method that ``rows`` does not name, or two values for one seed.
    """
    values = values_by_run(records)
    if not values:
        raise InputError("records: expected at least one with split test, got none")
    return Table2(
        rows=rows_in_order(rows, (row for row, _ in values), "records"),
        columns=tuple(dict.fromkeys(column for _, column in values)),
        summaries=_summaries(values),
        footer=tuple(footer),
        baseline=paper_name(baseline),
    )


def rows_in_order(rows: Sequence[str], present: Iterable[str], source: str) -> tuple[str, ...]:
    """Put the methods that are present into the order of ``rows``, all under the paper's names.

    Raises:
        InputError: a method of the ``source`` that ``rows`` does not name.
    """
    order, present = [paper_name(row) for row in rows], dict.fromkeys(present)
    if strangers := [row for row in present if row not in order]:
        raise InputError(f"rows: expected to name every method among the {source}, missing {strangers}")
    return tuple(row for row in order if row in present)


def _summaries(values: Mapping[tuple[str, Column], Values]) -> dict[tuple[str, Column], Summary]:
    return {key: summarise(list(by_seed.values())) for key, by_seed in values.items()}


def _decimals(summaries: Mapping[tuple[str, Column], Summary], column: Column) -> int:
    return shown_decimals(cell.mean for (_, one), cell in summaries.items() if one == column)


def best_baseline_footer(
    records: Iterable[Record], among: Sequence[str] = PAPER_ROWS, excluded: Sequence[str] = ()
) -> list[str]:
    """Compare AdaptSSR with the best of its baselines on each column, for the footer of Table 2.

    The gain in percent is of the printed means, like Impr; p-values are two-sided t-tests over seeds, Welch's and
    paired by the seeds that both rows have. A baseline with a single value without a seed is compared by the one-sample
    test. Over several splits the test is paired by split, with means over seeds, and corrected for the overlap of
    splits (:func:`~adaptssr_plugin.downstream.paired`).

    Args:
        records: results; only test values count.
        among: the rows that may be the best baseline; among rows that print equally, the first named.
        excluded: rows among them that are not baselines, e.g. other variants of the method.

    Returns:
        For each column with a value of AdaptSSR one line against the best baseline, then one against each baseline
        without an encoder; at the end a line on the tests, if there were any.
    """
    values, method = values_by_run(records), PAPER_NAMES["adaptssr"]
    left_out = {method, *map(paper_name, [*excluded, *PLAIN_BASELINES])}
    baselines = [row for row in map(paper_name, among) if row not in left_out]
    columns = list(dict.fromkeys(column for row, column in values if row == method))
    one_dataset = len({column.dataset for column in columns}) == 1
    summaries = _summaries(values)
    places = {column: _decimals(summaries, column) for column in columns}
    contests: list[tuple[Column, str, str]] = []
    for column in columns:
        rows = [row for row in baselines if (row, column) in values]
        if rows:
            best = max(rows, key=lambda row: _printed(values[row, column], places[column]))
            contests.append((column, best, f"the best baseline {best}"))
    contests += [(column, row, row) for row in PLAIN_BASELINES for column in columns if (row, column) in values]
    lines = [
        f"{column.heading(one_dataset)}: {method} "
        f"{_contest(values[method, column], values[row, column], name, places[column])}"
        for column, row, name in contests
    ]
    if any(" splits, p " in line for line in lines):
        lines.append(f"p: two-sided, {RESAMPLED}; † significant at .01.")
    elif any(" p " in line for line in lines):
        lines.append("p: two-sided t-tests over seeds; † significant at .01.")
    return lines


def _contest(ours: Values, theirs: Values, name: str, decimals: int) -> str:
    """Compare one row's values with another's: means, gain in percent and p-values."""
    mean, other = _printed(ours, decimals), _printed(theirs, decimals)
    joint = "against" if mean > other else "level with" if mean == other else "below"
    impr = relative_improvement(mean / 100, other / 100, decimals)
    gain = "no percentage of 0" if math.isnan(impr) else f"{impr:+.2f} %".replace("-", "−")
    return f"{mean:.{decimals}f} {joint} {name} {other:.{decimals}f}: {gain}, {_tests(ours, theirs)}"


def _tests(ours: Values, theirs: Values) -> str:
    """The p-values that splits or seeds allow."""
    if len({run.split_seed for run in ours}) > 1:
        pairs = paired_values(ours, theirs)
        if len(pairs[0]) < 2:
            return "no test (fewer than two splits in common)"
        return f"{len(pairs[0])} splits, {_p_value(paired(*pairs, overlap=SPLIT_OVERLAP))}"
    if len(ours) < 2:
        return "one seed, no test"
    if [run.seed for run in theirs] == [None]:
        return f"one-sample {_p_value(paired(list(ours.values()), list(theirs.values()) * len(ours)))}"
    if len(theirs) < 2:
        return "one seed of the baseline, no test"
    by_welch = f"Welch {_p_value(welch(list(ours.values()), list(theirs.values())))}"
    pairs = paired_values(ours, theirs)
    if len(pairs[0]) < 2:
        return f"{by_welch}, no paired test (fewer than two seeds in common)"
    return f"{by_welch}, paired {_p_value(paired(*pairs))}"


def _p_value(p: float) -> str:
    """``p = .03``: enough digits to see on which side of .01 and .05 it is; † below .01."""
    if p < 0.001:
        return "p < .001†"
    digits = f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    return f"p = {digits.removeprefix('0')}{'†' if p < 0.01 else ''}"


def _printed(values: Values, decimals: int) -> float:
    """The mean in percent as printed in the table."""
    return float(f"{100 * summarise(list(values.values())).mean:.{decimals}f}")


# --- a grid, headings first, in four forms -----------------------------------------------------------------------


@dataclass(frozen=True)
class PrintedTable:
    """A table whose cells are text already."""

    lines: Sequence[Sequence[str]]  # the headings, then the rows
    footer: Sequence[str]
    left: int  # the number of columns before the numbers
    numbers: Sequence[Sequence[object]]  # the lines of the CSV file

    def text(self) -> str:
        """Aligned plain text."""
        return aligned_text(self.lines, self.footer)

    def markdown(self) -> str:
        """A Markdown table."""
        return markdown_table(self.lines, self.footer, self.left)

    def latex(self) -> str:
        """A LaTeX tabular for the package booktabs, the footer below it."""
        return latex_table(self.lines, self.footer, self.left)

    def csv(self) -> str:
        """The numbers as CSV."""
        return csv_text(self.numbers)


def csv_text(lines: Iterable[Iterable[object]]) -> str:
    """CSV, with quotes where needed."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def aligned(lines: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Pad cells to columns of equal width; those numbered in ``right`` are aligned right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def aligned_text(lines: Sequence[Sequence[str]], footer: Sequence[str] = ()) -> str:
    """Plain text in aligned columns; the footer below an empty line."""
    drawn = aligned(lines)
    rule = "-" * max(len(line) for line in drawn)
    return "\n".join([drawn[0], rule, *drawn[1:], *(["", *footer] if footer else [])]) + "\n"


def markdown_table(lines: Sequence[Sequence[str]], footer: Sequence[str] = (), left: int = 1) -> str:
    """A Markdown table; numbers, that is all but the first ``left`` columns, are aligned right."""
    head, *body = lines
    rows = [head, [*["---"] * left, *["---:"] * (len(head) - left)], *body]
    drawn = ["| " + " | ".join(cell.strip().replace("|", "\\|") for cell in row) + " |" for row in rows]
    # A blank line between footer lines keeps them apart in Markdown.
    return "\n".join([*drawn, *(part for line in footer for part in ("", line))]) + "\n"


def latex_table(lines: Sequence[Sequence[str]], footer: Sequence[str] = (), left: int = 1) -> str:
    """A LaTeX tabular with booktabs' rules, everything escaped; a cell between ``**`` is bold."""
    head, *body = [" & ".join(map(_latex_cell, line)) + r" \\" for line in lines]
    columns = "l" * left + "r" * (len(lines[0]) - left)
    drawn = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    below = (
        [r"\par\smallskip", r"{\footnotesize", *(rf"{latex_text(line)}\par" for line in footer), "}"] if footer else []
    )
    return "\n".join(["% needs the package booktabs", *drawn, *below]) + "\n"


def _latex_cell(cell: str) -> str:
    cell = cell.strip()
    bold = len(cell) > 4 and cell.startswith("**") and cell.endswith("**")
    text = latex_text(cell[2:-2] if bold else cell)
    if re.fullmatch(r"[-+]\d[\d.,]*", cell):
        text = f"${text}$"  # a minus, not a hyphen
    return rf"\textbf{{{text}}}" if bold else text


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$",
    "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "†": r"$^\dagger$", "≥": r"$\ge$", "≤": r"$\le$",
    "λ": r"$\lambda$", "ρ": r"$\rho$", "τ": r"$\tau$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip


def latex_text(text: str) -> str:
    """Escape LaTeX's special characters, and write the signs used in tables in math mode."""
    return "".join(_LATEX.get(character, character) for character in text)
