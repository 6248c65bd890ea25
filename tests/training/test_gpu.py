"""Steps as CUDA graphs on a device: values, random numbers, launches and resuming (pytest -m gpu)."""

import pytest
import torch
from graph_cases import CASES, Reading, graph_batch
from readbacks import no_waiting
from recorded_graph import StageSteps
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close
from training_cases import TINY, corpus_of, encoder_of, interrupt, some_views, write_profiled_dataset

from adaptssr_plugin import AdaptSSRLoss, UserEncoder
from adaptssr_plugin.corpus import BatchLoader
from adaptssr_plugin.devices import fixed_shapes
from adaptssr_plugin.methods.plan import StagePlan
from adaptssr_plugin.recbole.user_model.pretrain import Source
from adaptssr_plugin.recbole.user_model.trainer import StageTrainer
from adaptssr_plugin.training import MaskedItemStage, PairwiseStage, Streams
from adaptssr_plugin.training.graphed_step import WARM_UP, CudaCapture, GraphedStep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
STEPS = 8


class Ordinary(CudaCapture):
    """Never captures."""

    def waits(self, step):
        return self.run(step), ["not asked for"]


def steps_of(make, kind=CudaCapture):
    torch.manual_seed(3)
    return StageSteps(make(), lambda _: kind(torch.device("cuda")), "cuda")


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_replayed_steps_are_ordinary_steps(make):
    """But for the order in which a GPU adds up."""
    ends = []
    for kind in (CudaCapture, Ordinary):
        steps = steps_of(make, kind)
        ends.append((steps, [steps(graph_batch(number).to("cuda"), number) for number in range(4 * WARM_UP)]))
    (graphed, ours), (ordinary, theirs) = ends
    assert graphed.said == []
    assert graphed.graphed.n_graphs >= 1
    assert ordinary.graphed.n_graphs == 0
    for mine, right in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(right, rel=1e-3, abs=1e-5)
    for name, weight in graphed.stage.state_dict().items():
        assert_close(weight, ordinary.stage.state_dict()[name], rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_gradients_are_those_of_the_processor(make):
    """With fixed shapes and without anything random that a device draws otherwise: dropout and masks are left out."""
    found = []
    for device in ("cpu", "cuda"):
        stage = make().to(device).train()
        for module in stage.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if isinstance(module, torch.nn.MultiheadAttention):
                module.dropout = 0.0
        batch = graph_batch(0).to(device)
        with fixed_shapes():
            users = stage.encoder(batch.item_seq, batch.item_seq_len)
        users.square().sum().backward()
        found.append({name: p.grad.cpu() for name, p in stage.encoder.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[1].items():
        assert_close(gradient, found[0][name], rtol=1e-3, atol=1e-4, msg=name)


def test_a_replayed_step_draws_the_numbers_of_an_ordinary_one():
    """From kept generators and from torch's own, exactly."""
    seen = []
    for kind in (CudaCapture, Ordinary):
        torch.cuda.manual_seed(1)
        graphed, kept = GraphedStep(kind(torch.device("cuda")), print), {}
        for number in range(2 * WARM_UP):
            streams = Streams(torch.device("cuda"), (0, number), kept)

            def step(held, streams=streams):
                views = torch.rand(5, device="cuda", generator=streams.generator("views"))
                dropped = torch.nn.functional.dropout(torch.ones(100, device="cuda"))
                return held["x"] + torch.cat((views, dropped))

            x = torch.zeros(105, device="cuda")
            seen.append(graphed({"x": x}, step, streams).clone())
            once = torch.rand(5, device="cuda", generator=Streams(torch.device("cuda"), (0, number)).generator("views"))
            assert torch.equal(seen[-1][:5], once)
    for got, right in zip(seen[: 2 * WARM_UP], seen[2 * WARM_UP :], strict=True):
        assert torch.equal(got, right)


@pytest.mark.parametrize("case", ["adaptssr", "masked items", "profile"])
def test_a_replayed_step_is_one_launch(case):
    """Beside the copies of its inputs, and a kernel for each that sets a generator's seed and offset."""
    steps = steps_of(CASES[case])
    for number in range(0, 4 * WARM_UP, 2):
        steps(graph_batch(number).to("cuda"), number)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        steps.take(graph_batch(0).to("cuda"), 99)
        torch.cuda.synchronize()
    calls = {event.key: event.count for event in seen.key_averages()}
    assert calls.get("cudaGraphLaunch") == 1
    assert calls.get("cudaLaunchKernel", 0) <= 12


def test_a_replayed_step_waits_for_nothing():
    steps = steps_of(CASES["adaptssr"])
    batch = graph_batch(0).to("cuda")
    for number in range(2 * WARM_UP):
        steps(batch, number)
    with no_waiting():
        steps.take(batch, 99)


def test_steps_that_wait_are_not_captured():
    steps = steps_of(lambda: MaskedItemStage(encoder_of(UserEncoder)))
    steps.stage = PairwiseStage(encoder_of(Reading), CASES["clue"]().views, CASES["infonce"]().loss).cuda().train()
    steps.optimizer = torch.optim.Adam(steps.stage.parameters(), fused=True, capturable=True)
    for number in range(2 * WARM_UP):
        steps(graph_batch(number).to("cuda"), number)
    assert steps.graphed.n_graphs == 0
    assert len(steps.said) == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("make", ["adaptssr", "masked items"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path, make, precision):
    folder = write_profiled_dataset(tmp_path / "small")
    amp = {"enable_amp": precision != "float32", "enable_scaler": precision == "float16"}
    config = Source(str(folder), {"use_gpu": True, "gpu_id": "0", **amp}).config(TINY["max_len"])

    def trained(directory, stop=None):
        stage = (
            MaskedItemStage(encoder_of(UserEncoder))
            if make == "masked items"
            else PairwiseStage(encoder_of(UserEncoder), some_views(), AdaptSSRLoss())
        )
        plan = StagePlan("stage", lambda *_: None, 2, 1e-3, 0.1, "last")
        trainer = StageTrainer(
            config, stage, plan, directory, seed=0, checkpoint_minutes=0.0, cuda_graphs=True,
            amp_dtype="auto" if precision == "float32" else precision, clip_grad_norm=1.0,
        )  # fmt: skip
        interrupt(trainer, stop)
        train, valid = (
            BatchLoader(corpus_of(*[10] * n), batch_size=4, max_len=10, seed=0, name=name)
            for n, name in ((4 * STEPS, "train"), (4, "valid"))
        )
        trainer.run(train, valid, show_progress=False)
        assert trainer._graphed.n_graphs == 1
        return trainer

    whole = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", stop=STEPS - 2)
    cut = trained(tmp_path / "cut")
    for name, weight in cut.stage.state_dict().items():
        assert_close(weight, whole.stage.state_dict()[name], rtol=1e-2, atol=1e-3, msg=name)
