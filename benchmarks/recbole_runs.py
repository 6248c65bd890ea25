"""Training steps of SASRec: unmodified RecBole against this package, with the flag off and on, one cause a row."""

import importlib.util
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from adaptssr_plugin.corpus.formats.converters import convert_lines
from benchmarks.support.measure import (
    child_environment,
    conditions,
    default_device,
    free_bytes,
    is_over,
    quantiles,
    write_csv,
)

SEED = 2020  # RecBole's own
DATASET = "ml-100k-ranks"
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "RecBole": ("stock", {}),
    "RecBole, anomaly mode off": ("stock_anomaly_off", {}),
    **{
        f"ssl_loss: {loss}{', faster_layers' if faster else ''}": (
            "ours",
            {"ssl_loss": loss, "ssl_mode": "joint", "faster_layers": faster},
        )
        for loss in ("none", "infonce", "adaptssr")
        for faster in (False, True)
    },
}
_BYTES_AT_WORK, _BYTES_AT_REST = 2.8e9, 0.9e9  # of a process
_FEWEST_ROUNDS, _SECONDS = 5, 600.0  # on a data set: no round but the fewest begins later
_QUICK = {"MAX_ITEM_LIST_LENGTH": 5, "hidden_size": 8, "inner_size": 8, "train_batch_size": 8192}


def run(output: Path, quick: bool, lines: Path | None = None) -> None:
    """Measure, print and write ``recbole.csv``, as it goes: on ml-100k, and on ``lines``.

    An epoch of RecBole alone takes minutes on a processor. So every run has a separate process, which trains its first
    epoch a step at a time when its turn comes. In each round every run takes two steps, of which the second counts, in
    another order, so that a slowdown of the machine affects all of them. Seconds per epoch are computed, not measured:
    the number of its steps times the median seconds of a step; the last, smaller batch of an epoch counts as a whole
    one. ``lines`` is a text file of histories, ``user item item ...``.
    """
    if importlib.util.find_spec("recbole") is None:
        print("recbole: left out, RecBole is not installed")
        return
    needed, free = _BYTES_AT_WORK + _BYTES_AT_REST * len(RUNS), free_bytes(torch.device("cpu"))
    if not quick and needed > free:
        print(f"recbole: left out, its processes need some {needed / 1e9:.0f} GB together, {free / 1e9:.0f} are free")
        return
    rows: list[dict[str, Any]] = []
    for data in (None, lines) if lines else (None,):
        rows += _measured(data, output / "recbole.csv", rows, quick)
        for row in rows[-len(RUNS) :]:
            print(
                f"{row['data']:14s} {row['run']:32s} {row['median_ms']:8.0f} ms per step  {row['step_mb']:6.0f} MB  "
                f"{row['computed_seconds_per_epoch']:7.1f} s per epoch  {row['times_as_fast_as_recbole']:5.2f} x as "
                f"fast as RecBole  its losses: {row['losses_as_recbole']}"
            )


def _measured(lines: Path | None, path: Path, before: list[dict[str, Any]], quick: bool) -> list[dict[str, Any]]:
    """Measure on one data set, and write its rows behind those before."""
    started = time.perf_counter()
    warm_up, rounds = (1, 2) if quick else (2, 15)
    sizes = _QUICK if quick else {}
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        runs = {}
        for name, (which, options) in RUNS.items():
            runs[name] = stack.enter_context(_stepwise(which, {**sizes, **options, "epochs": 1}, lines))
            runs[name].take(warm_up)
            print(f"{name}: started, {warm_up} steps to warm up", flush=True)
        order = random.Random(SEED)
        for number in range(rounds):
            if number >= _FEWEST_ROUNDS and time.perf_counter() - started > _SECONDS:
                break
            if number > 1 and is_over(f"round {number + 1}"):
                break
            for name in order.sample(list(runs), len(runs)):
                runs[name].take(1)
            rows = [
                {"data": DATASET if lines is None else lines.stem, **row, **conditions(SEED, ("recbole",))}
                for row in _rows(runs, warm_up, number + 1).values()
            ]
            write_csv(path, [*before, *rows])
    return rows


