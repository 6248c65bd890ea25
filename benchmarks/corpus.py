"""A corpus of 1.5 million users on disk: converting it from Parquet, reading, an SVD, pre-training.

Everything is done as a user would: ``adaptssr convert parquet --corpus``, then ``pretrain``, which is stopped after
some steps. Every measurement has a separate process, set up as the command does it (``adaptssr_plugin.cli.memory``);
``_library`` means the function ``pretrain`` in a process without that set-up. Memory is divided into the process's own
(anonymous memory) and what the operating system can reclaim (pages of files mapped into memory).
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.scale import BATCH_SIZE, MAX_LEN, N_ITEMS, SEED
from benchmarks.support.lengths import TTL_MEAN_LENGTH
from benchmarks.support.measure import ROOT, conditions, default_device, status_mb, write_csv

USERS, FEW_USERS = 1_500_000, 10_000
# Upper or lower bounds of the results.
LIMITS = {
    "convert_seconds": 600, "convert_peak_mb": 2000, "start_seconds": 30, "own_mb": 500,
    "item_vectors_seconds": 600, "item_vectors_peak_mb": 4000,
    "own_within_steps_mb": 500, "epoch_own_mb": 500, "epoch_growth_mb": 50, "own_growth_mb": 50, "relative_speed": 0.9,
}  # fmt: skip
_CHUNK = 50_000  # users drawn at a time
_SETTLED = 60  # steps after which memory should not grow any more


def run(output: Path, quick: bool) -> None:
    """Measure, print and write ``corpus.csv``."""
    users, few, n_items, steps, rounds = (600, 300, 500, 4, 1) if quick else (USERS, FEW_USERS, N_ITEMS, 120, 3)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        started = time.perf_counter()
        behaviours = write_parquet(folder / "users.parquet", users, n_items)
        print(f"{users:,} users, {behaviours:,} behaviours made in {time.perf_counter() - started:.0f} s", flush=True)
        found = _child("convert", folder / "users.parquet", folder / "all")
        keep_first_users(folder / "all", folder / "few", few)
        found |= _child("read", folder / "all", as_command=True)
        found |= _child("item_vectors", folder / "all", as_command=True)
        ends = {"few": f"_{few}_users", "all": "", "library": "_library"}
        speeds: dict[str, list[float]] = {name: [] for name in ends}
        for number in range(rounds):  # in turn, so that a slowdown of the machine affects all
            for name in list(ends)[:: 1 if number % 2 else -1]:
                corpus = folder / ("few" if name == "few" else "all")
                result = _child("start", corpus, folder / "run", steps, as_command=name != "library")
                speeds[name] += result.pop("step_seconds")
                for key, value in result.items():
                    found[key + ends[name]] = max(value, found.get(key + ends[name], value))
                shutil.rmtree(folder / "run")
    found["steps"] = len(speeds["all"])
    for name, size in (("few", few), ("all", users)):
        found[f"sequences_per_second_{size}_users"] = BATCH_SIZE / median(speeds[name])
    found["relative_step_library"] = median(speeds["library"]) / median(speeds["all"])
    found["relative_speed"] = median(speeds["few"]) / median(speeds["all"])
    rows = []
    for name, value in found.items():
        limit = LIMITS.get(name, "")
        print(f"{name:40s} {value:12,.2f}" + (f"   (promised: {limit})" if limit else ""))
        row = {"users": users, "n_items": n_items, "behaviours": behaviours, "B": BATCH_SIZE, "L": MAX_LEN}
        rows.append({**row, "measure": name, "value": round(value, 3), "limit": limit, **conditions(SEED)})
    write_csv(output / "corpus.csv", rows)


def write_parquet(path: Path, n_users: int, n_items: int) -> int:
    """Write histories with geometric lengths of TTL's mean and items of a power law, p(rank) about 1 / rank.

    Returns:
        The number of behaviours.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([("user_id", pa.int64()), ("item_id", pa.list_(pa.int32()))])
    total = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for start, offsets, items in _histories(n_users, n_items):
            lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(items))
            writer.write_table(pa.table([pa.array(np.arange(start, start + len(lists))), lists], schema=schema))
            total += len(items)
    return total


def _histories(n_users: int, n_items: int) -> Iterator[tuple[int, Any, Any]]:
    source = np.random.default_rng(SEED)
    for start in range(0, n_users, _CHUNK):
        lengths = source.geometric(1 / TTL_MEAN_LENGTH, min(_CHUNK, n_users - start))
        offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
        items = np.exp(source.random(offsets[-1]) * np.log(n_items)).astype(np.int32)  # from 1 to n_items - 1
        yield start, offsets, np.minimum(items, n_items - 1)


def keep_first_users(source: Path, folder: Path, n_users: int) -> None:
    """Write the corpus of some users of another one, with all of its items, so that the model is the same."""
    from adaptssr_plugin.corpus import on_disk

    whole = on_disk.open_corpus(source)
    folder.mkdir()
    offsets = whole.offsets[: n_users + 1]
    np.save(folder / on_disk.ITEMS, whole.items[: offsets[-1]])
    np.save(folder / on_disk.OFFSETS, offsets)
    for name in (on_disk.USER_TOKENS, on_disk.ITEM_TOKENS):  # the names of users are not looked at
        shutil.copy(source / name, folder / name)
    files = {name: folder / name for name in on_disk.FILES}
    manifest = on_disk.make_manifest("few", n_users, whole.n_items, int(offsets[-1]), files)
    (folder / on_disk.MANIFEST).write_text(manifest, encoding="utf-8")


