"""Self-attention within rows, which are either padded to one width or concatenated in blocks."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .dropout import kept_levels, packs_bits, random_levels
from .length_groups import Block


def attend(projected: Tensor, visible: Tensor | Sequence[Block], n_heads: int, dropout: nn.Dropout) -> Tensor:
    """Attend within rows: queries, keys and values ``(B, L, 3 · d)`` to contexts ``(B, L, d)``.

    Args:
        projected: queries, keys and values concatenated for every position, each of all heads; or, with blocks,
            ``(C, P, 3 · d)``: C copies of P positions, those of the blocks in order.
        visible: bool ``(B, L)``, which positions may be attended to, at least one per row; or blocks of rows.
        n_heads: must divide d.
        dropout: on the attention weights, with a separate mask for every copy.
    """
    if isinstance(visible, Tensor):
        return _attend_by_torch(projected, visible, n_heads, dropout)
    if packs_bits(dropout, projected):
        # Half precision is computed in float32, with the masks that float32 draws from the same seed.
        exact = projected.to(torch.promote_types(projected.dtype, torch.float32))
        with torch.autocast("cpu", enabled=False):
            dropped: Tensor = _DroppedAttention.apply(exact, visible, n_heads, dropout.p)  # type: ignore[no-untyped-call]
        return dropped.to(projected.dtype)
    contexts = []
    for block, part in zip(visible, torch.split(projected, [block.size for block in visible], 1), strict=True):
        copies, _, width = part.shape
        rows = part.reshape(copies * len(block.rows), block.width, width)
        context = _attend_by_torch(rows, block.mask().repeat(copies, 1), n_heads, dropout)
        contexts.append(context.view(copies, block.size, -1))
    return torch.cat(contexts, 1)


def _attend_by_torch(projected: Tensor, visible: Tensor, n_heads: int, dropout: nn.Dropout) -> Tensor:
    batch, length, width = projected.shape
    query, key, value = projected.view(batch, length, 3, n_heads, width // 3 // n_heads).permute(2, 0, 3, 1, 4)
    context = F.scaled_dot_product_attention(  # each (B, heads, L, d / heads)
        query, key, value, attn_mask=visible[:, None, None], dropout_p=dropout.p if dropout.training else 0.0
    )
    return context.transpose(1, 2).reshape(batch, length, width // 3)


class _DroppedAttention(torch.autograd.Function):
    """Attention with dropout on its weights, on a CPU, where torch's own version draws masks one by one.

    Temporaries of a block are in buffers that all blocks share: allocating memory costs more than the products.
    """

    @staticmethod
    def forward(ctx: Any, projected: Tensor, blocks: Sequence[Block], n_heads: int, p: float) -> Tensor:
        copies, positions, width = projected.shape
        sizes = [copies * n_heads * block.size * block.width for block in blocks]
        levels, weights = random_levels(sum(sizes)), projected.new_empty(sum(sizes))
        context = projected.new_empty(copies, positions, width // 3)
        buffers = _Buffers(projected, blocks, n_heads, max(sizes))
        least, keep_scale = kept_levels(p)
        start = 0
        for block, own_levels, own in zip(blocks, torch.split(levels, sizes), torch.split(weights, sizes), strict=True):
            query, key, value = buffers.heads(0, projected, start, block, 3)  # each (C · g · heads, w, d / heads)
            query.mul_((width // 3 // n_heads) ** -0.5)
            value.mul_(keep_scale)
            square = len(query), block.width, block.width
            scores = torch.bmm(query, key.transpose(1, 2), out=buffers.square(0, square))
            if block.visible is not None:
                bias = scores.new_zeros(block.visible.shape).masked_fill_(~block.visible, -torch.inf)  # (g, w)
                scores.view(copies, len(bias), -1, block.width).add_(bias[:, None])
            own = torch.softmax(scores, -1, out=own.view(square))
            kept = torch.ge(own_levels.view(square), least, out=buffers.square(1, square))
            torch.bmm(kept.mul_(own), value, out=query)
            buffers.put(query[None], context, start, block)
            start += block.size
        ctx.save_for_backward(projected, context, levels, weights)
        ctx.blocks, ctx.n_heads, ctx.p, ctx.sizes = blocks, n_heads, p, sizes
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        projected, context, levels, weights = ctx.saved_tensors
        copies, positions, width = projected.shape
        scale = (width // 3 // ctx.n_heads) ** -0.5
        grad, grad_projected = grad.contiguous(), torch.empty_like(projected)
        # Softmax needs the sum over keys of weight times gradient. It equals the context times its gradient, summed
        # over d / heads numbers, which are fewer.
        passed = (grad * context).view(copies, positions, ctx.n_heads, -1).sum(-1)  # (C, P, heads)
        buffers = _Buffers(projected, ctx.blocks, ctx.n_heads, max(ctx.sizes))
        least, keep_scale = kept_levels(ctx.p)
        start = 0
        parts = zip(ctx.blocks, torch.split(levels, ctx.sizes), torch.split(weights, ctx.sizes), strict=True)
        for block, own_levels, own in parts:
            query, key, value = buffers.heads(0, projected, start, block, 3)
            (grad_context,) = buffers.heads(1, grad, start, block, 1)
            (row_sums,) = buffers.heads(2, passed, start, block, 1)  # (C · g · heads, w, 1)
            grads = buffers.like(3, query, 3)
            value.mul_(keep_scale)
            own = own.view(len(query), block.width, block.width)
            kept = torch.ge(own_levels.view(own.shape), least, out=buffers.square(1, own.shape))
            scores = torch.mul(own, kept, out=buffers.square(0, own.shape))
            torch.bmm(scores.transpose(1, 2), grad_context, out=grads[2]).mul_(keep_scale)
            torch.bmm(grad_context, value.transpose(1, 2), out=scores).mul_(kept).sub_(row_sums).mul_(own)
            torch.bmm(scores, key, out=grads[0])
            torch.bmm(scores.transpose(1, 2), query, out=grads[1])
            grads[:2].mul_(scale)
            buffers.put(grads, grad_projected, start, block)
            start += block.size
        return grad_projected, None, None, None


class _Buffers:
    """Buffers that the blocks share one after another, and conversion between the two layouts."""

    def __init__(self, projected: Tensor, blocks: Sequence[Block], n_heads: int, largest_square: int) -> None:
        copies, _, width = projected.shape
        most = copies * max(block.size for block in blocks) * width
        self._new = projected.new_empty
        self._flat: dict[int, Tensor] = {}
        self._most = most
        self._squares = projected.new_empty(2, largest_square)
        self._n_heads = n_heads

    def heads(self, place: int, packed: Tensor, start: int, block: Block, parts: int) -> Tensor:
        """Copy the positions of a block, of ``(C, P, parts · d)``, as ``(parts, C · g · heads, w, d / heads)``."""
        view = self._positions(packed, start, block, parts).permute(3, 0, 1, 4, 2, 5)
        copied = self._take(place, view.numel()).view(view.shape).copy_(view)
        return copied.view(parts, -1, block.width, view.shape[-1])

    def put(self, heads: Tensor, packed: Tensor, start: int, block: Block) -> None:
        """Copy ``(parts, C · g · heads, w, d / heads)`` to the positions of a block in ``(C, P, parts · d)``."""
        view = self._positions(packed, start, block, len(heads)).permute(3, 0, 1, 4, 2, 5)
        view.copy_(heads.view(view.shape))

    def like(self, place: int, other: Tensor, parts: int) -> Tensor:
        """Return an uninitialised tensor of ``parts`` times the shape of another."""
        return self._take(place, parts * other.numel()).view(parts, *other.shape)

    def square(self, place: int, shape: Sequence[int]) -> Tensor:
        """Return one of two uninitialised tensors of the shape of the weights."""
        return self._squares[place, : math.prod(shape)].view(tuple(shape))

    def _take(self, place: int, size: int) -> Tensor:
        if place not in self._flat:
            self._flat[place] = self._new(self._most)
        return self._flat[place][:size]

    def _positions(self, packed: Tensor, start: int, block: Block, parts: int) -> Tensor:
        """View the positions of a block, of ``(C, P, parts · d)``, as ``(C, g, w, parts, heads, d / heads)``."""
        part = packed[:, start : start + block.size]
        size = packed.shape[-1] // (parts * self._n_heads)
        return part.view(len(packed), len(block.rows), block.width, parts, self._n_heads, size)
