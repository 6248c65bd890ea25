"""Steps as CUDA graphs, proved on a CPU by a stand-in that replays recorded operations."""

import torch
from recorded_graph import RecordedCapture
from torch import nn
from training_cases import CPU, N_ITEMS, batch_of, batches_of, encoder_of, some_views

from adaptssr_plugin import AdaptSSRLoss, InfoNCELoss, UserEncoder
from adaptssr_plugin.training import MaskedItemStage, NextItemStage, PairwiseStage, Streams
from adaptssr_plugin.training.graphed_step import GraphedStep


def test_x():
    torch.manual_seed(0)
    stage = PairwiseStage(encoder_of(UserEncoder), some_views(), AdaptSSRLoss()).train()
    opt = torch.optim.Adam(stage.parameters(), lr=1e-2, fused=True)
    cap = RecordedCapture(lambda: [*stage.parameters(), *(v for s in opt.state.values() for v in s.values())])
    graphed = GraphedStep(cap, print)
    import dataclasses
    kept = {}
    for n in range(8):
        batch = batch_of(5, 3, 7, 2, seed=n)
        streams = Streams(CPU, (0, n), kept)
        def step(t):
            opt.zero_grad(set_to_none=True)
            r = stage.step(dataclasses.replace(batch, **t), streams)
            r.loss.backward()
            opt.step()
            return r._replace(loss=r.loss.detach())
        r = graphed(batch.on_device(), step, streams, CPU)
        print(n, r.loss, cap.ordinary, cap.captured, cap.replayed)
