"""`python -m benchmarks masked_items --quick` runs, and what it compares is the same thing."""

import csv

import torch
from core_only import ROOT, run_python
from torch.testing import assert_close

from benchmarks import masked_items


def test_the_quick_run_measures_every_form_and_phase(tmp_path):
    done = run_python("-m", "benchmarks", "masked_items", "--quick", "--output", tmp_path, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "masked_items.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    phases = ("forward", "backward", "full")
    expected = {(n, phase, form) for n in ("101", "500") for phase in phases for form in masked_items.FORMS}
    assert {(row["n"], row["phase"], row["form"]) for row in rows} == expected
    assert len(rows) == len(expected)
    for row in rows:
        assert 0 < float(row["q20_ms"]) <= float(row["median_ms"]) <= float(row["q80_ms"])
        assert (row["M"], row["d"], row["torch"]) == ("1400", "64", torch.__version__)
    with (tmp_path / "masked_items-memory.csv").open(encoding="utf-8") as file:
        assert [row["form"] for row in csv.DictReader(file)] == list(masked_items.FORMS)


def test_what_is_compared_agrees():
    leaves, targets = masked_items.inputs(60)
    ours, other = (masked_items.FORMS[name](leaves, targets) for name in ("linear_cross_entropy", "straightforward"))
    assert_close(ours, other)
    for mine, right in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(other, leaves), strict=True):
        assert_close(mine, right, rtol=1e-4, atol=1e-7)


def test_the_straightforward_form_is_left_out_where_it_does_not_fit(monkeypatch, capsys):
    monkeypatch.setattr(masked_items.os, "sysconf", lambda name: {"SC_AVPHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}[name])
    leaves, targets = masked_items.inputs(60)
    assert "straightforward" not in masked_items._phases(leaves, targets)["full"]
    assert "straightforward left out" in capsys.readouterr().out
