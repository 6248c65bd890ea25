"""Gradient caching: a large batch through an encoder on a small device, a few rows at a time.

A loss that compares the users of a batch cannot be summed over small batches, but its gradient can be passed on in
parts. The rows are encoded a few at a time without keeping what the backward needs. One loss takes all encodings. Its
backward encodes every part a second time, now with its graph, which is freed before the next part (Gao et al. 2021,
"Scaling deep contrastive learning batch size under memory limited setup").
"""

from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...errors import InputError, check_count

Encodings = TypeVar("Encodings", Tensor, tuple[Tensor, ...])


def encode_in_micro_batches(
    encoder: Callable[..., Encodings], *inputs: Tensor, micro_batch: int, module: nn.Module | None = None
) -> Encodings:
    """Encode the rows of a batch a few at a time, keeping only the encodings.

    The gradient is that of ``encoder`` called on each part in turn. What torch's own generators draw in the first
    pass, such as dropout masks, is drawn again in the second, also under autocast. The masks of parts differ from those
    of the whole batch drawn at once; without random numbers the gradient is that of the whole batch. It costs one
    more pass of the encoder and works with any loss, including ``gather=True``. Every weight gets its gradient once per
    backward, so DistributedDataParallel and ``no_sync`` work; the call has to be inside the wrapped module.

    Args:
        encoder: ``(*inputs) -> encodings``, a tensor or a tuple of tensors with the rows first. It takes its random
            numbers from torch's own generators, encodes a row independently of the other rows, and has no side
            effects.
        *inputs: tensors with the same number of rows.
        micro_batch: rows encoded at once; 0: all, as ``encoder(*inputs)``.
        module: what ``encoder`` computes with, if it is not a module itself; used only to look for batch norm.

    Returns:
        The result of ``encoder(*inputs)``, with its graph.

    Raises:
        InputError: ``micro_batch`` is not an integer of 0 or more; inputs that differ in their number of rows; batch
            norm in training, where a row depends on others; a module wrapped by DistributedDataParallel.

    Example:
        >>> encoder = UserEncoder(n_items, dim=8)
        >>> encode_in_micro_batches(encoder, item_seq, item_seq_len, micro_batch=1).shape
        torch.Size([2, 8])
    """
    check_count("micro_batch", micro_batch, 0)
    n_rows = [len(tensor) for tensor in inputs]
    if len(set(n_rows)) != 1:
        raise InputError(f"inputs: expected tensors of as many rows, got {n_rows}")
    if not 0 < micro_batch < n_rows[0]:
        return encoder(*inputs)
    _check_module(encoder if isinstance(encoder, nn.Module) else module)
    parts = [
        cast(Encodings, checkpoint(encoder, *part, use_reentrant=False))
        for part in zip(*(torch.split(tensor, micro_batch) for tensor in inputs), strict=True)
    ]
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return cast(Encodings, tuple(torch.cat(column) for column in zip(*parts, strict=True)))


def _check_module(module: nn.Module | None) -> None:
    """Refuse modules that cannot encode in parts, or twice."""
    for name, child in [] if module is None else module.named_modules():
        if isinstance(child, nn.parallel.DistributedDataParallel):
            raise InputError("micro_batch: expected an encoder inside of DistributedDataParallel, got one around it")
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.training:
            raise InputError(f"micro_batch: expected rows encoded apart from one another, got batch norm ({name})")
