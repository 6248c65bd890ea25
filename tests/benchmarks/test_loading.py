"""`python -m benchmarks loading` loads the same interactions in both ways."""

import subprocess

import pytest

from benchmarks import loading
from benchmarks.support.plots import read_csv


def test_a_quick_run(tmp_path):
    pytest.importorskip("recbole")
    loading.run(tmp_path, quick=True)
    rows = read_csv(tmp_path / "loading.csv")
    assert [(row["interactions"], row["loader"]) for row in rows] == [("2000", "RecBole"), ("2000", "this package")]
    assert float(rows[0]["times_as_fast_as_recbole"]) == 1
    for row in rows:
        parts = float(row["create_dataset_seconds"]) + float(row["data_preparation_seconds"])
        assert 0 < float(row["seconds"]) == pytest.approx(parts, abs=0.02)
        assert float(row["peak_mb"]) > 100


def test_without_the_memory_that_recbole_needs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("recbole")
    monkeypatch.setattr(loading, "free_bytes", lambda _: 1500 * 2000)
    loading.run(tmp_path, quick=True)
    (row,) = read_csv(tmp_path / "loading.csv")
    assert (row["loader"], row["times_as_fast_as_recbole"]) == ("this package", "nan")
    assert "2,000 interactions  RecBole      left out, it needs some 0 GB of free memory" in capsys.readouterr().out


def test_a_loader_that_breaks_says_what_it_said(tmp_path, monkeypatch):
    ended = subprocess.CompletedProcess([], 1, "", "Traceback\nnothing there\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(SystemExit, match=r"^loading by RecBole ended with 1: Traceback\nnothing there$"):
        loading._load("RecBole", tmp_path / "nothing")
