"""Where training stands within an epoch, so that an interrupted one goes on at its next step."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .stages.base import Stage, StepResult


class Totals(NamedTuple):
    """What one process, or all of them, have logged in an epoch so far, as plain values."""

    first_bad: int
    """The first step whose loss was NaN or infinite; -1: none."""
    sums: dict[str, float]
    counts: dict[str, int]
    """How many steps logged each name."""

    def means(self) -> dict[str, float]:
        """Means over the steps that logged."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}


def of_all(parts: Sequence[Totals]) -> Totals:
    """Add up the totals of several processes; names come in the order of the first one that has them."""
    bad = [part.first_bad for part in parts if part.first_bad >= 0]
    names = dict.fromkeys(name for part in parts for name in part.sums)
    return Totals(
        min(bad, default=-1),
        {name: sum(part.sums.get(name, 0.0) for part in parts) for name in names},
        {name: sum(part.counts.get(name, 0) for part in parts) for name in names},
    )


class EpochTotals:
    """Sums over the steps of an epoch, kept on the device until somebody looks."""

    def __init__(self, device: torch.device) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def add(self, step: int, result: StepResult) -> None:
        """Add the logs of a step, and note it if it is the first whose loss is not finite."""
        for name, value in result.logs.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1
        bad = ~torch.isfinite(result.loss.detach()) & (self._first_bad < 0)
        self._first_bad = torch.where(bad, step, self._first_bad)

    def read(self) -> Totals:
        """Read back what there is: two values at most are waited for."""
        values: list[float] = []
        if self._sums:
            values = torch.stack([total.float() for total in self._sums.values()]).tolist()
        return Totals(int(self._first_bad), dict(zip(self._sums, values, strict=True)), dict(self._counts))

    def state_dict(self) -> dict[str, Any]:
        """Give the sums as they are; none of the steps may have been bad."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from sums that :meth:`state_dict` gave."""
        device = self._first_bad.device
        self._sums = {name: total.to(device) for name, total in state["sums"].items()}
        self._counts = dict(state["counts"])


class EpochState:
    """An epoch under way.

    Args:
        epoch: counted from 0.
        device: where the sums are kept.

    Attributes:
        steps: that have been taken, skipped batches among them.
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
        """Put back what the steps to come depend on, if this is the rest of an epoch, and start the clock."""
        if self._resumed is not None:
            stage.load_epoch_state(self._resumed["stage"])
            _set_random_states(self._device, self._resumed["random"])
            self._resumed = None
        self._since = time.perf_counter()

    def seconds(self) -> float:
        """Seconds of training in this epoch, those before an interruption among them."""
        return self._seconds + (0.0 if self._since is None else time.perf_counter() - self._since)

    def end(self) -> float:
        """Stop the clock; returns :meth:`seconds`."""
        self._seconds, self._since = self.seconds(), None
        return self._seconds

    def state_dict(self, stage: Stage) -> dict[str, Any]:
        """Collect what the steps to come depend on, but for weights and optimiser.

        All of it but the stage's is this process's own, where several train together.
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
        """Stand where :meth:`state_dict` was asked; the rest of it waits for :meth:`begin`."""
        self.steps, self._seconds, self._resumed = state["steps"], state["seconds"], state
        self.totals.load_state_dict(state["totals"])


def _random_states(device: torch.device) -> dict[str, Tensor]:
    """Give the states of torch's own generators, from which dropout draws."""
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _set_random_states(device: torch.device, states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
