"""Whole pre-training steps at the paper's settings, by phase: augment, encode, loss, backward and Adam."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adaptssr_plugin import AdaptSSRLoss, InfoNCELoss, ItemCrop, ItemMask, ItemReorder, RandomPair, UserEncoder
from adaptssr_plugin.augment import ViewPair
from adaptssr_plugin.corpus import Batch
from adaptssr_plugin.training import PairwiseStage, StepResult, Streams
from adaptssr_plugin.training.graphed_step import WARM_UP, CudaCapture, GraphedStep, step_of_stage
from benchmarks.support import usual_way
from benchmarks.support.lengths import ttl_lengths
from benchmarks.support.measure import (
    Stamps,
    added_mb,
    conditions,
    default_device,
    is_over,
    quantiles,
    synchronize,
    write_csv,
)
from benchmarks.support.per_user import PerUser
from benchmarks.support.plots import Point, hardware, line_chart, median_point, read_csv

N_ITEMS = 50_000
SIZES: dict[str, Any] = {"dim": 64, "n_layers": 2, "n_heads": 2, "dropout": 0.1}
LENGTHS = (100, 256)
SEED = 0
PHASES = ("augment", "forward", "backward", "optimiser", "full")


class Data:
    """One batch of users, as tensors and as lists."""

    def __init__(self, n_rows: int, length: int, n_items: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(SEED)
        lengths = ttl_lengths(n_rows, length, generator)
        items = torch.randint(1, n_items, (n_rows, length), generator=generator)
        item_seq = items.masked_fill(torch.arange(length) >= lengths[:, None], 0)
        self.n_items, self.length, self.device = n_items, length, device
        self.batch = Batch(item_seq, lengths, torch.arange(n_rows), lengths.clone()).to(device)
        self.histories = [row[:n] for row, n in zip(item_seq.tolist(), lengths.tolist(), strict=True)]


class OurStep:
    """The stage and the optimiser with which ``StageTrainer`` trains."""

    def __init__(self, data: Data, criterion: AdaptSSRLoss | InfoNCELoss, distinct: bool) -> None:
        torch.manual_seed(SEED)
        self.data = data
        operators = [ItemMask(0.6, mask_id=data.n_items), ItemCrop(0.4), ItemReorder(0.6)]
        self.views = RandomPair(operators, distinct=distinct)
        self.stamps = Stamps(data.device)
        encoder = UserEncoder(data.n_items, max_len=data.length, **SIZES)
        self.stage = PairwiseStage(encoder, self._stamped_views, criterion).to(data.device).train()
        self.optimizer = torch.optim.Adam(self.stage.parameters(), lr=1e-3, fused=True)
        self.number = 0

    def _stamped_views(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator) -> ViewPair:
        pair: ViewPair = self.views(item_seq, item_seq_len, generator)
        self.stamps.mark()
        return pair

    def __call__(self) -> list[float]:
        """Take a step; returns the time of each of its phases."""
        self.number += 1
        self.stamps = Stamps(self.data.device)
        self.stamps.mark()
        result = self.stage.step(self.data.batch, Streams(self.data.device, (SEED, "step", 0, self.number)))
        self.stamps.mark()
        self.optimizer.zero_grad(set_to_none=True)
        result.loss.backward()  # type: ignore[no-untyped-call]
        self.stamps.mark()
        self.optimizer.step()
        self.stamps.mark()
        return self.stamps.seconds()


def take_step(stage: PairwiseStage, optimizer: torch.optim.Optimizer, streams: Streams, batch: Batch) -> StepResult:
    """Take a training step, without a look at its phases."""
    optimizer.zero_grad(set_to_none=True)
    result = stage.step(batch, streams)
    result.loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return result


class GraphedOurStep(OurStep):
    """The same step as a CUDA graph, which has no phases."""

    def __init__(self, data: Data, criterion: AdaptSSRLoss | InfoNCELoss, distinct: bool) -> None:
        super().__init__(data, criterion, distinct)
        self.stage.views = self.views
        for group in self.optimizer.param_groups:
            group["capturable"] = True
        self.graphed: GraphedStep[StepResult] = GraphedStep(CudaCapture(data.device), print)
        self.kept: dict[str, torch.Generator] = {}

    def __call__(self) -> list[float]:
        """Take a step; returns its time."""
        self.number += 1
        streams = Streams(self.data.device, (SEED, "step", 0, self.number), self.kept)
        take = partial(take_step, self.stage, self.optimizer, streams)
        stamps = Stamps(self.data.device)
        stamps.mark()
        step_of_stage(self.graphed, self.stage, self.data.batch, streams, take, self.data.length)
        stamps.mark()
        return stamps.seconds()


class UsualStep:
    """The same step, written in the usual way."""

    def __init__(self, data: Data) -> None:
        torch.manual_seed(SEED)
        self.data = data
        self.model = usual_way.UserModel(data.n_items, max_len=data.length, **SIZES).to(data.device).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.operators = PerUser(data.n_items, (), SEED)

    def __call__(self) -> list[float]:
        """Take a step; returns the time of each of its phases."""
        data, stamps = self.data, Stamps(self.data.device)
        stamps.mark()
        views = []
        for _ in range(2):
            view = usual_way.padded_views(data.histories, data.length, self.operators)
            views.append((view[0].to(data.device), view[1].to(data.device)))
        stamps.mark()
        loss = usual_way.loss_of(self.model, views, data.batch.user_ids)
        stamps.mark()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        stamps.mark()
        self.optimizer.step()
        stamps.mark()
        return stamps.seconds()


CANDIDATES: dict[str, Callable[[Data], Callable[[], list[float]]]] = {
    "adaptssr": lambda data: OurStep(data, AdaptSSRLoss(), distinct=False),
    "infonce": lambda data: OurStep(data, InfoNCELoss(), distinct=False),
    "cl4srec": lambda data: OurStep(data, InfoNCELoss(), distinct=True),
    "usual_way": UsualStep,
}
GRAPHED = {"adaptssr, graph": lambda data: GraphedOurStep(data, AdaptSSRLoss(), distinct=False)}  # on CUDA


def run(output: Path, quick: bool) -> None:
    """Measure, print and write ``step.csv`` and ``step-memory.csv``."""
    device = default_device()
    n_rows, n_items, lengths = (16, 500, (8, 20)) if quick else (128, N_ITEMS, LENGTHS)
    rows: list[dict[str, object]] = []
    circumstances = conditions(SEED)
    for length in lengths:
        if is_over(f"L = {length:3d}"):
            break
        repeats = 3 if quick else 40 if length <= 100 or device.type == "cuda" else 15
        measured = _measure(Data(n_rows, length, n_items, device), repeats)
        phases_of = {name: [phase for phase in PHASES if phases[phase]] for name, phases in measured.items()}
        reference = quantiles(measured["adaptssr"]["full"])["median_ms"]
        sizes = {"B": n_rows, "L": length, "d": SIZES["dim"], "n_items": n_items}
        for name, phases in measured.items():
            for phase in phases_of[name]:
                numbers = quantiles(phases[phase])
                per_second = round(1e3 * n_rows / numbers["median_ms"]) if phase == "full" else ""
                row = {"candidate": name, "phase": phase, **sizes, **numbers, "repeats": repeats}
                rows.append({**row, "sequences_per_second": per_second, **circumstances})
            ratio = quantiles(phases["full"])["median_ms"] / reference
            shown = "  ".join(f"{phase} {quantiles(phases[phase])['median_ms']:7.1f}" for phase in phases_of[name])
            print(f"L = {length:3d}  {name:15s}  {shown} ms  {ratio:5.2f} x adaptssr")
        write_csv(output / "step.csv", rows)
    _memory(output, n_rows, n_items, lengths, device)


def _measure(data: Data, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Time the phases of every candidate's steps, the candidates in turn: candidate, phase, seconds."""
    candidates = CANDIDATES | (GRAPHED if data.device.type == "cuda" else {})
    steps = {name: make(data) for name, make in candidates.items()}
    measured: dict[str, dict[str, list[float]]] = {name: {phase: [] for phase in PHASES} for name in steps}
    for step in steps.values():
        for _ in range(WARM_UP + 2):  # Adam's state is made in the first, a graph in the last but one
            step()
    synchronize(data.device)
    for _ in range(repeats):
        for name, step in steps.items():
            seconds = step()
            phases = PHASES if len(seconds) > 1 else ("full",)
            for phase, value in zip(phases, (*seconds, sum(seconds))[-len(phases) :], strict=True):
                measured[name][phase].append(value)
    return measured


