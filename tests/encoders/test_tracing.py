"""The encoder on ``meta``, under ``torch.compile`` and through ``torch.export``."""

import pytest
import torch
from encoder_cases import batch, encoder, random_lengths
from torch.testing import assert_close
from tracing import compiling

METHODS = ["forward", "hidden_states"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("groups", [1, None])
def test_on_meta(method, dtype, groups):
    made = encoder(dtype=dtype, length_groups=groups).to("meta").train()
    item_seq, item_seq_len = batch(random_lengths(70, 9), width=9, device="meta")
    got = getattr(made, method)(item_seq, item_seq_len)
    assert (got.device.type, got.dtype) == ("meta", dtype)
    assert got.shape == ((70, 6) if method == "forward" else (70, 9, 6))
    got.sum().backward()
    assert made.items.weight.grad.device.type == "meta"


def assert_compiles(method, dynamic, shapes):
    torch._dynamo.reset()
    made = encoder(n_layers=1)
    compiled = torch.compile(getattr(made, method), fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for n_rows, width in shapes:
        sequences = batch(random_lengths(n_rows, width), width=width)
        found = []
        for call in (getattr(made, method), compiled):
            made.zero_grad()
            output = call(*sequences)
            output.pow(2).sum().backward()
            found.append((output, *(p.grad.clone() for p in made.parameters() if p.grad is not None)))
        assert len(found[0]) > 10
        for eager, traced in zip(*found, strict=True):
            assert_close(traced, eager)


@compiling
def test_compile_without_graph_breaks():
    assert_compiles("forward", dynamic=False, shapes=[(40, 7)])


@compiling
@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_compile_for_any_shape(method):
    assert_compiles(method, dynamic=True, shapes=[(5, 7), (70, 9)])


@compiling
def test_export_with_any_batch_and_length():
    made = encoder()
    rows, length = torch.export.Dim("rows", min=2), torch.export.Dim("length", min=2, max=16)
    shapes = {"item_seq": {0: rows, 1: length}, "item_seq_len": {0: rows}}
    exported = torch.export.export(made, batch([3, 1, 5, 2]), dynamic_shapes=shapes).module()
    for n_rows, width in ((2, 2), (7, 16), (200, 11)):
        sequences = batch(random_lengths(n_rows, width), width=width)
        assert_close(exported(*sequences), made(*sequences))
