"""Timing side by side, peak memory in a process of its own, and what a result has to say of its machine."""

import csv
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch


def side_by_side(candidates: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Time candidates in turn, A B C A B C …, so that a machine that slows down slows all of them: seconds each."""
    for candidate in candidates.values():
        candidate()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, candidate in candidates.items():
            started = time.perf_counter()
            candidate()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and the 20 % and 80 % quantiles, in milliseconds."""
    fifths = statistics.quantiles(seconds, n=5, method="inclusive")
    return {"median_ms": 1e3 * statistics.median(seconds), "q20_ms": 1e3 * fifths[0], "q80_ms": 1e3 * fifths[-1]}


def added_memory_mb(setup: str, statement: str) -> float:
    """Peak memory that ``statement`` adds in a fresh process after ``setup``, in MB (10^6 bytes), on Linux."""
    # VmHWM and not ru_maxrss: the latter is inherited from the process that starts this one.
    peak = "int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    program = f"{setup}\nbefore = {peak}\n{statement}\nprint(({peak} - before) * 1024 / 1e6)\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout)


def conditions(seed: int) -> dict[str, object]:
    """Hardware, versions, commit, threads and seed of a measurement."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit.stdout.strip() or "unknown",
        "seed": seed,
    }


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows of equal keys."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path}")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
