"""Training epochs of SASRec on ml-100k: RecBole as it comes against this package, with the flag off and on."""

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import conditions, write_csv

SEED = 2020  # RecBole's own
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "RecBole": ("stock", {}),
    "ssl_loss: none": ("ours", {"ssl_loss": "none"}),
    "ssl_loss: none, faster_layers": ("ours", {"ssl_loss": "none", "faster_layers": True}),
    "ssl_loss: adaptssr": ("ours", {"ssl_loss": "adaptssr"}),
    "ssl_loss: infonce": ("ours", {"ssl_loss": "infonce"}),
}
_QUICK = {"MAX_ITEM_LIST_LENGTH": 5, "hidden_size": 8, "inner_size": 8, "train_batch_size": 8192}


def run(output: Path, quick: bool) -> None:
    """Measure, print and write ``recbole.csv``: a row per run and round, each written as soon as it is there.

    Started again, it goes on after the rows that the file holds of this commit.
    """
    path = output / "recbole.csv"
    rounds, epochs = 1, 1  # a round takes a quarter of an hour on two cores; remove the file for another
    rows = _rows_of_this_commit(path)
    for number in range(rounds):
        for name, (which, options) in RUNS.items():
            if any(row["run"] == name and int(row["round"]) == number for row in rows):
                continue
            done = _process(which, {**(_QUICK if quick else {}), **options, "epochs": epochs})
            rows.append(
                {
                    "run": name,
                    "round": number,
                    "epochs": epochs,
                    "seconds_per_epoch": round(statistics.median(epoch["seconds"] for epoch in done["epochs"]), 2),
                    "first_loss": json.dumps(done["epochs"][0]["loss"]),
                    "last_loss": json.dumps(done["epochs"][-1]["loss"]),
                    "valid": json.dumps(done["valid"]),
                    "test": json.dumps(done["test"]),
                    **conditions(SEED),
                }
            )
            write_csv(path, rows)
            print(f"round {number + 1}  {name:30s} {rows[-1]['seconds_per_epoch']:8.1f} s per epoch", flush=True)
    _compare(rows)


def metrics_over_seeds(output: Path, quick: bool) -> None:
    """Metrics with ``faster_layers`` and without over seeds, print and write ``recbole-metrics.csv``.

    The one draws other random numbers from the same distributions, so that only the spread over seeds can tell
    whether the models are the same. A small SASRec, so that several runs fit into minutes.
    """
    from scipy.stats import ttest_ind

    small = {"MAX_ITEM_LIST_LENGTH": 10, "hidden_size": 16, "inner_size": 32, "epochs": 4}
    rows: list[dict[str, Any]] = []
    for seed in range(2 if quick else 5):
        for name in ("ssl_loss: none", "ssl_loss: none, faster_layers"):
            done = _process("ours", {**small, **(_QUICK if quick else {}), **RUNS[name][1], "seed": seed})
            numbers = {f"{part}_{metric}": done[part][metric] for part in ("valid", "test")
                       for metric in ("recall@10", "ndcg@10", "mrr@10")}  # fmt: skip
            rows.append({"run": name, "last_loss": done["epochs"][-1]["loss"], **numbers, **conditions(seed)})
            print({key: rows[-1][key] for key in ("run", "seed", "last_loss", *numbers)}, flush=True)
    write_csv(output / "recbole-metrics.csv", rows)
    for number in ("last_loss", "valid_ndcg@10", "test_ndcg@10", "test_recall@10"):
        sides = [[row[number] for row in rows if row["run"] == name] for name in dict.fromkeys(r["run"] for r in rows)]
        means = " against ".join(f"{statistics.mean(side):.4f}±{statistics.stdev(side):.4f}" for side in sides)
        print(f"{number:15s} {means}, Welch's p = {ttest_ind(*sides, equal_var=False).pvalue:.2f}")


def _compare(rows: list[dict[str, Any]]) -> None:
    seconds = {name: statistics.median(float(row["seconds_per_epoch"]) for row in rows if row["run"] == name)
               for name in RUNS}  # fmt: skip
    for name, median in seconds.items():
        print(f"{name:30s} {median:8.1f} s per epoch  {seconds['RecBole'] / median:5.2f} x as fast as RecBole")


def _process(which: str, options: dict[str, Any]) -> dict[str, Any]:
    """Run in a process and a working directory of its own, where RecBole leaves its files."""
    settings = {"model": "SASRec", "dataset": "ml-100k", "train_neg_sample_args": None, "show_progress": False,
                "state": "error", "seed": SEED, **options}  # fmt: skip
    root = str(Path(__file__).parent.parent)
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.recbole_process", which, json.dumps(settings)],
            cwd=directory, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
            return result
    raise SystemExit(f"{which} {options}: {done.stderr[-2000:]}")


def _rows_of_this_commit(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [dict(row) for row in csv.DictReader(file) if row["commit"] == conditions(SEED)["commit"]]
