"""The cells of tables and figures, and their results; values are chosen on validation rows alone."""

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ...downstream import ProfileTask
from ...methods import Recipe
from ...methods.options.fine_tuning import FineTuningOptions
from ..records import SVD_START, WARM_UP, paper_name
from ..reidentification import RANDOM
from .cells import (
    DEFAULTS,
    Cell,
    FineTuning,
    LabelCurve,
    Pretraining,
    Reidentification,
    Similarities,
    task_of,
    warm_up_of,
)
from .plan import ComparePlan, TaskSpec
from .store import Store

TUNED = "AdaptSSR, tuned"
CONTRASTIVE = ("clue", "ccl", "idicl", "cl4srec", "coserec", "duorec")
# The options that are a method's augmentation strength ρ: the share that is changed. Cropping keeps 1 - ρ.
_STRENGTHS: Mapping[str, Sequence[str]] = {
    "cl4srec": ("mask_ratio", "reorder_ratio", "crop_ratio"),
    "coserec": ("mask_ratio", "reorder_ratio", "crop_ratio", "substitute_ratio", "insert_ratio"),
    "ccl": ("fill_ratio",),
    "adaptssr": ("mask_ratio", "reorder_ratio", "crop_ratio"),
}
ROBUSTNESS = ("cl4srec", "coserec", "ccl")
FIGURE_METRIC = "HR@10"  # of re-identification


def strength(method: str, rho: float) -> dict[str, float]:
    """Options that give a method's operators the strength ρ; empty for a method without one."""
    return {name: round(1 - rho, 6) if name == "crop_ratio" else rho for name in _STRENGTHS.get(method, ())}


@dataclass(frozen=True)
class Row:
    """A row of a table, a bar or a point: fine-tuning from models of one recipe."""

    name: str
    recipe: Recipe  # with the seed of the first pre-training
    seeds: int  # runs of fine-tuning
    pretrain_seeds: int = 1
    chosen: Mapping[str, float] = dataclasses.field(default_factory=dict)  # tuned values
    settled: bool = True  # False while tuning is unfinished; the recipe is then the untuned one
    splits: int = 1  # random splits of a task's rows, each with all runs

    @property
    def runs(self) -> int:
        """Runs per split; linear reading of a pre-trained model is deterministic, so it has one run per model."""
        linear = self.recipe.ft_tune == "linear" and self.start(0) is not None
        return min(self.seeds, self.pretrain_seeds) if linear else self.seeds

    def start(self, seed: int) -> Pretraining | None:
        """Return the model from which a run of fine-tuning starts."""
        if self.recipe.method == "none" and self.recipe.item_init == "random":
            return None
        return _start(self.recipe, self.recipe.seed + seed % self.pretrain_seeds)

    def cells(self, tasks: Sequence[TaskSpec]) -> list[FineTuning]:
        """All cells of the row."""
        starts = [self.start(number) for number in range(min(self.seeds, self.pretrain_seeds))]
        return [
            FineTuning(starts[seed % len(starts)], task, self.recipe, seed, split)
            for split in range(self.splits)
            for seed in range(self.runs)
            for task in tasks
        ]


_FINE_TUNING = [one.name for one in dataclasses.fields(FineTuningOptions)]


@cache
def _start(recipe: Recipe, seed: int) -> Pretraining:
    return Pretraining(dataclasses.replace(recipe, seed=seed, **{name: DEFAULTS[name] for name in _FINE_TUNING}))


