"""Dropout whose masks cost little on a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_LEVELS = 1 << 16  # of the 16 random bits that an element gets


class Dropout(nn.Dropout):
    """The same distribution as :class:`torch.nn.Dropout`, from other random bits.

    torch draws a double from its Mersenne twister for every element, on one thread: in a training step of a
    small Transformer that is a quarter of the time. Here one 64-bit number serves four elements, and the mask is
    kept as bytes. So p counts in steps of 2**-16; elements are independent as before. On other devices, and under
    ``torch.compile``, this is torch's own dropout.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Drop elements of a floating tensor of any shape, and scale the others by 1 / (1 - p)."""
        ours = input.device.type == "cpu" and not self.inplace and not torch.compiler.is_compiling()
        threshold = round(self.p * _LEVELS)
        if not ours or not self.training or not 0 < threshold < _LEVELS:
            return F.dropout(input, self.p, self.training, self.inplace)
        dropped: Tensor = _DropElements.apply(input, threshold)  # type: ignore[no-untyped-call]
        return dropped


class _DropElements(torch.autograd.Function):
    """Drop each element with probability ``threshold / _LEVELS``."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, threshold: int) -> Tensor:
        words = torch.empty((values.numel() + 3) // 4, dtype=torch.int64)
        words.random_(torch.iinfo(torch.int64).min, None)  # all 64 bits
        levels = words.view(torch.int16)[: values.numel()].view(values.shape)
        keep = levels >= threshold - _LEVELS // 2  # int16 begins at -_LEVELS / 2
        ctx.save_for_backward(keep)
        ctx.scale = _LEVELS / (_LEVELS - threshold)
        return torch.mul(values, keep).mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return torch.mul(grad, keep).mul_(ctx.scale), None


def replace_dropout(module: nn.Module) -> int:
    """Put :class:`Dropout` in the place of every ``nn.Dropout`` within a module; returns how many there were.

    Names in ``state_dict`` stay, since dropout has no parameters.
    """
    replaced = 0
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                ours = Dropout(child.p, child.inplace)
                ours.train(child.training)
                setattr(parent, name, ours)
                replaced += 1
    return replaced
