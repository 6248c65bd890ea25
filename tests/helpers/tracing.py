"""What tests of compilers and of memory share."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode


def compiling(test):
    """Torch's compilers use what torch deprecates, such as an instance of an autograd.Function."""
    for category in ("DeprecationWarning", "FutureWarning"):
        test = pytest.mark.filterwarnings(f"ignore::{category}")(test)
    return test


class Largest(TorchDispatchMode):
    """Notes the most entries that any operation's result holds, and by ``keep`` those that a graph keeps."""

    def __init__(self):
        super().__init__()
        self.entries = self.kept = 0

    def keep(self, tensor):
        self.kept += tensor.numel()
        return tensor

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(made, torch.Tensor):
                self.entries = max(self.entries, made.numel())
        return result
