"""Drawing the paper's Figure 5."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.experiments.figures.drawing import save_figure
from adaptssr_plugin.experiments.figures.similarity import GRID, SimilarityDistributions, density
from adaptssr_plugin.experiments.tables import csv_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Each curve has a different line style, so that colours are not needed; the colours also differ in lightness (Okabe and
# Ito's, safe for colour-blind readers).
_STYLES = {
    "masked": ("#0072B2", "-"),
    "cropped": ("#D55E00", "--"),
    "other": ("#000000", ":"),
}
_TALLEST = 12.0  # a panel is at most this many times as high as its curve of other users


def draw_similarity(
    panels: Mapping[str, SimilarityDistributions], path_stem: str | Path, *, corpus: str = ""
) -> list[Path]:
    """Draw the similarity distributions of several encoders, a small panel for each.

    Writes, beside each other, ``STEM.png`` and ``STEM.svg`` (the same bytes for the same input and version
    of matplotlib), ``STEM.csv`` with the curves drawn (panel, similarity, one density for each curve) and
    ``STEM-numbers.csv`` with :meth:`SimilarityDistributions.numbers`.

    Args:
        panels: distributions by the title of their panel, from left to right and top to bottom; all with
            the same number of users and the same ratios, which are printed above and below the panels.
        path_stem: path without ending; its folder is made.
        corpus: what the users are from, for the title, e.g. "ml-100k, last 100 behaviours".

    Returns:
        The four paths.

    Raises:
        InputError: no panels, or panels measured under different conditions.
    """
    conditions = {(len(panel.other), panel.mask_ratio, panel.crop_ratio) for panel in panels.values()}
    if len(conditions) != 1:
        raise InputError(
            "panels: expected at least one, all with the same users, mask_ratio and crop_ratio, "
            f"got {sorted(conditions)}"
        )
    densities = {
        title: {name: density(sample) for name, sample in panel.curves.items()} for title, panel in panels.items()
    }
    texts = {".csv": _curves_csv(densities), "-numbers.csv": _numbers_csv(panels)}
    return save_figure(_figure(panels, densities, corpus), Path(path_stem), texts)


def _figure(
    panels: Mapping[str, SimilarityDistributions],
    densities: Mapping[str, Mapping[str, np.ndarray]],
    corpus: str,
) -> "Figure":
    from matplotlib.figure import Figure

    columns = min(len(panels), 2 if len(panels) == 4 else 3)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(0.8 + 3.6 * columns, 1.3 + 2.9 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, gridspec_kw={"hspace": 0.06})
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax, (title, panel) in zip(axes.flat, panels.items(), strict=False):
        _draw_panel(ax, title, panel, densities[title])
    for ax in axes[:, 0]:
        ax.set_ylabel("density")
    first = next(iter(panels.values()))
    conditions = ", ".join(filter(None, [f"{len(first.other):,} users", corpus, "dropout off"]))
    figure.suptitle(f"Similarity of user encodings\n{conditions}", fontsize="medium")
    labels = {
        "masked": f"same user, {first.mask_ratio:.0%} of the behaviours masked",
        "cropped": f"same user, cropped to {first.crop_ratio:.0%} of the behaviours",
        "other": "another user",
    }
    handles = [line for line in axes.flat[0].get_lines() if line.get_label() in labels]
    figure.legend(
        handles,
        [labels[str(line.get_label())] for line in handles],
        loc="outside lower center",
        ncols=len(labels) if columns > 2 else 1,
        frameon=False,
        fontsize="small",
        handlelength=3.5,
    )
    return figure


def _draw_panel(ax: "Axes", title: str, panel: SimilarityDistributions, densities: Mapping[str, np.ndarray]) -> None:
    for name, (colour, style) in _STYLES.items():
        ax.plot(GRID, densities[name], color=colour, linestyle=style, linewidth=1.8, label=name)
    ax.fill_between(GRID, densities["other"], color="0.9", zorder=0)
    numbers = panel.numbers()
    lines = [
        f"{heading}: " + ", ".join(f"{name} {numbers[name][key]:.2f}" for name in ("masked", "cropped"))
        for key, heading in (("overlap", "overlap"), ("separation", "separation (AUC)"))
    ]
    ax.set_title(title, fontsize="medium", fontweight="bold", pad=30)
    # Below the title, since a curve can be anywhere inside.
    ax.text(0.5, 1.03, "\n".join(lines), transform=ax.transAxes, ha="center", fontsize="small")
    ax.set_xlabel("cosine similarity")
    ax.set_xlim(-1, 1)
    ax.set_xticks([-1, -0.5, 0, 0.5, 1])
    peak = max(float(heights.max()) for heights in densities.values())
    # A thin peak would flatten everything else; if it is cut, the panel prints its height.
    top = min(1.05 * peak, _TALLEST * float(densities["other"].max()))
    ax.set_ylim(0, top)
    if peak > top:
        place = max(densities.values(), key=lambda heights: heights.max()).argmax()
        side = -1 if GRID[place] > 0 else 1
        ax.annotate(
            f"peak {peak:.0f}",
            (float(GRID[place]), top),
            xytext=(10 * side, -8),
            textcoords="offset points",
            ha="right" if side < 0 else "left",
            va="top",
            fontsize="small",
        )
    ax.spines[["top", "right"]].set_visible(False)


def _curves_csv(densities: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    lines = [["panel", "similarity", *_STYLES]]
    for title, curves in densities.items():
        rows = zip(GRID, *(curves[name] for name in _STYLES), strict=True)
        lines += [[title, *(f"{value:.6g}" for value in row)] for row in rows]
    return csv_text(lines)


def _numbers_csv(panels: Mapping[str, SimilarityDistributions]) -> str:
    names = ["mean", "p5", "p50", "p95", "overlap", "separation"]
    lines = [["panel", "curve", *names]]
    for title, panel in panels.items():
        for curve, numbers in panel.numbers().items():
            lines.append([title, curve, *(f"{numbers[n]:.4f}" if n in numbers else "" for n in names)])
    return csv_text(lines)
