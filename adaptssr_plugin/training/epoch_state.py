"""The state of training within an epoch, so that an interrupted epoch resumes at its next step."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .stages.base import Stage, StepResult


class Totals(NamedTuple):
    """What one process, or all of them, have logged in this epoch, as plain values."""

    first_bad: int
    """The first step whose loss was NaN or infinite; -1: none."""
    sums: dict[str, float]
    counts: dict[str, int]
    """The number of steps that logged each name."""

    def means(self) -> dict[str, float]:
        """Means over the steps that logged."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}


def of_all(parts: Sequence[Totals]) -> Totals:
    """Add up the totals of several processes; names are in the order of the first process that has them."""
    bad = [part.first_bad for part in parts if part.first_bad >= 0]
    names = dict.fromkeys(name for part in parts for name in part.sums)
    return Totals(
        min(bad, default=-1),
        {name: sum(part.sums.get(name, 0.0) for part in parts) for name in names},
        {name: sum(part.counts.get(name, 0) for part in parts) for name in names},
    )


class EpochTotals:
    """Sums over the steps of an epoch, kept on the device until they are read."""

    def __init__(self, device: torch.device) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def add(self, step: int, result: StepResult) -> None:
        """Add the logs of a step; if it is the first whose loss is not finite, record it."""
        for name, value in result.logs.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1
        bad = ~torch.isfinite(result.loss.detach()) & (self._first_bad < 0)
        self._first_bad = torch.where(bad, step, self._first_bad)

    def read(self) -> Totals:
        """Read the sums back: at most two transfers from the device."""
        values: list[float] = []
        if self._sums:
            values = torch.stack([total.float() for total in self._sums.values()]).tolist()
        return Totals(int(self._first_bad), dict(zip(self._sums, values, strict=True)), dict(self._counts))

    def state_dict(self) -> dict[str, Any]:
        """Return the sums; none of the steps may have had a bad loss."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from sums returned by :meth:`state_dict`."""
        device = self._first_bad.device
        self._sums = {name: total.to(device) for name, total in state["sums"].items()}
        self._counts = dict(state["counts"])


class EpochState:
    """An epoch in progress.

    Args:
        epoch: counted from 0.
        device: where the sums are kept.

    Attributes:
        steps: the steps taken, including skipped batches.
        totals: what they logged.
    """

    def __init__(self, epoch: int, device: torch.device) -> None:
        self.epoch = epoch
        self.steps = 0
        self.totals = EpochTotals(device)
        self._device = device
        self._seconds = 0.0
        self._since: float | None = None
        self._resumed: dict[str, Any] | None = None

    def begin(self, stage: Stage) -> None:
        """Restore the state for the remaining steps if this is a resumed epoch, and start the clock."""
        if self._resumed is not None:
            stage.load_epoch_state(self._resumed["stage"])
            _set_random_states(self._device, self._resumed["random"])
            self._resumed = None
        self._since = time.perf_counter()

    def seconds(self) -> float:
        """Seconds of training in this epoch, including those before an interruption."""
        return self._seconds + (0.0 if self._since is None else time.perf_counter() - self._since)

    def end(self) -> float:
        """Stop the clock; returns :meth:`seconds`."""
        self._seconds, self._since = self.seconds(), None
        return self._seconds

    def state_dict(self, stage: Stage) -> dict[str, Any]:
        """Collect the state on which the remaining steps depend, except weights and optimiser.

        If several processes train together, all of it except the stage's part belongs to this process alone.
        """
        return {
            "epoch": self.epoch,
            "steps": self.steps,
            "totals": self.totals.state_dict(),
            "seconds": self.seconds(),
            "random": _random_states(self._device),
            "stage": stage.epoch_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume where :meth:`state_dict` was called; the rest is restored by :meth:`begin`."""
        self.steps, self._seconds, self._resumed = state["steps"], state["seconds"], state
        self.totals.load_state_dict(state["totals"])


def _random_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of torch's own generators, which dropout uses."""
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _set_random_states(device: torch.device, states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
