"""A pre-training that is killed again and again for half an hour, against an undisturbed one.

Both are commands on one thread each. The undisturbed one takes about a fifth of the time. The other one is killed by
SIGKILL after a random time, alternately at any moment and while it writes a checkpoint, and sometimes stopped by
SIGTERM, and started again until it ends; then the next begins, while there is time. The last is allowed to end.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.support.measure import conditions, write_csv

MINUTES, SEED = 30.0, 0
DATASET, CHECKPOINT_MINUTES = "ml-100k", 0.05
_TRAINING = 30.0  # seconds of training after which a kill comes at the latest
_SILENT: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
_STAGES = {"mlm": "mlm_epochs", "adaptssr": "epochs"}


@dataclass
class Fates:
    """How often it was started, and how it ended."""

    runs: int = 0
    kills: int = 0
    within_a_write: int = 0
    stops: int = 0
    resumes: int = 0


def run(output: Path, quick: bool, minutes: float = MINUTES) -> None:
    """Measure, print and write ``kills.csv``."""
    seconds, training = (20.0, 3.0) if quick else (60 * minutes, _TRAINING)
    with tempfile.TemporaryDirectory() as scratch:
        short, peace = Path(scratch) / "short", Path(scratch) / "peace"
        epochs, starting = _epochs(short, 0.2 * seconds)
        seconds = max(seconds, 3 * (starting + training))  # so that there is a kill on a slow machine too
        print(f"{DATASET}: {epochs['mlm_epochs']} epochs of masked items, {epochs['epochs']} of ranking", flush=True)
        started, fates = time.perf_counter(), Fates()
        killed: list[Path] = []
        with subprocess.Popen(_command(peace, epochs), env=_environment(), **_SILENT) as in_peace:
            while not killed or time.perf_counter() < started + seconds:
                killed.append(Path(scratch) / f"killed-{len(killed)}")
                _kill(killed[-1], epochs, started + seconds, (0.8 * starting, starting + training), fates)
                print(f"after {time.perf_counter() - started:.0f} s: {fates}", flush=True)
            ended = time.perf_counter() - started
            if in_peace.wait():
                raise RuntimeError(f"the undisturbed run ended with status {in_peace.returncode}")
        equal = all(_equal(folder, peace) for folder in killed)
        sizes = {"dataset": DATASET, **epochs, "checkpoint_minutes": CHECKPOINT_MINUTES}
        row = {**sizes, **vars(fates), "seconds": round(ended), "equal": equal}
    print(
        f"{fates.kills} kills, {fates.within_a_write} of them within the writing of a file, {fates.stops} SIGTERMs, "
        f"{fates.resumes} resumes of {fates.runs} runs in {ended:.0f} s: weights {'equal' if equal else 'DIFFER'}"
    )
    write_csv(output / "kills.csv", [{**row, **conditions(SEED)}])


def _command(folder: Path, epochs: dict[str, int]) -> list[str]:
    words = [sys.executable, "-m", "adaptssr_plugin", "pretrain", "--dataset", DATASET, "--output", str(folder)]
    words += ["--quiet", "--set", "use_gpu=False", "--checkpoint-minutes", str(CHECKPOINT_MINUTES)]
    words += ["--seed", str(SEED), "--stopping-step", str(max(epochs.values()))]  # none of them stops early
    return words + [word for name, value in epochs.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _epochs(folder: Path, seconds: float) -> tuple[dict[str, int], float]:
    """Return how many epochs take the given seconds here, a quarter of masked items, and the time of a start."""
    started = time.perf_counter()
    short = _command(folder, dict.fromkeys(_STAGES.values(), 2))
    subprocess.run(short, env=_environment(), check=True, **_SILENT)
    stages = json.loads((folder / "model.json").read_text(encoding="utf-8"))["stages"]
    starting = time.perf_counter() - started
    starting -= sum(epoch["seconds"] for stage in stages for epoch in stage["history"])
    took = {stage["name"]: min(epoch["seconds"] for epoch in stage["history"]) for stage in stages}
    shares = {"mlm": 0.25, "adaptssr": 0.75}
    epochs = {option: max(3, round(shares[name] * seconds / took[name])) for name, option in _STAGES.items()}
    return epochs, starting


def _kill(folder: Path, epochs: dict[str, int], until: float, after: tuple[float, float], fates: Fates) -> None:
    """Run to the end, with kills up to a given time."""
    source = random.Random(SEED + fates.runs)
    fates.runs += 1
    while True:
        with subprocess.Popen(_command(folder, epochs), env=_environment(), **_SILENT) as run_of_it:
            how = source.choice(["anywhere", "anywhere", "within a write", "within a write", "SIGTERM"])
            dies_at = time.perf_counter() + source.uniform(*after)
            while run_of_it.poll() is None and not dies_at < time.perf_counter() < until:
                time.sleep(0.01)
            if how == "within a write":
                while run_of_it.poll() is None and not _half_written(folder):
                    time.sleep(0.0005)
            run_of_it.send_signal(signal.SIGTERM if how == "SIGTERM" else signal.SIGKILL)
        if run_of_it.returncode == 0:
            return
        fates.resumes += 1
        if run_of_it.returncode == -signal.SIGKILL:
            fates.kills += 1
            fates.within_a_write += _half_written(folder)
        elif run_of_it.returncode in (143, -signal.SIGTERM):  # with a checkpoint, or before there was any training
            fates.stops += 1
        else:
            raise RuntimeError(f"a run ended with status {run_of_it.returncode}")


def _half_written(folder: Path) -> bool:
    return any(folder.glob("*/.*.tmp"))


def _equal(ours: Path, theirs: Path) -> bool:
    """Whether two runs ended with the same weights, optimiser and validation numbers, bit by bit."""
    if (ours / "model.safetensors").read_bytes() != (theirs / "model.safetensors").read_bytes():
        return False
    files = [file.relative_to(ours) for file in ours.glob("*/*.pt") if file.name != "previous.pt"]
    for file in files:
        one, other = (torch.load(folder / file, weights_only=True) for folder in (ours, theirs))
        for state in (one, other):
            for epoch in state.get("history", ()):
                epoch.pop("seconds")
        if not _same(one, other):
            return False
    return bool(files)


def _same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    return one == other
