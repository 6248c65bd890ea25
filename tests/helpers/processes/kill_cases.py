"""Pre-trainings that are killed: the command in separate processes, forked from a worker that has imported it all.

This file run as a program is the worker. It answers lines of JSON, {"words": of the command, "kills": one for every
run}, with the fates of the runs, [exit status or minus the signal, what stood on standard error], one after the other.
A kill is None; a number, the seconds until SIGKILL; or a list, the name of a function below and its arguments.
"""

import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from asked_workers import ask, pretrain_words, without_progress, worker_of

KILLED, DONE, STOPPED = -signal.SIGKILL, 0, 143


# --- in the process that is killed --------------------------------------------------------------------------------


def at_write(name, number, moment, source=".tmp"):
    """Die at the n-th move (from 0) of a new file, or of ``source``, to a path that ends so; to any path for "".

    What is left is, by the moment: half of the new one beside the old; all of it beside the old; it in place.
    """
    replace, count = Path.replace, -1

    def replace_or_die(self, target):
        nonlocal count
        new = self.name.endswith(source) and str(target).endswith(name)
        count += new
        due = new and count == number
        if due and moment == "half":
            os.truncate(self, self.stat().st_size // 2)
        if due and moment != "moved":
            os.kill(os.getpid(), signal.SIGKILL)
        moved = replace(self, target)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    Path.replace = replace_or_die


def between_moves(number):
    """Die after the n-th (from 0) move of last.pt out of the way, before the new one is there."""
    at_write("previous.pt", number, "moved", "last.pt")


def before_call(owner, name, number, act):
    """Do something when a function is called for the n-th time, from 0, before it begins."""
    own, calls = getattr(owner, name), itertools.count()

    def call(*args, **options):
        if next(calls) == number:
            act(*args)
        return own(*args, **options)

    setattr(owner, name, call)


def inside_write(number):
    """Die within the writing of a checkpoint, when the n-th (from 0) piece of one is to be written."""
    from adaptssr_plugin.training import checkpoints

    def die(writer, _data):
        writer._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    before_call(checkpoints._NotingErrors, "write", number, die)


def at_step(number, name="SIGKILL", function="_step"):
    """Send a signal to this process within its n-th training step, from 0."""
    from adaptssr_plugin.recbole.user_model.trainer import StageTrainer

    before_call(StageTrainer, function, number, lambda *_: os.kill(os.getpid(), getattr(signal, name)))


def in_validation(number):
    """Send SIGTERM to this process before the first batch of its n-th validation, from 0."""
    at_step(number, "SIGTERM", "_valid_batches")


def full_from(number):
    """Let no file grow beyond 2,000 bytes from the n-th write (from 0) on; what happens is as with a full disk."""
    import resource

    from adaptssr_plugin.training import checkpoints

    before_call(
        checkpoints, "write_together", number, lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    )


# --- the worker -----------------------------------------------------------------------------------------------------


def run_once(words, kill):
    """Run the command in a separate process; returns its fate."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.dup2(errors.fileno(), 2)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                from adaptssr_plugin.cli.main import main

                if isinstance(kill, list):
                    globals()[kill[0]](*kill[1:])
                main(words)
                status = 0
            except SystemExit as leave:
                status = leave.code
            finally:
                sys.stderr.flush()
                os._exit(status)
        if isinstance(kill, float):
            time.sleep(kill)
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        errors.seek(0)
        return status, errors.read()


def work():
    import torch
    import torch._dynamo  # torch's optimisers import it in their first step
    import torch.utils.tensorboard

    import adaptssr_plugin.cli.main
    import adaptssr_plugin.recbole.user_model.pretrain  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps([run_once(asked["words"], kill) for kill in asked["kills"]]), flush=True)


# --- in the tests -----------------------------------------------------------------------------------------------------


class Runs:
    """Runs the pre-training of a dataset again and again."""

    def __init__(self, worker, dataset, options):
        self.worker, self.dataset, self.options = worker, dataset, options

    def __call__(self, folder, *kills, **options):
        """Run in a folder once for every kill; gives the exit statuses. What the last one said is in ``said``."""
        fates = ask(self.worker, words=pretrain_words(self.dataset, folder, {**self.options, **options}), kills=kills)
        self.said = without_progress(fates[-1][1])
        return [status for status, _ in fates]


@contextmanager
def forked_runs(dataset, options):
    """Give :class:`Runs`."""
    with worker_of(__file__) as worker:
        yield Runs(worker, dataset, options)


def facts(folder):
    """All that a run ends with but times and what is of no more use: its card, checkpoints, weights bit by bit."""
    import torch

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
        if path.name != "previous.pt":  # which may be of a moment that an undisturbed run does not write down
            checkpoints[path.relative_to(folder).as_posix()] = flat(state)
    return (
        card,
        files - {f"{stage['name']}/previous.pt" for stage in card["stages"]},
        checkpoints,
        (folder / "model.safetensors").read_bytes(),
    )


def flat(value):
    """Tensors as bytes, so that == compares every bit."""
    import torch

    if isinstance(value, dict):
        return {key: flat(one) for key, one in value.items()}
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


def assert_ended_alike(folder, undisturbed):
    for ours, theirs in zip(facts(folder), facts(undisturbed), strict=True):
        assert ours == theirs  # files left half written would be among those of the folder


def random_kills(seed, number, steps=40, pieces=600):
    """Draw kills of every kind."""
    source = random.Random(seed)
    kinds = [
        lambda: source.uniform(0.05, 0.6),
        lambda: ["at_step", source.randrange(steps)],
        lambda: ["inside_write", source.randrange(pieces)],
        lambda: ["between_moves", source.randrange(steps)],
        lambda: ["at_write", "", source.randrange(steps), source.choice(["half", "unmoved", "moved"])],
        lambda: ["at_step", source.randrange(steps), "SIGTERM"],
    ]
    return [source.choice(kinds)() for _ in range(number)]


if __name__ == "__main__":
    work()
