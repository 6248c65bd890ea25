"""Variants of a method compared with it, on validation rows: evidence for a preset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..downstream.significance import Summary, paired, shown, shown_decimals, summarise
from .tables import PrintedTable

Values = Mapping[str, Sequence[float]]  # by task, a fraction in [0, 1] for each run


@dataclass(frozen=True)
class Variant:
    """A variant, with its values on validation rows, by which variants may be chosen, and on test rows."""

    name: str
    changes: str  # its options, as ``name value``
    valid: Values
    test: Values


def variants_table(rows: Sequence[Variant], metrics: Mapping[str, str], footer: Sequence[str] = ()) -> PrintedTable:
    """Lay out variants against the first of them; tasks from left to right.

    The CSV has means and standard deviations in percent, and p of the paired t-test. ``metrics`` are by task.
    """
    head = ["Variant", "Options"]
    lines = [[row.name, row.changes or "-"] for row in rows]
    columns = ["task", "metric", "variant", "options", "runs", "valid", "valid_std", "valid_gain", "valid_p"]
    numbers: list[list[object]] = [[*columns, "test", "test_std"]]
    for task, metric in metrics.items():
        head += [f"{task} ({metric}), validation", "Gain", "p", "Test"]
        places = shown_decimals(summarise(row.valid[task]).mean for row in rows)
        for row, line in zip(rows, lines, strict=True):
            valid, test = summarise(row.valid[task]), summarise(row.test[task])
            gain = 100 * (valid.mean - summarise(rows[0].valid[task]).mean)
            p = "" if row is rows[0] else _paired(row.valid[task], rows[0].valid[task])
            gains = ["-", "-"] if row is rows[0] else [f"{gain:+.{places}f}", p or "-"]
            line += [shown(valid, places), *gains, shown(test, places)]
            before = [task, metric, row.name, row.changes, valid.n, *_percent(valid, places)]
            numbers.append([*before, f"{gain:.{places}f}", p, *_percent(test, places)])
    return PrintedTable([head, *lines], footer, 2, numbers)


def _paired(ours: Sequence[float], first: Sequence[float]) -> str:
    """The p-value of the paired t-test, where runs allow one."""
    return f"{paired(ours, first):.3f}" if 2 <= len(ours) == len(first) else ""


def _percent(summary: Summary, decimals: int) -> tuple[str, str]:
    return f"{100 * summary.mean:.{decimals}f}", "" if summary.n < 2 else f"{100 * summary.std:.{decimals}f}"
