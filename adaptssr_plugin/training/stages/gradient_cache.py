"""Gradient caching: a large batch through an encoder that fits a small device, a few rows at a time.

A loss that compares the users of a batch with one another cannot be added up from small batches; its gradient can be
passed on in parts. So the rows are encoded a few at a time without keeping what the backward would need; one loss
takes all encodings; and its backward encodes every part a second time, now with its graph, which is gone again before
the next part's is made (Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup").
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
    """Encode the rows of a batch a few at a time, keeping the encodings alone, not what lies between.

    The gradient is that of ``encoder`` called on each part in turn: what torch's own generators draw in the first
    pass, dropout masks above all, is drawn again in the second, also under autocast. Masks of parts are other numbers
    than those of the whole batch drawn at once; without anything random the gradient is that of the whole batch. It
    costs one more pass of the encoder and works with any loss, ``gather=True`` too. In one backward every weight gets
    its gradient once, so that DistributedDataParallel and ``no_sync`` notice nothing: but the call stands inside of
    the module that is wrapped.

    Args:
        encoder: ``(*inputs) -> encodings``, a tensor or a tuple of tensors with the rows first; it takes its random
            numbers from torch's own generators, gives a row the same encoding whatever rows stand beside it, and
            changes nothing outside of itself.
        *inputs: tensors of as many rows.
        micro_batch: rows encoded at once; 0: all, as ``encoder(*inputs)``.
        module: what ``encoder`` computes with, where it is not itself a module; only to look for batch norm.

    Returns:
        What ``encoder(*inputs)`` does, with its graph.

    Raises:
        InputError: ``micro_batch`` no integer of 0 or more; inputs that differ in their number of rows; batch norm
            in training, for which rows depend on those beside them; a module wrapped by DistributedDataParallel.

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
    """Refuse what cannot be encoded in parts, or twice."""
    for name, child in [] if module is None else module.named_modules():
        if isinstance(child, nn.parallel.DistributedDataParallel):
            raise InputError("micro_batch: expected an encoder inside of DistributedDataParallel, got one around it")
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.training:
            raise InputError(f"micro_batch: expected rows encoded apart from one another, got batch norm ({name})")
