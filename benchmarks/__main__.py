"""``python -m benchmarks NAME``: measure on this machine and write CSV to ``benchmarks/results/``."""

import argparse
from pathlib import Path

from benchmarks import loss, masked_items, methods_table, recbole_runs

RESULTS = Path(__file__).parent / "results"
BENCHMARKS = {
    "loss": loss.run,
    "masked_items": masked_items.run,
    "recbole": recbole_runs.run,
    "recbole_metrics": recbole_runs.metrics_over_seeds,
    "methods": methods_table.run,
}
_HELP = (
    "loss: forward and backward, and memory, against other forms; "
    "masked_items: the same of cross-entropy over up to a million items; "
    "recbole: training epochs of SASRec on ml-100k by RecBole as it comes and by this package; "
    "recbole_metrics: what faster_layers does to the metrics, over seeds; "
    "methods: every pre-training method under its losses on ml-100k"
)


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=BENCHMARKS, help=_HELP)
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats: shows that it runs")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the CSV")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    BENCHMARKS[arguments.name](arguments.output, quick=arguments.quick)


if __name__ == "__main__":
    main()
