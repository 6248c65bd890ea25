"""Pre-training steps from corpora of 10 thousand to 1.5 million users over the paper's 645,972 items: speed and memory.

Every size runs in a separate process with the same model, so that two rows differ only in the corpus.
"""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.support.lengths import TTL_MEAN_LENGTH
from benchmarks.support.measure import conditions, default_device, is_over, quantiles, status_mb, synchronize, write_csv
from benchmarks.support.plots import Point, hardware, line_chart, read_csv

if TYPE_CHECKING:
    from adaptssr_plugin.corpus import BehaviourCorpus

USERS = (10_000, 100_000, 1_000_000, 1_500_000)
N_ITEMS = 645_973  # the paper's TTL, and the padding
BATCH_SIZE, MAX_LEN, SEED = 128, 100, 0
GRAPHED = "adaptssr, graph"  # on CUDA
_CHUNK = 1 << 22  # behaviours drawn at once, so that making the corpus does not determine the peak


def run(output: Path, quick: bool) -> None:
    """Measure, print and write ``scale.csv``; the sizes take turns, so that a slowdown of the machine affects all."""
    users, n_items, rounds, steps = ((140, 400), 500, 1, 2) if quick else (USERS, N_ITEMS, 2, 25)
    device = default_device().type
    kinds = ("adaptssr", GRAPHED) if device == "cuda" else ("adaptssr",)
    found: dict[tuple[str, int], list[dict[str, float | list[float]]]]
    found = {(kind, size): [] for kind in kinds for size in users}
    for _ in range(rounds):
        for kind, size in found:
            if is_over(f"{size:9,d} users, {kind}"):
                continue
            arguments = f"{size}, {n_items}, {steps}, {device!r}, {kind == GRAPHED}"
            program = f"from benchmarks import scale; scale.measure({arguments})"
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
            found[kind, size].append(json.loads(done.stdout.splitlines()[-1]))
    rows = []
    for (kind, size), results in ((case, results) for case, results in found.items() if results):
        seconds = [value for result in results for value in result.pop("steps")]  # type: ignore[union-attr]
        numbers = quantiles(seconds)
        row: dict[str, object] = {"candidate": kind, "phase": "full", "users": size, "n_items": n_items}
        row |= {"B": BATCH_SIZE, "L": MAX_LEN, **numbers, "repeats": len(seconds)}
        row["sequences_per_second"] = round(1e3 * BATCH_SIZE / numbers["median_ms"], 1)
        row |= {name: round(max(float(result[name]) for result in results), 2) for name in results[0]}  # type: ignore[arg-type]
        rows.append({**row, **conditions(SEED)})
        print(
            f"{size:9,d} users  {kind:15s}  {row['sequences_per_second']:7.1f} sequences/s  first batch after "
            f"{row['start_seconds']:5.2f} s  corpus {row['corpus_mb']:6.0f} MB  "
            f"model and Adam {row['model_mb']:6.0f} MB  beside them {row['steps_mb']:5.0f} MB"
        )
        write_csv(output / "scale.csv", rows)


