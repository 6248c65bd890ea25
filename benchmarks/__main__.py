"""``python -m benchmarks NAME``: measure on this machine, and write CSV and pictures to ``benchmarks/results/``.

If there is a CUDA device it is measured instead of the processor, and the files go to ``benchmarks/results/cuda/``.
"""

import argparse
import importlib
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.support import measure

RESULTS = Path(__file__).parent / "results"
# Name, module, function, and what it measures. `all` runs those of ALL one after another.
BENCHMARKS = {
    "loss": ("loss", "run", "forward, backward and memory of the losses, against other forms and packages"),
    "augment": ("augment", "run", "views of a whole batch at once against user by user"),
    "masked_items": ("masked_items", "run", "cross-entropy over up to a million items"),
    "step": ("step", "run", "whole pre-training steps against the usual way of writing one"),
    "scale": ("scale", "run", "pre-training from corpora of ten thousand to 1.5 million users"),
    "corpus": ("corpus", "run", "converting, opening and reading a corpus of 1.5 million users on disk"),
    "loading": ("loading", "run", "loading a million interactions and ten by RecBole and by this package"),
    "recbole": ("recbole_runs", "run", "steps of SASRec by unmodified RecBole and by this package, one cause a row"),
    "recbole_metrics": ("recbole_runs", "metrics_over_seeds", "what faster_layers does to the metrics, over seeds"),
    "kills": ("kills", "run", "a pre-training that is killed for half an hour against an undisturbed one"),
    "methods": ("methods_table", "run", "every pre-training method under its losses on ml-100k"),
}
ALL = ("loss", "augment", "masked_items", "step", "scale", "recbole")


def main() -> None:
    """Run one benchmark, or those of ``all``."""
    listed = "; ".join(f"{name}: {what}" for name, (_, _, what) in BENCHMARKS.items())
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=(*BENCHMARKS, "all"), help=f"{listed}; all: {', '.join(ALL)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats: shows that it runs")
    parser.add_argument("--output", type=Path, help="folder for CSV and pictures")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="what is measured; by default CUDA if there is any")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="per benchmark: no case starts later")
    parser.add_argument("--minutes", type=float, help="kills: how long to kill; 30 by default")
    parser.add_argument("--lines", type=Path, metavar="FILE", help="recbole: also these histories, user item item ...")
    parser.add_argument("--plot", action="store_true", help="measure nothing; draw the existing CSV files again")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: there is no CUDA device here")
    measure.use_device(arguments.device)
    device = measure.default_device().type
    output = arguments.output or (RESULTS if device == "cpu" else RESULTS / device)
    output.mkdir(parents=True, exist_ok=True)
    for name in ALL if arguments.name == "all" else (arguments.name,):
        measure.limit_seconds(arguments.limit)
        more = {"kills": {"minutes": arguments.minutes}, "recbole": {"lines": arguments.lines}}.get(name, {})
        _one(name, output, arguments.quick, arguments.plot, {key: value for key, value in more.items() if value})
    if arguments.name == "all" and device == "cpu":  # what is asked for is asked of a processor
        from benchmarks.support import summary

        summary.run(output)


def _one(name: str, output: Path, quick: bool, only_plot: bool, more: dict[str, Any]) -> None:
    module_name, function, _ = BENCHMARKS[name]
    module = importlib.import_module(f"benchmarks.{module_name}")
    started = time.perf_counter()
    if not only_plot:
        print(f"== {name}, on {measure.default_device()}", flush=True)
        getattr(module, function)(output, quick=quick, **more)
    if hasattr(module, "plot") and function == "run":
        module.plot(output)
    print(f"== {name}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
