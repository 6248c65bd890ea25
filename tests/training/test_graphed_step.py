"""Steps as CUDA graphs, proved on a CPU by a stand-in that replays recorded operations."""

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from graph_cases import CASES, MAX_LEN, USERS, Reading, graph_batch
from readbacks import count_readbacks
from recorded_graph import RecordedCapture, StageSteps
from torch.testing import assert_close
from tracing import compiling
from training_cases import CPU, assert_same_weights, batch_of, encoder_of, some_views, streams

from adaptssr_plugin import AdaptSSRLoss, UserEncoder
from adaptssr_plugin.devices import fixed_shapes, on_cpu, shapes_are_fixed
from adaptssr_plugin.training import MaskedItemStage, NextItemStage, PairwiseStage, Streams
from adaptssr_plugin.training.fixed_sizes import fixed_size
from adaptssr_plugin.training.graphed_step import WARM_UP, GraphedStep, graphed_step

STAGES = pytest.mark.parametrize("make", CASES.values(), ids=CASES)


@STAGES
def test_replayed_steps_are_ordinary_steps(make):
    """Weights and logs of steps on changing batches are the same, bit by bit, replayed or not."""
    ends = []
    for captures in (True, False):
        torch.manual_seed(3)
        steps = StageSteps(make(), captures=captures)
        ends.append((steps, [steps(graph_batch(number), number) for number in range(10)]))
    (graphed, ours), (ordinary, theirs) = ends
    assert graphed.capture.captured >= 1
    assert graphed.capture.replayed == 10 - graphed.capture.ordinary > 0
    assert ordinary.capture.captured == 0
    assert graphed.said == []
    assert ours == theirs
    assert_same_weights(graphed.stage.state_dict(), ordinary.stage.state_dict())
    assert len({row["of the step"] for row in ours}) == 10


@STAGES
def test_a_step_with_fixed_shapes_reads_nothing_back(make):
    stage = make().train()
    assert stage.why_eager() is None
    with fixed_shapes():
        stage.step(graph_batch(0), streams(0)).loss.backward()  # the first looks whether dropout is on
        batch = graph_batch(1)
        with count_readbacks() as reads:
            stage.step(batch, streams(1)).loss.backward()
    assert reads == []


class _Undrawn(Streams):
    def generator(self, name):  # torch has no generators on meta
        return None


@STAGES
def test_a_step_with_fixed_shapes_runs_on_meta(make):
    """Every shape follows from those of the batch and from ``fixed``, and no tensor is born on another device."""
    stage = make().to("meta").train()
    stage._dropout_seen = True
    if hasattr(stage, "views"):
        getattr(stage.views, "__dict__", {})["_dropout_seen"] = True
    with fixed_shapes():
        result = stage.step(graph_batch(0).to("meta"), _Undrawn(torch.device("meta"), ()))
    result.loss.backward()
    assert {value.device.type for value in result.logs.values()} == {"meta"}
    assert next(parameter for parameter in stage.parameters() if parameter.grad is not None).grad.is_meta


@pytest.mark.parametrize(
    ("make", "options"), [(MaskedItemStage, {}), (MaskedItemStage, {"pooled": 0.5}), (NextItemStage, {})]
)
def test_room_that_is_left_over_changes_neither_loss_nor_gradients(make, options):
    found = []
    for fixed in (False, True):
        stage = make(encoder_of(UserEncoder, dropout=0.0), **options).train()
        batch = batch_of(1, 9, 4, 12, 1, 2, 3, 5)
        with fixed_shapes() if fixed else nullcontext():
            (slots,), count = stage.fixed(batch), stage.count(batch.lengths)
            assert slots > count if fixed else slots == count
            result = stage.step(batch, streams(0))
        result.loss.backward()
        found.append((result.loss, {n: p.grad for n, p in stage.named_parameters() if p.grad is not None}))
    (right, gradients), (got, ours) = found
    assert_close(got, right)
    assert ours.keys() == gradients.keys()
    for name, gradient in ours.items():
        assert_close(gradient, gradients[name], msg=name)


def test_one_graph_for_each_width_and_number_of_rows():
    steps = StageSteps(CASES["adaptssr"]())
    for number in range(5):
        for longest in (6, MAX_LEN):
            steps(graph_batch(number, longest), number)
    assert (steps.capture.ordinary, steps.capture.captured, steps.graphed.n_graphs) == (2 * WARM_UP, 2, 2)
    steps(batch_of(5, 12, 7), 5)  # a short batch is an ordinary step at first
    assert (steps.capture.ordinary, steps.capture.captured) == (2 * WARM_UP + 1, 2)


def test_sizes_within_a_step_are_part_of_the_choice():
    steps = StageSteps(CASES["masked items"]())
    few, many = batch_of(12, *[2] * 7), batch_of(*[12] * 8)
    for number in range(2 * WARM_UP + 2):
        steps((few, many)[number % 2], number)
    assert steps.capture.captured == 2


def test_steps_that_wait_are_not_captured():
    stage = PairwiseStage(encoder_of(Reading, max_len=MAX_LEN), CASES["clue"]().views, CASES["infonce"]().loss)
    steps = StageSteps(stage)
    for number in range(WARM_UP + 3):
        steps(graph_batch(number), number)
    assert (steps.capture.captured, steps.capture.ordinary) == (0, WARM_UP + 3)
    (line,) = steps.said
    assert line.startswith("cuda_graphs: steps run one operation at a time: the host waits for the device in them (")
    assert "\n" not in line


