"""Whether the values of a tensor can be read, and whether shapes may depend on them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_fixed = False


@contextmanager
def fixed_shapes() -> Iterator[None]:
    """Within this context no shape depends on values, on a CPU either: a CUDA graph can capture what runs in it.

    It holds for all threads: autograd's compute the encodings of a micro batch again.
    """
    global _fixed
    before, _fixed = _fixed, True
    try:
        yield
    finally:
        _fixed = before


def shapes_are_fixed() -> bool:
    """Tell whether the caller is within :func:`fixed_shapes`."""
    return _fixed


def on_cpu(tensor: Tensor) -> bool:
    """Tell whether the values of ``tensor`` can be read now, without waiting for a device and outside of tracing."""
    plain = type(tensor) in (Tensor, nn.Parameter)  # not a subclass that traces
    return plain and tensor.device.type == "cpu" and not torch.compiler.is_compiling() and not _fixed
