"""Timing side by side, peak memory, and the description of the machine in a result."""

import csv
import gc
import importlib.metadata
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]
PHASES = ("forward", "backward", "full")
FREE_SHARE = 0.85  # of the free memory that a candidate may take


class _Settings:
    """The options of ``python -m benchmarks``."""

    device: torch.device | None = None
    ends: float | None = None


class Phased(NamedTuple):
    """A call in two parts; the second one takes what the first returned."""

    forward: Callable[[], Tensor]
    backward: Callable[[Tensor], object] | None
    """None: there is only one part, and it is the whole."""


class Stamps:
    """When the parts of a call ended: by the clock, or by events of the device."""

    def __init__(self, device: torch.device) -> None:
        self._events = device.type == "cuda"
        self._times: list[Any] = []

    def mark(self) -> None:
        """Note that a part ends here, or that the first one begins."""
        if self._events:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._times.append(event)
        else:
            self._times.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Return how long each part took."""
        if self._events:
            torch.cuda.synchronize()
            return [1e-3 * one.elapsed_time(other) for one, other in pairwise(self._times)]
        return [other - one for one, other in pairwise(self._times)]


def use_device(name: str | None) -> None:
    """Measure on the device of this name from now on; None: CUDA where there is any."""
    _Settings.device = None if name is None else torch.device(name)


def default_device() -> torch.device:
    """Return the device that is measured."""
    return _Settings.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")


def limit_seconds(seconds: float | None) -> None:
    """Start no case later than this number of seconds from now; None: no limit."""
    _Settings.ends = None if seconds is None else time.perf_counter() + seconds


def is_over(what: str = "") -> bool:
    """Tell whether the time of :func:`limit_seconds` is over, and print that ``what`` is left out if so."""
    over = _Settings.ends is not None and time.perf_counter() > _Settings.ends
    if over and what:
        print(f"{what}: left out, the time is over", flush=True)
    return over


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def phases_side_by_side(
    candidates: Mapping[str, Phased], repeats: int | Mapping[str, int], device: torch.device
) -> dict[str, dict[str, list[float]]]:
    """Time the parts of calls in turn, without a call to warm up.

    In turn, and each round in another order, so that a machine that slows down slows all of them, and none has
    always the same one before it. ``repeats`` are rounds, or how often each candidate is called, spread over them.

    Returns:
        For every candidate the seconds of every phase; "full" is the sum of both parts of the same call.
    """
    times = {name: repeats if isinstance(repeats, int) else repeats[name] for name in candidates}
    rounds = max(times.values(), default=0)
    order = random.Random(0)
    seconds: dict[str, dict[str, list[float]]] = {
        name: {phase: [] for phase in PHASES if candidate.backward or phase == "full"}
        for name, candidate in candidates.items()
    }
    for number in range(rounds):
        for name in order.sample(list(candidates), len(candidates)):
            if (number + 1) * times[name] // rounds > number * times[name] // rounds:
                for phase, value in timed(candidates[name], device).items():
                    seconds[name][phase].append(value)
    return seconds


def timed(candidate: Phased, device: torch.device) -> dict[str, float]:
    """Call once; seconds of every phase."""
    synchronize(device)  # what was asked for before is not this candidate's
    stamps = Stamps(device)
    stamps.mark()
    made = candidate.forward()
    stamps.mark()
    if candidate.backward is None:
        return {"full": stamps.seconds()[0]}
    candidate.backward(made)
    stamps.mark()
    forward, backward = stamps.seconds()
    return {"forward": forward, "backward": backward, "full": forward + backward}


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and the 20 % and 80 % quantiles, in milliseconds; of one measurement all three are itself."""
    if len(seconds) == 1:
        return dict.fromkeys(("median_ms", "q20_ms", "q80_ms"), 1e3 * seconds[0])
    fifths = statistics.quantiles(seconds, n=5, method="inclusive")
    return {"median_ms": 1e3 * statistics.median(seconds), "q20_ms": 1e3 * fifths[0], "q80_ms": 1e3 * fifths[-1]}


def free_bytes(device: torch.device) -> int:
    """Memory available on the device now; on a CPU without swapping."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def lacks_memory(needed: float, device: torch.device) -> str:
    """Say why a candidate that needs so many bytes does not fit on the device; "" if it does."""
    free = FREE_SHARE * free_bytes(device)
    if needed <= free:
        return ""
    return f"would need about {needed / 1e9:.1f} GB, more than {FREE_SHARE:.0%} of what is free, {free / 1e9:.1f} GB"


def added_memory_mb(setup: str, statement: str) -> float:
    """Peak memory that ``statement`` adds in a fresh process after ``setup``, in MB (10^6 bytes), on Linux."""
    return peak_of_process(setup, statement)[0]


def peak_of_process(setup: str, statement: str) -> tuple[float, list[str]]:
    """Return what :func:`added_memory_mb` does, and the lines that the process printed."""
    # VmHWM and not ru_maxrss: the latter is inherited from the process that starts this one. Writing 5 to clear_refs
    # sets VmHWM back to what is held now, so that a peak of the setup hides nothing; some kernels do not have it.
    program = f"""
from pathlib import Path
def peak():
    line = next(line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM'))
    return int(line.split()[1])
{setup}
try:
    Path('/proc/self/clear_refs').write_text('5')
except OSError:
    pass
before = peak()
{statement}
print((peak() - before) * 1024 / 1e6)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=child_environment()
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1])
    *printed, added = done.stdout.splitlines()
    return float(added), printed


def child_environment() -> dict[str, str]:
    """Return the environment of a process that imports this project from wherever it starts."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def status_mb() -> dict[str, float]:
    """Read this process's memory in MB (10^6 bytes), on Linux."""
    with Path("/proc/self/status").open(encoding="utf-8") as status:
        fields = (line.split() for line in status if line.startswith(("VmHWM", "VmRSS", "RssAnon", "RssFile")))
        return {name.rstrip(":"): int(value) * 1024 / 1e6 for name, value, _ in fields}


def added_cuda_memory_mb(call: Callable[[], object]) -> float:
    """Peak memory that ``call`` adds on the CUDA device, in MB (10^6 bytes): tensors, not what the allocator keeps."""
    gc.collect()  # what an earlier call left in cycles would be freed in this one
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def added_mb(
    function: Callable[..., object], small: tuple[Any, ...], large: tuple[Any, ...], device: torch.device
) -> float:
    """Peak memory that ``function(*large, NAME)`` adds on the device of this name after ``function(*small, NAME)``."""
    if device.type == "cuda":
        function(*small, "cuda")
        return added_cuda_memory_mb(lambda: function(*large, "cuda"))
    setup = f"from {function.__module__} import {function.__name__} as call\ncall(*{small!r}, 'cpu')"
    return added_memory_mb(setup, f"call(*{large!r}, 'cpu')")


def fitted_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of a straight line through logarithms, by least squares: k where values grow as size^k."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def conditions(seed: int, packages: Sequence[str] = ()) -> dict[str, object]:
    """Hardware, versions, commit, threads and seed of a measurement on :func:`default_device`.

    Args:
        seed: of all that is random.
        packages: distributions whose versions also matter, in one column if there are any.
    """
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    device = default_device()
    versions = {"packages": "; ".join(f"{name} {package_version(name)}" for name in packages)} if packages else {}
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **versions,
        "commit": commit.stdout.strip() or "unknown",
        "seed": seed,
    }


def package_version(name: str) -> str:
    """Return the version of an installed distribution, or "absent"."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows of equal keys."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path}", flush=True)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
