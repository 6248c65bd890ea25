"""What can be done with a tensor where it is."""

import torch
from torch import Tensor, nn


def on_cpu(tensor: Tensor) -> bool:
    """Tell whether values of ``tensor`` can be looked at here and now: no waiting for a device, no tracing."""
    plain = type(tensor) in (Tensor, nn.Parameter)  # and not one of the subclasses that trace
    return plain and tensor.device.type == "cpu" and not torch.compiler.is_compiling()
