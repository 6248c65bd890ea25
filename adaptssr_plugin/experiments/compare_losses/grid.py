"""Rows of the table, and the cells of each; one point of a row's grid is chosen on validation rows."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...recbole.recommender.settings import self_supervision
from ..compare.store import Store
from .cells import RecommenderRun
from .plan import LossPlan, has_own_loss

Point = Mapping[str, float]  # values of the options that a row chooses


@dataclass(frozen=True)
class Row:
    """A model under a loss."""

    share: float  # of the training users
    model: str
    loss: str  # none, infonce, adaptssr, or own for a model's published one
    mode: str = ""  # joint or pretrain; empty without an added loss
    item_init: str = "random"  # or svd, the initial item embedding

    @property
    def label(self) -> str:
        """The name of the loss in tables."""
        loss = f"{self.loss} ({self.mode})" if self.mode else {"own": "its own"}.get(self.loss, self.loss)
        return f"{loss}, SVD start" if self.item_init == "svd" else loss

    def options(self, point: Point) -> dict[str, Any]:
        """Return the options in which the row differs from others."""
        loss = {} if self.loss == "own" else {"ssl_loss": self.loss}
        mode = {"ssl_mode": self.mode} if self.mode else {}
        start = {"ssl_item_init": self.item_init} if self.item_init != "random" else {}
        return {**loss, **mode, **start, **point}

    def points(self, plan: LossPlan) -> list[dict[str, float]]:
        """List the points to try. For a model's own loss, its published values are among them."""
        if self.loss == "none":
            return [{}]
        scales = self.loss == "adaptssr"
        values = {"ssl_scale": plan.scales} if scales else {"ssl_temperature": plan.temperatures}
        if self.mode != "pretrain":
            values = {"ssl_weight": plan.weights, **values}
        points = [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]
        if self.loss == "own":
            published = self_supervision(self.model, {}).as_options()
            first = {name: published[name] for name in values}
            points = [first, *(one for one in points if one != first)]
        return points


def rows_of(plan: LossPlan) -> dict[Row, Row | None]:
    """List the rows from top to bottom, each with the one that it is tested against.

    A loss is tested against the model without it, or under its own, from the same item embedding; that one against the
    same from the first item embedding.
    """
    found: dict[Row, Row | None] = {}
    for share, model in itertools.product(plan.shares, plan.models):
        own = has_own_loss(model)
        first, *others = [Row(share, model, "own" if own else "none", item_init=one) for one in plan.item_inits]
        for plain in (first, *others):
            found[plain] = None if plain == first else first
            for loss, mode in itertools.product(plan.losses, plan.modes):
                if loss == "adaptssr" or (loss == "infonce" and not own):
                    found[replace(plain, loss=loss, mode=mode)] = plain
    return found


class Grid:
    """The cells and rows that the results so far allow to name."""

    def __init__(self, plan: LossPlan, store: Store) -> None:
        self.plan, self.store = plan, store
        found = rows_of(plan)
        self.rows = list(found)
        self.references = {row: reference for row, reference in found.items() if reference is not None}

    def wanted(self) -> tuple[list[RecommenderRun], int]:
        """Return all cells that can be named, and how many follow from them; the search comes first."""
        search = [cell for row in self.rows for cell in self._search(row)]
        chosen = {row: self.chosen(row) for row in self.rows}
        runs = [cell for row, point in chosen.items() if point is not None for cell in self.cells(row, point)]
        later = sum(self.plan.seeds - 1 for point in chosen.values() if point is None)
        return list(dict.fromkeys([*search, *runs])), later

    def chosen(self, row: Row) -> Point | None:
        """Return the point with the best validation value of the first seed, the first on a tie; None: unknown yet."""
        points = row.points(self.plan)
        if len(points) == 1:
            return points[0]
        scores = [score for _, score in self.tried(row)]
        return None if len(scores) < len(points) else points[max(range(len(points)), key=scores.__getitem__)]

    def tried(self, row: Row) -> list[tuple[Point, float]]:
        """Return the points whose search is finished, with their validation values."""
        found = zip(row.points(self.plan), map(self.store.get, self._search(row)), strict=True)
        return [(point, result["valid_score"]) for point, result in found if result is not None]

    def results(self, row: Row) -> list[Mapping[str, Any]]:
        """Return the results of the chosen point, by seed; empty until all are finished."""
        point = self.chosen(row)
        found = [] if point is None else list(map(self.store.get, self.cells(row, point)))
        return [result for result in found if result is not None] if None not in found else []

    def cells(self, row: Row, point: Point) -> list[RecommenderRun]:
        """Return the runs of a point, seed by seed."""
        return [self._cell(row, point, seed) for seed in range(self.plan.seeds)]

    def _search(self, row: Row) -> list[RecommenderRun]:
        return [self._cell(row, point, 0) for point in row.points(self.plan)]

    def _cell(self, row: Row, point: Point, seed: int) -> RecommenderRun:
        options = json.dumps(self.plan.options(row.options(point), seed), sort_keys=True)
        return RecommenderRun(self.plan.dataset, row.model, options, row.share)