def test_the_stand_in_catches_a_step_that_depends_on_python():
    """Otherwise it would prove nothing: a number that changes from step to step stays that of the capture."""
    numbers, seen, graphed = iter(range(10)), [], GraphedStep(RecordedCapture(list), print)
    for _ in range(WARM_UP + 3):
        result = graphed({"x": torch.zeros(())}, lambda held: held["x"] + next(numbers), Streams(CPU, (), {}))
        seen.append(result.item())
    assert seen == [*range(WARM_UP), *[WARM_UP] * 3]


def test_inputs_are_copied_and_shapes_and_dtypes_separate_graphs():
    capture = RecordedCapture(list)
    graphed = GraphedStep(capture, print)
    held = set()

    def double(tensors):
        held.add(tensors["x"].data_ptr())
        return tensors["x"] * 2

    for number in range(WARM_UP + 3):
        x = torch.full((3,), float(number))
        assert graphed({"x": x}, double, Streams(CPU, (), {})).tolist() == [2.0 * number] * 3
        assert x.data_ptr() not in held
    assert len(held) == 1
    graphed({"x": torch.zeros(3, dtype=torch.int64)}, double, Streams(CPU, (), {}))
    graphed({"x": torch.zeros(4)}, double, Streams(CPU, (), {}))
    graphed({"x": torch.zeros(3)}, double, Streams(CPU, (), {}), fixed=1)
    assert len(held) == 4
    assert capture.captured == 1


def test_there_are_not_more_graphs_than_a_device_can_hold(monkeypatch):
    monkeypatch.setattr("adaptssr_plugin.training.graphed_step._MOST_GRAPHS", 2)
    said, capture = [], RecordedCapture(list)
    graphed = GraphedStep(capture, said.append)
    for number in range(WARM_UP + 3):
        for size in (1, 2, 3, 4):
            x = torch.full((size,), float(number))
            assert graphed({"x": x}, lambda held: held["x"] * 2, Streams(CPU, (), {})).tolist() == [2.0 * number] * size
    assert capture.captured == graphed.n_graphs == 2
    assert said == ["cuda_graphs: there are 2 graphs; steps of other shapes run one operation at a time"]


def test_kept_generators_draw_what_new_ones_draw():
    kept, name = {}, "views"
    for step in range(3):
        streams_of_step = Streams(CPU, (0, step), kept)
        streams_of_step.begin()
        got = torch.rand(4, generator=streams_of_step.generator(name))
        assert torch.equal(got, torch.rand(4, generator=Streams(CPU, (0, step)).generator(name)))
    assert list(kept) == [name]


@pytest.mark.parametrize(
    ("size", "most", "sizes", "expected"),
    [
        (1, 100, 4, 25),
        (25, 100, 4, 25),
        (26, 100, 4, 50),
        (100, 100, 4, 100),
        (97, 99, 4, 99),
        (1, 1, 4, 1),
        (3, 7, 8, 3),
    ],
)
def test_fixed_sizes(size, most, sizes, expected):
    assert fixed_size(size, most, sizes) == expected


def test_there_are_few_sizes():
    assert len({fixed_size(size, 3840, 8) for size in range(1, 3841)}) == 8


def test_fixed_shapes_end_with_their_context():
    with fixed_shapes():
        with fixed_shapes():
            assert shapes_are_fixed()
            assert not on_cpu(torch.zeros(1))
        assert shapes_are_fixed()
    assert not shapes_are_fixed()
    assert on_cpu(torch.zeros(1))


class _Scheduled(torch.nn.Module):
    def set_epoch(self, epoch, encoder):
        """Change with the epoch."""


@pytest.mark.parametrize(
    ("options", "views", "reason"),
    [
        ({"micro_batch": 2}, None, "micro_batch 2 encodes a batch in parts"),
        ({}, _Scheduled(), "the views of adaptssr change from epoch to epoch"),
    ],
)
def test_stages_that_cannot_be_captured_say_why(options, views, reason):
    stage = PairwiseStage(encoder_of(UserEncoder), views or some_views(), AdaptSSRLoss(), **options)
    assert stage.why_eager() == reason
    said = []
    assert graphed_step(torch.device("cuda"), stage.why_eager(), said.append) is None
    assert said == [f"cuda_graphs: steps run one operation at a time, as without it: {reason}"]


def test_a_cpu_says_so():
    said = []
    assert graphed_step(CPU, None, said.append) is None
    assert said == ["cuda_graphs: steps run one operation at a time, as without it: there is no CUDA device, but cpu"]


@compiling
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
@pytest.mark.parametrize("case", ["adaptssr", "masked items"])
def test_a_step_compiles_without_graph_breaks(case):
    """Views, encodings and loss in one graph, their gradients in another; without generators, which it cannot hold."""
    torch._dynamo.reset()
    stage = CASES[case]().train()
    batch = graph_batch(0)
    assert len(batch) == USERS

    def loss_of(item_seq, item_seq_len, user_ids):
        held = dataclasses.replace(batch, item_seq=item_seq, item_seq_len=item_seq_len, user_ids=user_ids)
        return stage.step(held, _Undrawn(CPU, ())).loss

    stage._dropout_seen = True
    if case == "masked items":  # a number of the host, which belongs to the choice of the graph
        with fixed_shapes():
            (slots,) = stage.fixed(batch)
        stage._n_slots = lambda _: slots
    compiled = torch.compile(loss_of, fullgraph=True, backend="aot_eager", dynamic=False)
    found = []
    for call in (loss_of, compiled):
        stage.zero_grad()
        torch.manual_seed(5)
        with fixed_shapes():
            loss = call(batch.item_seq, batch.item_seq_len, batch.user_ids)
            loss.backward()
        found.append((loss.detach(), [p.grad.clone() for p in stage.parameters() if p.grad is not None]))
    assert_close(found[1][0], found[0][0])
    for got, right in zip(found[1][1], found[0][1], strict=True):
        assert_close(got, right)
