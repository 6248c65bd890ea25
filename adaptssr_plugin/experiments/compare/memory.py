"""Peak memory of a piece of work."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch

from ..task_runs import peak_memory_mb


def watch_memory(device: torch.device | str) -> Callable[[], float]:
    """Begin to watch memory: of a CUDA device, otherwise of the whole process.

    On Linux the process's own record is reset; elsewhere the peak is that since the process started. Returns a function
    that returns the peak until then, in MB (10^6 bytes).
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return lambda: torch.cuda.max_memory_allocated() / 1e6
    with contextlib.suppress(OSError):  # not Linux, or not allowed
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak


def _peak() -> float:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
    except (OSError, StopIteration):
        return peak_memory_mb()
