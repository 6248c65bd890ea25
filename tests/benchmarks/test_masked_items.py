"""`python -m benchmarks masked_items --quick` runs, and what it compares is the same thing."""

import pytest
import torch
from torch.testing import assert_close

from benchmarks import masked_items
from benchmarks.support import measure
from benchmarks.support.plots import read_csv

CPU = torch.device("cpu")


def test_the_quick_run_measures_every_form_and_phase(tmp_path):
    masked_items.run(tmp_path, quick=True)
    masked_items.plot(tmp_path)
    rows = read_csv(tmp_path / "masked_items.csv")
    phases = ("forward", "backward", "full")
    expected = {(n, phase, form) for n in ("101", "500") for phase in phases for form in masked_items.FORMS}
    assert {(row["n"], row["phase"], row["candidate"]) for row in rows} == expected
    assert len(rows) == len(expected)
    chunked = {(row["n"], row["phase"]): row for row in rows if row["candidate"] == masked_items.CHUNKED}
    for row in rows:
        assert 0 < float(row["q20_ms"]) <= float(row["median_ms"]) <= float(row["q80_ms"])
        assert (row["M"], row["d"], row["torch"], row["repeats"]) == ("1400", "64", torch.__version__, "3")
        ratio = float(row["median_ms"]) / float(chunked[row["n"], row["phase"]]["median_ms"])
        assert float(row["times_chunked"]) == pytest.approx(ratio)
    memory = read_csv(tmp_path / "masked_items-memory.csv")
    assert [(row["candidate"], row["n"]) for row in memory] == [
        (masked_items.CHUNKED, "500"), (masked_items.STRAIGHTFORWARD, "500"),
    ]  # fmt: skip
    assert float(memory[-1]["added_mb"]) > 2.8  # the scores once: 1,400 x 500 float32
    for name in ("masked_items.png", "masked_items-memory.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_what_is_compared_agrees():
    leaves, targets = masked_items.inputs(60)
    ours, other = (masked_items.FORMS[name](leaves, targets) for name in ("linear_cross_entropy", "straightforward"))
    assert_close(ours, other)
    for mine, right in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(other, leaves), strict=True):
        assert_close(mine, right, rtol=1e-4, atol=1e-7)


def test_the_straightforward_form_is_left_out_where_it_does_not_fit(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(measure, "free_bytes", lambda device: 1_000_000)
    monkeypatch.setattr(masked_items, "default_device", lambda: CPU)
    monkeypatch.setattr(masked_items, "_memory", lambda *arguments: None)
    monkeypatch.setattr(masked_items, "QUICK_REPEATS", {30: 1, 60: 1})
    masked_items.run(tmp_path, quick=True)
    rows = [row for row in read_csv(tmp_path / "masked_items.csv") if row["candidate"] == "straightforward"]
    assert [(row["n"], row["phase"], row["median_ms"] == "") for row in rows] == [
        ("30", "forward", False), ("30", "backward", False), ("30", "full", False), ("60", "full", True),
    ]  # fmt: skip
    assert rows[3]["note"].startswith("left out: would need about 0.0 GB, more than 85% of what is free")
    assert f"straightforward {rows[3]['note']}" in capsys.readouterr().out
