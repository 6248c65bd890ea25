"""Progress of long work, in a terminal and in a log."""

import sys
import threading
from typing import Any


def progress_bar(total: int, what: str, show: bool = True, unit: str = "step") -> Any:
    """Make a tqdm bar on standard error; in a log, where nothing overwrites a line, it speaks every ten seconds."""
    from tqdm import tqdm

    interval = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, desc=what, disable=not show, mininterval=interval, unit=unit, dynamic_ncols=True)


def lock_threads_only() -> None:
    """Let bars of this process wait for one another alone.

    The lock of all processes that tqdm makes otherwise is reported on standard error, as leaked, when one is killed.
    """
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())
