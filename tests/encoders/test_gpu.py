"""The encoder on CUDA: values, gradients, and how often the CPU waits (pytest -m gpu)."""

import warnings

import pytest
import torch
from encoder_cases import batch, encoder, random_lengths
from readbacks import count_readbacks
from torch.testing import assert_close

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
METHODS = ["forward", "hidden_states"]


def waits_of(run):
    """How often ``run`` makes the CPU wait for the device."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [str(warning.message) for warning in caught if "synchroniz" in str(warning.message)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("groups", [1, 5, None])
@pytest.mark.parametrize("embed_norm", [True, False])
def test_values_and_gradients(method, groups, embed_norm):
    found = []
    for device in ("cpu", "cuda"):
        made = encoder(length_groups=groups, embed_norm=embed_norm).to(device)
        output = getattr(made, method)(*batch(random_lengths(200, 9), width=11, device=device))
        weights = torch.randn(output.shape, dtype=output.dtype, generator=torch.Generator().manual_seed(1))
        (output * weights.to(device)).sum().backward()
        gradients = {name: p.grad.cpu() for name, p in made.named_parameters() if p.grad is not None}
        found.append((output.detach().cpu(), gradients))
    (right, right_gradients), (got, gradients) = found
    assert_close(got, right, rtol=1e-9, atol=1e-10)
    assert gradients.keys() == right_gradients.keys()
    for name, gradient in gradients.items():
        assert_close(gradient, right_gradients[name], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("groups", "n_reads"), [(1, 0), (5, 1), (None, 1)])
def test_waits_of_a_training_pass(method, groups, n_reads):
    made = encoder(length_groups=groups, dtype=torch.float32).cuda().train()
    sequences = batch(random_lengths(200, 9), device="cuda")

    def step():
        getattr(made, method)(*sequences).sum().backward()

    step()  # handles and workspaces are made on first use, and may wait
    assert len(waits_of(step)) == n_reads
    with count_readbacks() as reads:
        step()
    assert len(reads) == n_reads


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("groups", [1, None])
def test_half_precision(dtype, autocast, groups):
    exact = encoder(dtype=torch.float32, spread=0.1, dim=16)
    own = torch.float32 if autocast else dtype
    made = encoder(dtype=own, spread=0.1, dim=16, length_groups=groups).cuda()
    lengths = random_lengths(80, 11)
    right = exact(*batch(lengths, width=13))
    with torch.autocast("cuda", dtype, enabled=autocast):
        got = made(*batch(lengths, width=13, device="cuda"))
    assert (got.float().cpu() - right).norm() / right.norm() < (0.02 if dtype == torch.bfloat16 else 0.003)
    got.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in made.parameters())
