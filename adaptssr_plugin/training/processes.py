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
from torch import nn

from ..distributed import rank, world_size
from ..errors import InputError, ProcessLostError

Result = TypeVar("Result")

_PATIENCE = timedelta(minutes=10)  # with a process that does not answer; one that has ended is noticed at once
GO_ON = "the same command again goes on from the last checkpoint"
GO_ON_BY_RESUME = "a run with resume goes on from its last checkpoint"  # of RecBole's models
_ONE_BUCKET = 1 << 20  # MiB of gradients

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
        packed: list[Any] = [None] * self.number
        dist.all_gather_object(packed, _packed(state))
        return [_unpacked(one, "cpu") for one in packed]

    def first(self, state: Any, device: torch.device | str = "cpu") -> Any:
        """Give what the first process has handed over; its tensors are on ``device`` for all others."""
        if not self.data_parallel:
            return state
        packed = [_packed(state) if self.is_main_process else None]
        dist.broadcast_object_list(packed, 0)
        return state if self.is_main_process or packed[0] is None else _unpacked(packed[0], device)

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

    def averaging(self, module: nn.Module) -> Callable[..., Any]:
        """Give the way to compute a loss of a module whose backward averages gradients over the processes.

        ``averaging(module)(function, *arguments)`` calls the function, all of whose gradients are those of the module.
        The first process's weights are now those of all. A gradient that is missing here, say for lack of rows, counts
        as 0; one that is missing everywhere stays so, and the optimiser leaves its weight alone, as it does on one
        process.
        """
        if not self.data_parallel:
            return lambda function, *arguments: function(*arguments)
        # One bucket: an earlier one would travel as soon as its weights are ready, on a process that does not use them
        # before the gather's own exchanges, and on another one after them.
        return nn.parallel.DistributedDataParallel(
            _Calling(module),
            bucket_cap_mb=_ONE_BUCKET,
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
        )

    def wait(self) -> None:
        """Wait until all are here."""
        self.gather(None)

    @contextmanager
    def none_lost(self, go_on: str = GO_ON) -> Iterator[None]:
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


class _Calling(nn.Module):
    """Computes whatever it is told to, with the weights of a module; not its buffers, which are alike everywhere."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.weights = nn.ParameterList(module.parameters())
        # DistributedDataParallel warns, on standard error, of a batch that uses all weights: others may not.
        self.never_used = nn.Parameter(next(module.parameters()).new_zeros(()))

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the function."""
        return function(*arguments)


def _packed(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _unpacked(packed: bytes, device: torch.device | str) -> Any:
    return torch.load(io.BytesIO(packed), map_location=device, weights_only=True)
