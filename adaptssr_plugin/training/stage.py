"""What a trainer needs to know of a stage, and nothing of how the stage works."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..corpus import Batch
from ..seeding import stream_generator, stream_seed


@dataclass(frozen=True)
class Streams:
    """Random streams of one step, keyed by (seed, stage, epoch, step, rank) and a name.

    Attributes:
        device: where the generators live.
        key: what the streams depend on.
    """

    device: torch.device
    key: tuple[int | str, ...]

    def generator(self, name: str) -> torch.Generator:
        """Make the generator of a stream, the same one for the same key and name."""
        return stream_generator(self.device, *self.key, name)


@contextmanager
def dropout_seeded(device: torch.device, *key: int | str) -> Iterator[None]:
    """Seed torch's own generators, from which dropout draws, for a while; afterwards they are as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        # Not torch.manual_seed, which would seed every other device too, for good.
        torch.default_generator.manual_seed(stream_seed(*key, "dropout"))
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(stream_seed(*key, "dropout"))
        yield


class StepResult(NamedTuple):
    """What a training step gives."""

    loss: Tensor
    """Scalar with its graph."""
    logs: Mapping[str, Tensor]
    """Detached scalars on the device; their means over the steps of an epoch are logged."""


class Stage(nn.Module):
    """One stage of training. Its modules are what is trained and checkpointed.

    Attributes:
        name: of its folder, curves and random streams.
        criterion: the number of :meth:`validate` by which epochs are compared.
        bigger_is_better: whether a larger criterion is better.
    """

    name: str
    criterion: str
    bigger_is_better: bool = True

    def set_epoch(self, epoch: int) -> None:
        """Learn which epoch begins, counted from 0; a trainer says so before every one, resumed runs included."""

    def epoch_state(self) -> dict[str, Any]:
        """Give what :meth:`set_epoch` made of the weights as they were then, as tensors and plain values.

        A run that goes on in the middle of an epoch has other weights by then, and cannot make it again.
        """
        return {}

    def load_epoch_state(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`epoch_state` gave; a trainer does so after :meth:`set_epoch`."""

    def usable(self, batch: Batch) -> bool:
        """Whether a batch has anything to learn from; decided on the CPU. Others are skipped."""
        return len(batch) > 0

    def step(self, batch: Batch, streams: Streams) -> StepResult:
        """Compute the loss of a batch, in training mode."""
        raise NotImplementedError(f"{type(self).__name__} has no training step")

    def validate(self, batches: Iterable[Batch], streams: Streams) -> dict[str, float]:
        """Compute the validation numbers, ``criterion`` among them; same batches and streams every epoch."""
        raise NotImplementedError(f"{type(self).__name__} has no validation")
