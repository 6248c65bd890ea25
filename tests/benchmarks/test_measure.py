"""Timing in turn, by the phase; quantiles; peak memory of a process of its own; the fitted exponent."""

import math
import time
from importlib.metadata import version

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.support import measure
from benchmarks.support.measure import Phased

CPU = torch.device("cpu")


def test_each_candidate_is_called_once_a_round():
    called = []
    candidates = {name: Phased(lambda name=name: called.append(name), None) for name in "abc"}
    seconds = measure.phases_side_by_side(candidates, 5, CPU)
    assert {name: len(parts["full"]) for name, parts in seconds.items()} == {"a": 5, "b": 5, "c": 5}
    assert all(value > 0 for parts in seconds.values() for value in parts["full"])
    rounds = ["".join(called[i : i + 3]) for i in range(0, len(called), 3)]
    assert len(rounds) == 5
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 1  # none has always the same one before it


def test_phases_are_of_the_same_call_and_add_up():
    handed = []

    def forward():
        time.sleep(0.02)
        return torch.ones(())

    measured = measure.phases_side_by_side({"a": Phased(forward, handed.append)}, 3, CPU)["a"]
    assert list(measured) == ["forward", "backward", "full"]
    assert len(handed) == 3
    assert min(measured["forward"]) >= 0.02 > max(measured["backward"])
    for one, other, both in zip(measured["forward"], measured["backward"], measured["full"], strict=True):
        assert both == one + other


def test_a_slow_candidate_is_called_less_often_and_spread_over_the_rounds():
    called = []
    calls = {name: Phased(lambda name=name: called.append(name), None) for name in ("fast", "slow")}
    measured = measure.phases_side_by_side(calls, {"fast": 8, "slow": 2}, CPU)
    assert {name: {phase: len(values) for phase, values in parts.items()} for name, parts in measured.items()} == {
        "fast": {"full": 8},
        "slow": {"full": 2},
    }
    assert called[:5].count("slow") == 1  # one in each half


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [([0.25], (250, 250, 250)), ([0.001, 0.003, 0.002, 0.005, 0.004, 0.006], (3.5, 2, 5))],
    ids=["one", "six"],
)
def test_quantiles(seconds, expected):
    found = measure.quantiles(seconds)
    assert (found["median_ms"], found["q20_ms"], found["q80_ms"]) == pytest.approx(expected)


@pytest.mark.parametrize("power", [1, 1.5, 2])
def test_fitted_exponent(power):
    sizes = [64, 128, 1024, 4096]
    assert math.isclose(measure.fitted_exponent(sizes, [3e-3 * size**power for size in sizes]), power)


def test_a_peak_of_the_setup_hides_nothing_that_is_added():
    setup = "import torch\ntorch.ones(20_000_000).sum()\ntorch.ones(5).sum()"
    added = measure.added_memory_mb(setup, "torch.ones(10_000_000).sum()")
    assert 39 < added < 45


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        measure.added_memory_mb("", "1 / 0")


def test_free_memory_is_that_of_this_machine():
    assert 2**20 < measure.free_bytes(CPU) < 2**46


def test_versions_of_packages_stand_in_one_column():
    found = measure.conditions(7, ("torch", "no-such-package"))
    assert found["packages"] == f"torch {version('torch')}; no-such-package absent"
    assert (found["seed"], found["threads"]) == (7, torch.get_num_threads())
    assert "packages" not in measure.conditions(7)


@pytest.fixture
def settings():
    yield
    measure.use_device(None)
    measure.limit_seconds(None)


def test_no_case_begins_when_the_time_is_over(settings, capsys):
    assert not measure.is_over("none")
    measure.limit_seconds(60)
    assert not measure.is_over("some")
    measure.limit_seconds(-1)
    assert measure.is_over()
    assert capsys.readouterr().out == ""
    assert measure.is_over("B = 16")
    assert capsys.readouterr().out == "B = 16: left out, the time is over\n"


def test_cuda_is_measured_where_there_is_any_and_the_processor_where_it_is_asked_for(settings, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card of {device}")
    assert measure.default_device().type == "cuda"
    assert measure.conditions(0)["device"] == "card of cuda"
    measure.use_device("cpu")
    assert measure.default_device().type == "cpu"
    assert measure.conditions(0)["device"] == "cpu"


@pytest.mark.parametrize(("device", "folder"), [("cpu", "."), ("cuda", "cuda")])
def test_results_of_cuda_have_a_folder_of_their_own(device, folder, settings, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "_one", lambda name, output, *_: seen.append((name, output)))
    monkeypatch.setattr("sys.argv", ["benchmarks", "loss", "--device", device, "--limit", "5"])
    command.main()
    assert seen == [("loss", tmp_path / folder)]
    assert (tmp_path / folder).is_dir()
    assert not measure.is_over()


def test_cuda_where_there_is_none_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["benchmarks", "loss", "--device", "cuda"])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert capsys.readouterr().err.endswith("error: --device: there is no CUDA device here\n")
