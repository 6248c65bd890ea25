"""Figure 4: AdaptSSR with parts removed or changed, and the curve over constant λ."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...downstream.significance import Summary, relative_improvement, shown, shown_decimals, summarise
from ...errors import InputError
from ..tables import csv_text
from .drawing import draw_band, label_percent, percent_cells, save_figure, seeds_shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Groups by their names under the bars, with colour and hatching: distinguishable in grey too.
_GROUPS = {
    "paper": ("the paper's Figure 4", "#56B4E9", ""),
    "variants": ("additional variants", "#E69F00", "///"),
    "comparison": ("for comparison", "#BBBBBB", "..."),
}
# A legend below an axis and its label, whatever the height of the figure.
_BELOW: dict[str, Any] = {
    "loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 5, "frameon": False, "fontsize": "small",
}  # fmt: skip


@dataclass(frozen=True)
class Bar:
    """Test values of one variant."""

    label: str
    values: Sequence[float]  # by seed, fractions in [0, 1]
    group: str = "paper"  # of _GROUPS


def draw_ablation(
    bars: Sequence[Bar],
    path_stem: str | Path,
    *,
    dataset: str,
    task: str,
    metric: str,
    conditions: str = "",
    lambdas: Mapping[str, Mapping[float, Sequence[float]]] | None = None,
) -> list[Path]:
    """Draw a bar for each variant, and a second panel with the curve over constant λ if it is given.

    Writes, beside each other, ``STEM.png``, ``STEM.svg``, ``STEM.csv`` (label, group, mean, std, n and the change
    against the first bar; in percent) and, with a curve, ``STEM-lambda.csv`` (lambda, split, mean, std, n).

    The first bar is the full method, which the others are compared with. ``lambdas`` has values by seed for each
    constant λ, under "validation", by which λ is chosen (the smaller one on a tie), and under "test".

    Raises:
        InputError: a label twice.
    """
    labels = [bar.label for bar in bars]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise InputError(f"bars: expected each label once, got {twice[0]} twice")
    means = [summarise(bar.values) for bar in bars]
    title = f"Ablation of AdaptSSR: {task} ({metric})"
    below = ", ".join(filter(None, [dataset, seeds_shown(means), conditions]))
    points = {
        name: {constant: summarise(curve[constant]) for constant in sorted(curve)}
        for name, curve in (lambdas or {}).items()
    }
    texts = {".csv": _bars_csv(bars, means)}
    if points:
        texts["-lambda.csv"] = _lambda_csv(points)
    return save_figure(_figure(bars, means, points, metric, f"{title}\n{below}"), Path(path_stem), texts)


Points = Mapping[str, Mapping[float, Summary]]  # by split and λ


def _figure(bars: Sequence[Bar], means: Sequence[Summary], points: Points, metric: str, title: str) -> "Figure":
    from matplotlib.figure import Figure

    height = max(1.9 + 0.42 * len(bars), 4.2 if points else 0.0)
    figure = Figure(figsize=(11.5 if points else 7.5, height), layout="constrained")
    axes = figure.subplots(1, 1 + bool(points), squeeze=False, width_ratios=[1.5, 1] if points else None)[0]
    _draw_bars(axes[0], bars, means, metric)
    if points:
        _draw_lambda(axes[1], points, means[0], metric)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_axisbelow(True)
    figure.suptitle(title, fontsize="medium")
    return figure


def _draw_bars(ax: "Axes", bars: Sequence[Bar], means: Sequence[Summary], metric: str) -> None:
    """Horizontal bars, since their labels are long, with whiskers of one standard deviation; values on the right."""
    places = _places(bars)
    ends = [100 * mean.mean + (0.0 if math.isnan(mean.std) else 100 * mean.std) for mean in means]
    starts = [2 * 100 * mean.mean - end for mean, end in zip(means, ends, strict=True)]
    # Differences have to be visible: the axis starts a little below the smallest value, and says so.
    span = max(max(ends) - min(starts), 0.5)
    left = max(0.0, math.floor(min(starts) - 0.35 * span))
    several = len({bar.group for bar in bars}) > 1
    for group, (label, colour, hatch) in _GROUPS.items():
        mine = [i for i, bar in enumerate(bars) if bar.group == group]
        if not mine:
            continue
        ax.barh(
            [places[i] for i in mine], [100 * means[i].mean - left for i in mine], left=left, height=0.7,
            color=colour, hatch=hatch, edgecolor="black", linewidth=0.6, label=label if several else None,
        )  # fmt: skip
    decimals = shown_decimals(mean.mean for mean in means)
    for i, mean in enumerate(means):
        if not math.isnan(mean.std):
            ax.errorbar(100 * mean.mean, places[i], xerr=100 * mean.std, color="black", capsize=3, linewidth=1.2)
        value = _value_label(mean, means[0], first=i == 0, decimals=decimals)
        ax.text(1.02, places[i], value, transform=ax.get_yaxis_transform(), va="center", fontsize="small")
    ax.axvline(100 * means[0].mean, color="0.35", linewidth=1, linestyle="--", label=f"level of {bars[0].label}")
    ax.set_yticks(places, [bar.label for bar in bars], fontsize="small")
    ax.invert_yaxis()
    ax.set_xlim(left, max(ends) + 0.04 * (max(ends) - left))
    ax.set_xlabel(f"{metric} × 100" + (f" (axis starts at {left:g})" if left else ""))
    ax.legend(**_BELOW, ncols=2)


def _places(bars: Sequence[Bar]) -> list[float]:
    """Heights of the bars, with a gap where the group changes."""
    places, place = [], 0.0
    for i, bar in enumerate(bars):
        place += 0.5 * (i > 0 and bar.group != bars[i - 1].group)
        places.append(place)
        place += 1
    return places


def _value_label(mean: Summary, full: Summary, first: bool, decimals: int) -> str:
    value, change = shown(mean, decimals), relative_improvement(mean.mean, full.mean, decimals)
    # Adding 0 turns a rounded -0.0 into +0.0.
    return value if first or math.isnan(change) else f"{value}  ({round(change, 1) + 0.0:+.1f} %)".replace("-", "−")


def _draw_lambda(ax: "Axes", points: Points, full: Summary, metric: str) -> None:
    """Both curves over λ, the full method's level, and the λ that validation chose."""
    styles = {"validation": ("#D55E00", "--", "s", "white"), "test": ("#0072B2", "-", "o", "#0072B2")}
    for name, (colour, style, marker, face) in styles.items():
        draw_band(
            ax, points[name], color=colour, alpha=0.14, linestyle=style, marker=marker, markersize=5,
            markerfacecolor=face, linewidth=1.7, label=name,
        )  # fmt: skip
    ax.axhline(100 * full.mean, color="0.35", linewidth=1, linestyle="--", label="adaptive λ (test)")
    chosen = max(points["validation"], key=lambda constant: points["validation"][constant].mean)
    ax.axvline(chosen, color="0.35", linewidth=1.2, linestyle=":", label=f"best on validation: λ = {chosen:g}")
    ax.set_xlabel("constant λ")
    label_percent(ax, metric)
    ax.set_title("w/o adaptive fusion: constant λ", fontsize="small")
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    ax.legend(**_BELOW, ncols=2, handlelength=3)


def _bars_csv(bars: Sequence[Bar], means: Sequence[Summary]) -> str:
    lines = [["label", "group", "mean", "std", "n", "change"]]
    places = shown_decimals(mean.mean for mean in means)
    for i, (bar, mean) in enumerate(zip(bars, means, strict=True)):
        change = relative_improvement(mean.mean, means[0].mean, places)
        shown_change = "" if i == 0 or math.isnan(change) else f"{change:.2f}"
        lines.append([bar.label, bar.group, *percent_cells(mean), shown_change])
    return csv_text(lines)


def _lambda_csv(points: Points) -> str:
    lines = [["lambda", "split", "mean", "std", "n"]]
    for split, curve in points.items():
        lines += [[f"{constant:g}", split, *percent_cells(mean)] for constant, mean in curve.items()]
    return csv_text(lines)
