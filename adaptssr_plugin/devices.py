"""Whether the values of a tensor can be read."""

import torch
from torch import Tensor, nn


def on_cpu(tensor: Tensor) -> bool:
    """Tell whether the values of ``tensor`` can be read now, without waiting for a device and outside of tracing."""
    plain = type(tensor) in (Tensor, nn.Parameter)  # not a subclass that traces
    return plain and tensor.device.type == "cpu" and not torch.compiler.is_compiling()
