"""Counts the operations of a piece of code for which a GPU would make the CPU wait.

    with count_readbacks() as reads:
        loss = criterion(u1, u1_pos, u2, u2_pos)
    assert reads == []

It works on CPU tensors, where no waiting happens, by watching for the operations themselves. Code that reads a
tensor which lives on the CPU by contract (``Batch.lengths``) does so through ``.numpy()``, which is not
counted: a tensor on a device refuses it, so it cannot hide a wait.
"""

import contextlib

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

# Operations whose result has a value-dependent shape, or is a Python number.
READING = {
    aten._local_scalar_dense,  # .item(), bool(t), int(t), float(t), if t: ...
    aten.allclose,
    aten.equal,
    aten.is_nonzero,
    aten.nonzero,
    aten.nonzero_numpy,
    aten.argwhere,
    aten.masked_select,
    aten._unique,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.unique_dim_consecutive,
    aten.bincount,
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}


class _Operations(TorchDispatchMode):
    def __init__(self, reads):
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if _waits(func, args, kwargs):
            self.reads.append(str(func))
        return func(*args, **kwargs)


class _Methods(TorchFunctionMode):
    """What never reaches the dispatcher when the tensor is on the CPU already."""

    def __init__(self, reads):
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        # On a device the copy is dispatched too, and counted there.
        if func in (torch.Tensor.tolist, torch.Tensor.cpu) and args[0].device.type == "cpu":
            self.reads.append(f"Tensor.{func.__name__}")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def count_readbacks():
    """Give a list that fills with the name of every reading operation, in order."""
    reads = []
    with _Methods(reads), _Operations(reads):
        yield reads


@contextlib.contextmanager
def no_waiting():
    """Within this context the host may not wait for a CUDA device."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _waits(func, args, kwargs):
    packet = func.overloadpacket
    if packet in READING:
        return True
    if packet in INDEXING:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if packet is aten.repeat_interleave:  # without output_size it has to add up the repeats first
        return kwargs.get("output_size") is None and any(isinstance(arg, torch.Tensor) for arg in args)
    if packet is aten.copy_:
        return args[0].device.type == "cpu" and args[1].device.type != "cpu"
    if packet is aten._to_copy:
        target = kwargs.get("device")
        return target is not None and torch.device(target).type == "cpu" and args[0].device.type != "cpu"
    return False
