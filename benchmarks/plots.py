"""Pictures of the results, drawn from their CSV files alone."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

# Okabe and Ito's colours differ in lightness; markers and line styles tell the lines apart in grey, too.
_COLOURS = ("#0072B2", "#D55E00", "#000000", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
_MARKERS = "osD^vP*X"
_DASHES = ("-", "--", "-.", ":")


class Point(NamedTuple):
    """A median between its quantiles; ``low`` and ``high`` are None where there is one measurement."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a result file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def line_chart(path: Path, lines: Mapping[str, Sequence[Point]], *, title: str, x_label: str, y_label: str) -> None:
    """Draw lines over two logarithmic axes, with a band from ``low`` to ``high``, and save them as PNG."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(lines.items()):
        points = sorted(points)
        colour = _COLOURS[number % len(_COLOURS)]
        style = _DASHES[number % len(_DASHES)]
        xs = [point.x for point in points]
        axes.plot(
            xs, [point.y for point in points], style, color=colour, label=name, markersize=5,
            marker=_MARKERS[number % len(_MARKERS)],
        )  # fmt: skip
        lows = [point.y if point.low is None else point.low for point in points]
        highs = [point.y if point.high is None else point.high for point in points]
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.2, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def bar_chart(path: Path, bars: Mapping[str, float], *, title: str, x_label: str) -> None:
    """Draw horizontal bars from the top down, each with its value, and save them as PNG."""
    figure = Figure(figsize=(7.5, 1.2 + 0.4 * len(bars)), layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh(list(bars), list(bars.values()), color=_COLOURS[0])
    axes.bar_label(drawn, fmt=lambda value: f"{value:,.3g}", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(title=title, xlabel=x_label)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120, metadata={"Software": None})
    print(f"wrote {path}")
