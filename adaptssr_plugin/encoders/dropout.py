"""Dropout whose masks are cheap on a CPU, and the rule that says where it is used."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import on_cpu

_LEVELS = 1 << 16  # of the 16 random bits that an element gets
_CHUNK = 1 << 16  # elements whose bits stay in the cache until they are used


class Dropout(nn.Dropout):
    """The same distribution as :class:`torch.nn.Dropout`, from other random bits.

    torch draws a double from its Mersenne twister for every element, on one thread: a quarter of a training step of a
    small Transformer. Here one 64-bit number serves four elements. So p is rounded to steps of 2**-16; elements are
    independent as before. If :func:`packs_bits` says no, this is torch's own dropout.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Drop elements of a floating tensor of any shape, and scale the others by 1 / (1 - p)."""
        if not packs_bits(self, input):
            return F.dropout(input, self.p, self.training, self.inplace)
        least, scale = kept_levels(self.p)
        # In the input's dtype: a product with bytes would convert them, which takes longer than drawing them.
        mask = torch.empty(input.numel(), dtype=input.dtype)
        for part in torch.split(mask, _CHUNK):
            torch.ge(random_levels(len(part)), least, out=part).mul_(scale)
        return input * mask.view(input.shape)


def packs_bits(dropout: nn.Dropout, values: Tensor) -> bool:
    """Choose between two implementations of dropout, and of attention within blocks.

    An active dropout on the CPU, where nothing is traced, draws packed bits, with which attention has a closed form;
    everywhere else both are torch's own.
    """
    active = dropout.training and not dropout.inplace and 0 < round(dropout.p * _LEVELS) < _LEVELS
    return active and on_cpu(values)


def random_levels(size: int) -> Tensor:
    """Draw int16 ``(size,)`` uniformly over all values, four at once."""
    words = torch.empty((size + 3) // 4, dtype=torch.int64)
    words.random_(torch.iinfo(torch.int64).min, None)  # all 64 bits
    return words.view(torch.int16)[:size]


def kept_levels(p: float) -> tuple[int, float]:
    """Return the level from which an element is kept, and the factor for kept elements."""
    dropped = round(p * _LEVELS)
    return dropped - _LEVELS // 2, _LEVELS / (_LEVELS - dropped)  # int16 begins at -_LEVELS / 2


def replace_dropout(module: nn.Module) -> int:
    """Replace every ``nn.Dropout`` within a module by :class:`Dropout`; returns how many there were.

    Names in ``state_dict`` do not change, since dropout has no parameters.
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
