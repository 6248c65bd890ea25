"""Peak memory of a piece of work."""

from pathlib import Path
from types import TracebackType

import torch

from ..task_runs import peak_memory_mb


class PeakMemory:
    """Peak memory within this context: of a CUDA device, otherwise of the whole process; MB (10^6 bytes).

    On Linux the process's own record is reset on entering; elsewhere it is the peak since the process started.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.megabytes = 0.0
        self._on_cuda = torch.device(device).type == "cuda"

    def __enter__(self) -> "PeakMemory":
        if self._on_cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            _reset()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.megabytes = torch.cuda.max_memory_allocated() / 1e6 if self._on_cuda else _peak()


def _reset() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # not Linux, or not allowed
        return


def _peak() -> float:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
    except (OSError, StopIteration):
        return peak_memory_mb()
