"""Measured runs: ranks of test targets, the rows they belong to, and shares of the users."""

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset
from recbole.model.sequential_recommender import SASRec
from refusals import refusal_of
from run_cases import SMALL

from adaptssr_plugin.downstream.ranking import hit_at, ndcg_at
from adaptssr_plugin.errors import TrainingDivergedError
from adaptssr_plugin.recbole import installed, run_recbole
from adaptssr_plugin.recbole.entry_points.measured import evaluated_rows, measured_run

pytestmark = pytest.mark.usefixtures("slice_here")
OPTIONS = {**SMALL, "topk": [10, 100], "valid_metric": "NDCG@100", "metric_decimal_place": 6, "seed": 5}


@pytest.mark.parametrize(("model", "options"), [("SASRec", {"ssl_loss": "adaptssr"}), ("BERT4Rec", {})])
def test_metrics_from_ranks_are_recboles(model, options):
    run = measured_run(model, "slice", OPTIONS | options)
    ranks = torch.tensor(run.ranks)
    own = {f"{name}@{k}": float(of(ranks, k).mean()) for name, of in (("recall", hit_at), ("ndcg", ndcg_at))
           for k in (10, 100)}  # fmt: skip
    assert own["ndcg@100"] > 0
    assert own == pytest.approx(dict(run.test), abs=1e-6)
    if model == "SASRec":  # to count BERT4Rec's operations, run_recbole draws masks before the first step
        reference = run_recbole(model, "slice", config_dict=OPTIONS | options)
        assert dict(run.test) == reference["test_result"]
        assert run.valid_score == reference["best_valid_score"]
    assert run.epochs == OPTIONS["epochs"]
    assert 0 < run.seconds_per_epoch < run.seconds_to_best < run.seconds


def test_ranks_stand_in_the_order_of_users_and_ties_count_against_the_target(monkeypatch):
    def score(model, interaction):
        return (torch.arange(model.n_items) // 3).float().repeat(len(interaction), 1)

    monkeypatch.setattr(SASRec, "full_sort_predict", score)
    runs = [measured_run("SASRec", "slice", OPTIONS | {"epochs": 1, "eval_batch_size": size}) for size in (7, 1000)]
    with installed():
        _, _, test = create_dataset(Config("SASRec", "slice", config_dict=OPTIONS)).build()
    targets = dict(zip(test.inter_feat["user_id"].tolist(), test.inter_feat["item_id"].tolist(), strict=True))
    expected = [sum(item // 3 >= targets[user] // 3 for item in range(1, test.item_num)) for user in sorted(targets)]
    for run in runs:
        assert run.ranks.tolist() == expected


def test_a_score_that_is_nan_ends_the_run(monkeypatch):
    own = SASRec.full_sort_predict
    monkeypatch.setattr(SASRec, "full_sort_predict", lambda *arguments: own(*arguments) * torch.nan)
    with pytest.raises(TrainingDivergedError, match="SASRec: a score of a test row is NaN"):
        measured_run("SASRec", "slice", OPTIONS | {"epochs": 1})


def test_rows_have_the_length_of_their_history_and_the_count_of_their_target():
    rows = evaluated_rows("SASRec", "slice", OPTIONS)  # histories are longer than MAX_ITEM_LIST_LENGTH
    table = pd.read_csv("slice/slice.inter", sep="\t").sort_values("timestamp:float", kind="stable")
    histories = [list(items) for _, items in table.groupby("user_id:token")["item_id:token"]]
    counts = pd.Series([item for items in histories for item in items[:-2]]).value_counts()
    expected = sorted((len(items) - 1, int(counts.get(items[-1], 0))) for items in histories)
    assert sorted(zip(rows.lengths.tolist(), rows.counts.tolist(), strict=True)) == expected
    assert (rows.n_training_users, rows.n_items) == (60, table["item_id:token"].nunique())
    assert rows.users.tolist() == list(range(1, 61))


def test_a_smaller_share_of_the_users_is_part_of_a_larger_one_and_all_are_tested_on(monkeypatch):
    trained = {}
    own = SASRec.calculate_loss

    def loss(model, interaction):
        trained.setdefault(share, set()).update(interaction["user_id"].tolist())
        return own(model, interaction)

    monkeypatch.setattr(SASRec, "calculate_loss", loss)
    for share in (0.1, 0.5):
        assert len(measured_run("SASRec", "slice", OPTIONS | {"epochs": 1}, share).ranks) == 60
    assert [len(users) for users in trained.values()] == [6, 30]
    assert trained[0.1] < trained[0.5]
    few, half, everyone = (evaluated_rows("SASRec", "slice", OPTIONS, share) for share in (0.1, 0.5, 1.0))
    assert [one.n_training_users for one in (few, half, everyone)] == [6, 30, 60]
    assert np.all(few.counts <= half.counts)
    assert half.counts.sum() < everyone.counts.sum()
    assert half.lengths.tolist() == everyone.lengths.tolist()


@pytest.mark.parametrize(
    ("model", "options", "line"),
    [
        ("BPR", {}, "model: expected a sequential model of RecBole's, got BPR"),
        (
            "SASRec",
            {"eval_args": {"split": {"LS": "valid_only"}, "order": "TO"}},
            "eval_args: expected a split with test rows",
        ),
        (
            "SASRec",
            {"eval_args": {"mode": "uni50", "order": "TO"}},
            "eval_args: expected mode full, which ranks all items, got",
        ),
        ("SASRec", {"eval_step": 0}, "eval_step: expected 1 to epochs (2), so that an epoch is validated, got 0"),
        ("SASRec", {"epochs": 0}, "eval_step: expected 1 to epochs (0), so that an epoch is validated, got 1"),
        ("SASRec", {"ssl_loss": "x"}, "ssl_loss: expected adaptssr or infonce or none, got 'x'"),
    ],
)
def test_wrong_calls_are_refused(untrained, model, options, line):
    assert line in refusal_of(measured_run, model, "slice", OPTIONS | options)
