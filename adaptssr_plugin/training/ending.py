"""How processes of one training end once one of them has failed."""

import time
from collections.abc import Sequence
from typing import Protocol

_PATIENCE = 10.0  # seconds for the others to end by themselves, with their own line
_MERCY = 30.0  # seconds between SIGTERM and SIGKILL, as torchrun's


class Endable(Protocol):
    """A process, as ``subprocess`` and ``multiprocessing`` have it."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


class Ending:
    """Gives processes some time to end by themselves, then SIGTERM, then SIGKILL.

    Args:
        processes: all of them; those that have ended are not harmed.
    """

    def __init__(self, processes: Sequence[Endable]) -> None:
        self._processes = processes
        self._failed_at: float | None = None
        self._told = False

    def hasten(self, failed: bool) -> None:
        """Do what it is time for; to be called again and again until all have ended.

        Args:
            failed: whether one of them has failed.
        """
        if self._failed_at is None:
            if not failed:
                return
            self._failed_at = time.monotonic()
        waited = time.monotonic() - self._failed_at
        if waited > _PATIENCE + _MERCY:
            for process in self._processes:
                process.kill()
        elif waited > _PATIENCE and not self._told:
            self._told = True
            for process in self._processes:
                process.terminate()
