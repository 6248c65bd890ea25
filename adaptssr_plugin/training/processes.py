"""Several processes that run one training: what they tell one another, and which of them speaks and writes."""

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..distributed import exchange_device, rank, sum_over_processes, world_size
from ..errors import InputError, ProcessLostError

Result = TypeVar("Result")

_PATIENCE = timedelta(minutes=10)  # with a process that does not answer; one that has ended is noticed at once
_GO_ON = "the same command again goes on from the last checkpoint"
_SMALL = 1 << 18  # entries of a gradient that is not worth a journey of its own

# What gloo, NCCL and torch's stores say when another process is gone, where they raise no class of their own.
_LOST = re.compile(r"gloo|NCCL|Connection (closed|reset|refused)|Broken pipe|[Tt]imed out|ProcessGroup|TCPStore")


@contextmanager
def process_group() -> Iterator[None]:
    """Within this context the processes that torchrun has started, or anything with its variables, are one group.

    The backend is gloo on CPUs, and NCCL beside it where there are GPUs. A process that was started alone, or that is
    in a group, stays as it is.

    Raises:
        ProcessLostError: they do not find one another.
    """
    if dist.is_initialized() or os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        place = ":".join(os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
        reason = " ".join(str(error).split())
        raise ProcessLostError(f"processes: expected ones that find one another at {place}, got {reason}") from error
    yield
    # Not after an error: the others may be in the middle of something, and the process ends in any case.
    dist.destroy_process_group()


class Processes:
    """The processes of torch's default group, which train together; or this process alone.

    What they exchange are plain values and tensors on the CPU, which load with ``weights_only=True``. All methods
    but the attributes are collective: every process makes the same calls in the same order.

    Args:
        together: False leaves this process alone, whatever group there is.

    Attributes:
        number: how many there are.
        rank: the number of this one, from 0.
    """

    def __init__(self, together: bool = False) -> None:
        self.number = world_size() if together else 1
        self.rank = rank() if together else 0

    @property
    def data_parallel(self) -> bool:
        """Whether there are others."""
        return self.number > 1

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that speaks and writes."""
        return self.rank == 0

    @property
    def key(self) -> tuple[int | str, ...]:
        """What sets this process's random streams apart; nothing where it is alone."""
        return ("rank", self.rank) if self.data_parallel else ()

    def gather(self, state: Any) -> list[Any]:
        """Give what every process has handed over, in the order of ranks."""
        if not self.data_parallel:
            return [state]
        own = _packed(state)
        sizes = torch.zeros(self.number, dtype=torch.int64)
        sizes[self.rank] = len(own)
        sizes = _sum(sizes)
        padded = torch.zeros(self.number, int(sizes.max()), dtype=torch.uint8)
        padded[self.rank, : len(own)] = own
        padded = _sum(padded)  # of which every place is written by one process
        return [_unpacked(row[:size], "cpu") for row, size in zip(padded, sizes.tolist(), strict=True)]

    def first(self, state: Any, device: torch.device | str = "cpu") -> Any:
        """Give what the first process has handed over; its tensors are on ``device`` for all others."""
        if not self.data_parallel:
            return state
        packed = _packed(state) if self.is_main_process else torch.empty(0, dtype=torch.uint8)
        size = int(_from_first(torch.tensor(len(packed))))
        packed = _from_first(packed if self.is_main_process else torch.empty(size, dtype=torch.uint8))
        return state if self.is_main_process else _unpacked(packed, device)

    def agreed(self, function: Callable[[], Result]) -> Result:
        """Call a function, which exchanges nothing itself, on every process; what one of them refuses, all refuse.

        Raises:
            InputError: as ``function``; of several, that of the first process that raised one.
        """
        if not self.data_parallel:
            return function()
        result: Any = None
        refusal = ""
        try:
            result = function()
        except InputError as error:
            refusal = str(error)
        refusals = [(number, text) for number, text in enumerate(self.gather(refusal)) if text]
        if refusals:
            number, text = refusals[0]
            where = f" (process {number})" if number else ""
            raise InputError(f"{text}{where}")
        done: Result = result
        return done

    def by_first(self, function: Callable[[], Result], device: torch.device | str = "cpu") -> Result:
        """Call a function on the first process alone, and give its result, or its InputError, on all."""
        result: Result = self.first(self.agreed(lambda: function() if self.is_main_process else None), device)
        return result

    @torch.no_grad()
    def share_weights(self, module: nn.Module) -> None:
        """Put the first process's weights in the place of everybody's."""
        if self.data_parallel:
            for parameter in module.parameters():
                dist.broadcast(parameter, 0)

    @torch.no_grad()
    def average_gradients(self, module: nn.Module) -> None:
        """Put in the place of every gradient its average over the processes, as DistributedDataParallel does.

        A gradient that is missing here, say for lack of rows, counts as 0; one that is missing everywhere stays so,
        and the optimiser leaves its weight alone, as it does on one process. After the backward, and not during it: the
        gradient of the item table, by far the largest, comes last in any case.
        """
        if not self.data_parallel:
            return
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        having = _sum(torch.tensor([int(parameter.grad is not None) for parameter in trained])).tolist()
        gradients: list[Tensor] = []
        for parameter, somewhere in zip(trained, having, strict=True):
            if somewhere:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        for bundle in _bundles(gradients):
            flat = bundle[0].view(-1) if len(bundle) == 1 else torch.cat([tensor.view(-1) for tensor in bundle])
            dist.all_reduce(flat)
            flat /= self.number
            if len(bundle) > 1:
                for tensor, part in zip(bundle, torch.split(flat, [tensor.numel() for tensor in bundle]), strict=True):
                    tensor.view(-1).copy_(part)

    def wait(self) -> None:
        """Wait until all are here."""
        self.gather(None)

    @contextmanager
    def none_lost(self, go_on: str = _GO_ON) -> Iterator[None]:
        """Within this context the end of another process is one line, which ends with what to do then.

        Raises:
            ProcessLostError: an exchange failed.
        """
        try:
            yield
        except RuntimeError as error:
            failed = isinstance(error, dist.DistError) or (type(error) is RuntimeError and _LOST.search(str(error)))
            if not self.data_parallel or not failed:
                raise
            # gloo begins with a place in its source, and goes on with advice.
            line = (str(error).splitlines() or [type(error).__name__])[0]
            reason = re.sub(r"^\[[^]]*\] *", "", line).partition(". ")[0].strip().rstrip(".")
            raise ProcessLostError(
                f"process {self.rank} of {self.number}: another process ended or no longer answers ({reason}); {go_on}"
            ) from error


def _bundles(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Group tensors that travel together: small ones of one dtype, large ones alone."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.numel() > _SMALL:
            yield [tensor]
        else:
            by_dtype.setdefault(tensor.dtype, []).append(tensor)
    yield from by_dtype.values()


def _packed(state: Any) -> Tensor:
    """Write a state down as bytes: uint8 ``(n,)``."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)


def _unpacked(packed: Tensor, device: torch.device | str) -> Any:
    return torch.load(io.BytesIO(packed.numpy().tobytes()), map_location=device, weights_only=True)


def _sum(tensor: Tensor) -> Tensor:
    """Add up a tensor of the CPU over all processes."""
    return sum_over_processes(tensor.to(exchange_device())).cpu()


def _from_first(tensor: Tensor) -> Tensor:
    """Give a tensor of the CPU that the first process has."""
    moved = tensor.to(exchange_device())
    dist.broadcast(moved, 0)
    return moved.cpu()
