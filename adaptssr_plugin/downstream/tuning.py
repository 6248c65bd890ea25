"""Fine-tuning fewer weights than all: the head alone, adapters, low-rank updates (paper, appendix E).

Adapters and updates are added to an encoder for fine-tuning. They start as the identity, so that training starts from
the pre-trained encoder, whose other weights are frozen.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..encoders import UserEncoder
from ..errors import InputError

TUNED = ("all", "head", "adapter", "lora", "item_adapter")


def trained_and_all(module: nn.Module) -> tuple[int, int]:
    """Count the parameters of a module that have a gradient, and all of them; shared ones count once."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def tune(encoder: nn.Module, what: str, rank: int = 8) -> None:
    """Freeze an encoder except for what is fine-tuned, in place; the task's head is not part of it.

    Args:
        encoder: a pre-trained encoder; adapters and low-rank updates need a :class:`UserEncoder`.
        what: ``all``; ``head``, nothing of the encoder; ``adapter``, a bottleneck after both parts of every layer
            and the layer norms (Houlsby et al., 2019); ``lora``, a low-rank update of the attention's projections (Hu
            et al., 2022); ``item_adapter``, one bottleneck after the item table, which has most of the parameters.
        rank: width of the bottleneck, or rank of the update.

    Raises:
        InputError: an unknown ``what``, or an encoder that does not support it.
    """
    if what not in TUNED:
        raise InputError(f"ft_tune: expected {' or '.join(TUNED)}, got {what!r}")
    if what == "all":
        return
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    if what != "head":
        if not isinstance(encoder, UserEncoder):
            raise InputError(f"ft_tune: expected all or head for {type(encoder).__name__}, got {what!r}")
        _LAYERS_OF[what](encoder, rank)


def _adapters(encoder: UserEncoder, rank: int) -> None:
    for layer in encoder.layers:
        for name in ("attention_out", "feed_out"):
            setattr(layer, name, nn.Sequential(getattr(layer, name), _adapter(encoder, rank)))
        for name in ("attention_norm", "feed_norm"):
            getattr(layer, name).requires_grad_(True)


def _adapter(encoder: UserEncoder, rank: int) -> "Adapter":
    return Adapter(encoder.dim, rank).to(encoder.item_weight)  # its dtype and device


def _low_rank(encoder: UserEncoder, rank: int) -> None:
    for layer in encoder.layers:
        for name in ("query_key_value", "attention_out"):
            linear = getattr(layer, name)
            assert isinstance(linear, nn.Linear)
            parametrize.register_parametrization(linear, "weight", LowRankUpdate(linear.weight, rank))


def _item_adapter(encoder: UserEncoder, rank: int) -> None:
    adapter = _adapter(encoder, rank)
    encoder.item_adapter = adapter

    def behind(_module: nn.Module, _arguments: Any, vectors: Tensor) -> Tensor:
        adapted: Tensor = adapter(vectors)
        return adapted

    encoder.items.register_forward_hook(behind)


_LAYERS_OF: dict[str, Callable[[UserEncoder, int], None]] = {
    "adapter": _adapters,
    "lora": _low_rank,
    "item_adapter": _item_adapter,
}


class Adapter(nn.Module):
    """x + W₂ GELU(W₁ x): a bottleneck of width ``rank`` that starts as the identity (Houlsby et al., 2019)."""

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, rank)
        self.up = nn.Linear(rank, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Adapt ``(..., d)``."""
        adapted: Tensor = hidden + self.up(F.gelu(self.down(hidden)))
        return adapted


class LowRankUpdate(nn.Module):
    """W + B A with A ``(rank, in)`` random and B ``(out, rank)`` initially zero (Hu et al., 2022)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, weight.shape[1], dtype=weight.dtype, device=weight.device))
        self.b = nn.Parameter(torch.zeros(weight.shape[0], rank, dtype=weight.dtype, device=weight.device))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """Update the weight ``(out, in)``."""
        return torch.addmm(weight, self.b, self.a)
