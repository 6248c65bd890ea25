"""Pre-training in several processes: the whole batch's gradient, one that speaks, nothing lost when one dies.

The processes are forked from a worker (tests/helpers/processes/process_cases.py) that has imported everything.
"""

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import process_cases
import pytest
import torch
from asked_workers import pretrain_words, without_progress
from kill_cases import DONE, KILLED, STOPPED, assert_ended_alike
from process_cases import BATCHES, several_processes
from torch.multiprocessing.spawn import ProcessRaisedException
from training_cases import TRAINING, runs_fixture

from adaptssr_plugin.corpus import BatchLoader, BehaviourCorpus
from adaptssr_plugin.errors import InputError, ProcessLostError
from adaptssr_plugin.recbole.user_model.pretrain import load_pretrained
from adaptssr_plugin.training import load_checkpoint
from adaptssr_plugin.training.epoch_state import Totals, of_all
from adaptssr_plugin.training.launch import _raise, launch
from adaptssr_plugin.training.processes import Processes

# Five steps an epoch, of 19 users: 4, 4, 4, 4 and 3.
OPTIONS = TRAINING | {"batch_size": 4, "seed": 3, "checkpoint_minutes": 0}
STEPS = 5


runs = runs_fixture(several_processes, OPTIONS)


@pytest.fixture(scope="module")
def undisturbed(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    fates = runs(folder, checkpoint_minutes=60)
    assert [status for status, _, _ in fates] == [DONE, DONE], fates
    return folder, fates


def statuses(fates):
    return [status for status, _, _ in fates]


# --- dealing out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_parts_are_the_whole_batch_in_its_order(parts):
    corpus = BehaviourCorpus.from_lists([[1] * (1 + user % 4) for user in range(11)])

    def loader(part=0, parts=1):
        return BatchLoader(corpus, batch_size=4, max_len=3, seed=5, part=part, parts=parts)

    for whole, *dealt in zip(loader(), *(loader(part, parts) for part in range(parts)), strict=True):
        assert [user for batch in dealt for user in batch.user_ids.tolist()] == whole.user_ids.tolist()
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
        for batch in dealt:
            assert batch.whole.parts == parts
            assert batch.all_lengths.tolist() == whole.lengths.tolist() == whole.all_lengths.tolist()
            assert batch.lengths.tolist() == [min(1 + user % 4, 3) for user in batch.user_ids.tolist()]
            assert batch.to("cpu").whole is batch.whole
    assert whole.whole is None


@pytest.mark.parametrize(
    ("part", "parts", "name"), [(2, 2, "part"), (-1, 2, "part"), (True, 2, "part"), (0, 0, "parts")]
)
def test_parts_that_there_are_not(part, parts, name):
    corpus = BehaviourCorpus.from_lists([[1], [1]])
    with pytest.raises(InputError, match=f"^{name}: expected"):
        BatchLoader(corpus, batch_size=2, max_len=3, seed=0, part=part, parts=parts)


def test_totals_of_processes():
    first = Totals(-1, {"loss": 6.0, "share": 3.0}, {"loss": 3, "share": 3})
    second = Totals(7, {"loss": 9.0, "share": 1.0}, {"loss": 3, "share": 1})
    third = Totals(4, {"loss": 0.0}, {"loss": 3})
    assert of_all([first, second, third]).first_bad == 4
    assert of_all([first, second, third]).means() == {"loss": 15 / 9, "share": 1.0}
    assert of_all([first]) == first


# --- what they tell one another --------------------------------------------------------------------------------------


def test_alone_nothing_is_asked():
    alone = Processes()
    assert (alone.number, alone.rank, alone.data_parallel, alone.is_main_process, alone.key) == (1, 0, False, True, ())
    marker = object()  # which could not travel
    assert alone.gather(marker) == [marker]
    assert alone.first(marker) is alone.agreed(lambda: marker) is alone.by_first(lambda: marker) is marker
    with pytest.raises(RuntimeError, match="gloo"), alone.none_lost():
        raise RuntimeError("gloo")


def test_exchange(runs, tmp_path):
    fates = runs.ask(number=2, job="exchange", folder=str(tmp_path))
    assert statuses(fates) == [DONE, DONE], fates
    for rank in range(2):
        got = torch.load(tmp_path / f"exchange-{rank}.pt", weights_only=True)
        assert [(one["rank"], one["tensor"].tolist(), len(one["long"])) for one in got["gathered"]] == [
            (0, [], 0), (1, [0], 1000)
        ]  # fmt: skip
        assert (got["first"]["of"], got["first"]["tensor"].tolist()) == (0, [0, 0])
        assert (got["agreed"], got["by first"], got["key"]) == (rank, 0, ("rank", rank))
        assert (got["all"], got["last"]) == ("rank: 0 will not", "rank: 1 will not (process 1)")
        assert got["refused by first"] == "rank: 0 will not"


# --- a step ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steps(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    results = {}
    for number in (1, 2, 3):
        fates = runs.ask(number=number, job="steps", folder=str(folder))
        assert statuses(fates) == [DONE] * number, fates
        results[number] = [torch.load(folder / f"{number}-{rank}.pt", weights_only=True) for rank in range(number)]
    return results


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("stage", ["masked", "pooled", "next", "ptum", "pairs", "both"])
def test_gradients_are_those_of_the_whole_batch(steps, stage, batch, number):
    (whole,) = (results[stage, batch] for results in steps[1])
    parts = [results[stage, batch] for results in steps[number]]
    assert [row for part in parts for row in part["rows"]] == whole["rows"]
    assert {part["usable"] for part in parts} == {whole["usable"]}
    if not whole["usable"]:
        assert (stage, batch) in {("pairs", "one"), ("both", "one")}
        return
    assert sum(part["loss"] for part in parts) / number == pytest.approx(whole["loss"], rel=1e-12)
    for part in parts:
        for name, expected in whole["gradients"].items():
            if expected is None:  # and not zeros, which would set an optimiser with weight decay going
                assert part["gradients"][name] is None, name
            else:
                torch.testing.assert_close(part["gradients"][name], expected, rtol=1e-10, atol=1e-13)
    assert any(gradient is not None and gradient.abs().max() > 1e-4 for gradient in whole["gradients"].values())


# --- a run -----------------------------------------------------------------------------------------------------------


def test_end_to_end(undisturbed):
    folder, fates = undisturbed
    (_, said, errors), (_, silence, no_errors) = fates
    assert said.count("Files:") == 1
    assert silence == no_errors == errors == ""
    assert {path.name for path in folder.iterdir()} == {
        "adaptssr", "mlm", "run.json", "model.json", "items.json", "model.safetensors", "MODEL_CARD.md"
    }  # fmt: skip
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    for stage in card["stages"]:
        assert len(stage["history"]) == 2
        assert stage["history"][0]["loss"] > stage["history"][1]["loss"]
        curves = folder / stage["name"] / "tensorboard"
        assert len([*curves.glob("events.*")]) == 1
    assert 0 < card["stages"][1]["history"][0]["lambda_q05"] < card["stages"][1]["history"][0]["lambda_q95"] < 1


def test_another_number_of_processes_is_another_run(runs, undisturbed):
    folder, _ = undisturbed
    for number in (1, 3):
        fates = runs(folder, number=number, checkpoint_minutes=60)
        assert statuses(fates) == [2] * number
        assert "".join(errors for _, _, errors in fates) == (
            f"adaptssr: checkpoint: {folder}/mlm/last.pt is of another run (processes: 2 there, {number} here)\n"
        )


def test_what_is_wrong_is_said_once(runs, tmp_path):
    fates = runs(tmp_path / "run", dim=9, n_heads=2)
    assert statuses(fates) == [2, 2]
    assert "".join(errors for _, _, errors in fates) == "adaptssr: n_heads: expected a divisor of dim = 9, got 2\n"


@pytest.mark.parametrize(
    "method",
    ["duorec", "coserec", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ccl", "clue", "idicl", "ptum"))],
)
def test_processes_without_rows(runs, tmp_path, method):
    """Of the 19 users the last batch of an epoch has two, for three processes."""
    fates = runs(tmp_path, number=3, method=method, batch_size=17, epochs=1, mlm_epochs=1, checkpoint_minutes=60)
    assert statuses(fates) == [DONE] * 3, fates
    assert [errors for _, _, errors in fates] == [""] * 3


def test_a_frozen_table_of_the_svd(runs, tmp_path):
    frozen = {"item_init": "svd", "item_lr_share": 0.0, "epochs": 1, "mlm_epochs": 1, "checkpoint_minutes": 60}
    for number in (1, 2):
        fates = runs(tmp_path / str(number), number=number, **frozen)
        assert statuses(fates) == [DONE] * number, fates
    one, two = (load_pretrained(tmp_path / name).encoder.state_dict() for name in "12")
    assert torch.equal(one["items.weight"], two["items.weight"])
    assert not torch.equal(one["positions"], two["positions"])  # views are drawn by each process


class TestStarting:
    """``--nproc``: torchrun's agent starts the processes."""

    def test_not_under_torchrun(self, runs, tmp_path):
        fates = runs(tmp_path, nproc=2)
        assert statuses(fates) == [2, 2]
        assert fates[0][2] == "adaptssr: --nproc: expected 1 under torchrun, which starts processes itself, got 2\n"

    @pytest.mark.slow
    def test_the_same_model_as_under_torchrun(self, runs, undisturbed, tmp_path):
        with begun(runs, tmp_path, checkpoint_minutes=60) as command:
            said, errors = command.communicate()
        errors = without_progress(errors)
        assert (command.returncode, errors) == (DONE, "")
        assert said.count("Files:") == 1
        assert_ended_alike(tmp_path, undisturbed[0])

    @pytest.mark.slow
    def test_sigterm_reaches_all(self, runs, undisturbed, tmp_path):
        folder = tmp_path / "run"
        status, errors = after_a_checkpoint(runs, folder, subprocess.Popen.terminate)
        assert status == STOPPED
        (line,) = errors.splitlines()
        assert re.match(
            r"\w+: stopped by SIGTERM .*/last.pt is written, and the same call again goes on from it$", line
        )
        assert_goes_on(runs, folder, undisturbed)

    @pytest.mark.slow
    def test_a_process_that_is_killed_is_one_line(self, runs, undisturbed, tmp_path):
        folder = tmp_path / "run"
        fate = after_a_checkpoint(runs, folder, lambda command: os.kill(second_child_of(command.pid), signal.SIGKILL))
        assert fate == (
            1,
            "adaptssr: nproc: expected processes that come to an end, got status -9 of process 1; the same command "
            "again goes on from the last checkpoint\n",
        )
        assert_goes_on(runs, folder, undisturbed)

    @pytest.mark.slow
    def test_what_is_wrong_is_said_once(self, runs, tmp_path):
        with begun(runs, tmp_path, dim=9, n_heads=2) as command:
            assert command.communicate() == ("", "adaptssr: n_heads: expected a divisor of dim = 9, got 2\n")
        assert command.returncode == 2


FAULT = {"message": "KeyError: 'x'", "extraInfo": {"py_callstack": "Traceback\nKeyError"}}


class TestLaunching:
    """What the processes of torchrun's agent give and raise, in a process that goes on."""

    def test_the_first_ones_result_and_nothing_changed(self):
        before = signal.getsignal(signal.SIGTERM), logging.getLogger("torch.distributed.elastic").propagate
        number, rank = launch(process_cases.in_a_group, (), 2)
        assert (number, rank) == (2, 0)
        assert (signal.getsignal(signal.SIGTERM), logging.getLogger("torch.distributed.elastic").propagate) == before

    def test_an_error_of_one(self, capfd):
        """Of a special kind; the other one waits for it, and is ended."""
        with pytest.raises(InputError, match=r"^x: expected: y$"):
            launch(process_cases.second_fails, (), 2)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("message", "status", "raised", "line"),
        [
            (FAULT, 1, ProcessRaisedException, r"process 1:\nTraceback\nKeyError$"),
            ("", 143, SystemExit, "^143$"),
            (
                "",
                -9,
                ProcessLostError,
                r"^nproc: expected processes that come to an end, got status -9 of process 1; h",
            ),
        ],
    )
    def test_what_the_agent_reports_of_one(self, message, status, raised, line):
        with pytest.raises(raised, match=line):
            _raise(1, SimpleNamespace(message=message, exitcode=status, pid=5), "how to go on")


def begun(runs, folder, **options):
    """Start the command itself, which starts the processes."""
    words = pretrain_words(runs.dataset, folder, {**OPTIONS, "nproc": 2, **options})
    command = [sys.executable, "-m", "adaptssr_plugin", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def after_a_checkpoint(runs, folder, act):
    """Start the command and do something to it when it has written a checkpoint: its status and its errors."""
    until, path = time.monotonic() + 200, folder / "mlm" / "last.pt"
    with begun(runs, folder) as command:
        while not path.exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        act(command)
        errors = without_progress(command.communicate()[1])
    return command.returncode, errors


def assert_goes_on(runs, folder, undisturbed):
    """The same call again ends with the weights of a run that was never interrupted."""
    assert statuses(runs(folder)) == [DONE, DONE]
    assert_ended_alike(folder, undisturbed[0])


def second_child_of(parent):
    """Find the second process that multiprocessing has started for another, by what Linux tells of it."""
    children = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            of = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            if of == parent and b"spawn_main" in (folder / "cmdline").read_bytes():
                children.append(int(folder.name))
    return sorted(children)[1]


# --- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", [0, 1])
def test_one_process_dies(runs, undisturbed, tmp_path, dead):
    """In the middle of the second stage, at the seventh of its ten steps."""
    folder, begun = tmp_path / "run", time.monotonic()
    fates = runs(folder, kills={dead: ["at_step", 2 * STEPS + 6]})
    assert time.monotonic() - begun < 30
    assert (fates[dead][0], fates[1 - dead][0]) == (KILLED, 1), fates
    (line,) = fates[1 - dead][2].splitlines()
    assert line.startswith(f"adaptssr: process {1 - dead} of 2: another process ended or no longer answers ("), line
    assert line.endswith("); the same command again goes on from the last checkpoint")
    state = load_checkpoint(folder / "adaptssr" / "last.pt")
    assert (state["epoch"], state["within"]["steps"], len(state["within"]["processes"])) == (0, 1, 2)
    assert_goes_on(runs, folder, undisturbed)


def test_the_writing_process_dies_while_it_writes(runs, undisturbed, tmp_path):
    folder = tmp_path / "run"
    for kill in (["at_write", "last.pt", 3, "half"], ["between_moves", 2]):
        assert statuses(runs(folder, kills={0: kill})) == [KILLED, 1]
    assert_goes_on(runs, folder, undisturbed)


def test_sigterm_to_one_of_them(runs, undisturbed, tmp_path):
    folder = tmp_path / "run"
    fates = runs(folder, kills={1: ["at_step", 7, "SIGTERM"]})
    assert statuses(fates) == [STOPPED, STOPPED]
    assert [errors for _, _, errors in fates] == [
        f"mlm: stopped by SIGTERM in epoch 2, after step 3; {folder}/mlm/last.pt is written, and the same call again "
        "goes on from it\n",
        "",
    ]
    assert_goes_on(runs, folder, undisturbed)


def test_a_full_disk_ends_both(runs, tmp_path):
    fates = runs(tmp_path / "run", kills={0: ["full_from", 3]})
    assert statuses(fates) == [2, 1]
    assert fates[0][2].endswith(": cannot be written (File too large); what was there before is whole\n")
    assert "another process ended" in fates[1][2]
