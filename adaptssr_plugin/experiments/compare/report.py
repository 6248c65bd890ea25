"""Tables and figures of finished cells, and the command that first computes the rest."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from ...downstream import ProfileTask, paired
from ...errors import InputError
from ...methods import Recipe
from ...progress import Show
from ...training.checkpoints import write_text
from ..efficiency import Efficiency, table_3
from ..figures.ablation import Bar, draw_ablation
from ..figures.robustness import Curve, draw_robustness
from ..figures.similarity import SimilarityDistributions
from ..figures.similarity_plot import draw_similarity
from ..label_curve import HOW, curves_text, label_curves, write_label_curves
from ..records import LSA, MAJORITY, POPULARITY, SVD_START, TFIDF, WARM_UP, Record, write_records
from ..reidentification import PLAIN, RANDOM, conditions, records_of
from ..tables import PAPER_ROWS, PrintedTable, Table2, best_baseline_footer, csv_text, rows_in_order, table_2
from ..task_runs import of_metrics
from ..task_tables import LINEAR, splits_shown
from ..variants_table import Variant, variants_table
from .cells import Baselines, PlainReidentification, Reidentification, check_ready, load_data, task_hashes, task_of
from .grid import FIGURE_METRIC, TUNED, Grid, Row
from .plan import ComparePlan, TaskSpec
from .running import Part, run_cells
from .store import Store

OF_TASKS = ("paper", "controlled")
TABLES = (*OF_TASKS, "linear", "reidentification")
FIGURES = (3, 4, 5, 7)
_PLAIN_ROWS = (MAJORITY, TFIDF, LSA, POPULARITY)
_ENCODER_ROWS = (
    PAPER_ROWS[0],
    SVD_START,
    WARM_UP,
    *PAPER_ROWS[1:],
    TUNED,
)  # as the paper's, what it has not where it belongs


@dataclass(frozen=True)
class Comparison:
    """The results of a comparison.

    Attributes:
        tables: text of each table, by name.
        files: all files of tables and figures.
        computed: cells that this call computed.
        unfinished: cells that remain for other machines or a later call.
    """

    tables: Mapping[str, str]
    files: list[Path]
    computed: int
    unfinished: int


def compare(
    plan: ComparePlan,
    folder: str | Path,
    tables: Sequence[str] = OF_TASKS,
    figures: Sequence[int] = (),
    jobs: int = 1,
    part: Part | None = None,
    show_progress: Show = True,
    variants: bool = False,
    report_only: bool = False,
) -> Comparison:
    """Compute the missing cells of tables and figures, then write these.

    Args:
        plan: what is compared.
        folder: ``cells.jsonl`` and ``models/`` of finished work, and the tables and figures.
        tables: of :data:`TABLES`.
        figures: of :data:`FIGURES`: the paper's numbers. 3 is for the plan's first task, 7 for the others. 3 is drawn
            once for the tables by fine-tuning, also without any table, and once each for linear reading and
            re-identification where these tables are asked for.
        jobs: processes.
        part: this machine's share of the cells.
        show_progress: the cells left and the time to go, as :class:`~adaptssr_plugin.progress.Progress` shows them.
        variants: whether to compare the plan's variants of AdaptSSR, too.
        report_only: compute nothing; write what is finished.

    Raises:
        InputError: a mistake of the caller.
        TrainingDivergedError: NaN or infinity in a step.
    """
    if unknown := [name for name in tables if name not in TABLES]:
        raise InputError(f"table: expected one of {', '.join(TABLES)}, got {unknown[0]!r}")
    if strange := [number for number in figures if number not in FIGURES]:
        raise InputError(f"figure: expected one of {', '.join(map(str, FIGURES))}, got {strange[0]}")
    if 7 in figures and len(plan.tasks) < 2:
        raise InputError("figure: expected a second task in the plan for figure 7, got one, which is figure 3's")
    of_tasks = [name for name in tables if name in OF_TASKS]
    fine_tuned = [number for number in figures if number != 3 or of_tasks or not tables]
    if not plan.tasks and (variants or fine_tuned or set(tables) - {"reidentification"}):
        raise InputError("tasks: expected one or more for any table or figure but reidentification, got none")
    if jobs < 1:
        raise InputError(f"jobs: expected a positive integer, got {jobs}")
    check_ready(plan)
    store = Store(Path(folder), load_data(plan).fingerprint, task_hashes(plan))

    linear = plan.linear() if "linear" in tables else None
    if linear is not None or set(tables) == {"reidentification"}:  # the curve is the linear plan's, of its tasks
        plan = replace(plan, label_curve=())

    def asked() -> list[Grid]:
        grids = [_asked(plan, store, tables, fine_tuned, variants)]
        if 3 in figures and "reidentification" in tables:
            list(grids[0].robustness_of_reidentification())
        if linear is not None:
            grids.append(_asked(linear, store, ("controlled",), [number for number in figures if number == 3], False))
        return grids

    computed = 0
    if not report_only:
        computed = run_cells(plan, store, lambda: _wanted(asked(), store), jobs, part, show_progress)
    grids = asked()
    cells, later = _wanted(grids, store)
    unfinished = sum(store.get(cell) is None for cell in cells) + later
    reports = [_Report(grid, Path(folder)) for grid in grids]
    report, last = reports[0], reports[-1]
    texts = {name: report.table(name == "controlled", name) for name in of_tasks}
    if of_tasks:
        texts["efficiency"] = report.efficiency(of_tasks)
    if "reidentification" in tables:
        texts["reidentification"] = report.reidentification()
    if variants:
        texts["variants"] = report.variants()
    if linear is not None:
        texts["linear"] = last.table(True, "linear")
    texts["labels"] = last.label_curves()
    for number in fine_tuned:
        report.figure(number)
    if 3 in figures and linear is not None:
        last.figure(3)
    if 3 in figures and "reidentification" in tables:
        report.robustness_of_reidentification()
    for one in reports:
        one.write_all_records()
    files = [path for one in reports for path in one.files]
    return Comparison({name: text for name, text in texts.items() if text}, files, computed, unfinished)


def _wanted(grids: Sequence[Grid], store: Store) -> tuple[list[Any], int]:
    """List the cells of all grids, each once, and count those that cannot be named yet."""
    cells = {cell.key(store.fingerprint): cell for grid in grids for cell in grid.cells}
    return list(cells.values()), sum(grid.later for grid in grids)


def _asked(plan: ComparePlan, store: Store, tables: Sequence[str], figures: Sequence[int], variants: bool) -> Grid:
    """Make the grid and ask for everything, in the order in which it should be computed."""
    grid = Grid(plan, store)
    if set(tables) - {"linear", "reidentification"} or variants or figures or plan.label_curve:
        grid.ask(_baseline_cells(plan))
    for name in tables:
        if name in OF_TASKS:
            grid.table(name == "controlled")
    grid.label_curves()
    if "reidentification" in tables:
        grid.ask([_plain_reidentification(plan)])
        grid.reidentification()
    if 3 in figures or 7 in figures:
        list(grid.robustness())
    if 4 in figures:
        grid.ablation()
    if variants:
        grid.variants()
    if 5 in figures:
        grid.similarities()
    return grid


def _baseline_cells(plan: ComparePlan) -> list[Baselines]:
    recipe = plan.recipe("none", False)
    return [
        Baselines(task, recipe, split, lsa)
        for task in plan.tasks
        for split in range(plan.splits)
        for lsa in ((False, True) if isinstance(task_of(plan, task, recipe), ProfileTask) else (False,))
    ]


def _plain_reidentification(plan: ComparePlan) -> PlainReidentification:
    reference = plan.recipe("none", True)
    return PlainReidentification(reference.max_len, reference.dim)


class _Report:
    """Writes the finished results."""

    def __init__(self, grid: Grid, folder: Path) -> None:
        self.grid, self.plan, self.store, self.folder = grid, grid.plan, grid.store, folder
        self.files: list[Path] = []
        self._measured: dict[str, list[_Measured]] = {}
        self._reading = "-linear" if self.plan.recipe("none", False).ft_tune == "linear" else ""  # in names of files

    # --- tables --------------------------------------------------------------------------------------------------

    def table(self, controlled: bool, name: str) -> str:
        """Write Table 2, as the paper's or controlled, in three formats; returns its text, empty without results."""
        rows = self.grid.table(controlled)
        measured = [*self._baselines(), *(one for row in rows for one in self._of_row(row))]
        self._measured[name] = measured
        shown = self._chosen([record for record, _ in measured])
        if not any(record.split == "test" and record.method not in _PLAIN_ROWS for record in shown):
            return ""
        ours = [name for name, one in self.plan.rows.items() if one.get("loss", "adaptssr") == "adaptssr"]
        contest = best_baseline_footer(shown, among=self._encoder_rows, excluded=(TUNED, *ours))
        table = table_2(shown, [*_PLAIN_ROWS, *self._encoder_rows], [*self._conditions(rows, controlled), *contest])
        self._write_table(f"table-2-{name}", table)
        return table.text()

    def efficiency(self, tables: Sequence[str]) -> str:
        """Write Table 3 from the pre-trainings of the tables; the controlled comparison's if both exist."""
        rows = [row for row in self.grid.table("controlled" in tables) if row.name != WARM_UP]
        runs = [run for row in rows for run in self._efficiencies(row)]
        if not runs:
            return ""
        form = "controlled comparison" if "controlled" in tables else "as the paper"
        footer = [f"{self.plan.name}: {form}; seconds of training."]
        table = table_3(self.plan.name, runs, self._encoder_rows, footer)
        self._write_table("table-3", table)
        return table.text()

    def variants(self) -> str:
        """Write the finished variants; returns the text, empty without the first of them."""
        named = {task: self.grid.name_and_metric(task) for task in self.plan.tasks}
        rows, found, unfinished = self.grid.variants(), [], []
        for row in rows:
            values = {
                split: {name: self.grid.values(row.cells((task,)), split) for task, (name, _) in named.items()}
                for split in ("valid", "test")
            }
            if any(len(runs) < row.runs for runs in values["valid"].values()):
                unfinished.append(row.name)
                continue
            changes = self.plan.variants.get(row.name, {})
            shown = ", ".join(f"{name} {value}" for name, value in changes.items())
            found.append(Variant(row.name, shown, values["valid"], values["test"]))
        if not found or found[0].name != rows[0].name:
            return ""
        footer = [
            *self._setting(rows[0].seeds, rows[0].pretrain_seeds, True, "x 100"),
            f"Gain: in percentage points against {rows[0].name}, on validation rows; p: two-sided paired t-test over "
            "runs. Values on test rows choose nothing.",
            f"Computed on: {'; '.join(self._devices(rows))}.",
        ]
        if unfinished:
            footer.append(f"Not finished: {', '.join(unfinished)}.")
        table = variants_table(found, dict(named.values()), footer)
        self._write_table("variants", table)
        return table.text()

    @property
    def _encoder_rows(self) -> list[str]:
        """Rows of encoders in the order of tables."""
        return [*_ENCODER_ROWS, *self.plan.rows]

    def label_curves(self) -> str:
        """Write the curve over labels; returns its text, empty without results."""
        records, n_train = [], {}
        for task, cells in self.grid.label_curves().items():
            name, _ = self.grid.name_and_metric(task)
            for row, cell in cells:
                if (result := self.store.get(cell)) is not None:
                    read = [Record(**one) for one in result["records"]]
                    records += [replace(one, method=row) if row else one for one in read]
                    n_train[name] = result["n_train"]
        if not records:
            return ""
        plan, rows = self.plan, [*_PLAIN_ROWS, *self._encoder_rows]
        curves = label_curves(self._chosen(records), n_train, rows)
        shown = f"{plan.name}, {splits_shown(plan.recipe('none', False).split_seed, plan.splits)}"
        footer = [f"{shown}, and over {plan.pretrain_seeds} initialisations or pre-trainings; x 100.", LINEAR, HOW]
        self.files += write_label_curves(curves, self.folder / "labels", conditions=shown, footer=footer)
        self.files.append(write_records(self.folder / "labels-records.csv", records))
        return curves_text(curves, footer)

    def reidentification(self) -> str:
        """Write re-identification by the finished models; returns the text, empty without any."""
        plan, rows, reference = self.plan, self.grid.reidentification(), self.plan.recipe("adaptssr", True)
        plain = self.store.get(_plain_reidentification(plan))
        measured: list[_Measured] = []
        if plain is not None:
            records = records_of(plan.name, None, plain["metrics"], None, plain["seconds"])
            measured += [(record, plain["conditions"]) for record in records]
        for name, cells in rows.items():
            for cell in cells:
                if (result := self.store.get(cell)) is not None:
                    recipe, found = cell.start.recipe, {name: result["metrics"]}
                    records = records_of(plan.name, recipe, found, recipe.seed, result["seconds"])
                    measured += [(record, result["conditions"]) for record in records]
        if not any(record.seed is not None for record, _ in measured):
            return ""
        self._measured["reidentification"] = measured
        baseline = WARM_UP if WARM_UP in rows else RANDOM
        several = plan.pretrain_seeds > 1
        spread = f"mean±standard deviation of {plan.pretrain_seeds} pre-trainings" if several else "one pre-training"
        footer = conditions(plan.name, load_data(plan).corpus, reference, f"{spread}; Impr against {baseline}; ")
        footer += [self._changed(reference, fine_tuned=False)]
        footer += [line for name, cells in rows.items() for line in self._against_warm_up(name, cells)]
        unfinished = [name for name, cells in rows.items() if any(self.store.get(cell) is None for cell in cells)]
        if unfinished:
            footer.append(f"Not finished: {', '.join(unfinished)}.")
        table = table_2([record for record, _ in measured], (*PLAIN, *rows), footer, baseline)
        self._write_table("reidentification", table)
        return table.text()

    def _against_warm_up(self, name: str, cells: Sequence[Reidentification]) -> list[str]:
        """Say what a method adds to its own warm-up, if all its pre-trainings are finished and had one."""
        found = [
            (ours["metrics"], theirs["metrics"])
            for cell in cells
            if (before := self.grid.before(cell)) is not None
            if (ours := self.store.get(cell)) is not None and (theirs := self.store.get(before)) is not None
        ]
        if len(found) < len(cells):
            return []
        gains = []
        for metric in found[0][0]:
            own, start = ([one[side][metric] for one in found] for side in (0, 1))
            p = f" (p {paired(own, start):.3f})" if len(found) > 1 else ""
            gains.append(f"{metric} {100 * (fmean(own) - fmean(start)):+.2f}{p}")
        test = "; two-sided paired t-test over pre-trainings" if len(found) > 1 else ""
        return [f"{name} against its own warm-up, in percentage points: {', '.join(gains)}{test}."]

    def _efficiencies(self, row: Row) -> list[Efficiency]:
        """One entry per finished pre-training of a row."""
        starts = dict.fromkeys(row.start(seed) for seed in range(row.pretrain_seeds))
        found = []
        for start in starts:
            result = None if start is None else self.store.get(start)
            if start is None or result is None or not result["stages"]:
                continue
            *before, own = result["stages"]
            warm_up = start.needs()
            apart = None if warm_up is None else self.store.get(warm_up)
            warmed = apart["stages"][-1]["seconds"] if apart else 0.0
            filler = sum(stage["seconds"] for stage in before)
            found.append(
                Efficiency(
                    row.name,
                    own["seconds"] / 3600,
                    warmed / 3600 if warmed else None,
                    own["seconds"] / own["epochs"],
                    result["users_trained_on"] * own["epochs"] / own["seconds"],
                    own["selected_epoch"],
                    result["peak_memory_mb"],
                    place(result["conditions"]),
                    filler / 3600 if filler else None,
                )
            )
        return found

    def _write_table(self, stem: str, table: Table2 | PrintedTable) -> None:
        for suffix, text in (("md", table.markdown()), ("csv", table.csv()), ("tex", table.latex())):
            path = self.folder / f"{stem}.{suffix}"
            write_text(path, text)
            self.files.append(path)

    def _conditions(self, rows: Sequence[Row], controlled: bool) -> list[str]:
        """Describe how the numbers of a table were computed."""
        plan = self.plan
        lines = self._setting(plan.seeds, plan.pretrain_seeds, controlled, "x 100; Impr against None", plan.splits)
        if controlled:
            chosen = "; ".join(
                f"{row.name} {', '.join(f'{name} {value:g}' for name, value in row.chosen.items())}"
                for row in rows
                if row.chosen
            )
            if chosen:
                runs = "one run" if plan.tuning_seeds == 1 else f"{plan.tuning_seeds} runs"
                lines.append(f"Chosen on validation rows ({runs} of fine-tuning for a value): {chosen}.")
                lines.append(f"Chosen from: {self._candidates()}.")
        lines.append(f"Computed on: {'; '.join(self._devices(rows))}.")
        unfinished = [row.name for row in rows if any(self.store.get(cell) is None for cell in row.cells(plan.tasks))]
        if unfinished:
            lines.append(f"Not finished: {', '.join(unfinished)}.")
        if untuned := [row.name for row in rows if not row.settled]:
            lines.append(f"Not tuned yet, τ and strength as the method comes: {', '.join(untuned)}.")
        if plan.note:
            lines.append(plan.note)
        return lines

    def _candidates(self) -> str:
        """Say which values tuning tries; if there are none, methods keep their own."""
        plan = self.plan
        tried = (("temperature", plan.temperatures), ("rho", plan.strengths), ("scale", plan.scales))
        return "; ".join(
            f"{name} {', '.join(f'{value:g}' for value in values) if values else 'as the method comes'}"
            for name, values in tried
        )

    def _setting(self, runs: int, pretrainings: int, controlled: bool, numbers: str, splits: int = 1) -> list[str]:
        """Describe splits, runs, number format and options."""
        plan = self.plan
        found = [result for cell in _baseline_cells(plan) if (result := self.store.get(cell)) is not None]
        sizes = list(dict.fromkeys(result["size"] for result in found))
        reference = plan.recipe("adaptssr", controlled)
        seeds = "one pre-training" if pretrainings == 1 else f"{pretrainings} pre-trainings"
        each = "" if splits == 1 else " on each split"
        fine_tuned = "one run" if runs == 1 else f"{runs} runs"
        lines = [
            f"{plan.name}: {', '.join(sizes)}; split 6:2:2 ({splits_shown(reference.split_seed, splits)}), newest "
            f"{reference.max_len} items; mean±standard deviation of {fine_tuned} of fine-tuning{each} from {seeds}; "
            f"{numbers}.",
            self._changed(reference),
        ]
        if reference.ft_tune == "linear":
            lines.append(LINEAR)
        if controlled:
            own = ", ".join(f"{name} {value}" for name, value in plan.controlled.items())
            lines.append(
                "Controlled comparison: every method from the same start and with the same epochs"
                + (f" ({own})." if own else ".")
            )
        return lines

    def _changed(self, reference: Recipe, fine_tuned: bool = True) -> str:
        """Say which options are not the paper's: for all rows, and for AdaptSSR alone."""
        plan = self.plan
        for_all = {*plan.recipe("none", False, item_init=reference.item_init).departures(), *plan.controlled}
        changed = {
            name: f"{name} {here}"
            for name, (_, here) in reference.departures().items()
            if fine_tuned or not name.startswith("ft_")
        }
        shared = ", ".join(text for name, text in changed.items() if name in for_all)
        own = ", ".join(text for name, text in changed.items() if name not in for_all)
        return (
            f"Options that differ from the paper's, for all rows: {shared or 'none'}{own and f'; for AdaptSSR: {own}'}."
        )

    def _devices(self, rows: Sequence[Row]) -> list[str]:
        seen: dict[str, None] = {}
        for row in rows:
            for cell in row.cells(self.plan.tasks):
                for one in (cell, cell.start):
                    result = None if one is None else self.store.get(one)
                    if result is not None:
                        where = result["conditions"]
                        seen[f"{place(where)}, torch {where['versions']['torch']}"] = None
        return list(seen)

    # --- figures -------------------------------------------------------------------------------------------------

    def figure(self, number: int) -> None:
        """Draw a figure of the paper from finished cells."""
        if number == 5:
            self._figure_5()
            return
        tasks = {3: self.plan.tasks[:1], 7: self.plan.tasks[1:], 4: self.plan.tasks}[number]
        for task in tasks:
            name, metric = self.grid.name_and_metric(task)
            ending = f"{self._reading}-{name}" if len(tasks) > 1 else self._reading
            stem = self.folder / f"figure-{number}{ending}"
            draw = self._figure_4 if number == 4 else self._robustness
            where = ["" if self._reading else "one pre-training seed"]
            where += [f"means of {self.plan.splits} splits"] * (number != 4 and self.plan.splits > 1)
            draw(
                stem, task, dataset=self.plan.name, task=name, metric=metric, conditions=", ".join(filter(None, where))
            )

    def _robustness(self, stem: Path, spec: TaskSpec, **about: Any) -> None:
        points = self.grid.robustness()
        curves = _curves((method, loss, rho, self._test_values(row, spec)) for method, loss, rho, row in points)
        if not curves:
            return
        lines = {
            row.name: self._test_values(row, spec)
            for row in self.grid.table(controlled=True)
            if row.name in (PAPER_ROWS[0], WARM_UP)
        }
        self.files += draw_robustness(
            curves,
            stem,
            none=lines.get(PAPER_ROWS[0], ()),
            warm_up=lines.get(WARM_UP, ()),
            tfidf=self._tfidf(about["task"]),
            **about,
        )

    def robustness_of_reidentification(self) -> None:
        """Draw Figure 3 by re-identification instead of a task."""
        grid, runs = self.grid, self.plan.pretrain_seeds
        points = grid.robustness_of_reidentification()
        curves = _curves((method, loss, rho, grid.hit_rates(cells)) for method, loss, rho, cells in points)
        if not curves:
            return
        rows = grid.reidentification()
        self.files += draw_robustness(
            curves,
            self.folder / "figure-3-reidentification",
            none=grid.hit_rates(rows[RANDOM]),
            warm_up=grid.hit_rates(rows.get(WARM_UP, ())),
            dataset=self.plan.name,
            task="re-identification",
            metric=FIGURE_METRIC,
            conditions=f"lines: {runs} seeds" if runs > 1 else "lines: one seed",
        )

    def _figure_4(self, stem: Path, spec: TaskSpec, **about: Any) -> None:
        groups, lambdas = self.grid.ablation()
        bars = [
            Bar(row.name, found, group)
            for group, rows in groups.items()
            for row in rows
            if (found := self._test_values(row, spec))
        ]
        if not bars:
            return
        curves = {
            name: {
                value: found for value, row in lambdas.items() if (found := self.grid.values(row.cells((spec,)), split))
            }
            for name, split in (("validation", "valid"), ("test", "test"))
        }
        self.files += draw_ablation(bars, stem, lambdas=curves if curves["test"] else None, **about)

    def _figure_5(self) -> None:
        panels, cells = {}, self.grid.similarities()
        for name in rows_in_order(self._encoder_rows, cells, "cells"):
            result = self.store.get(cells[name])
            if result is not None:
                samples = {curve: np.asarray(values) for curve, values in result["samples"].items()}
                panels[name] = SimilarityDistributions(
                    **samples, mask_ratio=result["mask_ratio"], crop_ratio=result["crop_ratio"]
                )
        if panels:
            self.files += draw_similarity(panels, self.folder / "figure-5", corpus=self.plan.name)

    def _test_values(self, row: Row, task: TaskSpec) -> list[float]:
        """Test values of finished runs; of several splits, the mean over them, once all are finished."""
        values = self.grid.values(row.cells((task,)), "test")
        if row.splits == 1:
            return values
        return (
            [fmean(values[run :: row.runs]) for run in range(row.runs)] if len(values) == row.runs * row.splits else []
        )

    # --- records -------------------------------------------------------------------------------------------------

    def write_all_records(self) -> None:
        """Write the long form of every table, and the values that tuning tried."""
        for name, measured in self._measured.items():
            if measured:
                records = [record for record, _ in measured]
                where = [{**one["versions"], "computed_on": place(one)} for _, one in measured]
                self.files.append(write_records(self.folder / f"records-{name}.csv", records, where))
        if self.plan.tasks and (tried := list(self._tried())):
            lines = [("method", "option", "value", "strength", "valid", "runs"), *tried]
            self.files.append(self.folder / f"tuning{self._reading}.csv")
            write_text(self.files[-1], csv_text(lines))

    def _tried(self) -> Iterator[tuple[object, ...]]:
        """Validation values of all cells that tuning compared."""
        self.grid.table(controlled=True)
        for row, score in self.grid.tried:
            recipe = row.recipe
            option = "scale" if row.name == TUNED else "temperature"
            strength = f"mask {recipe.mask_ratio:g}, crop {recipe.crop_ratio:g}, fill {recipe.fill_ratio:g}"
            yield row.name, option, getattr(recipe, option), strength, f"{100 * score:.3f}", row.seeds

    def _of_row(self, row: Row) -> list["_Measured"]:
        recipe, rho = row.recipe, row.chosen.get("rho")
        contrastive = recipe.loss == "infonce" and recipe.method not in ("none", "peterrec", "ptum")
        tau = recipe.temperature if contrastive else None
        measured: list[_Measured] = []
        for cell in row.cells(self.plan.tasks):
            if (result := self.store.get(cell)) is not None:
                name, _ = self.grid.name_and_metric(cell.task)
                blank = Record(
                    self.plan.name, name, row.name, recipe.preset, recipe.warm_start, rho, tau, cell.seed, "", "", 0.0,
                    result["best_epoch"], result["pretrain_epoch"], result["seconds"], result["peak_memory_mb"],
                    recipe.split_seed + cell.split,
                )  # fmt: skip
                records = of_metrics(blank, result["valid"], result["test"])
                measured += [(record, result["conditions"]) for record in records]
        return measured

    def _baselines(self) -> list["_Measured"]:
        return [
            (replace(Record(**record), split_seed=cell.recipe.split_seed + cell.split), result["conditions"])
            for cell in _baseline_cells(self.plan)
            if (result := self.store.get(cell)) is not None
            for record in result["records"]
        ]

    def _chosen(self, records: Sequence[Record]) -> list[Record]:
        """Keep the metric by which each task's epochs are chosen."""
        metrics = dict(self.grid.name_and_metric(task) for task in self.plan.tasks)
        return [record for record in records if metrics.get(record.task) == record.metric]

    def _tfidf(self, task: str) -> float | None:
        wanted = (TFIDF, task, "test")
        return next((one.value for one, _ in self._baselines() if (one.method, one.task, one.split) == wanted), None)


def _curves(points: Iterable[tuple[str, str, float, list[float]]]) -> list[Curve]:
    """Gather the finished points (method, loss, ρ, values) of each method and loss."""
    values: dict[tuple[str, str], dict[float, list[float]]] = {}
    for method, loss, rho, found in points:
        if found:
            values.setdefault((method, loss), {})[rho] = found
    return [Curve(method, loss, by_rho) for (method, loss), by_rho in values.items()]


_Measured = tuple[Record, Mapping[str, Any]]  # a value, and the conditions that it was computed under


def place(where: Mapping[str, Any]) -> str:
    """Say where a cell was computed, and how many others beside it: its seconds depend on that."""
    threads = "one thread" if where["threads"] == 1 else f"{where['threads']} threads"
    beside = f", {where['jobs']} cells side by side" if where["jobs"] > 1 else ""
    return f"{where['device']} ({where['machine']}, {threads}{beside})"
