"""Handling SIGTERM: it is noted, and the program ends at a suitable moment."""

import signal
import threading
from types import FrameType
from typing import Any


class StopRequest:
    """Within this context SIGTERM is noted instead of killing the process.

    Only in the main thread, and only where SIGTERM would kill: a caller's own handler stays.

    Args:
        listens: False changes nothing.

    Attributes:
        noted: whether SIGTERM has come.
    """

    def __init__(self, listens: bool = True) -> None:
        self.noted = False
        self._listens = listens
        self._before: Any = None

    def __enter__(self) -> "StopRequest":
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._listens = self._listens and in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._listens:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self.noted = True
