"""`python -m benchmarks recbole` trains steps in turn, and computes epochs from them as it says."""

import statistics

import pytest

from benchmarks import recbole_runs
from benchmarks.support.plots import read_csv


class Steps:
    """A run whose steps take as long as it says."""

    def __init__(self, seconds, losses):
        self.seconds, self.losses, self.steps_per_epoch, self.step_mb = seconds, losses, 10, 700.4


def test_epochs_are_computed_from_the_median_step():
    runs = {"RecBole": Steps([99, 4.0, 2.0, 9.0], [1.0, 2.0]), "fast": Steps([99, 1.0, 2.0, 1.0], [1.0, 2.5])}
    stock, fast = recbole_runs._rows(runs, warm_up=2, rounds=3).values()
    assert (stock["median_ms"], stock["computed_seconds_per_epoch"], stock["times_as_fast_as_recbole"]) == (4000, 40, 1)
    assert (fast["median_ms"], fast["computed_seconds_per_epoch"], fast["times_as_fast_as_recbole"]) == (1000, 10, 4)
    assert (stock["q20_ms"], stock["q80_ms"]) == pytest.approx((2800, 7000))
    assert (stock["losses_as_recbole"], fast["losses_as_recbole"]) == ("yes", "no")


def test_without_recbole_it_is_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(recbole_runs.importlib.util, "find_spec", lambda name: None)
    recbole_runs.run(tmp_path, quick=True)
    assert capsys.readouterr().out == "recbole: left out, RecBole is not installed\n"
    assert not list(tmp_path.iterdir())


def test_a_quick_run_against_recbole_itself(monkeypatch, tmp_path):
    """On a file of lines, which loads faster than ml-100k."""
    pytest.importorskip("recbole")
    names = ("RecBole", "RecBole, anomaly mode off", "ssl_loss: none")
    monkeypatch.setattr(recbole_runs, "RUNS", {name: recbole_runs.RUNS[name] for name in names})
    monkeypatch.setattr(recbole_runs, "_QUICK", {"hidden_size": 4, "inner_size": 4, "train_batch_size": 10})
    lines = tmp_path / "shop.txt"
    lines.write_text("".join(f"{user} {user + 3} 5 {user + 2} 4 {user + 1}\n" for user in range(40)), encoding="utf-8")
    recbole_runs._measured(lines, tmp_path / "recbole.csv", [], quick=True)
    rows = read_csv(tmp_path / "recbole.csv")
    assert [(row["data"], row["run"]) for row in rows] == [("shop", name) for name in names]
    assert {row["losses_as_recbole"] for row in rows} == {"yes"}  # of every step that was taken
    for row in rows:
        assert float(row["step_mb"]) > 0
        assert (row["steps"], row["warm_up"], row["steps_per_epoch"]) == ("2", "1", "8")  # of two training rows a user
        assert 0 < float(row["q20_ms"]) <= float(row["median_ms"]) <= float(row["q80_ms"])
        computed = 8 * float(row["median_ms"]) / 1e3
        assert float(row["computed_seconds_per_epoch"]) == pytest.approx(computed, abs=0.006)


def test_ml_100k_has_ranks_for_times(tmp_path):
    recbole_runs.write_ml_100k(tmp_path)
    header, *lines = (tmp_path / recbole_runs.DATASET / f"{recbole_runs.DATASET}.inter").read_text().splitlines()
    assert header.split("\t")[3] == "timestamp:float"
    assert len(lines) == 100_000
    assert {*range(49_282)} == {int(line.split("\t")[3]) for line in lines}


def test_a_run_that_breaks_says_what_it_said():
    run = recbole_runs._stepwise("nobody", {})
    with pytest.raises(SystemExit, match=r"ended with 1: [\s\S]*KeyError: 'nobody'"), run:
        pass


def test_steps_are_asked_for_in_another_order_each_round(monkeypatch, tmp_path, capsys):
    taken = []

    class Named:
        steps_per_epoch, step_mb = 3, 1.0

        def __init__(self, name):
            self.name, self.seconds, self.losses = name, [], []

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def take(self, steps):
            taken.append((self.name, steps))
            self.seconds.append(1.0)

    monkeypatch.setattr(recbole_runs, "RUNS", {name: (name, {}) for name in "abc"})
    monkeypatch.setattr(recbole_runs, "_stepwise", lambda which, options, lines: Named(which))
    monkeypatch.setattr(recbole_runs.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(recbole_runs, "free_bytes", lambda device: 1e9)
    recbole_runs.run(tmp_path, quick=False)
    assert taken == []
    assert capsys.readouterr().out == "recbole: left out, its processes need some 6 GB together, 1 are free\n"
    monkeypatch.setattr(recbole_runs, "free_bytes", lambda device: 1e10)
    recbole_runs.run(tmp_path, quick=False)
    assert taken[:3] == [("a", 2), ("b", 2), ("c", 2)]
    rounds = ["".join(name for name, _ in taken[i : i + 3]) for i in range(3, len(taken), 3)]
    assert len(rounds) == 15
    assert {"".join(sorted(one)) for one in rounds} == {"abc"}
    assert len(set(rounds)) > 1
    assert statistics.mode(steps for _, steps in taken) == 1
    taken.clear()
    monkeypatch.setattr(recbole_runs, "_SECONDS", 0.0)
    recbole_runs.run(tmp_path, quick=False)
    assert len(taken) == 3 + 3 * 5