def first_step(name: str, n_rows: int, length: int, n_items: int, device: str) -> None:
    """Take one step of a candidate, its model, gradients and optimiser included, to measure peak memory."""
    CANDIDATES[name](Data(n_rows, length, n_items, torch.device(device)))()


def _memory(output: Path, n_rows: int, n_items: int, lengths: tuple[int, ...], device: torch.device) -> None:
    rows, circumstances = [], conditions(SEED)
    for length in lengths:
        if is_over(f"L = {length:3d}: memory"):
            break
        for name in CANDIDATES:
            added = added_mb(first_step, (name, 2, 4, 10), (name, n_rows, length, n_items), device)
            print(f"L = {length:3d}  {name:9s}  adds {added:6.0f} MB to peak memory, model and Adam's state included")
            row = {"candidate": name, "B": n_rows, "L": length, "d": SIZES["dim"], "n_items": n_items}
            rows.append({**row, "added_mb": round(added, 1), **circumstances})
        write_csv(output / "step-memory.csv", rows)


def plot(output: Path) -> None:
    """Draw ``step.png`` from ``step.csv``."""
    rows = [row for row in read_csv(output / "step.csv") if row["phase"] == "full"]
    lines: dict[str, list[Point]] = {}
    for row in rows:
        lines.setdefault(row["candidate"], []).append(median_point(row, "L"))
    line_chart(
        output / "step.png",
        lines,
        title=f"A pre-training step, B = {rows[0]['B']}\n{hardware(rows[0])}",
        x_label="L, the longest sequence",
        y_label="ms per step",
    )
