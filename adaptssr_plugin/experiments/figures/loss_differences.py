"""Changes by losses, with intervals."""

from collections.abc import Mapping
from pathlib import Path

from adaptssr_plugin.downstream.significance import Interval
from adaptssr_plugin.experiments.figures.drawing import save_figure


def draw_differences(points: Mapping[str, Interval], path_stem: str | Path, *, dataset: str, metric: str) -> list[Path]:
    """Draw a change in percent with its 95 % interval for each label, from top to bottom; rows with NaN stay empty.

    Writes ``STEM.png`` and ``STEM.svg``; the folder is made.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.3 + 0.32 * len(points)), layout="constrained")
    ax = figure.subplots()
    ax.axvline(0, color="black", linewidth=0.8)
    for place, point in enumerate(points.values()):
        clear = point.low * point.high > 0
        ax.errorbar(
            point.mean, place, xerr=[[point.mean - point.low], [point.high - point.mean]], fmt="o", capsize=3,
            color="#0072B2", markerfacecolor="#0072B2" if clear else "white",
        )  # fmt: skip
    ax.set_yticks(range(len(points)), list(points))
    ax.set_ylim(len(points) - 0.5, -0.5)
    figure.supxlabel("change in %, 95 % interval over users (filled: 0 lies outside)", fontsize="medium")
    figure.suptitle(f"{dataset}: {metric} against the model without an added loss", fontsize="medium")
    ax.grid(axis="x", alpha=0.3)
    return save_figure(figure, Path(path_stem), {})