def measure(n_users: int, n_items: int, n_steps: int, device_name: str = "cpu", graphs: bool = False) -> None:
    """Make a corpus and take steps on it; prints time and memory as JSON. Call it in a new process.

    The memory of the model and of the steps is the device's, the memory of the corpus always the processor's. With
    ``graphs`` the steps are CUDA graphs.
    """
    from adaptssr_plugin import AdaptSSRLoss, ItemCrop, ItemMask, ItemReorder, RandomPair, UserEncoder
    from adaptssr_plugin.corpus import BatchLoader
    from adaptssr_plugin.training import PairwiseStage, StepResult, Streams
    from adaptssr_plugin.training.graphed_step import WARM_UP, CudaCapture, GraphedStep, step_of_stage
    from benchmarks.step import take_step

    torch.manual_seed(SEED)
    device = torch.device(device_name)
    before = status_mb()["VmRSS"]
    corpus = make_corpus(n_users, n_items)
    with_corpus = status_mb()["VmRSS"]
    views = RandomPair([ItemMask(0.6, mask_id=n_items), ItemCrop(0.4), ItemReorder(0.6)])
    stage = PairwiseStage(UserEncoder(n_items, max_len=MAX_LEN), views, AdaptSSRLoss()).to(device).train()
    optimizer = torch.optim.Adam(stage.parameters(), lr=2e-4, fused=True, capturable=graphs)
    graphed: GraphedStep[StepResult] | None = GraphedStep(CudaCapture(device), print) if graphs else None
    kept: dict[str, torch.Generator] | None = {} if graphs else None

    def step(number: int) -> None:
        streams = Streams(device, (SEED, "step", 0, number), kept)
        take = partial(take_step, stage, optimizer, streams)
        if graphed is None:
            take(next(batches).to(device))
        else:
            step_of_stage(graphed, stage, next(batches), streams, take, MAX_LEN)

    started = time.perf_counter()
    batches = iter(BatchLoader(corpus, batch_size=BATCH_SIZE, max_len=MAX_LEN, seed=SEED))
    next(batches)
    start_seconds = time.perf_counter() - started
    seconds = []
    warm_up = WARM_UP + 2 if graphs else 2  # Adam's state is made in the first step, a graph in the last but one
    for number in range(n_steps + warm_up):
        if n_users < (number + 3) * BATCH_SIZE:
            batches = iter(BatchLoader(corpus, batch_size=BATCH_SIZE, max_len=MAX_LEN, seed=SEED))
        started = time.perf_counter()
        step(number)
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    # Weights, gradients and Adam's two moments.
    model_mb = 4 * sum(weight.numel() * weight.element_size() for weight in stage.parameters()) / 1e6
    peak_mb = torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else status_mb()["VmHWM"] - with_corpus
    result = {
        "behaviours": int(corpus.offsets[-1]),
        "corpus_mb": with_corpus - before,
        "start_seconds": start_seconds,
        "model_mb": model_mb,
        "steps_mb": peak_mb - model_mb,
        "steps": seconds[warm_up:],
    }
    print(json.dumps(result))


def make_corpus(n_users: int, n_items: int) -> "BehaviourCorpus":
    """Make histories with geometric lengths of TTL's mean and items of a power law: p(rank) about 1 / rank."""
    from adaptssr_plugin.corpus import BehaviourCorpus

    source = np.random.default_rng(SEED)
    offsets = np.zeros(n_users + 1, dtype=np.int64)
    np.cumsum(source.geometric(1 / TTL_MEAN_LENGTH, n_users), out=offsets[1:])
    items = np.empty(int(offsets[-1]), dtype=np.int32)
    for start in range(0, len(items), _CHUNK):
        part = items[start : start + _CHUNK]
        part[:] = np.exp(source.random(len(part)) * np.log(n_items))  # from 1 to n_items - 1
    np.minimum(items, n_items - 1, out=items)
    tokens = np.arange(n_items).astype(np.str_)
    tokens[0] = "[PAD]"
    return BehaviourCorpus(items, offsets, n_items, np.arange(n_users).astype(np.str_), tokens)


def plot(output: Path) -> None:
    """Draw ``scale.png`` from ``scale.csv``."""
    rows = read_csv(output / "scale.csv")
    first = rows[0]
    lines: dict[str, list[Point]] = {}
    for row in rows:
        speeds = (1e3 * int(row["B"]) / float(row[key]) for key in ("median_ms", "q80_ms", "q20_ms"))
        lines.setdefault(f"{row['candidate']}, B = 128, L = 100", []).append(Point(int(row["users"]), *speeds))
    line_chart(
        output / "scale.png",
        lines,
        title=f"Pre-training over {int(first['n_items']) - 1:,} items\n{hardware(first)}",
        x_label="users in the corpus",
        y_label="sequences per second",
        from_zero=True,
    )
