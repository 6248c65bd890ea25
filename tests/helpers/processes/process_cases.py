"""Commands and single steps in several processes at once, forked from a worker that has imported everything.

This file run as a program is the worker. It answers lines of JSON: {"words": of a command, "kills": by rank, a
function of kill_cases with its arguments} or {"job": the name of a function below, "folder": for its files}, and
"number" of processes, with what became of each: [exit status or minus the signal, standard output, standard error].
"place" is the working folder.
"""

import copy
import json
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

import data_parallel_cases
from asked_workers import ask, pretrain_words, without_progress, worker_of

PATIENCE = 60  # seconds for processes that never end


# --- steps whose views, masks and draws are the same on any number of processes -----------------------------------


def deterministic_stages():
    import torch
    from torch import nn
    from training_cases import N_ITEMS, encoder_of

    from adaptssr_plugin import InfoNCELoss, UserEncoder
    from adaptssr_plugin.augment import Sequences, ViewPair
    from adaptssr_plugin.training import (
        MaskedItemStage,
        NextBehaviourStage,
        NextItemStage,
        PairwiseStage,
        WithMaskedItemsStage,
    )
    from adaptssr_plugin.training.stages import next_behaviours as module

    class Neighbours(nn.Module):
        def forward(self, positives, count, _generator):
            return (positives[..., None] + torch.arange(1, count + 1)) % (N_ITEMS - 1) + 1

    def first_positions(item_seq_len, width, _generator):
        return torch.arange(width).expand(len(item_seq_len), width), masked.mask.counts(item_seq_len)

    def views(item_seq, item_seq_len, _generator):
        second = Sequences(item_seq.roll(1, 0) if len(item_seq) == 0 else item_seq * 2 % N_ITEMS, item_seq_len)
        return ViewPair(Sequences(item_seq, item_seq_len), second, None)

    def encoder():
        return encoder_of(UserEncoder, dropout=0.0, n_layers=1).double()

    module.uniform_below = lambda length, _generator: length // 2
    masked = MaskedItemStage(encoder(), 0.5)
    pooled = MaskedItemStage(encoder(), 0.5, pooled=0.3)
    both = PairwiseStage(encoder(), views, InfoNCELoss())
    beside = MaskedItemStage(both.encoder, 0.5, both.name)
    for stage in (masked, pooled, beside):
        stage.mask.positions = first_positions
    return {
        "masked": masked,
        "pooled": pooled,
        "next": NextItemStage(encoder()),
        "ptum": NextBehaviourStage(encoder(), Neighbours(), weight=0.7),
        "pairs": PairwiseStage(encoder(), views, InfoNCELoss()),
        "both": WithMaskedItemsStage(both, beside, 0.7),
    }


# Histories of a batch; with three processes some have none of its rows, or rows with nothing to predict.
BATCHES = {"five": (5, 3, 7, 2, 4), "two": (4, 6), "one": (5,), "short": (3, 1, 1, 1)}


def steps(folder):
    """Write the losses and gradients of a step of every stage on every batch, as this process has them."""
    import torch
    from training_cases import corpus_of, streams

    from adaptssr_plugin.corpus import BatchLoader
    from adaptssr_plugin.training.processes import Processes

    torch.set_default_dtype(torch.float64)
    processes = Processes(together=True)
    results = {}
    for name, stage in deterministic_stages().items():
        if processes.data_parallel:
            stage.share_batches()
        averaging = processes.averaging(stage)
        for batch_name, lengths in BATCHES.items():
            loader = BatchLoader(
                corpus_of(*lengths), batch_size=9, max_len=6, seed=1, part=processes.rank, parts=processes.number
            )
            (batch,) = loader
            usable = stage.usable(batch)
            results[name, batch_name] = {"usable": usable, "rows": batch.user_ids.tolist()}
            if not usable:
                continue
            stage.zero_grad(set_to_none=True)
            result = averaging(stage.step, batch, streams())
            result.loss.backward()
            # Copies: DistributedDataParallel uses its memory again in the next step.
            gradients = {key: copy.deepcopy(weight.grad) for key, weight in stage.named_parameters()}
            results[name, batch_name] |= {"loss": float(result.loss.detach()), "gradients": gradients}
    torch.save(results, Path(folder) / f"{processes.number}-{processes.rank}.pt")


