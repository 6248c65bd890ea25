"""``cuda_graphs`` in RecBole's models, on a CPU: a stand-in (tests/helpers/recorded_graph.py) replays operations."""

import logging

import pytest
import torch
from recorded_graph import trainers_capture
from run_cases import our_run, same_weights

from adaptssr_plugin.recbole.recommender.trainer import RecommenderTrainer
from adaptssr_plugin.recbole.user_model.trainer import StageTrainer

pytestmark = pytest.mark.usefixtures("slice_here")
RUN = {"cuda_graphs": True, "train_batch_size": 64, "loss_type": "CE", "eval_step": 0}
# Of the slice's rows few are the newest ones of a user, and their number changes from batch to batch.
JOINT = {"ssl_loss": "adaptssr", "ssl_mode": "joint", "ssl_rows": "user"}
ONE_LINE = "cuda_graphs: steps run one operation at a time"


@pytest.fixture
def captures(monkeypatch):
    return trainers_capture(monkeypatch, RecommenderTrainer, StageTrainer)


NEGATIVE = {"loss_type": "BPR", "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
CASES = {
    "alone": ("SASRec", {}),
    "alone, faster": ("SASRec", {"faster_layers": True}),
    "joint": ("SASRec", JOINT),
    "joint, all rows, negatives": ("GRU4Rec", {**JOINT, **NEGATIVE, "ssl_rows": "all"}),
    "joint, scaled": (
        "SASRec",
        {**JOINT, "enable_amp": True, "enable_scaler": True, "clip_grad_norm": {"max_norm": 1.0}},
    ),
    "duorec": ("SASRec", {"ssl_loss": "infonce", "ssl_mode": "joint", "ssl_method": "duorec"}),
    "BERT4Rec": ("BERT4Rec", JOINT),
    "pretrain": (
        "SASRec",
        {**JOINT, "ssl_mode": "pretrain", "ssl_batch_size": 8, "ssl_epochs": 2, "ssl_warmup_epochs": 1},
    ),
}


SLOW = [pytest.param(case, marks=pytest.mark.slow) for case in CASES if case not in ("joint", "pretrain")]


@pytest.mark.parametrize("case", ["joint", "pretrain", *SLOW])
def test_a_run_of_replayed_steps_is_one_of_ordinary_steps(captures, case):
    model, options = CASES[case]
    result, replayed = our_run(model, {**RUN, **options})
    n_captures = len(captures)
    captures.captures = False
    again, ordinary = our_run(model, {**RUN, **options})
    assert n_captures == len(captures) / 2 == (3 if case == "pretrain" else 1)
    assert all(capture.replayed > capture.ordinary > 0 for capture in captures[:n_captures])
    assert not any(capture.captured for capture in captures[n_captures:])
    assert same_weights(replayed.model, ordinary.model)
    assert result == again


def test_a_resumed_run_ends_as_an_uninterrupted_one(captures):
    whole = our_run("SASRec", {**RUN, **JOINT})[1]
    first = our_run("SASRec", {**RUN, **JOINT, "epochs": 1})[1]
    rest = our_run("SASRec", {**RUN, **JOINT, "resume": first.saved_model_file})[1]
    assert rest.start_epoch == 1
    assert captures[-1].captured
    assert same_weights(rest.model, whole.model)


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        ("BPR", {"loss_type": None}, ", as without it: BPR is not a sequential model"),
        ("SASRec", {"learner": "sgd"}, ", as without it: learner sgd is neither adam nor adamw"),
        ("SRGNN", {}, ": the host waits for the device in them ("),  # it sorts the items of each row on the CPU
    ],
)
def test_one_line_says_where_steps_cannot_be_captured(captures, caplog, model, options, reason):
    with caplog.at_level(logging.WARNING):
        our_run(model, {**RUN, "state": "warning", "epochs": 1, **options})
    (line,) = [record.getMessage() for record in caplog.records if "cuda_graphs" in record.getMessage()]
    assert line.startswith(f"{ONE_LINE}{reason}")
    assert not any(capture.captured for capture in captures)


def test_without_a_device_nothing_changes(caplog):
    with caplog.at_level(logging.WARNING):
        asked = our_run("SASRec", {**RUN, **JOINT, "state": "warning", "epochs": 1})[1]
    (line,) = [record.getMessage() for record in caplog.records if "cuda_graphs" in record.getMessage()]
    assert line == f"{ONE_LINE}, as without it: there is no CUDA device, but cpu"
    assert same_weights(asked.model, our_run("SASRec", {**RUN, **JOINT, "epochs": 1, "cuda_graphs": False})[1].model)


def test_up_to_an_eighth_of_the_rows_is_not_compared(captures):
    trainer = our_run("SASRec", {**RUN, **JOINT, "epochs": 1})[1]
    term = trainer.term
    assert term.few_sizes
    batch = next(iter(trainer._train_data))
    some = term.compared_rows(batch)
    term.few_sizes = False
    every = term.compared_rows(batch)
    assert 0 <= len(every) - len(some) <= len(every) / 8
    assert len(some) % (1 << len(every).bit_length() - 4) == 0
    assert torch.equal(some, every[: len(some)])
