"""Whatever happens to a pre-training within an epoch: started again, it ends as one that nobody disturbed.

Killed in a step, in the writing of a checkpoint, between two moves; stopped by SIGTERM; out of disk; its checkpoints
damaged. The runs are processes of their own (tests/helpers/processes/kill_cases.py) that write a checkpoint
after every step.
"""

import csv
import os
import random
import subprocess

import pytest
from kill_cases import DONE, KILLED, STOPPED, assert_ended_alike, forked_runs, random_kills
from training_cases import TRAINING, runs_fixture

from adaptssr_plugin.training import load_checkpoint
from benchmarks import kills as benchmark

# Five steps an epoch, 25 in all.
OPTIONS = {**TRAINING, "batch_size": 4, "mlm_epochs": 2, "epochs": 3, "seed": 3, "checkpoint_minutes": 0}
STEPS = 5


runs = runs_fixture(forked_runs, OPTIONS)


@pytest.fixture(scope="module")
def undisturbed(runs, tmp_path_factory):
    """A run that writes checkpoints at the ends of epochs alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert runs(folder, None, checkpoint_minutes=60) == [DONE]
    return folder


def position(folder, stage, name="last.pt"):
    """The epoch, from 1, and the steps of it that a checkpoint has."""
    state = load_checkpoint(folder / stage / name)
    return (state["epoch"] + 1, 0) if state["within"] is None else (state["epoch"] + 2, state["within"]["steps"])


def test_checkpoints_after_every_step_change_nothing(runs, undisturbed, tmp_path):
    assert runs(tmp_path / "run", None) == [DONE]
    assert_ended_alike(tmp_path / "run", undisturbed)


def test_killed_in_every_fifth_step(runs, undisturbed, tmp_path):
    """Every start takes four whole steps: nothing before the last checkpoint is done again."""
    fates = runs(tmp_path / "run", *[["at_step", 4]] * 7)
    assert fates == [KILLED] * 6 + [DONE]
    assert_ended_alike(tmp_path / "run", undisturbed)


def test_killed_while_checkpoints_are_written(runs, undisturbed, tmp_path):
    kills = [["inside_write", 1], ["inside_write", 90], ["between_moves", 0], ["inside_write", 200]]
    kills += [["between_moves", 3], ["at_write", "last.pt", 2, "half"], ["at_write", "last.pt", 2, "unmoved"]]
    assert runs(tmp_path / "run", *kills) == [KILLED] * len(kills)
    assert runs(tmp_path / "run", None) == [DONE]
    assert_ended_alike(tmp_path / "run", undisturbed)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"item_init": "svd", "item_lr_share": 0.1}, id="svd"),
        # Correlates by the weights with which the epoch began.
        pytest.param({"method": "coserec", "correlation": "hybrid", "correlation_warmup": 0}, id="coserec"),
        pytest.param({"method": "ccl"}, id="ccl", marks=pytest.mark.slow),
    ],
)
def test_starts_by_an_svd_and_views_that_know_the_epoch(runs, tmp_path, options):
    assert runs(tmp_path / "whole", None, **options, checkpoint_minutes=60) == [DONE]
    fates = runs(tmp_path / "cut", ["at_step", 8], ["at_step", 1], None, **options)
    assert fates == [KILLED, KILLED, DONE]
    assert_ended_alike(tmp_path / "cut", tmp_path / "whole")


class TestSigterm:
    def said(self, runs, place, folder):
        return (
            f"{place}; {folder}/mlm/last.pt is written, and the same call again goes on from it\n"
            == runs.said.removeprefix("mlm: stopped by SIGTERM ")
        )

    def test_the_step_is_finished_and_kept(self, runs, undisturbed, tmp_path):
        folder = tmp_path / "run"
        assert runs(folder, ["at_step", 7, "SIGTERM"], checkpoint_minutes=60) == [STOPPED]
        assert self.said(runs, "in epoch 2, after step 3", folder)
        assert position(folder, "mlm") == (2, 3)
        assert runs(folder, ["at_step", 2 * STEPS - 8, "SIGTERM"], checkpoint_minutes=60) == [STOPPED]  # of adaptssr
        assert position(folder, "adaptssr") == (1, 1)
        assert runs(folder, None, checkpoint_minutes=60) == [DONE]
        assert_ended_alike(folder, undisturbed)

    def test_a_validation_is_left_and_begun_again(self, runs, undisturbed, tmp_path):
        folder = tmp_path / "run"
        assert runs(folder, ["in_validation", 1], checkpoint_minutes=60) == [STOPPED]
        assert self.said(runs, f"in epoch 2, after step {STEPS}", folder)
        assert position(folder, "mlm") == (2, STEPS)
        assert runs(folder, ["at_step", 3 * STEPS], checkpoint_minutes=60) == [DONE]  # there are no more steps
        assert_ended_alike(folder, undisturbed)


class TestFullDisk:
    @pytest.mark.parametrize("number", [pytest.param(0, marks=pytest.mark.slow), 3])
    def test_what_was_there_stays_whole(self, runs, undisturbed, tmp_path, number):
        folder = tmp_path / "run"
        assert runs(folder, ["full_from", number]) == [2]
        (line,) = runs.said.splitlines()
        assert line.startswith(f"adaptssr: {folder}/")
        assert line.endswith(": cannot be written (File too large); what was there before is whole")
        for name in ("last.pt", "previous.pt")[:number]:
            assert position(folder, "mlm", name)
        assert not list(folder.rglob(".*.tmp"))
        assert runs(folder, None) == [DONE]
        assert_ended_alike(folder, undisturbed)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")
    def test_a_disk_that_is_really_full(self, runs, undisturbed, tmp_path):
        folder = tmp_path / "disk"
        folder.mkdir()
        size = 4 * (undisturbed / "mlm" / "last.pt").stat().st_size // 1024
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", folder], capture_output=True)
        if mounted.returncode:
            pytest.skip("no disk can be mounted here")
        try:
            assert runs(folder / "run", None) == [2]
            (line,) = runs.said.splitlines()
            assert "No space left on device" in line
            assert line.startswith(f"adaptssr: {folder}/run/")
            subprocess.run(["mount", "-o", "remount,size=16m", folder], check=True)
            assert runs(folder / "run", None) == [DONE]
            assert_ended_alike(folder / "run", undisturbed)
        finally:
            subprocess.run(["umount", folder], check=True)


class TestDamage:
    @pytest.fixture
    def cut(self, runs, tmp_path):
        """A run that was killed in the middle of its second stage."""
        assert runs(tmp_path / "run", ["at_step", 2 * STEPS + 8]) == [KILLED]
        assert position(tmp_path / "run", "adaptssr") == (2, 3)
        assert position(tmp_path / "run", "adaptssr", "previous.pt") == (2, 2)
        return tmp_path / "run"

    @pytest.mark.parametrize("how", [pytest.param("truncated", marks=pytest.mark.slow), "one bit"])
    def test_of_the_last_checkpoint(self, runs, undisturbed, cut, how):
        path = cut / "adaptssr" / "last.pt"
        content = bytearray(path.read_bytes())
        if how == "one bit":
            content[len(content) // 2] ^= 4
        path.write_bytes(content[: len(content) // 3] if how == "truncated" else content)
        assert runs(cut, ["at_step", 1]) == [KILLED]  # having written one over it
        assert runs.said == (
            f"adaptssr: checkpoint: expected one written by this package, got {path}, which is damaged or foreign; "
            f"going on from {cut}/adaptssr/previous.pt, the one before it\n"
        )
        assert [position(cut, "adaptssr", name) for name in ("last.pt", "previous.pt")] == [(2, 3), (2, 2)]
        assert runs(cut, None) == [DONE]
        assert_ended_alike(cut, undisturbed)

    def test_of_both(self, runs, cut):
        for name in ("last.pt", "previous.pt"):
            os.truncate(cut / "adaptssr" / name, 100)
        assert runs(cut, None) == [2]
        assert runs.said == (
            f"adaptssr: checkpoint: expected one written by this package, got {cut}/adaptssr/last.pt, which is damaged "
            f"or foreign, as is the one before it; remove {cut}/adaptssr to begin its training anew\n"
        )

    def test_a_checkpoint_of_another_run(self, runs, cut, tmp_path):
        assert runs(tmp_path / "other", ["at_step", 2 * STEPS + 8], seed=4) == [KILLED]
        (cut / "adaptssr" / "last.pt").write_bytes((tmp_path / "other" / "adaptssr" / "last.pt").read_bytes())
        assert runs(cut, None) == [2]
        assert runs.said == f"adaptssr: checkpoint: {cut}/adaptssr/last.pt is of another run (seed: 4 there, 3 here)\n"


@pytest.mark.slow
def test_killed_in_all_ways(runs, undisturbed, tmp_path):
    fates = runs(tmp_path / "run", *random_kills(0, 6, steps=12, pieces=200), None)
    assert fates[-1] == DONE
    assert sum(fate in (KILLED, STOPPED) for fate in fates) > 3
    assert_ended_alike(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 7))
def test_killed_dozens_of_times(runs, undisturbed, tmp_path, seed):
    """A run that dies young for ever would be none: the later, the further apart."""
    killed, number = 0, 0
    while killed < 24:
        folder = tmp_path / str(number)
        number += 1
        kills = random_kills(100 * seed + number, 12, steps=10, pieces=150)
        fates = runs(folder, *kills, None)
        assert set(fates) <= {KILLED, STOPPED, DONE}
        assert fates[-1] == DONE
        killed += len(fates) - fates.count(DONE)
        assert_ended_alike(folder, undisturbed)


@pytest.mark.slow
def test_damaged_and_killed_in_turn(runs, undisturbed, tmp_path):
    source = random.Random(0)
    folder = tmp_path / "run"
    for kill in random_kills(5, 30, steps=6, pieces=100):
        runs(folder, kill)
        last = [path for path in folder.glob("*/last.pt") if (path.parent / "previous.pt").exists()]
        if last and source.random() < 0.5:
            os.truncate(last[-1], source.randrange(last[-1].stat().st_size))
    assert runs(folder, None) == [DONE]
    assert_ended_alike(folder, undisturbed)


@pytest.mark.slow
def test_the_benchmark_finds_equal_weights(tmp_path):
    benchmark.run(tmp_path, quick=True)
    with (tmp_path / "kills.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["equal"] == "True"
    assert int(row["resumes"]) == int(row["kills"]) + int(row["stops"]) > 0
