"""Progress of long work: bars on a terminal, lines in a log."""

import datetime
import sys
import threading
import time
from typing import Any, Literal

Show = bool | Literal["last"]
"""True: a bar on a terminal, elsewhere lines as the work goes on; ``"last"``: only the last line; False: nothing."""

_SECONDS = 10.0  # between two lines, for work that does not report by itself


class Progress:
    """The progress of long work, on standard error. A context manager that writes the last line when it ends.

    Args:
        total: the number of units to do.
        what: the name of the work, with which every line begins.
        show: what is shown.
        unit: what is counted.
        done: units done earlier.
        reports: True: the work calls :meth:`line` itself; False: a log gets a line every ten seconds.

    Attributes:
        total: may be changed.
    """

    def __init__(
        self, total: int, what: str, show: Show = True, unit: str = "step", done: int = 0, reports: bool = False
    ) -> None:
        self.total = total
        self._what, self._show, self._reports = what, show, reports
        self._done = self._begun = done
        self._started = self._written = time.monotonic()
        self._unwritten = ""
        self._bar: Any = None
        if show is True and on_terminal():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=done, desc=what, unit=unit, unit_scale=unit == "B", dynamic_ncols=True
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._show:
            if not self._reports:
                self._unwritten = self._share()
            self._write()

    def update(self, units: int) -> None:
        """Count units that are done."""
        self._done += units
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.update(units)
        elif self._show is True and not self._reports and time.monotonic() - self._written >= _SECONDS:
            self._unwritten = self._share()
            self._write()

    def note(self, text: str) -> None:
        """Show a text beside the bar. A log does not get it."""
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.set_postfix_str(text)

    def line(self, text: str) -> None:
        """Report something for the log, such as the end of an epoch. On a terminal it is shown beside the bar."""
        self.note(text)
        self._unwritten = text
        if self._bar is None and self._show is True:
            self._write()

    def to_go(self) -> str:
        """Estimate the time to go from the units done so far, as ``h:mm:ss``; ``?`` before the first."""
        done = self._done - self._begun
        if not done:
            return "?"
        seconds = (time.monotonic() - self._started) / done * max(self.total - self._done, 0)
        return str(datetime.timedelta(seconds=round(seconds)))

    def _share(self) -> str:
        return f"{self._done / max(self.total, 1):.0%}, {self.to_go()} to go"

    def _write(self) -> None:
        if self._unwritten:
            print(f"{self._what}: {self._unwritten}", file=sys.stderr, flush=True)
            self._unwritten, self._written = "", time.monotonic()


def on_terminal() -> bool:
    """Whether standard error is a terminal, where a line can be overwritten."""
    return sys.stderr.isatty()


def lock_threads_only() -> None:
    """Make the progress bars of this process use a lock between threads only.

    By default tqdm also makes a lock between processes. When a process is killed, that one is reported as leaked on
    standard error.
    """
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())
