"""What a trainer needs to know of a stage, and nothing of how the stage works."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...corpus import Batch
from ...seeding import stream_generator, stream_seed


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
    """Detached scalars on the device; their means over the steps of an epoch are logged. A process without rows of a
    batch leaves out what it cannot say."""


def share_of(here: int, batch: Batch, everywhere: int) -> float:
    """Give the weight of a mean over ``here`` things of this part of a batch, by which it counts as it should.

    The average over the processes of their weighted means is then the mean over all things ``everywhere``.
    """
    assert batch.whole is not None
    return here * batch.whole.parts / max(everywhere, 1)


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

    def share_batches(self) -> None:
        """Learn that the processes of torch's default group train this stage together, each a part of every batch."""

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
        """Whether a batch has anything to learn from, on any process; decided on the CPU. Others are skipped."""
        return len(batch.all_lengths) > 0

    def step(self, batch: Batch, streams: Streams) -> StepResult:
        """Compute the loss of a batch, in training mode.

        Of a part of a batch the loss is such that its average over the processes is that of the whole batch, and so
        that the average of gradients is. It has a graph even where the part has no rows.
        """
        raise NotImplementedError(f"{type(self).__name__} has no training step")

    def validate(self, batches: Iterable[Batch], streams: Streams) -> dict[str, float]:
        """Compute the validation numbers, ``criterion`` among them; same batches and streams every epoch."""
        raise NotImplementedError(f"{type(self).__name__} has no validation")
