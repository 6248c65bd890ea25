"""A pre-training that is killed at any moment, and started again, ends as one that nobody disturbed.

The runs are processes of their own, killed with SIGKILL: forked from a worker (this file run as a program) that has
imported everything beforehand, so that a run takes a fraction of a second.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_cases import TINY, write_profiled_dataset

# Both stages stop early, the second one after its second epoch was the best.
OPTIONS = {**TINY, "mlm_epochs": 4, "epochs": 7, "stopping_step": 2, "seed": 3}
# What a kill leaves of a file: half of the new one beside the old; all of it beside the old; the new one in place.
MOMENTS = ("half", "unmoved", "moved")


# --- the worker ---------------------------------------------------------------------------------------------


def kill_at_write(name: str, number: int, moment: str) -> None:
    """Let this process kill itself at its n-th write (from 0) of a file whose path ends so; of any file for ""."""
    count = -1
    replace = Path.replace

    def replace_or_die(self: Path, target: Path) -> Path:
        nonlocal count
        count += str(target).endswith(name)
        due = count == number and str(target).endswith(name)
        if due and moment == "half":
            os.truncate(self, self.stat().st_size // 2)
        if due and moment != "moved":
            os.kill(os.getpid(), signal.SIGKILL)
        moved = replace(self, target)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    Path.replace = replace_or_die


def run_once(dataset: str, folder: str, kill: "list | float | None") -> int:
    """Run the pre-training in a process of its own; returns its exit status, or its signal as a negative number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            from adaptssr_plugin.methods import recipe
            from adaptssr_plugin.recbole.pretrain import Source, pretrain

            if isinstance(kill, list):
                kill_at_write(*kill)
            pretrain(Source(dataset, {"use_gpu": False}), recipe(options=OPTIONS), folder, show_progress=False)
            status = 0
        finally:
            os._exit(status)
    if isinstance(kill, float):
        time.sleep(kill)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def work() -> None:
    """Answer lines of JSON [dataset, folder, kills] with the fates of the runs, one after each other."""
    import torch._dynamo  # torch's optimisers import it in their first step
    import torch.utils.tensorboard

    import adaptssr_plugin.recbole.pretrain  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        dataset, folder, kills = json.loads(line)
        print(json.dumps([run_once(dataset, folder, kill) for kill in kills]), flush=True)


if __name__ == "__main__":
    work()
    sys.exit()


# --- the tests ----------------------------------------------------------------------------------------------

KILLED, DONE = -signal.SIGKILL, 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run in a folder once for every kill, None for a run that is left in peace; gives their fates."""
    dataset = write_profiled_dataset(tmp_path_factory.mktemp("data") / "small")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True, env=environment) as worker:

        def ask(folder, *kills):
            worker.stdin.write(json.dumps([str(dataset), str(folder), kills]) + "\n")
            worker.stdin.flush()
            return json.loads(worker.stdout.readline())

        yield ask
        worker.stdin.close()


@pytest.fixture(scope="module")
def undisturbed(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert runs(folder, None) == [DONE]
    return folder


def facts(folder):
    """All that a run ends with but times: its card, its checkpoints, its weights bit by bit."""
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    card.pop("finished")
    for stage in card["stages"]:
        for epoch in stage["history"]:
            epoch.pop("seconds")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if "tensorboard" not in path.parts}
    checkpoints = {}
    for path in folder.glob("*/*.pt"):
        state = torch.load(path, weights_only=True)
        state.pop("history", None)
        checkpoints[path.relative_to(folder).as_posix()] = flat(state)
    return card, files, checkpoints, (folder / "model.safetensors").read_bytes()


def flat(value):
    """Tensors as bytes, so that == compares every bit."""
    if isinstance(value, dict):
        return {key: flat(one) for key, one in value.items()}
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


def assert_ended_alike(folder, undisturbed):
    for ours, theirs in zip(facts(folder), facts(undisturbed), strict=True):
        assert ours == theirs  # files left half written would be among those of the folder


def test_the_undisturbed_run_stops_early(undisturbed):
    card, files, checkpoints, _ = facts(undisturbed)
    n_epochs = {stage["name"]: len(stage["history"]) for stage in card["stages"]}
    assert n_epochs["mlm"] < OPTIONS["mlm_epochs"] or n_epochs["adaptssr"] < OPTIONS["epochs"]
    assert set(checkpoints) == {"adaptssr/best.pt", "adaptssr/last.pt", "mlm/best.pt", "mlm/last.pt"}
    assert files == set(checkpoints) | {"run.json", "model.json", "items.json", "model.safetensors"}


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
        ("run.json", 0, "half"),
        ("mlm/best.pt", 0, "moved"),  # a best epoch that no last.pt knows of
        ("mlm/last.pt", 0, "half"),
        ("mlm/last.pt", 1, "unmoved"),
        ("mlm/last.pt", 0, "moved"),
        ("adaptssr/best.pt", 0, "unmoved"),  # the warm-up is finished, and nothing of the next stage kept
        ("adaptssr/last.pt", 1, "half"),
        ("adaptssr/last.pt", 0, "moved"),
        ("model.safetensors", 0, "half"),
        ("model.safetensors", 0, "moved"),  # weights without their card
        ("items.json", 0, "unmoved"),
    ]
    assert runs(tmp_path / "run", *kills, None) == [KILLED] * len(kills) + [DONE]
    assert_ended_alike(tmp_path / "run", undisturbed)


def test_the_curves_of_a_killed_run_reach_as_far_as_its_checkpoint(runs, tmp_path):
    assert runs(tmp_path / "run", ("mlm/last.pt", 1, "moved")) == [KILLED]
    found = EventAccumulator(str(tmp_path / "run" / "mlm" / "tensorboard")).Reload()
    assert len(found.Scalars("train/loss")) == len(found.Scalars("valid/accuracy")) == 2


def test_killed_at_random_times(runs, undisturbed, tmp_path):
    moments = random.Random(0)
    fates = runs(tmp_path / "run", *(moments.uniform(0.05, 0.4) for _ in range(3)), None)
    assert (fates[0], fates[-1]) == (KILLED, DONE)
    assert_ended_alike(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_once_at_every_write(runs, undisturbed, tmp_path, moment):
    for number in range(100):
        folder = tmp_path / str(number)
        killed, last = runs(folder, ("", number, moment), None)
        assert last == DONE
        assert_ended_alike(folder, undisturbed)
        if killed == DONE:  # there are no more writes than that
            break
    assert 10 < number < 99


@pytest.mark.slow
def test_killed_at_the_fourth_write_of_every_run(runs, undisturbed, tmp_path):
    """Every start gets a little further than the one before."""
    fates = runs(tmp_path / "run", *[("", 3, "moved")] * 20)
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
