"""Where training stands within an epoch, so that an interrupted one goes on at its next step."""

import time
from typing import Any

import torch
from torch import Tensor

from .stage import Stage, StepResult


class EpochTotals:
    """Sums over the steps of an epoch, kept on the device until somebody looks."""

    def __init__(self, device: torch.device) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def add(self, step: int, result: StepResult) -> None:
        """Add the logs of a step, and note it if it is the first whose loss is not finite."""
        for name, value in result.logs.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        bad = ~torch.isfinite(result.loss.detach()) & (self._first_bad < 0)
        self._first_bad = torch.where(bad, step, self._first_bad)
        self._steps += 1

    def first_bad_step(self) -> int | None:
        """Read back the first step whose loss was NaN or infinite; None if there was none."""
        step = int(self._first_bad)
        return None if step < 0 else step

    def means(self) -> dict[str, float]:
        """Read back the means over steps."""
        if not self._sums:
            return {}
        totals: list[float] = torch.stack([total.float() for total in self._sums.values()]).tolist()
        return {name: total / self._steps for name, total in zip(self._sums, totals, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Give the sums as they are; none of the steps may have been bad."""
        return {"sums": dict(self._sums), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from sums that :meth:`state_dict` gave."""
        self._sums, self._steps = dict(state["sums"]), state["steps"]


class EpochPosition:
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
        """Collect what the steps to come depend on, but for weights and optimiser."""
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