def exchange(folder):
    """Write what processes tell one another."""
    import torch

    from adaptssr_plugin.errors import InputError
    from adaptssr_plugin.training.processes import Processes

    processes = Processes(together=True)
    rank = processes.rank
    own = {"rank": rank, "tensor": torch.arange(rank), "long": "x" * 1000 * rank}
    results = {
        "gathered": processes.gather(own),
        "first": processes.first({"of": rank, "tensor": torch.ones(2) * rank}),
    }

    def refuse(which):
        def function():
            if rank in which:
                raise InputError(f"rank: {rank} will not")
            return rank

        return function

    results["agreed"] = processes.agreed(refuse([]))
    results["by first"] = processes.by_first(lambda: rank)
    for name, which in {"all": [0, 1], "last": [1]}.items():
        try:
            processes.agreed(refuse(which))
        except InputError as error:  # noqa: PERF203
            results[name] = str(error)
    try:
        processes.by_first(refuse([0]))
    except InputError as error:
        results["refused by first"] = str(error)
    results["key"] = processes.key
    torch.save(results, Path(folder) / f"exchange-{rank}.pt")


# --- in a process of torchrun's agent --------------------------------------------------------------------------------


def in_a_group():
    from adaptssr_plugin.training.processes import Processes, process_group

    with process_group():
        processes = Processes(together=True)
        return len(processes.gather(None)), processes.rank


def second_fails():
    """Fail on the second process; the first one waits for it."""
    from adaptssr_plugin.errors import DamagedCheckpointError
    from adaptssr_plugin.training.processes import Processes, process_group

    with process_group():
        if os.environ["LOCAL_RANK"] == "1":
            raise DamagedCheckpointError("x: expected: y")
        with Processes(together=True).none_lost():
            Processes(together=True).wait()


# --- the worker ----------------------------------------------------------------------------------------------------


def in_process(asked, rank, port, out, errors):
    """Become one of the processes; never returns."""
    status = 1
    try:
        os.dup2(out.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        number = asked["number"]
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.chdir(asked.get("place") or ".")
        import kill_cases

        kill = (asked.get("kills") or {}).get(str(rank))
        if kill:
            getattr(kill_cases, kill[0])(*kill[1:])
        if "job" in asked:
            from adaptssr_plugin.training.processes import process_group

            with process_group():
                job = globals().get(asked["job"]) or getattr(data_parallel_cases, asked["job"])
                job(asked["folder"])
        else:
            from adaptssr_plugin.cli.main import main

            main(asked["words"])
        status = 0
    except SystemExit as leave:
        status = leave.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_all(asked):
    port = free_port()
    files, children = [], []
    for rank in range(asked["number"]):
        files.append([tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2)])  # noqa: SIM115 - closed below
        child = os.fork()
        if child == 0:
            in_process(asked, rank, port, *files[-1])
        children.append(child)
    statuses, until = {}, time.monotonic() + PATIENCE
    while len(statuses) < len(children):
        for child in children:
            if child not in statuses and (ended := os.waitpid(child, os.WNOHANG))[0]:
                statuses[child] = os.waitstatus_to_exitcode(ended[1])
            elif child not in statuses and time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    fates = []
    for child, (out, errors) in zip(children, files, strict=True):
        out.seek(0)
        errors.seek(0)
        fates.append([statuses[child], out.read(), errors.read()])
        out.close()
        errors.close()
    return fates


def work():
    import torch
    import torch._dynamo  # torch's optimisers import it in their first step
    import torch.utils.tensorboard

    from adaptssr_plugin.recbole import import_quick_start

    import_quick_start()
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(run_all(json.loads(line))), flush=True)


# --- in the tests ----------------------------------------------------------------------------------------------------


class Processes:
    """Runs the pre-training of a dataset, or a job, in several processes."""

    def __init__(self, worker, dataset, options):
        self.worker, self.dataset, self.options = worker, dataset, options

    def __call__(self, folder, number=2, kills=None, **options):
        """Run the command; gives what became of each process."""
        words = pretrain_words(self.dataset, folder, {**self.options, **options})
        return self.ask(number=number, words=words, kills=kills or {})

    def ask(self, **asked):
        return [[status, said, without_progress(errors)] for status, said, errors in ask(self.worker, **asked)]


@contextmanager
def several_processes(dataset, options):
    """Give :class:`Processes`."""
    with worker_of(__file__) as worker:
        yield Processes(worker, dataset, options)


if __name__ == "__main__":
    work()
