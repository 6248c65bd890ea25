"""Every stage under bfloat16 autocast: products in bfloat16, losses and gradients in float32."""

import pytest
import torch
from graph_cases import CASES, graph_batch
from torch import nn
from training_cases import streams

from adaptssr_plugin.devices import fixed_shapes


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_the_loss_is_that_of_float32_within_the_encodings_precision(make):
    losses, gradients, dtypes = [], [], set()
    for enabled in (False, True):
        torch.manual_seed(5)
        stage = make().train()
        for module in stage.modules():
            if enabled and isinstance(module, nn.Linear):
                module.register_forward_hook(lambda _module, _input, output: dtypes.add(output.dtype))
        with fixed_shapes(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = stage.step(graph_batch(1), streams(1)).loss
        loss.backward()
        losses.append(loss.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in stage.parameters() if p.grad is not None]))
    assert dtypes == {torch.bfloat16}
    assert {loss.dtype for loss in losses} == {gradient.dtype for gradient in gradients} == {torch.float32}
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.03)
    assert losses[1].item() != losses[0].item()
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.9
