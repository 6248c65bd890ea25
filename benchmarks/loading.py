"""Loading interactions for a sequential model: unmodified RecBole against this package's reader within it.

Timed is everything before a model: RecBole's ``create_dataset`` (reading, filtering, numbering) and
``data_preparation`` (prefixes, split, loaders). Users have on average as many behaviours as in Amazon Beauty, items are
drawn by a power law, times are Unix seconds; no public file of this size comes with the project. Every measurement has
a separate process; the two loaders take turns.
"""

import importlib.util
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.support.measure import child_environment, conditions, free_bytes, is_over, status_mb, write_csv

SEED = 2020
SIZES = {1_000_000: 3, 10_000_000: 1}  # interactions: rounds
MEAN_LENGTH = 8.9
# Bytes at the peak for each interaction. RecBole holds lists of 50 items and times, twice.
LOADERS = {"RecBole": 1800, "this package": 700}


def run(output: Path, quick: bool) -> None:
    """Measure, print and write ``loading.csv``."""
    if importlib.util.find_spec("recbole") is None:
        print("loading: left out, RecBole is not installed")
        return
    rows: list[dict[str, object]] = []
    for size, rounds in ({2000: 1} if quick else SIZES).items():
        import torch

        if rows and is_over(f"{size:,} interactions"):
            break
        free = free_bytes(torch.device("cpu"))
        loaders = [loader for loader, a_row in LOADERS.items() if a_row * size <= free]
        for loader in [loader for loader in LOADERS if loader not in loaders]:
            needed = f"{LOADERS[loader] * size / 1e9:.0f} GB of free memory"
            print(f"{size:>10,} interactions  {loader:12s} left out, it needs some {needed}")
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "many"
            write_interactions(folder, size)
            found: dict[str, list[dict[str, float]]] = {loader: [] for loader in loaders}
            for number in range(rounds):
                for loader in loaders[:: 1 if number % 2 else -1]:
                    found[loader].append(_load(loader, folder))
        stock = median(each["seconds"] for each in found.get("RecBole", [{"seconds": math.nan}]))
        for loader, measured in found.items():
            middle = {key: median(each[key] for each in measured) for key in measured[0]}
            rows.append(
                {
                    "interactions": size,
                    "loader": loader,
                    "create_dataset_seconds": round(middle["create"], 2),
                    "data_preparation_seconds": round(middle["seconds"] - middle["create"], 2),
                    "seconds": round(middle["seconds"], 2),
                    "times_as_fast_as_recbole": round(stock / middle["seconds"], 2),
                    "peak_mb": round(middle["peak_mb"]),
                    "rounds": rounds,
                    **conditions(SEED),
                }
            )
            print(
                f"{size:>10,} interactions  {loader:12s} {middle['seconds']:7.1f} s  {middle['peak_mb']:7.0f} MB  "
                f"{stock / middle['seconds']:5.2f} x as fast as RecBole",
                flush=True,
            )
        write_csv(output / "loading.csv", rows)


def write_interactions(folder: Path, size: int) -> None:
    """Write a dataset with the given number of interactions, unordered, whose files have the folder's name."""
    random = np.random.default_rng(SEED)
    users = random.integers(0, round(size / MEAN_LENGTH), size)
    items = (random.pareto(1.2, size) * 1000).astype(np.int64) % max(size // 20, 100)
    times = random.integers(1_600_000_000, 1_700_000_000, size)
    folder.mkdir(parents=True)
    with (folder / f"{folder.name}.inter").open("w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(
            f"u{user}\ti{item}\t{moment}\n"
            for user, item, moment in zip(users.tolist(), items.tolist(), times.tolist(), strict=True)
        )


def _load(loader: str, folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.loading", loader, str(folder)],
        capture_output=True, text=True, check=False, env=child_environment(), cwd=folder.parent,
    )  # fmt: skip
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"loading by {loader} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    result: dict[str, float] = json.loads(lines[0])
    return result


def _measured(loader: str, folder: Path) -> dict[str, float]:
    """Load in this process; returns seconds and peak memory, imports included."""
    options = {"data_path": str(folder.parent), "train_neg_sample_args": None, "log_wandb": False,
               "load_col": {"inter": ["user_id", "item_id", "timestamp"]}}  # fmt: skip
    if loader == "RecBole":
        from benchmarks.support.recbole_process import patch

        patch()
    else:
        from adaptssr_plugin.recbole import install

        install()
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation

    config = Config(model="SASRec", dataset=folder.name, config_dict=options)
    started = time.perf_counter()
    dataset = create_dataset(config)
    created = time.perf_counter() - started
    data_preparation(config, dataset)
    peak_mb = status_mb()["VmHWM"]
    return {"create": created, "seconds": time.perf_counter() - started, "peak_mb": peak_mb}


if __name__ == "__main__":
    which, place = sys.argv[1:]
    sys.argv = sys.argv[:1]  # RecBole reads the command line of any program that calls it
    print("RESULT " + json.dumps(_measured(which, Path(place))), flush=True)