def _child(function: str, *arguments: object, as_command: bool = False) -> dict[str, Any]:
    """Call a function of this module in a new process; returns what it prints as JSON.

    ``as_command``: in a process set up like that of a command that trains.
    """
    words = ", ".join(repr(str(argument)) for argument in (*arguments, time.time()))
    set_up = "from adaptssr_plugin.cli.memory import give_freed_memory_back as set_up; set_up(); "
    program = f"{set_up if as_command else ''}from benchmarks import corpus; corpus.{function}({words})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def convert(source: str, folder: str, begun: str) -> None:
    """Run the command, and print what it took."""
    from adaptssr_plugin.cli.main import cli

    words = ["convert", "parquet", source, "--corpus", "--output", folder]
    cli.main(args=words, prog_name="adaptssr", standalone_mode=False)
    print(json.dumps({"convert_seconds": time.time() - float(begun), "convert_peak_mb": status_mb()["VmHWM"]}))


def read(folder: str, begun: str) -> None:
    """Read an epoch's batches as pre-training does, and print how memory went."""
    from adaptssr_plugin.corpus import BatchLoader, open_corpus
    from adaptssr_plugin.recbole import load_user_sequences  # noqa: F401 - all that is loaded when pre-training

    before = status_mb()
    corpus = open_corpus(folder)
    rows = np.sort(np.random.default_rng(SEED).permutation(len(corpus))[len(corpus) // 10 :])
    loader = BatchLoader(corpus, rows, batch_size=BATCH_SIZE, max_len=MAX_LEN, seed=SEED)
    opened, samples = time.time() - float(begun), []
    started, every = time.perf_counter(), max(len(loader) // 100, 1)
    for number, batch in enumerate(loader):
        assert len(batch) <= BATCH_SIZE
        if number % every == 0:
            samples.append(status_mb())
    own = [sample["RssAnon"] - before["RssAnon"] for sample in samples]
    mapped = [sample["RssFile"] - before["RssFile"] for sample in samples]
    result = {
        "open_seconds": opened,
        "epoch_reading_seconds": time.perf_counter() - started,
        "epoch_own_mb": max(own),
        "epoch_growth_mb": max(own) - own[0],
        "epoch_mapped_mb": max(mapped),
    }
    print(json.dumps(result))


def item_vectors(folder: str, begun: str) -> None:
    """Compute the vectors of ``item_init svd``, and print what they took."""
    from adaptssr_plugin.corpus import open_corpus, svd_item_vectors

    corpus = open_corpus(folder)
    rows = np.sort(np.random.default_rng(SEED).permutation(len(corpus))[len(corpus) // 10 :])
    svd_item_vectors(corpus, 64, rows, MAX_LEN, SEED)
    seconds, peak_mb = time.time() - float(begun), status_mb()["VmHWM"]
    print(json.dumps({"item_vectors_seconds": seconds, "item_vectors_peak_mb": peak_mb}))


class _EnoughError(Exception):
    """Ends pre-training."""


def start(folder: str, output: str, steps: str, begun: str) -> None:
    """Pre-train for some steps, and print when the first was done, what memory they took and how long they were."""
    import torch

    from adaptssr_plugin.methods import recipe
    from adaptssr_plugin.recbole.user_model.pretrain import Source, pretrain
    from adaptssr_plugin.training import PairwiseStage, StepResult

    # torch loads its compiler at the first step of any optimiser: part of the libraries, not of what we hold.
    nothing = torch.zeros(1, requires_grad=True)
    nothing.sum().backward()  # type: ignore[no-untyped-call]
    torch.optim.Adam([nothing], fused=True).step()
    before = status_mb()
    moments: list[float] = []
    samples: list[dict[str, float]] = []
    weights = 0
    one_step = PairwiseStage.step

    def counted(stage: PairwiseStage, *arguments: Any) -> StepResult:
        nonlocal weights
        moments.append(time.time())
        samples.append(status_mb())
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew, for what this step takes
        weights = sum(weight.numel() * weight.element_size() for weight in stage.parameters())
        if len(moments) > int(steps):
            raise _EnoughError
        return one_step(stage, *arguments)

    PairwiseStage.step = counted  # type: ignore[method-assign, assignment]
    options = {"warm_start": "none", "epochs": 1, "batch_size": BATCH_SIZE, "max_len": MAX_LEN, "seed": SEED}
    torch.manual_seed(SEED)
    try:
        use_gpu = default_device().type == "cuda"
        pretrain(Source(folder, {"use_gpu": use_gpu}), recipe("adaptssr", options=options), output, show_progress=False)
    except _EnoughError:
        pass
    model_mb = 4 * weights / 1e6  # weights, gradients and Adam's two moments
    # Between two steps there are no gradients; within them there are, and what is not own is mapped by then.
    own = [sample["RssAnon"] - before["RssAnon"] - 0.75 * model_mb for sample in samples[1:]]
    within = [sample["VmHWM"] - sample["RssFile"] - before["RssAnon"] - model_mb for sample in samples[1:]]
    settled = min(_SETTLED, len(own) // 2)
    result = {
        "start_seconds": moments[1] - float(begun),
        "model_mb": model_mb,
        "own_mb": max(own),
        "own_growth_mb": max(own[settled:]) - own[settled],
        "own_within_steps_mb": max(within),
        "own_and_mapped_mb": max(sample["VmHWM"] for sample in samples) - before["VmRSS"] - model_mb,
        "step_seconds": np.diff(moments)[min(3, len(moments) - 2) :].tolist(),  # Adam's state is made in the first
    }
    print(json.dumps(result))
