"""Tables, sentences and a figure of what is finished, and the command that runs the rest first."""

import statistics
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...downstream.significance import Interval, shown, shown_decimals, summarise
from ...errors import InputError
from ...progress import Show
from ...recbole.entry_points.measured import EvaluatedRows, device_of_run, evaluated_rows
from ...training.checkpoints import write_text
from ..compare.report import Comparison, place
from ..compare.running import Part, run_cells
from ..compare.store import Store
from ..figures.drawing import percent_cells
from ..figures.loss_differences import draw_differences
from ..tables import aligned_text, csv_text, markdown_table
from .cells import unpack
from .differences import METRICS, Difference, difference, thirds, values_of
from .grid import Grid, Point, Row
from .plan import LossPlan

FIRST = next(iter(METRICS))  # the metric of sentences, tests and the figure
_GROUPS = {
    "short history": ("lengths", 0), "middle history": ("lengths", 1), "long history": ("lengths", 2),
    "rare target": ("counts", 0), "middle target": ("counts", 1), "popular target": ("counts", 2),
}  # fmt: skip
_COSTS = {
    "s/epoch": "seconds_per_epoch", "s to best": "seconds_to_best", "Best epoch": "best_epoch",
    "MB": "peak_memory_mb",
}  # fmt: skip


def compare_losses(
    plan: LossPlan,
    folder: str | Path,
    jobs: int = 1,
    part: Part | None = None,
    show_progress: Show = True,
    report_only: bool = False,
) -> Comparison:
    """Compute the runs that a plan needs and that are not there, then write tables, sentences and a figure.

    Args:
        plan: what is compared.
        folder: for ``cells.jsonl``, ``quality.*``, ``groups.*``, ``search.csv`` and ``differences.*``.
        jobs: processes.
        part: this machine's share of the cells.
        show_progress: the cells left and the time to go, as :class:`~adaptssr_plugin.progress.Progress` shows them.
        report_only: compute nothing; write what is finished.

    Returns:
        Its tables by name, and under ``findings`` a sentence for every row.

    Raises:
        InputError: anything the caller can put right.
        TrainingDivergedError: NaN or infinity in a step.
    """
    if jobs < 1:
        raise InputError(f"jobs: expected a positive integer, got {jobs}")
    rows = {share: _test_rows(plan, share) for share in dict.fromkeys((1.0, *plan.shares))}
    store = Store(Path(folder), rows[1.0].fingerprint)
    grid = Grid(plan, store)
    for row in grid.rows:  # refused before anything is trained
        for point in row.points(plan):
            device_of_run(row.model, plan.dataset, plan.options(row.options(point), 0))
    computed = 0 if report_only else run_cells(plan, store, grid.wanted, jobs, part, show_progress)
    cells, later = grid.wanted()
    unfinished = sum(store.get(cell) is None for cell in cells) + later
    report = _Report(grid, rows, Path(folder))
    return Comparison(report.write(), report.files, computed, unfinished)


def _test_rows(plan: LossPlan, share: float) -> EvaluatedRows:
    return evaluated_rows(plan.models[0], plan.dataset, plan.options({"ssl_loss": "none"}, 0), share)


