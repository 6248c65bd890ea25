"""Several processes that run one training: their exchanges, and which of them prints and writes files."""

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

_PATIENCE = timedelta(minutes=10)  # for a process that does not answer; one that has ended is noticed at once
GO_ON = "the same command again goes on from the last checkpoint"
GO_ON_BY_RESUME = "a run with resume goes on from its last checkpoint"  # of RecBole's models
_ONE_BUCKET = 1 << 20  # MiB of gradients

# Parts of the messages of gloo, NCCL and torch's stores when another process is gone; they have no class for it.
_LOST = re.compile(r"gloo|NCCL|Connection (closed|reset|refused)|Broken pipe|[Tt]imed out|ProcessGroup|TCPStore")


@contextmanager
def process_group() -> Iterator[None]:
    """Within this context the processes started by torchrun, or with its environment variables, form one group.

    The backend is gloo on CPUs; with GPUs also NCCL. Nothing changes for a process that was started alone or already
    belongs to a group.

    Raises:
        ProcessLostError: they cannot connect.
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
    # Not after an error: the others may be in the middle of an exchange, and this process ends in any case.
    dist.destroy_process_group()


class Processes:
    """The processes of torch's default group, which train together; or this process alone.

    They exchange plain values and tensors on the CPU, which load with ``weights_only=True``. All methods are
    collective: every process makes the same calls in the same order. Attributes are not.

    Args:
        together: False: this process alone, whether or not there is a group.

    Attributes:
        number: the number of processes.
        rank: the rank of this one, from 0.
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
        """Whether this is the process that prints and writes files."""
        return self.rank == 0

    @property
    def key(self) -> tuple[int | str, ...]:
        """The part of a key that separates this process's random streams from the others'; empty if it is alone."""
        return ("rank", self.rank) if self.data_parallel else ()

    def gather(self, state: Any) -> list[Any]:
        """Return the value of every process, in the order of ranks."""
        if not self.data_parallel:
            return [state]
        packed: list[Any] = [None] * self.number
        dist.all_gather_object(packed, _packed(state))
        return [_unpacked(one, "cpu") for one in packed]

    def first(self, state: Any, device: torch.device | str = "cpu") -> Any:
        """Return the value of the first process; on the others its tensors are on ``device``."""
        if not self.data_parallel:
            return state
        packed = [_packed(state) if self.is_main_process else None]
        dist.broadcast_object_list(packed, 0)
        return state if self.is_main_process or packed[0] is None else _unpacked(packed[0], device)

    def agreed(self, function: Callable[[], Result]) -> Result:
        """Call a function, which must not communicate, on every process; if one refuses, all do.

        Raises:
            InputError: as ``function``; if several raise, that of the first process that did.
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
        """Call a function on the first process, and return its result, or raise its InputError, on all."""
        result: Result = self.first(self.agreed(lambda: function() if self.is_main_process else None), device)
        return result

    def averaging(self, module: nn.Module) -> Callable[..., Any]:
        """Return a way to compute a loss of a module so that its backward averages gradients over the processes.

        ``averaging(module)(function, *arguments)`` calls the function; all gradients of its result have to be gradients
        of the module. The first process's weights are copied to all. A gradient that is missing on this process, for
        example because it has no rows, counts as 0. If it is missing on all it stays missing, and the optimiser skips
        that weight, as on one process.
        """
        if not self.data_parallel:
            return lambda function, *arguments: function(*arguments)
        # One bucket: several would be sent as soon as their weights are ready. A process that does not use these
        # weights would send them before the exchanges of gather, another process after them.
        return nn.parallel.DistributedDataParallel(
            _Calling(module),
            bucket_cap_mb=_ONE_BUCKET,
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
        )

    def wait(self) -> None:
        """Wait for all processes."""
        self.gather(None)

    @contextmanager
    def none_lost(self, go_on: str = GO_ON) -> Iterator[None]:
        """Within this context the end of another process becomes one line, which ends with what to do next.

        Raises:
            ProcessLostError: an exchange failed.
        """
        try:
            yield
        except RuntimeError as error:
            failed = isinstance(error, dist.DistError) or (type(error) is RuntimeError and _LOST.search(str(error)))
            if not self.data_parallel or not failed:
                raise
            # gloo's message begins with a place in its source and ends with advice.
            line = (str(error).splitlines() or [type(error).__name__])[0]
            reason = re.sub(r"^\[[^]]*\] *", "", line).partition(". ")[0].strip().rstrip(".")
            raise ProcessLostError(
                f"process {self.rank} of {self.number}: another process ended or no longer answers ({reason}); {go_on}"
            ) from error


class _Calling(nn.Module):
    """Calls a given function with the weights of a module; not with its buffers, which are equal on all processes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.weights = nn.ParameterList(module.parameters())
        # DistributedDataParallel warns on standard error if a batch uses all weights; other batches may not.
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