class Grid:
    """Rows of tables and figures from a plan and the finished results.

    Every method returns what the results allow so far, and collects the cells that it needs as a side effect. After
    asking for tables and figures, :attr:`cells` are all cells that can be named, in the order in which they should be
    computed; :attr:`later` counts the others, and :attr:`tried` is what tuning compared.
    """

    def __init__(self, plan: ComparePlan, store: Store) -> None:
        self.plan = plan
        self.store = store
        self.later = 0
        self.tried: list[tuple[Row, float]] = []
        self._cells: dict[str, Cell] = {}
        self._tables: dict[bool, list[Row]] = {}
        self._reference = plan.recipe("none", False)

    @property
    def cells(self) -> list[Cell]:
        """The cells asked for so far, finished or not."""
        return list(self._cells.values())

    def ask(self, cells: Sequence[Cell]) -> bool:
        """Record cells as needed; tells whether all of them are finished."""
        for cell in cells:
            self._cells.setdefault(cell.key(self.store.fingerprint), cell)
        return all(self.store.get(cell) is not None for cell in cells)

    # --- tables ------------------------------------------------------------------------------------------------

    def table(self, controlled: bool) -> list[Row]:
        """Rows of Table 2, in the paper's form or controlled.

        Rows as they are before tuning come first, so that there is a table.
        """
        if controlled not in self._tables:
            self._tables[controlled] = self._rows(controlled)
        return self._tables[controlled]

    def _rows(self, controlled: bool) -> list[Row]:
        plan = self.plan
        rows = [self._row(paper_name(one), plan.recipe(one, controlled)) for one in plan.methods]
        if controlled:
            rows += [*self._svd_start(), *self._warm_up()]
            rows += [self._row(name, plan.recipe("adaptssr", True, **one)) for name, one in plan.rows.items()]
        for row in rows:
            self.ask(row.cells(plan.tasks))
        if not controlled:
            return rows
        rows = [
            self._tuned(row, plan.temperatures, "temperature") if row.recipe.method in CONTRASTIVE else row
            for row in rows
        ]
        if "adaptssr" in plan.methods and plan.scales:
            row = self._row(TUNED, plan.recipe("adaptssr", True))
            rows += [row for row in [self._tuned(row, plan.scales, "scale")] if row.settled]
        for row in rows:
            self.ask(row.cells(plan.tasks))
        return rows

    def _row(self, name: str, recipe: Recipe) -> Row:
        """Make a row of Table 2, with all runs of the plan."""
        return Row(name, recipe, self.plan.seeds, self.plan.pretrain_seeds, splits=self.plan.splits)

    def _svd_start(self, **options: Any) -> list[Row]:
        """Make the row of the untrained encoder, if models start from an SVD's item vectors."""
        if self.plan.recipe("adaptssr", True).item_init == "random":
            return []
        recipe = self.plan.recipe("none", True, item_init="svd", **options)
        return [self._row(SVD_START, recipe)]

    def _warm_up(self, **options: Any) -> list[Row]:
        """Make the row of the common start: a method that does not improve on it has added nothing."""
        full = self.plan.recipe("adaptssr", True, **options)
        if "adaptssr" not in self.plan.methods or full.warm_start != "mlm":
            return []
        fine_tuning: dict[str, Any] = {name: getattr(full, name) for name in _FINE_TUNING}
        recipe = dataclasses.replace(warm_up_of(full), **fine_tuning)
        return [self._row(WARM_UP, recipe)]

    def _tuned(self, row: Row, values: Sequence[float], option: str) -> Row:
        """Choose one option, then ρ with it; until then the row is unchanged and not settled."""
        steps: list[tuple[str, list[tuple[float | None, dict[str, Any]]]]] = []
        if values:
            steps.append((option, [(value, {option: value}) for value in values]))
        if row.recipe.method in _STRENGTHS and self.plan.strengths:
            strengths = [(rho, strength(row.recipe.method, rho)) for rho in self.plan.strengths]
            steps.append(("rho", [(None, {}), *strengths]))  # the method's default strength, too
        chosen: dict[str, float] = {}
        recipe = row.recipe
        for number, (name, candidates) in enumerate(steps):
            tried = [(value, dataclasses.replace(recipe, **options)) for value, options in candidates]
            rows = [Row(row.name, one, self.plan.tuning_seeds) for _, one in tried]
            scores = [self.validation(one) for one in rows]
            self.tried += [(one, score) for one, score in zip(rows, scores, strict=True) if score is not None]
            if any(score is None for score in scores):
                self._count_later(row, [candidates for _, candidates in steps[number + 1 :]])
                return dataclasses.replace(row, settled=False)
            best = max(range(len(tried)), key=lambda index: scores[index] or 0.0)
            value, recipe = tried[best]
            if value is not None:
                chosen[name] = value
        return dataclasses.replace(row, recipe=recipe, chosen=chosen)

    def _count_later(self, row: Row, steps: Sequence[Sequence[Any]]) -> None:
        """Count the cells of steps that cannot be named yet: a pre-training and its fine-tuning for every value."""
        tasks = len(self.plan.tasks)
        self.later += sum(map(len, steps)) * (self.plan.tuning_seeds * tasks + 1) + row.runs * row.splits * tasks

    def validation(self, row: Row) -> float | None:
        """Mean over tasks and runs of the selection metric on validation rows; None while unfinished."""
        cells = row.cells(self.plan.tasks)
        if not self.ask(cells):
            return None
        return statistics.fmean(self.values(cells, "valid"))

    def values(self, cells: Sequence[FineTuning], split: str) -> list[float]:
        """The selection metric of finished cells, in their order."""
        return [
            float(result[split][self.name_and_metric(cell.task)[1]])
            for cell in cells
            if (result := self.store.get(cell)) is not None
        ]

    def hit_rates(self, cells: Sequence[Reidentification]) -> list[float]:
        """The metric of Figure 3 in re-identification of finished cells, in their order."""
        results = [result for cell in cells if (result := self.store.get(cell)) is not None]
        return [float(result["metrics"][FIGURE_METRIC]) for result in results]

    def name_and_metric(self, spec: TaskSpec) -> tuple[str, str]:
        """Name and selection metric of a task."""
        task = task_of(self.plan, spec, self._reference)
        return task.name, task.metric_name

    # --- figures -----------------------------------------------------------------------------------------------

    def robustness(self) -> Iterator[tuple[str, str, float, Row]]:
        """Points of Figures 3 and 7: method, loss, ρ, and the row; all from the controlled start.

        A row has one pre-training; for linear reading, which is deterministic, each of its runs has another one.
        """
        plan = self.plan
        tuned = {row.name: row for row in self.table(controlled=True)}
        for method in self._robustness_methods():
            base = tuned[paper_name(method)]
            if not base.settled:
                self.later += 2 * len(plan.figure_strengths) * plan.figure_seeds * len(plan.tasks)
                continue
            for label, rho, recipe in self._strengths(method, base.recipe.temperature):
                pretrainings = plan.figure_seeds if recipe.ft_tune == "linear" else 1
                name = f"{base.name} {label} {rho:g}"
                row = Row(name, recipe, plan.figure_seeds, pretrainings, splits=plan.splits)
                self.ask(row.cells(plan.tasks))
                yield paper_name(method), label, rho, row

    def robustness_of_reidentification(self) -> Iterator[tuple[str, str, float, list[Reidentification]]]:
        """Points of Figure 3 in re-identification: method, loss, ρ, and a cell per pre-training.

        InfoNCE's temperature is the one that re-identifies best at the method's own strength, from one pre-training.
        """
        plan = self.plan
        for method in self._robustness_methods():
            candidates = {
                tau: Reidentification(Pretraining(plan.recipe(method, True, history="older", temperature=tau)))
                for tau in plan.temperatures
            }
            if candidates and not self.ask(list(candidates.values())):
                self.later += 2 * len(plan.figure_strengths) * plan.figure_seeds
                continue
            found = dict(zip(candidates, self.hit_rates(list(candidates.values())), strict=True))
            temperature = max(found, key=lambda tau: found[tau], default=plan.recipe(method, True).temperature)
            for label, rho, recipe in self._strengths(method, temperature, history="older"):
                cells = self._reidentifications(recipe, plan.figure_seeds)
                self.ask(cells)
                yield paper_name(method), label, rho, cells

    def _robustness_methods(self) -> list[str]:
        return [method for method in ROBUSTNESS if method in self.plan.methods]

    def _strengths(self, method: str, temperature: float, **options: Any) -> Iterator[tuple[str, float, Recipe]]:
        """Recipes of a method at every ρ of the figures, under InfoNCE and under the loss of the plan's AdaptSSR."""
        plan, ranking = self.plan, self.plan.recipe("adaptssr", True)
        same = {"curriculum": "none"} if method == "ccl" else {}
        losses: dict[str, dict[str, Any]] = {
            "original": {"loss": "infonce", "temperature": temperature},
            "AdaptSSR": {"loss": "adaptssr", "scale": ranking.scale, "negatives": ranking.negatives},
        }
        for label, loss in losses.items():
            for rho in plan.figure_strengths:
                yield label, rho, plan.recipe(method, True, **loss, **same, **strength(method, rho), **options)

    def ablation(self) -> tuple[dict[str, list[Row]], dict[float, Row]]:
        """Bars of Figure 4 by group, and the rows of the constant values of λ."""
        plan = self.plan

        def row(name: str, method: str = "adaptssr", **options: Any) -> Row:
            made = Row(name, plan.recipe(method, True, **options), plan.ablation_seeds)
            self.ask(made.cells(plan.tasks))
            return made

        lambdas = {value: row(f"λ = {value:g}", lambda_mode="const", lambda_value=value) for value in plan.lambdas}
        scores = {value: self.validation(one) for value, one in lambdas.items()}
        paper = [row("AdaptSSR"), row("w/o hard negatives", negatives="all")]
        if lambdas and all(score is not None for score in scores.values()):
            best = max(scores, key=lambda value: scores[value] or 0.0)
            paper.append(dataclasses.replace(lambdas[best], name=f"w/o adaptive fusion (λ = {best:g})"))
        paper.append(row("w/o ranking (InfoNCE)", loss="infonce"))
        variants = [row(name, **options) for name, options in plan.variants.items()]
        warm_up = [
            dataclasses.replace(one, seeds=plan.ablation_seeds, pretrain_seeds=1, splits=1) for one in self._warm_up()
        ]
        others = [
            *warm_up,
            row("implicit only (CLUE)", method="clue"),
            row("hardest negative only (Eq. 8)", loss="infonce", negatives="hardest"),
        ]
        for one in warm_up:
            self.ask(one.cells(plan.tasks))
        return {"paper": paper, "variants": variants, "comparison": others}, lambdas

    def variants(self) -> list[Row]:
        """AdaptSSR as in the controlled comparison, its warm-up and its variants, each from several pre-trainings."""
        plan = self.plan

        def row(name: str, recipe: Recipe) -> Row:
            made = Row(name, recipe, plan.ablation_seeds, min(plan.pretrain_seeds, plan.ablation_seeds))
            self.ask(made.cells(plan.tasks))
            return made

        return [
            row("AdaptSSR", plan.recipe("adaptssr", True)),
            *(row(one.name, one.recipe) for one in self._warm_up()),
            *(row(name, plan.recipe("adaptssr", True, **options)) for name, options in plan.variants.items()),
        ]

    def label_curves(self) -> dict[TaskSpec, list[tuple[str, LabelCurve]]]:
        """Name and cell of all rows of the curve over labels, for each profile task."""
        plan, found = self.plan, {}
        if not plan.label_curve:
            return {}
        for task in plan.tasks:
            if not isinstance(task_of(plan, task, self._reference), ProfileTask):
                continue
            what = (plan.label_curve, plan.splits)
            cells = [("", LabelCurve(None, task, self._reference, 0, *what, plain=True))]
            cells += [
                (row.name, LabelCurve(row.start(seed), task, row.recipe, seed, *what))
                for row in self.table(controlled=True)
                for seed in range(min(row.seeds, plan.pretrain_seeds))
            ]
            self.ask([cell for _, cell in cells])
            found[task] = cells
        return found

    def reidentification(self) -> dict[str, list[Reidentification]]:
        """Rows of re-identification, a cell per pre-training: random weights, starts, untuned methods, the plan's rows.

        All are trained on the older halves of histories, from the controlled start.
        """
        plan = self.plan

        def cells(recipe: Recipe) -> list[Reidentification]:
            return self._reidentifications(recipe, plan.pretrain_seeds)

        recipes = {paper_name(method): plan.recipe(method, True, history="older") for method in plan.methods}
        recipes.pop(paper_name("none"), None)
        recipes |= {name: plan.recipe("adaptssr", True, history="older", **one) for name, one in plan.rows.items()}
        rows = {RANDOM: cells(plan.recipe("none", True, history="older"))}
        starts = [*self._svd_start(history="older"), *self._warm_up(history="older")]
        rows |= {row.name: cells(row.recipe) for row in starts}
        rows |= {name: cells(recipe) for name, recipe in recipes.items()}
        for row in rows.values():
            self.ask(row)
            self.ask([before for cell in row if (before := self.before(cell))])
        return rows

    @staticmethod
    def _reidentifications(recipe: Recipe, pretrain_seeds: int) -> list[Reidentification]:
        seeds = [dataclasses.replace(recipe, seed=recipe.seed + number) for number in range(pretrain_seeds)]
        return [Reidentification(Pretraining(one)) for one in seeds]

    @staticmethod
    def before(cell: Reidentification) -> Reidentification | None:
        """Return the cell of a model's own warm-up, if it has one."""
        warm_up = cell.start.needs()
        return None if warm_up is None else Reidentification(warm_up)

    def similarities(self) -> dict[str, Similarities]:
        """Panels of Figure 5: a model of each row of the controlled table that has one."""
        cells = {}
        for row in self.table(controlled=True):
            start = row.start(0)
            if start is not None:
                cells[row.name] = Similarities(start)
        self.ask(list(cells.values()))
        return cells
