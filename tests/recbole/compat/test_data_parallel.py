"""RecBole's models in several processes: the whole batch's gradients, all rows' metrics, one that writes, clear ends.

Most processes are forked from a worker (tests/helpers/processes/process_cases.py) that has imported everything;
RecBole's own entry starts its own.
"""

import signal
from types import SimpleNamespace

import pytest
import torch
from data_parallel_cases import JOINT
from process_cases import free_port, several_processes
from refusals import refusal_of
from run_cases import SMALL, quiet_root, write_slice
from torch import nn

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole import installed, load_data_and_model, run_recbole
from adaptssr_plugin.recbole.compat.data_parallel import check_alike, check_shared_out, with_shared_norms
from adaptssr_plugin.recbole.entry_points.spawning import Group, _checked
from adaptssr_plugin.training.processes import Processes

QUICK = {**SMALL, "epochs": 1, "state": "info", "topk": [50], "valid_metric": "NDCG@50"}
STAGES = {"ssl_loss": "adaptssr", "ssl_mode": "pretrain", "ssl_warmup_epochs": 1, "ssl_epochs": 2}
STAGES |= {"ssl_batch_size": 17}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    write_slice(folder / "slice")
    return folder


@pytest.fixture(scope="module")
def worker(folder):
    with several_processes(folder / "slice", {}) as ask:
        yield ask


@pytest.fixture
def place(folder, tmp_path, monkeypatch):
    """Stand in a folder with the slice, without a command line."""
    (tmp_path / "slice").symlink_to(folder / "slice")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["x"])
    return tmp_path


@pytest.fixture
def command(worker, place):
    """Run ``adaptssr run SASRec slice`` as torchrun's processes in an empty folder; gives what became of each."""

    def run(*words, number=2, kills=None, model="SASRec", **options):
        pairs = [f"--{name}={value}".replace(" ", "") for name, value in {**QUICK, **options}.items()]
        return worker.ask(number=number, words=["run", model, "slice", *pairs, *words], place=str(place), kills=kills)

    return run


def of_all(worker, folder, job, name):
    """Let one process and two do a job; gives what each has written."""
    done = {}
    for number in (1, 2):
        fates = worker.ask(number=number, job=job, folder=str(folder), place=str(folder))
        assert [status for status, _, _ in fates] == [0] * number, fates
        done[number] = [torch.load(folder / f"{name}-{number}-{rank}.pt") for rank in range(number)]
    return done[1][0], done[2]


def assert_same_weights(weights, expected, **tolerances):
    assert list(weights) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, msg=lambda text, name=name: f"{name}: {text}", **tolerances)


# --- a step, a stage, an evaluation ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joint(worker, folder):
    return of_all(worker, folder, "joint_steps", "joint")


@pytest.mark.parametrize("which", ["apart", "shared"])
@pytest.mark.parametrize("name", JOINT)
def test_joint_gradients_are_those_of_the_whole_batch(joint, name, which):
    """The step is one of SGD, and the weights before it the same."""
    whole, parts = joint[0][name, which], [part[name, which] for part in joint[1]]
    assert [row for part in parts for row in part["compared"]] == whole["compared"]
    if which == "shared":
        assert (parts[1]["compared"] == []) is ("user" in name)
    for place in (0, 1):  # the model's own loss, and the weighted self-supervised one
        average = sum(part["losses"][place] for part in parts) / 2
        assert average == pytest.approx(whole["losses"][place], rel=1e-5)
    assert whole["losses"][1] > 0.1
    for part in parts:
        assert_same_weights(part["weights"], whole["weights"], rtol=1e-5, atol=2e-6)


def test_joint_gradients_depend_on_the_other_process(joint):
    """So that the test above could fail."""
    table = "item_embedding.weight"
    one, other = (joint[0][name, "apart"]["weights"][table] for name in ("infonce all", "infonce user"))
    assert (one - other).abs().max() > 1e-4


