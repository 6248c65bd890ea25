"""Figures 3 and 7: the metric of a method at each augmentation strength ρ, under its own loss and AdaptSSR."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...downstream.significance import Summary, summarise
from ..records import PAPER_NAMES, TFIDF, WARM_UP, paper_name
from ..tables import csv_text, markdown_table
from .drawing import draw_band, label_percent, percent_cells, save_figure, seeds_shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The styles of the two losses: line style, marker and its filling also differ, for printing in grey.
_LOSSES = {"original": ("#D55E00", "--", "s", "white"), "AdaptSSR": ("#0072B2", "-", "o", "#0072B2")}
_LABELS = {"original": "original (InfoNCE)", "AdaptSSR": "+ AdaptSSR"}
_NONE = PAPER_NAMES["none"]


@dataclass(frozen=True)
class Curve:
    """Test values of one method under one loss."""

    method: str  # whose augmentations, e.g. "cl4srec"
    loss: str  # "original", the method's own (InfoNCE), or "AdaptSSR" on the same augmentations
    values: Mapping[float, Sequence[float]]  # for each ρ in (0, 1] by seed, fractions in [0, 1]

    @property
    def points(self) -> dict[float, Summary]:
        """Mean and spread by ρ, the smallest first."""
        return {rho: summarise(self.values[rho]) for rho in sorted(self.values)}


def draw_robustness(
    curves: Sequence[Curve],
    path_stem: str | Path,
    *,
    dataset: str,
    task: str,
    metric: str,
    none: Sequence[float] = (),
    warm_up: Sequence[float] = (),
    tfidf: float | None = None,
    conditions: str = "",
) -> list[Path]:
    """Draw metric against augmentation strength, one call for each task (Figure 3: T1; Figure 7: T4 and T6).

    Writes, beside each other, ``STEM.png``, ``STEM.svg``, ``STEM.csv`` with the points drawn (rho, method, loss,
    mean, std, n; in percent), and each curve in three numbers as ``STEM-summary.csv`` and ``STEM-summary.md``. Bands
    are ± one standard deviation over seeds. The folder is made.

    ``curves`` has each method and loss once. Horizontal lines are drawn for the values by seed without pre-training
    (``none``), for those of the start that all curves share (``warm_up``: a gain over None up to this line comes from
    the warm-up, not from the method), and for TF-IDF with logistic regression.
    """
    title = f"Robustness to the augmentation strength: {task} ({metric})"
    seeds = seeds_shown(point for curve in curves for point in curve.points.values())
    below = ", ".join(filter(None, [dataset, seeds, conditions]))
    figure = _figure(curves, none, warm_up, tfidf, metric, f"{title}\n{below}")
    texts = {".csv": _points_csv(curves, none, warm_up, tfidf)}
    texts["-summary.csv"], texts["-summary.md"] = _summary_texts(curves, none, f"{title}; {below}.")
    return save_figure(figure, Path(path_stem), texts)


def _figure(
    curves: Sequence[Curve],
    none: Sequence[float],
    warm_up: Sequence[float],
    tfidf: float | None,
    metric: str,
    title: str,
) -> "Figure":
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(paper_name(curve.method) for curve in curves))
    width, height = (1.2 + 2.9 * len(methods), 4.3) if len(methods) > 1 else (6.4, 5.2)
    figure = Figure(figsize=(max(width, 6.4), height), layout="constrained")
    axes = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
    for ax, method in zip(axes, methods, strict=True):
        _draw_lines(ax, none, warm_up, tfidf)
        for curve in curves:
            if paper_name(curve.method) == method:
                colour, style, marker, face = _LOSSES[curve.loss]
                draw_band(
                    ax, curve.points, color=colour, alpha=0.16, linestyle=style, linewidth=1.8, marker=marker,
                    markersize=5.5, markerfacecolor=face, label=_LABELS[curve.loss],
                )  # fmt: skip
        ax.set_title(method, fontsize="medium", fontweight="bold")
        ax.set_xlabel("augmentation strength ρ")
        ax.set_xticks(sorted({rho for curve in curves for rho in curve.values}))
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    label_percent(axes[0], metric)
    figure.suptitle(title, fontsize="medium")
    by_label = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    columns = len(by_label) if len(methods) > 1 else 2
    figure.legend(
        by_label.values(), by_label.keys(), loc="outside lower center", ncols=columns, frameon=False,
        fontsize="small", handlelength=3.5,
    )  # fmt: skip
    return figure


def _draw_lines(ax: "Axes", none: Sequence[float], warm_up: Sequence[float], tfidf: float | None) -> None:
    """The horizontal lines: None with a thin band, the warm-up in dots and dashes, TF-IDF dotted."""
    if len(none):
        level = summarise(none)
        if not math.isnan(level.std):
            ax.axhspan(
                100 * (level.mean - level.std), 100 * (level.mean + level.std), color="0.5", alpha=0.15, linewidth=0
            )
        ax.axhline(100 * level.mean, color="0.25", linewidth=1.3, linestyle="-", label=f"{_NONE} (no pre-training)")
    if len(warm_up):
        ax.axhline(100 * summarise(warm_up).mean, color="0.25", linewidth=1.3, linestyle="-.", label=WARM_UP)
    if tfidf is not None:
        ax.axhline(100 * tfidf, color="0.25", linewidth=1.3, linestyle=":", label=TFIDF)


def _points_csv(curves: Sequence[Curve], none: Sequence[float], warm_up: Sequence[float], tfidf: float | None) -> str:
    lines = [["rho", "method", "loss", "mean", "std", "n"]]
    for curve in curves:
        name = paper_name(curve.method)
        lines += [[f"{rho:g}", name, curve.loss, *percent_cells(point)] for rho, point in curve.points.items()]
    levels = {_NONE: none, WARM_UP: warm_up, TFIDF: () if tfidf is None else (tfidf,)}
    lines += [["", name, "", *percent_cells(summarise(values))] for name, values in levels.items() if len(values)]
    return csv_text(lines)


def _summary_texts(curves: Sequence[Curve], none: Sequence[float], conditions: str) -> tuple[str, str]:
    """Each curve in three numbers, as CSV and as Markdown.

    These are the best mean less the worst, the mean over ρ less None's, both in points of a percent, and the share of ρ
    whose mean lies below None's (negative transfer); the last two only if there is None.
    """
    numbers: list[list[object]] = [["method", "loss", "n_rho", "range_points", "gain_points", "negative_share"]]
    lines = [["Method", "Loss", "Best − worst over ρ", "Mean gain over None", "Share of ρ below None"]]
    for curve in curves:
        method, means = paper_name(curve.method), [point.mean for point in curve.points.values()]
        n_rho, spread = len(means), 100 * (max(means) - min(means))
        exact, shown = ["", ""], ["-", "-"]
        if len(none):
            floor = summarise(none).mean
            gain, below = 100 * (sum(means) / n_rho - floor), sum(mean < floor for mean in means)
            exact, shown = [f"{gain:.4f}", f"{below / n_rho:.4f}"], [f"{gain:+.2f}", f"{below} of {n_rho}"]
        numbers.append([method, curve.loss, n_rho, f"{spread:.4f}", *exact])
        lines.append([method, _LABELS[curve.loss], f"{spread:.2f}", *shown])
    return csv_text(numbers), markdown_table(lines, [conditions, "Differences of means in points (× 100)."], left=2)
