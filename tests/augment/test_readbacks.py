"""The counter of read-backs counts what makes the CPU wait, and nothing else."""

import pytest
import torch
from readbacks import count_readbacks

VALUES = torch.arange(6.0)
LARGE = VALUES > 2
REPEATS = torch.tensor([1, 2, 3, 1, 1, 1])


@pytest.mark.parametrize(
    "call",
    [
        lambda: VALUES[0].item(),
        lambda: bool(LARGE.any()),
        lambda: float(VALUES.max()),
        lambda: f"{VALUES[1]:.2f}",
        lambda: VALUES.tolist(),
        lambda: VALUES.cpu(),
        lambda: VALUES.nonzero(),
        lambda: torch.where(LARGE),
        lambda: VALUES.masked_select(LARGE),
        lambda: VALUES[LARGE],
        lambda: VALUES.clone().index_put_((LARGE,), torch.tensor(0.0)),
        lambda: VALUES.unique(),
        lambda: VALUES.unique(return_counts=True),
        lambda: VALUES[None].unique(dim=0),
        lambda: torch.unique_consecutive(VALUES),
        lambda: torch.equal(VALUES, VALUES),
        lambda: torch.allclose(VALUES, VALUES),
        lambda: VALUES.long().bincount(),
        lambda: VALUES.repeat_interleave(REPEATS),
    ],
)
def test_counted(call):
    with count_readbacks() as reads:
        call()
    assert len(reads) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: VALUES[REPEATS],
        lambda: VALUES.index_select(0, REPEATS),
        lambda: torch.where(LARGE, VALUES, 0),
        lambda: VALUES.masked_fill(LARGE, 0),
        lambda: VALUES.repeat_interleave(REPEATS, output_size=9),
        lambda: VALUES.repeat_interleave(2),
        lambda: VALUES.sort(),
        lambda: VALUES.long().to(torch.float32),
        lambda: VALUES.numpy(),
        lambda: VALUES.to("meta"),
    ],
)
def test_not_counted(call):
    with count_readbacks() as reads:
        call()
    assert reads == []


def test_copies_from_a_device_are_counted():
    """Meta stands for the device; it refuses the copy, after having been asked for it."""
    elsewhere = VALUES.to("meta")
    with count_readbacks() as reads, pytest.raises(NotImplementedError):
        elsewhere.to("cpu")
    assert reads == ["aten._to_copy.default"]
    with count_readbacks() as reads, pytest.raises(NotImplementedError):
        VALUES.clone().copy_(elsewhere)
    assert reads == ["aten.copy_.default"]


def test_reads_in_a_backward_pass_are_counted():
    total = VALUES.clone().requires_grad_().sum()
    total.register_hook(lambda gradient: gradient * gradient.item())
    with count_readbacks() as reads:
        total.backward()
    assert reads == ["aten._local_scalar_dense.default"]