def test_the_stage_on_whole_users_ends_with_the_weights_of_one_process(worker, folder):
    whole, parts = of_all(worker, folder, "user_stage", "stage")
    for part in parts:
        assert_same_weights(part, whole, rtol=1e-4, atol=1e-5)
    assert_same_weights(parts[1], parts[0], rtol=0, atol=0)
    written = sorted((folder / "saved").glob("SASRec-*-pretrained.pth"))[-1]
    assert_same_weights(torch.load(written)["state_dict"], parts[0], rtol=0, atol=0)


def test_metrics_are_those_of_one_process(worker, folder):
    """60 rows, which RecBole would share out and round before it averages."""
    whole, parts = of_all(worker, folder, "evaluation", "valid")
    assert parts == [whole, whole]
    assert 0 < whole["ndcg@50"] < whole["recall@50"] < 1


# --- a run -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"ssl_loss": "adaptssr", "ssl_mode": "joint"}, STAGES], ids=["none", "joint", "pretrain"]
)
def test_end_to_end(command, place, options):
    """One process speaks and writes, and the metrics are those of its checkpoint."""
    (status, said, log), (other_status, silence, errors) = command(**options)
    assert (status, other_status, silence, errors) == (0, 0, "", ""), (log, errors)
    assert [line.split()[0] for line in said.splitlines()] == ["best", "test", "checkpoint"]
    assert log.count("epoch 0 training") == 1
    assert len([*(place / "log" / "SASRec").iterdir()]) == len([*(place / "log_tensorboard").iterdir()]) == 1
    written = sorted((place / "saved").iterdir())
    assert len(written) == (2 if options is STAGES else 1)
    (saved,) = (path for path in written if "pretrained" not in path.name)
    with installed(), quiet_root():
        from recbole.trainer import Trainer

        config, model, _, _, _, test_data = load_data_and_model(saved)
        assert config["single_spec"]
        result = Trainer(config, model).evaluate(test_data, load_best_model=False)
    (line,) = (line for line in said.splitlines() if line.startswith("test"))
    assert line.split(maxsplit=1)[1] == ", ".join(f"{name} {value:.4f}" for name, value in result.items())


def test_a_resumed_run_is_the_run_itself(command, place):
    options = {"ssl_loss": "infonce", "ssl_mode": "joint", "eval_step": 0}  # a checkpoint of every epoch
    assert [fate[0] for fate in command(**options, epochs=2)] == [0, 0]
    (whole,) = (place / "saved").iterdir()
    assert [fate[0] for fate in command(**options, checkpoint_dir="parts")] == [0, 0]
    (first,) = (place / "parts").iterdir()
    alone = command(**options, epochs=2, resume=first, number=1)
    assert alone[0][0] == 2
    assert alone[0][2].splitlines()[-1] == (
        f"adaptssr: resume: expected a checkpoint of 1 processes, as there are here, got one of 2 in {first}"
    )
    assert [fate[0] for fate in command(**options, epochs=2, resume=first)] == [0, 0]
    assert_same_weights(torch.load(first)["state_dict"], torch.load(whole)["state_dict"], rtol=0, atol=0)


def test_a_process_that_dies(command):
    """At a step of the stage on whole users."""
    fates = command(**STAGES, kills={1: ["at_step", 2]})
    assert [fate[0] for fate in fates] == [1, -signal.SIGKILL], fates
    line = fates[0][2].splitlines()[-1]
    assert line.startswith("adaptssr: process 0 of 2: another process ended or no longer answers ("), line
    assert line.endswith("); a run with resume goes on from its last checkpoint")


@pytest.mark.parametrize(
    ("words", "options", "expected"),
    [
        (["--save_dataset=True"], {}, "save_dataset: expected False in several processes, which would write one"),
        (["--save_dataloaders=True"], {}, "save_dataloaders: expected False in several processes"),
        ([], {"model": "Pop"}, "nproc: expected 1 for Pop, which TraditionalTrainer trains, got 2: only the steps"),
        (["--ssl_weight=-1"], STAGES, "ssl_weight: expected 0 or more, got -1"),
        ([], {"n_heads": 7}, "options: RecBole refuses the dataset or the options: "),
    ],
)
def test_what_is_wrong_is_said_once(command, words, options, expected):
    fates = command(*words, **options)
    assert [status for status, _, _ in fates] == [2, 2], fates
    assert fates[0][2].splitlines()[-1].startswith(f"adaptssr: {expected}")
    assert fates[1][1:] == ["", ""]


