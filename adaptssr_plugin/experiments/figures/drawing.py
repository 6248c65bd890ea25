"""Common parts of all figures: bands, labels, files. matplotlib is imported only when something is drawn."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptssr_plugin.downstream.significance import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def save_figure(figure: "Figure", stem: Path, texts: Mapping[str, str]) -> list[Path]:
    """Save as ``STEM.png`` and ``STEM.svg``, without dates, versions or random ids, and each text at its ending.

    The folder is made.
    """
    from matplotlib import rc_context

    png, svg, *others = paths = [stem.with_name(stem.name + ending) for ending in (".png", ".svg", *texts)]
    stem.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "adaptssr"}):
        figure.savefig(png, dpi=150, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None})
    for path, text in zip(others, texts.values(), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def draw_band(ax: "Axes", points: Mapping[float, Summary], *, color: str, alpha: float, **style: Any) -> None:
    """Draw a line through means in percent, with a band of one standard deviation on either side."""
    means = [100 * point.mean for point in points.values()]
    stds = [0.0 if math.isnan(point.std) else 100 * point.std for point in points.values()]
    low, high = ([m + sign * s for m, s in zip(means, stds, strict=True)] for sign in (-1, 1))
    ax.fill_between(list(points), low, high, color=color, alpha=alpha, linewidth=0)
    ax.plot(list(points), means, color=color, markeredgecolor=color, **style)


def label_percent(ax: "Axes", metric: str) -> None:
    """Label the vertical axis; if it starts above 0, the label says so."""
    start = ax.get_ylim()[0]
    ax.set_ylabel(f"{metric} × 100" + (f" (axis starts at {start:.1f})" if start > 0 else ""))


def seeds_shown(summaries: Iterable[Summary]) -> str:
    """Return the number of seeds behind each value, for a title."""
    counts = {summary.n for summary in summaries}
    least, most = min(counts), max(counts)
    if most == 1:
        return "one seed"
    return f"{most if least == most else f'{least} to {most}'} seeds (mean ± std)"


def percent_cells(summary: Summary) -> list[str]:
    """Mean and standard deviation in percent and the number of values, for CSV."""
    std = "" if math.isnan(summary.std) else f"{100 * summary.std:.4f}"
    return [f"{100 * summary.mean:.4f}", std, str(summary.n)]
