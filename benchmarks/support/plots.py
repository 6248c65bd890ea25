"""Pictures of the results, drawn from their CSV files only."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# Okabe and Ito's colours and two more differ in lightness; markers and line styles tell lines apart in grey, too.
_COLOURS = (
    "#0072B2", "#D55E00", "#000000", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8B0000", "#6A3D9A",
)  # fmt: skip
_MARKERS = "osD^vP*X<>"
_DASHES = ("-", "--", "-.", ":")


class Point(NamedTuple):
    """A median between its quantiles; ``low`` and ``high`` are None if there is only one measurement."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a result file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def median_point(row: Mapping[str, str], x: str) -> Point:
    """Read a row's median and quantiles in milliseconds, at the number in its column ``x``."""
    return Point(float(row[x]), float(row["median_ms"]), float(row["q20_ms"]), float(row["q80_ms"]))


def hardware(row: Mapping[str, str]) -> str:
    """Say in one line on what a row was measured: the last line of a title."""
    where = f"{row['processor']}, {row['threads']} threads" if row["device"] == "cpu" else row["device"]
    return f"{where}, torch {row['torch']}, commit {row['commit']}"


def line_chart(
    path: Path, lines: Mapping[str, Sequence[Point]], *, title: str, x_label: str, y_label: str, from_zero: bool = False
) -> None:
    """Draw lines over two logarithmic axes, with a band from ``low`` to ``high``, and save them as PNG.

    With ``from_zero`` the vertical axis is linear and begins at 0, for what hardly changes. The first line is the
    thickest. One without points is not drawn, but the others look as if it were: so the same candidates look the same
    in several pictures.
    """
    from matplotlib.figure import Figure  # not in every process that measures

    figure = Figure(figsize=(8.5, 4.8), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(lines.items()):
        if not points:
            continue
        points = sorted(points)
        colour = _COLOURS[number % len(_COLOURS)]
        style = _DASHES[number % len(_DASHES)]
        xs = [point.x for point in points]
        axes.plot(
            xs, [point.y for point in points], style, color=colour, label=name, markersize=5,
            marker=_MARKERS[number % len(_MARKERS)], linewidth=1.5 if number else 2.5, zorder=2 if number else 3,
        )  # fmt: skip
        lows = [point.y if point.low is None else point.low for point in points]
        highs = [point.y if point.high is None else point.high for point in points]
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.2, linewidth=0)
    places = sorted({point.x for points in lines.values() for point in points})
    axes.set_xscale("log", base=4 if places[-1] > 64 * places[0] else 2)  # few enough labels to stand apart
    if len(places) <= 2:
        axes.set_xticks(places)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if from_zero:
        axes.set_ylim(0, None)
    else:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_minor_formatter(_plain if high < 100 * low else "")
    axes.yaxis.set_major_formatter(_plain)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title, x=0.01, horizontalalignment="left", fontsize="medium")
    figure.savefig(path, dpi=120, metadata={"Software": None})
    print(f"wrote {path}")


def _plain(value: float, _: object) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:.4g}"