# --- RecBole's own entry ---------------------------------------------------------------------------------------------


def test_recboles_run(place, monkeypatch, capfd):
    monkeypatch.setattr("sys.argv", ["x", "--nproc=2"])  # which its run_recbole.py leaves there
    given = {**QUICK, **STAGES, "state": "error"}
    with installed():
        from recbole.quick_start import run

        result = run("SASRec", "slice", config_dict=given, nproc=2, port=str(free_port()))
    assert given == {**QUICK, **STAGES, "state": "error"}
    assert result.keys() == {"best_valid_score", "valid_score_bigger", "best_valid_result", "test_result"}
    assert list(result["test_result"]) == ["recall@50", "ndcg@50"]
    assert len([*(place / "saved").iterdir()]) == 2
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("place")
def test_recboles_run_with_a_child_that_fails():
    with installed():
        from recbole.quick_start import run

        with pytest.raises(InputError, match=r"^ssl_weight: expected 0 or more, got -1\.0$"):
            run("SASRec", "slice", config_dict={**QUICK, "ssl_weight": -1}, nproc=2, port=free_port())


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"nproc": 0}, "nproc: expected a positive integer, got 0"),
        ({"nproc": "2"}, "nproc: expected a positive integer, got '2'"),
        ({"world_size": 1}, "world_size: expected an integer of at least 2, got 1"),
        ({"group_offset": -1}, "group_offset: expected an integer of at least 0, got -1"),
        ({"world_size": 4, "group_offset": 3}, "group_offset: expected 2 at most, for 2 of 4 processes, got 3"),
        ({"port": "http"}, "port: expected a number, got 'http'"),
    ],
)
def test_groups_that_cannot_be(changes, line):
    group = Group(2, -1, "localhost", "5678", 0)
    assert _checked(group).world_size == 2
    assert refusal_of(_checked, group._replace(**changes)) == line


# --- what is refused -------------------------------------------------------------------------------------------------


class Two(Processes):
    """Two processes, of which the other one has said something else."""

    def __init__(self, said=None):
        super().__init__()
        self.number, self.said = 2, said

    def gather(self, state):
        return [state, self.said]


def test_batch_norms_on_a_cpu_are_refused():
    config = {"model": "X", "device": torch.device("cpu")}
    model = nn.Sequential(nn.Linear(2, 2))
    assert with_shared_norms(model, config, Two()) is model
    with pytest.raises(InputError, match=r"^nproc: expected 1 for X on a cpu, got 2: its batch norm can see"):
        with_shared_norms(nn.Sequential(nn.BatchNorm1d(2)), config, Two())


def test_loaders_from_a_file_are_refused():
    loader = SimpleNamespace(sampler=torch.utils.data.RandomSampler([1, 2]))
    with pytest.raises(InputError, match=r"^dataloaders_save_path: expected no saved loaders in several"):
        check_shared_out(loader)


def test_processes_that_were_asked_for_different_runs():
    run = {"seed": 1, "gpu_id": "0", "data_path": "a"}
    check_alike(Two({"seed": 1}), run)
    with pytest.raises(InputError, match=r"^seed: expected the same on every process, got 2 on process 1, 1 on proc"):
        check_alike(Two({**run, "seed": 2}), run)


@pytest.mark.usefixtures("place")
def test_an_option_starts_no_process():
    with pytest.raises(InputError, match=r"^nproc: expected 1, got 2; several processes are those of adaptssr run"):
        run_recbole("SASRec", "slice", config_dict={**QUICK, "nproc": 2})
