"""`python -m benchmarks loss --quick` runs, and what it compares is what it says."""

import math

import pytest
import torch
from core_only import ROOT, run_python
from oracle import literal_info_nce, straightforward_info_nce
from torch.testing import assert_close
from tracing import compiling

from benchmarks import loss
from benchmarks.support import loss_peers, measure
from benchmarks.support.plots import read_csv

CPU = torch.device("cpu")
# What every benchmark's rows have.
COLUMNS = ["candidate", "phase", "median_ms", "q20_ms", "q80_ms", "repeats", "processor", "threads", "device", "torch",
           "packages", "commit", "seed"]  # fmt: skip
HERE = [loss_peers.OURS, loss_peers.STRAIGHTFORWARD, "InfoNCELoss", loss_peers.NT_XENT]
OPTIONAL = ["pytorch-metric-learning", "info-nce-pytorch", "lightly"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quick")
    done = run_python("-m", "benchmarks", "loss", "--quick", "--output", folder, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_quick_run_measures_every_candidate_and_phase(quick):
    folder, printed = quick
    rows = read_csv(folder / "loss.csv")
    assert set(COLUMNS) <= set(rows[0])
    measured = {(row["candidate"], row["phase"], row["B"]) for row in rows}
    present = [name for name in OPTIONAL if f"{name}: left out" not in printed]
    assert measured == {
        (name, phase, size)
        for size in ("32", "64")
        for name, phases in {
            **dict.fromkeys(HERE + present, ("forward", "backward", "full")),
            loss_peers.PRODUCT: ("full",),
        }.items()
        for phase in phases
    }
    assert len(rows) == len(measured)
    for row in rows:
        assert 0 < float(row["q20_ms"]) <= float(row["median_ms"]) <= float(row["q80_ms"])
        assert (row["d"], row["repeats"], row["note"]) == ("64", "3", "")


def test_ratios_are_to_our_median_of_the_same_phase(quick):
    rows = read_csv(quick[0] / "loss.csv")
    ours = {(row["phase"], row["B"]): float(row["median_ms"]) for row in rows if row["candidate"] == loss_peers.OURS}
    for row in rows:
        expected = float(row["median_ms"]) / ours[row["phase"], row["B"]]
        assert float(row["times_adaptssr"]) == pytest.approx(expected)


def test_memory_has_its_exponent_where_two_sizes_were_measured(quick):
    rows = read_csv(quick[0] / "loss-memory.csv")
    assert [(row["candidate"], row["B"]) for row in rows] == [(loss_peers.OURS, "256"), (loss_peers.OURS, "512")]
    assert all(float(row["added_mb"]) > 1 for row in rows)
    small, large = (float(row["added_mb"]) for row in rows)
    assert float(rows[0]["exponent"]) == float(rows[1]["exponent"]) == round(math.log2(large / small), 3)


@pytest.mark.parametrize("name", ["loss.png", "loss-memory.png"])
def test_pictures_are_drawn(quick, name):
    assert (quick[0] / name).read_bytes().startswith(b"\x89PNG")


def test_a_candidate_without_room_is_left_out_with_its_reason(monkeypatch, tmp_path, capsys):
    ours, other = loss_peers.OURS, loss_peers.STRAIGHTFORWARD
    monkeypatch.setattr(loss, "available", lambda quick, device: (ours, other))
    monkeypatch.setattr(measure, "free_bytes", lambda device: 1.5e8)  # the other one's bound at 2,048 is 335 MB
    monkeypatch.setattr(loss, "QUICK_SIZES", (16, 2048))
    monkeypatch.setattr(loss, "QUICK_MEMORY_SIZES", {other: (16, 64, 2048)})
    monkeypatch.setattr(loss, "default_device", lambda: CPU)
    monkeypatch.setattr(loss, "_added_mb", lambda name, size, device: (size**2, {}))
    monkeypatch.setitem(loss.CANDIDATES, ours, loss.CANDIDATES[ours]._replace(bytes_needed=lambda n: n))
    loss.run(tmp_path, quick=True)
    note = "left out: would need about 0.3 GB, more than 85% of what is free, 0.1 GB"
    rows = [row for row in read_csv(tmp_path / "loss.csv") if row["candidate"] == other and row["B"] == "2048"]
    assert [(row["phase"], row["median_ms"], row["repeats"], row["note"]) for row in rows] == [("full", "", "0", note)]
    rows = read_csv(tmp_path / "loss-memory.csv")
    assert [(row["added_mb"], row["note"]) for row in rows] == [("256", ""), ("4096", ""), ("", note)]
    assert {row["exponent"] for row in rows} == {"2.0"}  # of the two that there are
    assert capsys.readouterr().out.count(note) == 2
    loss.plot(tmp_path)  # without the empty rows


def test_a_candidate_that_would_take_too_long_is_left_out(monkeypatch):
    monkeypatch.setattr(loss, "available", lambda quick, device: (loss_peers.NT_XENT, "InfoNCELoss"))
    ready, reasons = loss._get_ready(16, CPU, False, {loss_peers.NT_XENT: (4, 6.0), "InfoNCELoss": (4, 1e-3)})
    assert list(ready) == ["InfoNCELoss"]
    assert reasons == {loss_peers.NT_XENT: "would take about 96 s a call, more than 90"}


def test_a_candidate_that_fails_is_left_out_with_its_first_line(monkeypatch):
    def fails(*views):
        raise RuntimeError("can't allocate\nmemory")

    monkeypatch.setattr(loss, "available", lambda quick, device: (loss_peers.NT_XENT,))
    candidate = loss.CANDIDATES[loss_peers.NT_XENT]._replace(make=lambda: fails)
    monkeypatch.setitem(loss.CANDIDATES, loss_peers.NT_XENT, candidate)
    assert loss._get_ready(16, CPU, False, {}) == ({}, {loss_peers.NT_XENT: "RuntimeError: can't allocate"})


def test_a_missing_package_is_one_printed_line(monkeypatch, capsys):
    def broken():
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    names = loss_peers.CANDIDATES
    monkeypatch.setattr(loss_peers, "CANDIDATES", {"lightly": names["lightly"]._replace(make=broken)})
    assert loss_peers.available.__wrapped__(quick=False) == ()
    assert capsys.readouterr().out == (
        "lightly: left out, not installed or does not import: RuntimeError: operator torchvision::nms does not exist\n"
    )


def test_nt_xent_is_info_nce_of_both_views():
    z1, z2 = torch.randn(2, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).unbind()
    expected = literal_info_nce(z1, z2, temperature=0.3)
    assert_close(loss_peers.nt_xent(z1, z2, temperature=0.3), expected)
    assert_close(straightforward_info_nce(z1, z2, temperature=0.3), expected)


@pytest.mark.parametrize(("name", "temperature"), [("pytorch-metric-learning", 0.07), ("lightly", 0.5)])
def test_packages_compute_nt_xent(name, temperature):
    pytest.importorskip({"pytorch-metric-learning": "pytorch_metric_learning"}.get(name, name))
    z1, z2 = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(2)).unbind()
    ours = loss_peers.nt_xent(z1, z2, temperature=temperature)
    assert_close(loss_peers.CANDIDATES[name].make()(z1, z2), ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [3, 100], ids=["one chunk", "uneven chunks"])
def test_the_bare_product_multiplies_all_pairs_in_chunks(batch_size, monkeypatch):
    shapes = []
    multiply = torch.mm

    def spied(one, other, out):
        shapes.append((tuple(one.shape), tuple(other.shape)))
        return multiply(one, other, out=out)

    monkeypatch.setattr(torch, "mm", spied)
    if batch_size == 100:
        monkeypatch.setattr(loss_peers, "CPU_ELEMENTS", 400 * 64)
    loss_peers.once(loss_peers.PRODUCT, batch_size, 5, 0, "cpu")
    assert sum(one[0] for one, _ in shapes) == 2 * batch_size
    assert {other for _, other in shapes} == {(5, 4 * batch_size)}
    assert len(shapes) == (1 if batch_size == 3 else 4)


@compiling
def test_triton_and_graphs_are_candidates_of_cuda_alone():
    on_cuda = {loss_peers.TRITON, loss_peers.OURS_COMPILED, loss_peers.OURS_GRAPHED, *loss_peers.SEARCHES.values()}
    assert {name for name, one in loss_peers.CANDIDATES.items() if "cpu" not in one.devices} == on_cuda
    assert not on_cuda & set(loss_peers.available(False, "cpu"))
    pytest.importorskip("triton")
    assert on_cuda < set(loss_peers.available(False, "cuda"))


def test_the_search_alone_finds_the_largest_similarity_to_another_user():
    views = loss_peers.inputs(9, 5, 3, CPU)
    units = torch.nn.functional.normalize(torch.stack(views, 1), dim=-1).detach()  # (B, 4, d)
    scores = torch.einsum("iad,jbd->iajb", units[:, ::2], units)
    scores[torch.arange(9), :, torch.arange(9)] = -torch.inf
    found = loss_peers.phased(loss_peers.SEARCHES["torch"], views).forward()
    assert_close(found, scores.flatten(2).amax(-1))
    assert not found.requires_grad


def test_a_slow_call_is_timed_where_its_memory_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(loss, "available", lambda quick, device: (loss_peers.OURS,))
    monkeypatch.setattr(loss, "QUICK_SIZES", (8, 16))
    monkeypatch.setattr(loss, "QUICK_MEMORY_SIZES", {loss_peers.OURS: (8, 16)})
    monkeypatch.setattr(loss, "default_device", lambda: CPU)
    seconds = {8: {"forward": 1.0, "backward": 2.0, "full": 3.0}, 16: {"forward": 4.0, "backward": 5.0, "full": 9.0}}
    monkeypatch.setattr(loss, "_added_mb", lambda name, size, device: (1.0, seconds[size]))
    loss.run(tmp_path, quick=True)
    rows = {(row["B"], row["phase"]): row for row in read_csv(tmp_path / "loss.csv")}
    assert [float(rows["16", phase]["median_ms"]) for phase in ("forward", "backward", "full")] == [4000, 5000, 9000]
    assert (rows["16", "full"]["repeats"], rows["16", "full"]["warm_up"]) == ("1", "0")
    assert rows["16", "full"]["note"] == "timed with its memory, in a separate process"
    assert (rows["8", "full"]["repeats"], rows["8", "full"]["note"]) == ("3", "")


def test_seconds_come_with_the_memory():
    added, seconds = loss._added_mb(loss_peers.OURS, 64, CPU)
    assert added > 0
    assert seconds["full"] == seconds["forward"] + seconds["backward"] > 0
