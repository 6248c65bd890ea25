"""Variants of a method compared with it, on validation rows: evidence for a preset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adaptssr_plugin.downstream.significance import Summary, paired, shown, shown_decimals, summarise
from adaptssr_plugin.experiments.tables import aligned_text, csv_text, latex_table, markdown_table

Values = Mapping[str, Sequence[float]]  # by task, a fraction in [0, 1] for each run


@dataclass(frozen=True)
class Variant:
    """A variant.

    Attributes:
        name: as in the plan.
        changes: its options, as ``name value``.
        valid: values on validation rows, by which variants may be chosen.
        test: values on test rows, which are shown and not used for choices.
    """

    name: str
    changes: str
    valid: Values
    test: Values


@dataclass(frozen=True)
class VariantsTable:
    """Variants against the first of them; tasks from left to right, metrics by task."""

    rows: tuple[Variant, ...]
    metrics: Mapping[str, str]
    footer: tuple[str, ...] = ()

    def text(self) -> str:
        """Aligned plain text."""
        return aligned_text(self._strings(), self.footer)

    def markdown(self) -> str:
        """A Markdown table."""
        return markdown_table(self._strings(), self.footer, left=2)

    def latex(self) -> str:
        """A LaTeX tabular for the package booktabs."""
        return latex_table(self._strings(), self.footer, left=2)

    def csv(self) -> str:
        """A line for each task and variant; means and standard deviations in percent, p of the paired t-test."""
        head = ["task", "metric", "variant", "options", "runs", "valid", "valid_std", "valid_gain", "valid_p"]
        lines: list[list[object]] = [[*head, "test", "test_std"]]
        for task, metric in self.metrics.items():
            places = self._decimals(task)
            for row in self.rows:
                valid, test = summarise(row.valid[task]), summarise(row.test[task])
                gain, p = self._against_first(row, task)
                before = [task, metric, row.name, row.changes, valid.n, *_percent(valid, places)]
                lines.append([*before, f"{gain:.{places}f}", p, *_percent(test, places)])
        return csv_text(lines)

    def _strings(self) -> list[list[str]]:
        head = ["Variant", "Options"]
        for task, metric in self.metrics.items():
            head += [f"{task} ({metric}), validation", "Gain", "p", "Test"]
        lines = [head]
        for row in self.rows:
            line = [row.name, row.changes or "-"]
            for task in self.metrics:
                gain, p = self._against_first(row, task)
                places = self._decimals(task)
                gains = ["-", "-"] if row is self.rows[0] else [f"{gain:+.{places}f}", p or "-"]
                valid, test = (shown(summarise(values[task]), places) for values in (row.valid, row.test))
                line += [valid, *gains, test]
            lines.append(line)
        return lines

    def _decimals(self, task: str) -> int:
        return shown_decimals(summarise(row.valid[task]).mean for row in self.rows)

    def _against_first(self, row: Variant, task: str) -> tuple[float, str]:
        """Gain in percentage points on validation rows, and the paired p-value where runs allow one."""
        ours, first = row.valid[task], self.rows[0].valid[task]
        gain = 100 * (summarise(ours).mean - summarise(first).mean)
        if row is self.rows[0] or len(ours) < 2 or len(ours) != len(first):
            return gain, ""
        return gain, f"{paired(ours, first):.3f}"


def _percent(summary: Summary, decimals: int) -> tuple[str, str]:
    return f"{100 * summary.mean:.{decimals}f}", "" if summary.n < 2 else f"{100 * summary.std:.{decimals}f}"
