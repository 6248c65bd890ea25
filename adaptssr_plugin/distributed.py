"""Exchange between processes that train together: rows with their gradients, sizes, agreement.

Everything uses torch's default process group, with any backend that serves the device. Without a process group, or
in a group of one, each function is the identity and sends nothing. All functions are collective: every process must
make the same calls in the same order, or the others wait for it.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from .errors import InputError

__all__ = [
    "GatheredRows",
    "all_agree",
    "announce_refusal",
    "exchange_device",
    "gather_rows",
    "rank",
    "sum_over_processes",
    "total",
    "world_size",
]

# What a process tells the others about its gradients.
_NO_GRAPH, _WITHOUT, _WITH = range(3)
_REFUSED = -1  # sent in place of the number of rows: this process raises because of its arguments
# The order in which the numbers are sent; the names appear in messages.
_HEADER = ("rows", "encodings per row", "dimension", "dtype", "columns of user_ids", "gradient")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class GatheredRows(NamedTuple):
    """The rows of all processes, in the order of their ranks, and which of them belong to this process."""

    vectors: Tensor
    """``(N, m, d)``; the gradient of a row reaches the process that sent it."""
    user_ids: Tensor | None
    """int64 ``(N, k)``."""
    rows: slice | None
    """This process's rows among the N; None if there is only one process."""


