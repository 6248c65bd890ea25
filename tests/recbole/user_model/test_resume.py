"""A pre-training that is killed at any moment, and started again, ends as one that nobody disturbed.

Here the checkpoints at the ends of epochs; tests/recbole/user_model/test_kills.py has those within.
"""

import os
import random
import subprocess
import sys
import time

import pytest
from kill_cases import DONE, KILLED, assert_ended_alike, facts, forked_runs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_cases import TRAINING, runs_fixture

# Both stages stop early, the second one after its second epoch was the best.
OPTIONS = {**TRAINING, "mlm_epochs": 4, "epochs": 7, "stopping_step": 2, "seed": 3}


runs = runs_fixture(forked_runs, OPTIONS)


@pytest.fixture(scope="module")
def undisturbed(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert runs(folder, None) == [DONE]
    return folder


def test_the_undisturbed_run_stops_early(undisturbed):
    card, files, checkpoints, _ = facts(undisturbed)
    n_epochs = {stage["name"]: len(stage["history"]) for stage in card["stages"]}
    assert n_epochs["mlm"] < OPTIONS["mlm_epochs"] or n_epochs["adaptssr"] < OPTIONS["epochs"]
    assert set(checkpoints) == {"adaptssr/best.pt", "adaptssr/last.pt", "mlm/best.pt", "mlm/last.pt"}
    assert files == set(checkpoints) | {"run.json", "model.json", "items.json", "model.safetensors", "MODEL_CARD.md"}


def test_a_finished_run_started_again_does_nothing(runs, undisturbed, tmp_path):
    assert runs(tmp_path / "run", None) == [DONE]
    assert_ended_alike(tmp_path / "run", undisturbed)
    trained = [path for path in (tmp_path / "run").glob("*/**/*") if path.is_file()]
    times = {path: path.stat().st_mtime_ns for path in trained}
    assert runs(tmp_path / "run", None) == [DONE]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("*/**/*") if path.is_file()} == times
    assert_ended_alike(tmp_path / "run", undisturbed)


def test_killed_at_telling_moments(runs, undisturbed, tmp_path):
    kills = [
        ["at_write", "run.json", 0, "half"],
        ["at_write", "mlm/best.pt", 0, "moved"],  # a best epoch that no last.pt knows of
        ["at_write", "mlm/last.pt", 0, "half"],
        ["at_write", "mlm/last.pt", 1, "unmoved"],
        ["at_write", "mlm/last.pt", 0, "moved"],
        ["at_write", "adaptssr/best.pt", 0, "unmoved"],  # the warm-up is finished, and nothing of the next stage kept
        ["at_write", "adaptssr/last.pt", 1, "half"],
        ["at_write", "adaptssr/last.pt", 0, "moved"],
        ["at_write", "model.safetensors", 0, "half"],
        ["at_write", "model.safetensors", 0, "moved"],  # weights without their card
        ["at_write", "items.json", 0, "unmoved"],
    ]
    assert runs(tmp_path / "run", *kills, None) == [KILLED] * len(kills) + [DONE]
    assert_ended_alike(tmp_path / "run", undisturbed)


def test_the_curves_of_a_killed_run_reach_as_far_as_its_checkpoint(runs, tmp_path):
    assert runs(tmp_path / "run", ["at_write", "mlm/last.pt", 1, "moved"]) == [KILLED]
    found = EventAccumulator(str(tmp_path / "run" / "mlm" / "tensorboard")).Reload()
    assert len(found.Scalars("train/loss")) == len(found.Scalars("valid/accuracy")) == 2


@pytest.mark.slow
def test_killed_at_random_times(runs, undisturbed, tmp_path):
    moments = random.Random(0)
    fates = runs(tmp_path / "run", *(moments.uniform(0.05, 0.4) for _ in range(3)), None)
    assert (fates[0], fates[-1]) == (KILLED, DONE)
    assert_ended_alike(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["half", "unmoved", "moved"])
def test_killed_once_at_every_write(runs, undisturbed, tmp_path, moment):
    for number in range(100):
        folder = tmp_path / str(number)
        killed, last = runs(folder, ["at_write", "", number, moment], None)
        assert last == DONE
        assert_ended_alike(folder, undisturbed)
        if killed == DONE:  # there are no more writes than that
            break
    assert 10 < number < 99


@pytest.mark.slow
def test_killed_at_the_fourth_write_of_every_run(runs, undisturbed, tmp_path):
    """Every start gets a little further than the one before."""
    fates = runs(tmp_path / "run", *[["at_write", "", 3, "moved"]] * 20)
    assert 2 < fates.count(KILLED) < 20
    assert_ended_alike(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_killed_many_times_at_random(runs, undisturbed, tmp_path, seed):
    moments = random.Random(seed)
    fates = runs(tmp_path / "run", *(moments.uniform(0.0, 0.6) for _ in range(8)), None)
    assert fates[-1] == DONE
    assert_ended_alike(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_the_command_killed_in_either_stage_on_ml_100k(tmp_path):
    sizes = ["--dim", "16", "--max-len", "20", "--mlm-epochs", "2", "--epochs", "2", "--set", "use_gpu=False"]
    command = [sys.executable, "-m", "adaptssr_plugin", "pretrain", "--dataset", "ml-100k", "--quiet", *sizes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for file in ("mlm/best.pt", "adaptssr/last.pt"):
        with subprocess.Popen([*command, "--output", str(tmp_path / "cut")], env=environment) as run:
            while not (tmp_path / "cut" / file).exists():
                assert run.poll() is None
                time.sleep(0.01)
            run.kill()
        assert run.returncode == KILLED
    for folder in ("cut", "whole"):
        subprocess.run([*command, "--output", str(tmp_path / folder)], env=environment, check=True)
    assert_ended_alike(tmp_path / "cut", tmp_path / "whole")