class _Steps:
    """A run that takes steps when it is told."""

    def __init__(self, process: "subprocess.Popen[str]", errors: Path) -> None:
        self._process, self._errors = process, errors
        self.steps_per_epoch: int = self._answer()["steps_per_epoch"]
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.step_mb = 0.0

    def take(self, steps: int) -> None:
        """Take a step that does not count, and then steps; note how long each of these took on the average."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.seconds.append(answer["seconds"] / steps)
        self.losses += answer["losses"]
        self.step_mb = answer["step_mb"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("RESULT "):
                answer: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
                return answer
        said = self._errors.read_text(encoding="utf-8").strip()[-2000:]
        raise SystemExit(f"a run of RecBole ended with {self._process.wait()}: {said}")


@contextmanager
def _stepwise(which: str, options: dict[str, Any], lines: Path | None = None) -> Iterator[_Steps]:
    """Start a run in a separate process and working directory."""
    with tempfile.TemporaryDirectory() as directory:
        if lines is None:
            write_ml_100k(Path(directory))
        else:
            convert_lines([lines], Path(directory) / DATASET, name=DATASET, show_progress=False)
            options = {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}, **options}
        errors = Path(directory) / "errors.txt"
        with errors.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                _command(which, "steps", options), cwd=directory, env=child_environment(),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True,
            )  # fmt: skip
        try:
            yield _Steps(process, errors)
        finally:
            process.kill()
            process.communicate()


def _rows(runs: dict[str, _Steps], warm_up: int, rounds: int) -> dict[str, dict[str, Any]]:
    measured = {name: quantiles(run.seconds[1:]) for name, run in runs.items()}  # the first are those to warm up
    stock = next(iter(runs))
    return {
        name: {
            "run": name,
            **measured[name],
            "step_mb": round(run.step_mb),
            "steps": rounds,
            "warm_up": warm_up,
            "steps_per_epoch": run.steps_per_epoch,
            "computed_seconds_per_epoch": round(run.steps_per_epoch * measured[name]["median_ms"] / 1e3, 2),
            "times_as_fast_as_recbole": round(measured[stock]["median_ms"] / measured[name]["median_ms"], 3),
            "losses_as_recbole": "yes" if run.losses == runs[stock].losses else "no",
            "note": "median_ms: of a step; step_mb: most held in training less before; seconds of an epoch computed",
        }
        for name, run in runs.items()
    }


def metrics_over_seeds(output: Path, quick: bool) -> None:
    """Metrics with ``faster_layers`` and without over seeds, print and write ``recbole-metrics.csv``.

    With it, other random numbers are drawn from the same distributions, so only the spread over seeds can tell whether
    the models are the same. A small SASRec, so that several runs fit into minutes.
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


def _process(which: str, options: dict[str, Any]) -> dict[str, Any]:
    """Run in a separate process and working directory, where RecBole leaves its files."""
    with tempfile.TemporaryDirectory() as directory:
        write_ml_100k(Path(directory))
        done = subprocess.run(
            _command(which, "run", options), cwd=directory, env=child_environment(),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
            return result
    raise SystemExit(f"{which} {options}: {done.stderr[-2000:]}")


def write_ml_100k(folder: Path) -> None:
    """Write ml-100k with every time replaced by its rank.

    RecBole compares times in float32, which cannot represent Unix seconds exactly: 82 of the 943 histories are out of
    order, with this package none. From ranks both make the same rows, so that losses can be compared digit by digit.
    """
    import recbole

    source = Path(recbole.__file__).parent / "dataset_example" / "ml-100k" / "ml-100k.inter"
    header, *lines = source.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    rank = {moment: number for number, moment in enumerate(sorted({int(row[3]) for row in rows}))}
    (folder / DATASET).mkdir()
    with (folder / DATASET / f"{DATASET}.inter").open("w", encoding="utf-8") as file:
        file.write(header + "\n")
        file.writelines("\t".join([*row[:3], str(rank[int(row[3])])]) + "\n" for row in rows)


def _command(which: str, how: str, options: dict[str, Any]) -> list[str]:
    settings = {
        "model": "SASRec", "dataset": DATASET, "data_path": ".",
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]}, "train_neg_sample_args": None,
        "show_progress": False, "state": "error", "seed": SEED, "use_gpu": default_device().type == "cuda", **options,
    }  # fmt: skip
    return [sys.executable, "-m", "benchmarks.support.recbole_process", which, how, json.dumps(settings)]