def world_size() -> int:
    """Return the number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def total(number: int) -> int:
    """Add up an integer over all processes, such as the rows of a batch; the result is the same everywhere.

    One all-gather of one integer, on the CPU if the group has a backend for it (``"cpu:gloo,cuda:nccl"``).
    """
    return number if world_size() == 1 else sum(values[0] for values in _integers_of_all([number]))


def all_agree(here: bool) -> bool:
    """Tell whether ``here`` holds on every process; communicates as :func:`total`."""
    return total(int(not here)) == 0


def sum_over_processes(number: Tensor) -> Tensor:
    """Add up a tensor over all processes in one all-reduce, without gradient and without reading it back."""
    summed = number.detach()
    if world_size() > 1:
        summed = summed.clone()
        dist.all_reduce(summed)
    return summed


def announce_refusal() -> None:
    """Tell the other processes, in their next :func:`gather_rows`, that this one is about to raise.

    They then raise as well instead of waiting.
    """
    if world_size() > 1:
        _integers_of_all([_REFUSED] * len(_HEADER))


def gather_rows(vectors: Tensor, user_ids: Tensor | None = None, minimum: int = 1) -> GatheredRows:
    """Gather the rows of every process, with gradients.

    The gradient of a row is the sum of its gradients from the losses of all processes, neither scaled nor averaged, as
    if one process had added up all losses.

    Communication: six integers per process (sizes, and what the processes have to agree on). Then one all-gather of
    the rows in their own dtype, with their ids packed behind them. In the backward, one reduce-scatter of the gradient
    of all N rows in the dtype of the result. Processes with fewer rows send padding.

    Args:
        vectors: this process's rows, floating ``(n, m, d)``; n may differ between processes and be 0.
        user_ids: integers ``(n,)`` or ``(n, k)``, on the same device, on every process or on none.
        minimum: the smallest total number of rows over all processes, at least 1.

    Returns:
        All rows in at least float32, and the place of this process's rows. A single process gets its input back.

    Raises:
        InputError: on every process: too few rows, or processes that differ in anything other than their row counts.
    """
    if world_size() == 1:
        _check_rows(len(vectors), minimum)
        return GatheredRows(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), user_ids, None)
    columns = None if user_ids is None else user_ids.reshape(len(vectors), -1 if len(vectors) else _width(user_ids))
    header, served = _header(vectors, columns), _served_devices()
    if vectors.device.type not in served:
        announce_refusal()
        raise InputError(f"gather: expected encodings on {' or '.join(served)}, by the backend, got {vectors.device}")
    headers = _integers_of_all(header)
    _check_agreement(headers)
    sizes = [other[0] for other in headers]
    _check_rows(sum(sizes), minimum)
    if header[-1] == _WITHOUT and any(other[-1] == _WITH for other in headers):
        vectors = vectors.detach().requires_grad_()  # this process, too, must take part in the backward
    gathered, ids = _GatherRows.apply(vectors, columns, sizes)  # type: ignore[no-untyped-call]
    first = sum(sizes[: rank()])
    return GatheredRows(gathered, ids, slice(first, first + len(vectors)))


def _check_rows(n_rows: int, minimum: int) -> None:
    if n_rows < minimum:
        raise InputError(f"batch: expected at least {minimum} rows to compare, got {n_rows} on all processes together")


def _width(user_ids: Tensor) -> int:
    return user_ids.shape[1] if user_ids.dim() == 2 else 1


def _header(vectors: Tensor, columns: Tensor | None) -> list[int]:
    """What this process tells the others, in the order of ``_HEADER``."""
    gradient = _NO_GRAPH
    if torch.is_grad_enabled():
        gradient = _WITH if vectors.requires_grad else _WITHOUT
    n_columns = 0 if columns is None else columns.shape[1]
    return [*vectors.shape, _DTYPES.index(vectors.dtype), n_columns, gradient]


def _check_agreement(headers: list[list[int]]) -> None:
    """Raise on every process if one refuses or two differ."""
    for number, header in enumerate(headers):
        if header[0] == _REFUSED:
            raise InputError(f"gather: expected encodings from every process, got a refusal from rank {number}")
    for place, what in list(enumerate(_HEADER))[1:-1]:
        for number, header in enumerate(headers):
            if header[place] != headers[0][place]:
                first, other = (_DTYPES[i] if what == "dtype" else i for i in (headers[0][place], header[place]))
                raise InputError(f"gather: expected {what} {first} as rank 0, got {other} from rank {number}")
    gradients = [header[-1] for header in headers]
    if _WITH in gradients and _NO_GRAPH in gradients:
        raise InputError(
            f"gather: expected a graph on every process or on none, got none from rank {gradients.index(_NO_GRAPH)}"
        )


def exchange_device() -> torch.device:
    """The device for exchanging CPU tensors: the CPU if the group serves it, otherwise a device that it serves."""
    served = _served_devices()
    return torch.device("cpu" if "cpu" in served else served[0])


def _served_devices() -> list[str]:
    """The device types for which the group has a backend, such as ``["cpu", "cuda"]``."""
    return [part.partition(":")[0] for part in str(dist.get_backend_config()).split(",")]


def _integers_of_all(numbers: list[int]) -> list[list[int]]:
    """Exchange a list of integers, equally long on every process; on the CPU if possible, to wait for no device."""
    own = torch.tensor(numbers, dtype=torch.int64, device=exchange_device())
    return _all_gather(own).view(world_size(), -1).tolist()


def _all_gather(own: Tensor) -> Tensor:
    """Concatenate the tensors of all processes, which have one size, along the first dimension."""
    gathered = own.new_empty(world_size() * len(own), *own.shape[1:])
    all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # its name before torch 2.13
    all_gather(gathered, own)
    return gathered


def _reduce_scatter(whole: Tensor) -> Tensor:
    """Add up a tensor over all processes; each gets its own part of the first dimension."""
    own = whole.new_empty(len(whole) // world_size(), *whole.shape[1:])
    reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    reduce_scatter(own, whole)
    return own


class _GatherRows(torch.autograd.Function):
    """One all-gather of rows and ids as bytes; one reduce-scatter of gradients."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, columns: Tensor | None, sizes: list[int]) -> tuple[Tensor, Tensor | None]:
        ctx.sizes, ctx.dtype = sizes, vectors.dtype
        n_rows, per_row, dim = vectors.shape
        width = per_row * dim * vectors.element_size()
        packed = [vectors.contiguous().view(n_rows, per_row * dim).view(torch.uint8)]  # (n, bytes)
        if columns is not None:
            packed.append(columns.long().contiguous().view(torch.uint8))
        own = vectors.new_zeros(max(sizes), sum(part.shape[1] for part in packed), dtype=torch.uint8)
        own[:n_rows] = torch.cat(packed, 1)
        padded = _all_gather(own).view(len(sizes), max(sizes), -1)
        rows = torch.cat([part[:size] for part, size in zip(padded, sizes, strict=True)])  # (N, bytes)
        gathered = rows[:, :width].contiguous().view(vectors.dtype).view(-1, per_row, dim)
        gathered = gathered.to(torch.promote_types(vectors.dtype, torch.float32))
        if columns is None:
            return gathered, None
        ids = rows[:, width:].contiguous().view(torch.int64)
        ctx.mark_non_differentiable(ids)
        return gathered, ids

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        sizes = ctx.sizes
        padded = grad.new_zeros(len(sizes), max(sizes), *grad.shape[1:])
        for part, rows in zip(padded, torch.split(grad, sizes), strict=True):
            part[: len(rows)] = rows
        own = _reduce_scatter(padded.flatten(0, 1))
        return own[: sizes[rank()]].to(ctx.dtype), None, None
