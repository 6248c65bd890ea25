"""Forward and backward of the loss against the straightforward formulation, and its memory."""

from pathlib import Path

import torch

from adaptssr_plugin import AdaptSSRLoss, InfoNCELoss
from benchmarks.measure import added_memory_mb, conditions, quantiles, side_by_side, write_csv
from tests.oracle import straightforward_adaptssr

DIM = 64
SEED = 0
_SETUP = f"""
import torch
from adaptssr_plugin import AdaptSSRLoss
from tests.oracle import straightforward_adaptssr
ours = AdaptSSRLoss()
def run(loss, size):
    inputs = torch.randn(4, size, {DIM}, generator=torch.Generator().manual_seed({SEED})).unbind()
    loss(*[one.requires_grad_() for one in inputs]).backward()
run(ours, 8), run(straightforward_adaptssr, 8)
"""


def run(output: Path, quick: bool) -> None:
    """Measure, print and write ``loss.csv`` and ``loss-memory.csv``."""
    repeats = {32: 3, 128: 3} if quick else {128: 300, 512: 40, 4096: 5}
    rows = []
    for size, times in repeats.items():
        generator = torch.Generator().manual_seed(SEED)
        inputs = [one.requires_grad_() for one in torch.randn(4, size, DIM, generator=generator).unbind()]
        ours, info_nce = AdaptSSRLoss(), InfoNCELoss()
        seconds = side_by_side(
            {
                "AdaptSSRLoss": lambda: ours(*inputs).backward(),  # noqa: B023 - called before the next size
                "straightforward": lambda: straightforward_adaptssr(*inputs).backward(),  # noqa: B023
                "InfoNCELoss": lambda: info_nce(inputs[0], inputs[2]).backward(),  # noqa: B023
            },
            times,
        )
        measured = {name: quantiles(values) for name, values in seconds.items()}
        reference = measured["AdaptSSRLoss"]["median_ms"]
        for name, numbers in measured.items():
            ratio = numbers["median_ms"] / reference
            print(f"B = {size:5d}  {name:16s} {numbers['median_ms']:9.2f} ms  {ratio:5.2f} x AdaptSSRLoss")
            row = {"B": size, "d": DIM, "loss": name, **numbers, "times_adaptssr": ratio, "repeats": times}
            rows.append({**row, **conditions(SEED)})
    write_csv(output / "loss.csv", rows)
    _memory(output, (512,) if quick else (4096, 16384), () if quick else (4096,))


def _memory(output: Path, ours: tuple[int, ...], straightforward: tuple[int, ...]) -> None:
    cases = [("AdaptSSRLoss", "ours", size) for size in ours]
    cases += [("straightforward", "straightforward_adaptssr", size) for size in straightforward]
    rows = []
    for name, function, size in cases:
        added = added_memory_mb(_SETUP, f"run({function}, {size})")
        print(f"B = {size:5d}  {name:16s} adds {added:8.0f} MB to peak memory, inputs included")
        rows.append({"B": size, "d": DIM, "loss": name, "added_mb": round(added, 1), **conditions(SEED)})
    write_csv(output / "loss-memory.csv", rows)
