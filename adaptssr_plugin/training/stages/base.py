"""The interface between a trainer and a stage."""

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
        device: where the generators are.
        key: what the streams depend on.
        kept: generators by name that later steps use again, as a CUDA graph has to; None: a new one for every call.
    """

    device: torch.device
    key: tuple[int | str, ...]
    kept: dict[str, torch.Generator] | None = None

    def generator(self, name: str) -> torch.Generator:
        """Make the generator of a stream; the same key and name give the same generator."""
        if self.kept is None or name not in self.kept:
            made = stream_generator(self.device, *self.key, name)
            if self.kept is None:
                return made
            self.kept[name] = made
        return self.kept[name]

    def begin(self) -> None:
        """Seed the kept generators by the key, as if they were new."""
        for name, generator in (self.kept or {}).items():
            generator.manual_seed(stream_seed(*self.key, name))


@contextmanager
def dropout_seeded(device: torch.device, *key: int | str) -> Iterator[None]:
    """Seed torch's own generators, which dropout uses, within a context; afterwards they are restored."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        # Not torch.manual_seed, which would also seed every other device, permanently.
        torch.default_generator.manual_seed(stream_seed(*key, "dropout"))
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(stream_seed(*key, "dropout"))
        yield


class StepResult(NamedTuple):
    """The result of a training step."""

    loss: Tensor
    """Scalar with its graph."""
    logs: Mapping[str, Tensor]
    """Detached scalars on the device; their means over the steps of an epoch are logged. A process without rows of a
    batch leaves out what it cannot compute."""


def share_of(here: int, batch: Batch, everywhere: int) -> float:
    """Return the weight of a mean over ``here`` elements of this process's part of a batch.

    The average over the processes of the weighted means is then the mean over all ``everywhere`` elements.
    """
    assert batch.whole is not None
    return here * batch.whole.parts / max(everywhere, 1)


class Stage(nn.Module):
    """One stage of training. Its modules are trained and saved in checkpoints.

    Attributes:
        name: of its folder, curves and random streams.
        criterion: the number of :meth:`validate` by which epochs are compared.
        bigger_is_better: whether a larger criterion is better.
    """

    name: str
    criterion: str
    bigger_is_better: bool = True

    def share_batches(self) -> None:
        """Tell the stage that the processes of torch's default group train it together, each a part of every batch."""

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch, counted from 0; a trainer calls it before every epoch, also when resuming."""

    def epoch_state(self) -> dict[str, Any]:
        """Return what :meth:`set_epoch` computed from the weights at that time, as tensors and plain values.

        A run that resumes in the middle of an epoch has other weights by then and cannot compute it again.
        """
        return {}

    def load_epoch_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`epoch_state` returned; a trainer does so after :meth:`set_epoch`."""

    def usable(self, batch: Batch) -> bool:
        """Whether a batch contains anything to learn, on any process; decided on the CPU. Other batches are skipped."""
        return len(batch.all_lengths) > 0

    def why_eager(self) -> str | None:
        """Say in a few words why a CUDA graph cannot capture :meth:`step`; None if one can.

        A stage can be captured if, within :func:`~adaptssr_plugin.devices.fixed_shapes`, its step reads no value of
        the device, all its shapes follow from those of the batch and from :meth:`fixed`, and nothing else in it
        changes from step to step, apart from tensors that are changed in place.
        """
        return f"the steps of {type(self).__name__} are not known to have fixed shapes"

    def fixed(self, batch: Batch) -> tuple[int, ...]:  # noqa: ARG002 - not by default
        """Return the sizes within a step, with fixed shapes, that do not follow from the shapes of the batch."""
        return ()

    def step(self, batch: Batch, streams: Streams) -> StepResult:
        """Compute the loss of a batch, in training mode.

        For a part of a batch, the average of the losses over the processes is the loss of the whole batch, and so is
        the average of the gradients. The loss has a graph even if the part has no rows.
        """
        raise NotImplementedError(f"{type(self).__name__} has no training step")

    def validate(self, batches: Iterable[Batch], streams: Streams) -> dict[str, float]:
        """Compute the validation numbers, ``criterion`` among them; same batches and streams every epoch."""
        raise NotImplementedError(f"{type(self).__name__} has no validation")