class _Report:
    """Writes what is finished."""

    def __init__(self, grid: Grid, rows: Mapping[float, EvaluatedRows], folder: Path) -> None:
        self.grid, self.plan, self.data, self.folder = grid, grid.plan, rows, folder
        self.files: list[Path] = []
        self.results = {row: results for row in grid.rows if (results := grid.results(row))}
        self.ranks = {row: [unpack(one["ranks"]) for one in found] for row, found in self.results.items()}
        self.differences = {row: found for row in self.results if (found := self._difference(row))}

    def write(self) -> dict[str, str]:
        """Write all files; returns the texts by name, none without a finished row."""
        if tried := self._search():
            self._file("search.csv", csv_text(tried))
        if not self.results:
            return {}
        findings = [self._sentence(row) for row in self.differences]
        footer = self._footer()
        self._file("quality.csv", csv_text(self._numbers()))
        self._file("quality.md", markdown_table(self._quality(), [*findings, *footer], left=4))
        self._file("groups.csv", csv_text(self._group_numbers()))
        texts = {"quality": aligned_text(self._quality(), footer)}
        if self.differences:
            groups = self._groups()
            self._file("groups.md", markdown_table(groups, self._group_footer(), left=3))
            texts["groups"] = aligned_text(groups, self._group_footer())
            points = {self._name(row): one.percent for row, one in self.differences.items() if one.reference}
            self.files += draw_differences(points, self.folder / "differences", dataset=self.plan.name, metric=FIRST)
            texts["findings"] = "\n".join(findings) + "\n"
        return texts

    def _file(self, name: str, text: str) -> None:
        write_text(self.folder / name, text)
        self.files.append(self.folder / name)

    # --- numbers -------------------------------------------------------------------------------------------------

    def _difference(self, row: Row, kept: np.ndarray | None = None) -> Difference | None:
        """Compare a row with its reference, on some of the test rows or all; None without one that is finished."""
        reference = self.grid.references.get(row)
        if reference is None or reference not in self.results:
            return None
        users = self.data[row.share].users
        kept = np.ones(len(users), dtype=bool) if kept is None else kept
        ours, theirs = ([ranks[kept] for ranks in self.ranks[one]] for one in (row, reference))
        return difference(FIRST, ours, theirs, users[kept])

    def _means(self, row: Row, metric: str) -> list[float]:
        """Average a metric over users, for each seed."""
        users = self.data[row.share].users
        return [float(values_of(metric, ranks, users).mean()) for ranks in self.ranks[row]]

    def _cost(self, row: Row, name: str) -> float:
        return statistics.median(float(result[name]) for result in self.results[row])

    def _in_group(self, row: Row, group: str) -> np.ndarray:
        values, third = _GROUPS[group]
        kept: np.ndarray = thirds(getattr(self.data[row.share], values)) == third
        return kept

    def _search(self) -> list[list[object]]:
        lines: list[list[object]] = [
            [*self._place(row), _point(point), f"{100 * score:.4f}"]
            for row in self.grid.rows
            for point, score in self.grid.tried(row)
        ]
        return [["users_percent", "model", "loss", "point", f"valid_{FIRST}"], *lines] if lines else []

    def _numbers(self) -> list[list[object]]:
        metrics = [part for metric in METRICS for part in (metric, f"{metric}_sd")]
        head = ["users_percent", "model", "loss", "point", "seeds", *metrics, "change", "change_low", "change_high"]
        lines: list[list[object]] = [[*head, "change_percent", "p", "test_users", *_COSTS.values()]]
        for row in self.results:
            values = [part for metric in METRICS for part in percent_cells(summarise(self._means(row, metric)))[:2]]
            found, tested = self.differences.get(row), ["", "", "", "", "", ""]
            if found is not None:
                change = [f"{100 * one:.4f}" for one in found.interval]
                tested = [*change, f"{found.percent.mean:.2f}", f"{found.p:.4g}", str(found.n_users)]
            costs = [f"{self._cost(row, name):.4g}" for name in _COSTS.values()]
            place_ = [*self._place(row), _point(self.grid.chosen(row)), len(self.ranks[row])]
            lines.append([*place_, *values, *tested, *costs])
        return lines

    def _group_numbers(self) -> list[list[object]]:
        head = ["users_percent", "model", "loss", "group", "test_rows", FIRST, "change", "change_low", "change_high"]
        lines: list[list[object]] = [[*head]]
        for row in self.results:
            for group in _GROUPS:
                kept = self._in_group(row, group)
                if not kept.any():
                    continue
                users = self.data[row.share].users[kept]
                mean = statistics.fmean(values_of(FIRST, ranks[kept], users).mean() for ranks in self.ranks[row])
                found = self._difference(row, kept)
                change = ["", "", ""] if found is None else [f"{100 * one:.4f}" for one in found.interval]
                lines.append([*self._place(row), group, int(kept.sum()), f"{100 * mean:.4f}", *change])
        return lines

    # --- text ----------------------------------------------------------------------------------------------------

    def _quality(self) -> list[list[str]]:
        means = {(row, metric): self._means(row, metric) for row in self.results for metric in METRICS}
        places = {m: shown_decimals(summarise(means[row, m]).mean for row in self.results) for m in METRICS}
        lines = [["Users", "Model", "Loss", "Chosen", *METRICS, "Change %", "95 % interval", "p", *_COSTS]]
        for row in self.results:
            values = [shown(summarise(means[row, metric]), places[metric]) for metric in METRICS]
            found, tested = self.differences.get(row), ["-", "-", "-"]
            if found is not None and found.reference:
                tested = [_signed(found.percent.mean), _range(found.percent), f"{found.p:.3f}"]
            costs = [f"{self._cost(row, name):.{1 if name.startswith('seconds') else 0}f}" for name in _COSTS.values()]
            users, *names = self._place(row)
            lines.append([f"{users} %", *names, _point(self.grid.chosen(row)), *values, *tested, *costs])
        return lines

    def _groups(self) -> list[list[str]]:
        lines = [["Users", "Model", "Loss", *_GROUPS]]
        for row in self.differences:
            found = [self._difference(row, self._in_group(row, group)) for group in _GROUPS]
            cells = [
                f"{_signed(one.percent.mean)} ({_range(one.percent)})" if one and one.reference else "-"
                for one in found
            ]
            users, *names = self._place(row)
            lines.append([f"{users} %", *names, *cells])
        return lines

    def _sentence(self, row: Row) -> str:
        found = self.differences[row]
        before = self.grid.references[row].label
        seeds = "one seed" if len(found.by_seed) == 1 else f"{len(found.by_seed)} seeds"
        trained = "" if row.share == 1 else f", trained on {100 * row.share:g} % of the users,"
        change, numbers = found.percent, f"{found.n_users:,} users, {seeds}"
        if not found.reference:
            return f"{FIRST} of {row.model}{trained} is 0 under {before} ({numbers}): {row.label} has no percentage."
        return (
            f"{row.label} changes {FIRST} of {row.model}{trained} by {_signed(change.mean)} % against {before} (95 % "
            f"interval {_range(change)}, {numbers}): {found.finding}."
        )

    def _footer(self) -> list[str]:
        plan, rows = self.plan, self.data[1.0]
        trained = ", ".join(f"{self.data[share].n_training_users:,}" for share in plan.shares)
        where = dict.fromkeys(place(one["conditions"]) for found in self.results.values() for one in found)
        several = f"; seeds 0 to {plan.seeds - 1}, mean±standard deviation" if plan.seeds > 1 else "; one seed"
        lines = [
            f"{plan.name}: {len(np.unique(rows.users)):,} test users, {rows.n_items:,} items, all ranked, ties against "
            f"the target; trained on {trained} users; metrics x 100, means over users{several}.",
            "Chosen: by the validation value of seed 0. Test values choose nothing.",
            f"Change, interval and p: {FIRST} against the model without an added loss from the same item embedding"
            f"{self._of_starts()}, in percent of it; paired t-test over users, of each user's mean over seeds, not "
            "adjusted for the number of rows. The interval does not include the noise between seeds, so a gain or a "
            "loss is reported only where all seeds agree.",
            f"Seconds, best epoch, MB: medians over seeds; computed on {'; '.join(where)}.",
        ]
        options = ", ".join(f"{name} {value}" for name, value in plan.recbole.items())
        lines += [f"Options: {options}."] if options else []
        waiting = [self._name(row) for row in self.grid.rows if row not in self.results]
        lines += [f"Not finished: {'; '.join(waiting)}."] if waiting else []
        return [*lines, plan.note] if plan.note else lines

    def _of_starts(self) -> str:
        first, *others = self.plan.item_inits
        return f" (that row itself against the same from {first})" if others else ""

    def _group_footer(self) -> list[str]:
        return [
            f"{self.plan.name}: change of {FIRST} as in the table of quality, on some of the test rows (95 % interval "
            "over users). Thirds of the test rows by interactions before the target, and by how often the "
            "target occurs in training histories."
        ]

    def _place(self, row: Row) -> list[str]:
        return [f"{100 * row.share:g}", row.model, row.label]

    def _name(self, row: Row) -> str:
        users = f", {100 * row.share:g} % of users" if len(self.plan.shares) > 1 else ""
        return f"{row.model}, {row.label}{users}"


def _point(point: Point | None) -> str:
    """Write chosen values without their prefix."""
    return ", ".join(f"{name.removeprefix('ssl_')} {value:g}" for name, value in (point or {}).items()) or "-"


def _signed(value: float) -> str:
    return f"{value:+.1f}"


def _range(interval: Interval) -> str:
    return f"{interval.low:+.1f} to {interval.high:+.1f}"
