"""What RecBole would only trip over once it evaluates: a metric of validation that is computed, or one line before."""

import math
import sys

import numpy as np
import pytest
import torch
from recbole.evaluator import register
from recbole.evaluator.base_metric import TopkMetric
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from recbole_cases import MeanOfItems, write_table
from refusals import refusal_of
from run_cases import SMALL, our_run, quiet_root, stock_run
from torch import nn

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole import compat_patches, installed, run_recbole
from adaptssr_plugin.recbole.recommender.config import RunConfig

BY_TIME = {"split": {"LS": "valid_and_test"}, "order": "TO"}
LABELED = {**BY_TIME, "mode": "labeled"}
SAMPLED = {**BY_TIME, "mode": "uni5"}
METRICS_OF_RECBOLE = ["Recall", "MRR", "NDCG", "Hit", "Precision"]
RATED = {"inter": ["user_id", "item_id", "rating", "timestamp"]}
PLAIN = {name: value for name, value in SMALL.items() if name not in ("topk", "metrics", "valid_metric", "load_col")}


class FixedScores(SequentialRecommender):
    """Ranks items by their ids, the first one highest, whatever it is trained on; predicts a tenth of the id."""

    input_type = InputType.PAIRWISE

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.weight = nn.Parameter(torch.ones(1))

    def calculate_loss(self, interaction):
        return self.weight.square().sum()

    def full_sort_predict(self, interaction):
        return -torch.arange(self.n_items, dtype=torch.float32).repeat(len(interaction), 1)

    def predict(self, interaction):
        return interaction[self.ITEM_ID] / 10


# Ids as they first appear: items a to f are 1 to 6. The last item of a user is for the test, the one before for
# validation, the one before that for training: items 2, 2, 1 and 3.
HISTORIES = {"u": "cbda", "v": "cbeb", "w": "bafd", "x": "ecaf"}
RATINGS = {"u": "1151", "v": "1115", "w": "1151", "x": "1115"}


def write_shop(folder):
    rows = [
        (user, item, rating, time)
        for user, items in HISTORIES.items()
        for time, (item, rating) in enumerate(zip(items, RATINGS[user], strict=True))
    ]
    header = "user_id:token item_id:token rating:float timestamp:float"
    write_table(folder / f"{folder.name}.inter", header, sorted(rows, key=lambda row: row[1]))


@pytest.fixture(autouse=True)
def shop_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x"])
    write_shop(tmp_path / "shop")


def config_of(model="SASRec", **options):
    with compat_patches():
        return RunConfig(model, "shop", None, {**PLAIN, **options})


def refusal(model="SASRec", **options):
    return refusal_of(config_of, model, **options)


# --- the metric of validation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "chosen"),
    [
        ("SASRec", {}, "MRR@10"),
        ("SASRec", {"topk": [5, 10]}, "MRR@10"),
        ("SASRec", {"topk": 3}, "MRR@3"),
        ("SASRec", {"topk": [5, 3]}, "MRR@5"),
        ("SASRec", {"metrics": ["NDCG", "Recall"]}, "NDCG@10"),
        ("SASRec", {"metrics": "recall", "topk": [5, 10]}, "recall@10"),
        ("SASRec", {"metrics": ["Recall", "mrr"], "topk": [3]}, "MRR@3"),
        ("SASRec", {"metrics": ["GAUC", "Hit"], "topk": [3]}, "GAUC"),
        ("SASRec", {"metrics": ["MAE", "AUC"], "eval_args": SAMPLED}, "MAE"),
        ("SASRec", {"metrics": ["MRR"], "topk": [3], "valid_metric": "mrr@3"}, "mrr@3"),
        ("SASRec", {"metrics": ["MRR", "Hit"], "topk": [3, 5], "valid_metric": "Hit@5"}, "Hit@5"),
        ("DIN", {}, "AUC"),
        ("DIN", {"metrics": ["LogLoss"]}, "LogLoss"),
        ("DIN", {"metrics": ["NDCG"], "eval_args": SAMPLED, "topk": [5, 10]}, "NDCG@5"),
        ("BPR", {"topk": [2]}, "MRR@2"),
        ("CL4SRec", {"topk": [2]}, "MRR@2"),
    ],
)
def test_validation_is_by_a_metric_that_is_computed(model, options, chosen):
    with installed():
        config = config_of(model, **options)
    assert config["valid_metric"] == chosen
    assert config["valid_metric_bigger"] == (chosen not in ("MAE", "LogLoss"))


@pytest.mark.parametrize(
    ("options", "chosen"),
    [({"topk": 3}, "MRR@3"), ({"metrics": ["NDCG"], "topk": [2, 4]}, "NDCG@2"), ({"metrics": ["GAUC"]}, "GAUC")],
)
def test_a_run_without_valid_metric_is_recboles_with_the_one_that_is_chosen(options, chosen):
    result = run_recbole("GRU4Rec", "shop", config_dict={**PLAIN, **options})
    usual = {"metrics": METRICS_OF_RECBOLE, "train_neg_sample_args": None}
    theirs, _ = stock_run("GRU4Rec", {**usual, **options, "valid_metric": chosen}, "shop")
    assert result == theirs
    assert result["best_valid_score"] == result["best_valid_result"][chosen.lower()]


def test_recboles_own_quick_start_chooses_too():
    with installed(), quiet_root():
        from recbole.quick_start import run_recbole as recboles

        result = recboles("GRU4Rec", "shop", config_dict={**PLAIN, "topk": 2})
    assert result["best_valid_score"] == result["best_valid_result"]["mrr@2"]


class Twice(TopkMetric):
    """A metric that a user has added, with names of its own for its values."""

    def calculate_metric(self, dataobject):
        hits, _ = self.used_info(dataobject)
        return {"twice@all": 2 * float(hits.sum(1).mean())}


def test_a_metric_that_a_user_has_added_is_taken_at_its_word(monkeypatch):
    for registry, value in (("metrics_dict", Twice), ("metric_information", Twice.metric_need)):
        monkeypatch.setitem(getattr(register, registry), "twice", value)
    monkeypatch.setitem(register.metric_types, "twice", Twice.metric_type)
    options = {**PLAIN, "metrics": ["Twice"], "topk": [2], "valid_metric": "Twice@all", "loss_type": "CE"}
    result = run_recbole(FixedScores, "shop", config_dict=options)
    assert result["test_result"] == {"twice@all": 1.0}


# --- what is refused before the data are read ------------------------------------------------------------------------

METRICS = "metrics: expected one or several of AUC, AveragePopularity, GAUC, GiniIndex, Hit, "
VALID = "valid_metric: expected one that metrics and topk ask for ("
TOPK = "topk: expected a positive integer or a list of them, got "
MODE = (
    "eval_args: expected a mode full, uniN, popN (N sampled negatives) or labeled, or one for each of valid and test, "
    "got "
)
SPLIT = "eval_args: expected a split such as {'RS': [0.8, 0.1, 0.1]}, {'TS': "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["Foo"]}, METRICS),
        ({"metrics": ["MRR@10"]}, METRICS),
        ({"metrics": []}, METRICS),
        ({"metrics": "MRR,NDCG"}, METRICS),
        ({"metrics": None}, METRICS),
        ({"metrics": [5]}, METRICS),
        (
            {"metrics": ["MRR", "AUC"]},
            "metrics: expected ranking metrics alone or value metrics (AUC, LogLoss, MAE, RMSE) alone, got "
            "['MRR', 'AUC']",
        ),
        ({"topk": 0}, f"{TOPK}0"),
        ({"topk": [5, -1]}, f"{TOPK}[5, -1]"),
        ({"topk": []}, f"{TOPK}[]"),
        ({"topk": True}, f"{TOPK}True"),
        ({"topk": [5.0]}, f"{TOPK}[5.0]"),
        ({"topk": ["5"]}, f"{TOPK}['5']"),
        ({"topk": "5,10"}, f"{TOPK}(5, 10)"),
        ({"topk": None}, f"{TOPK}None"),
        ({"topk": [5], "valid_metric": "MRR@10"}, f"{VALID}Recall@5, MRR@5, NDCG@5, Hit@5, Precision@5), got 'MRR@10'"),
        ({"metrics": ["NDCG"], "valid_metric": "MRR@10"}, f"{VALID}NDCG@10), got 'MRR@10'"),
        ({"metrics": ["NDCG", "GAUC"], "valid_metric": "NDCG"}, f"{VALID}NDCG@10, GAUC), got 'NDCG'"),
        ({"metrics": ["GAUC"], "valid_metric": "GAUC@10"}, f"{VALID}GAUC), got 'GAUC@10'"),
        ({"metrics": ["AUC"], "eval_args": SAMPLED, "valid_metric": "MRR@10"}, f"{VALID}AUC), got 'MRR@10'"),
        ({"valid_metric": None}, f"{VALID}Recall@10, "),
        ({"valid_metric": ["MRR@10"]}, f"{VALID}Recall@10, "),
        (
            {"valid_metric_bigger": False},
            "valid_metric_bigger: expected True, which RecBole knows of MRR@10, got False",
        ),
        (
            {"metrics": ["MAE"], "eval_args": SAMPLED, "valid_metric_bigger": True},
            "valid_metric_bigger: expected False, which RecBole knows of MAE, got True",
        ),
        ({"metric_decimal_place": None}, "metric_decimal_place: expected an integer of at least 0, got None"),
        ({"metric_decimal_place": 4.0}, "metric_decimal_place: expected an integer of at least 0, got 4.0"),
        ({"loss_decimal_place": -1}, "loss_decimal_place: expected an integer of at least 0, got -1"),
        ({"eval_step": None}, "eval_step: expected an integer, got None"),
        ({"stopping_step": None}, "stopping_step: expected an integer, got None"),
        ({"stopping_step": "ten"}, "stopping_step: expected an integer, got 'ten'"),
        ({"epochs": 2.5}, "epochs: expected an integer, got 2.5"),
        ({"eval_batch_size": 0}, "eval_batch_size: expected a positive integer, got 0"),
        ({"eval_batch_size": None}, "eval_batch_size: expected a positive integer, got None"),
        ({"train_batch_size": 64.0}, "train_batch_size: expected a positive integer, got 64.0"),
        ({"tail_ratio": "few"}, "tail_ratio: expected a positive number, got 'few'"),
        ({"tail_ratio": 0}, "tail_ratio: expected a positive number, got 0"),
        (
            {"clip_grad_norm": 5.0},
            "clip_grad_norm: expected a mapping such as {'max_norm': 5.0, 'norm_type': 2}, got 5.0",
        ),
        ({"clip_grad_norm": {"norm": 5.0}}, "clip_grad_norm: expected a mapping such as "),
        ({"dataloaders_save_path": "nowhere"}, "dataloaders_save_path: expected an existing file, got 'nowhere'"),
        ({"dataset_save_path": "nowhere"}, "dataset_save_path: expected an existing file, got 'nowhere'"),
    ],
)
def test_an_option_with_which_a_run_could_not_end(options, message):
    assert refusal(**options).startswith(message)


@pytest.mark.parametrize(
    ("eval_args", "message"),
    [
        ("full", "eval_args: expected split, order, group_by and mode by name, got 'full'"),
        ({**BY_TIME, "groupby": "user"}, "eval_args: expected split, order, group_by and mode by name, got {"),
        (
            {"mode": "uni10"},
            "eval_args: expected the order TO for a sequential model, got none, which RecBole takes for",
        ),
        ({**BY_TIME, "order": "RO"}, "eval_args: expected the order TO for a sequential model, got 'RO'"),
        ({**BY_TIME, "order": "to"}, "eval_args: expected the order TO for a sequential model, got 'to'"),
        ({**BY_TIME, "group_by": "users"}, "eval_args: expected group_by user or none, got 'users'"),
        ({**BY_TIME, "split": {"LS": "valid_and_tset"}}, SPLIT),
        ({**BY_TIME, "split": {"ls": "valid_only"}}, SPLIT),
        ({**BY_TIME, "split": {}}, SPLIT),
        ({**BY_TIME, "split": None}, SPLIT),
        ({**BY_TIME, "split": "LS"}, SPLIT),
        ({**BY_TIME, "split": {"LS": "valid_only", "RS": [8, 1, 1]}}, SPLIT),
        ({**BY_TIME, "split": {"RS": [0.8, 0.2]}}, SPLIT),
        ({**BY_TIME, "split": {"RS": [0.8, 0.3, -0.1]}}, SPLIT),
        ({**BY_TIME, "split": {"RS": [0, 0, 0]}}, SPLIT),
        ({**BY_TIME, "split": {"RS": ["8", 1, 1]}}, SPLIT),
        ({**BY_TIME, "split": {"TS": [0, 0, 1]}}, SPLIT),
        ({**BY_TIME, "mode": "Full"}, f"{MODE}'Full'"),
        ({**BY_TIME, "mode": "uni"}, f"{MODE}'uni'"),
        ({**BY_TIME, "mode": "uni0"}, f"{MODE}'uni0'"),
        ({**BY_TIME, "mode": "pop-5"}, f"{MODE}'pop-5'"),
        ({**BY_TIME, "mode": None}, f"{MODE}None"),
        ({**BY_TIME, "mode": {"validation": "full"}}, f"{MODE}{{'validation': 'full'}}"),
        (LABELED, "eval_args: expected a mode full, uniN or popN for Recall, MRR, NDCG, Hit, Precision, got labeled"),
        (
            {**BY_TIME, "mode": {"valid": "full", "test": "labeled"}},
            "eval_args: expected a mode full, uniN or popN for",
        ),
    ],
)
def test_a_way_to_evaluate_that_recbole_does_not_have(eval_args, message):
    assert refusal(eval_args=eval_args).startswith(message)


def test_values_are_compared_in_the_same_way_for_validation_and_test():
    message = refusal(metrics=["AUC"], eval_args=BY_TIME)
    assert message == "eval_args: expected a mode labeled, uniN or popN for AUC, got full"
    message = refusal(metrics=["AUC"], eval_args={**BY_TIME, "mode": {"valid": "labeled", "test": "uni5"}})
    assert message == "eval_args: expected the mode labeled for test as for valid, got uni5"


def test_other_models_may_take_rows_in_any_order():
    assert config_of("BPR", eval_args={"mode": "uni5"})["eval_args"]["order"] == "RO"
    assert refusal("BPR", eval_args={"order": "to"}) == "eval_args: expected the order TO or RO, got 'to'"


class Silent(SequentialRecommender):
    """Scores nothing."""

    input_type = InputType.PAIRWISE


def test_a_model_that_cannot_score_as_it_is_evaluated():
    message = refusal(MeanOfItems, loss_type="CE", eval_args=SAMPLED)
    assert message == "eval_args: expected a mode full for MeanOfItems, which has no predict, got uni5"
    message = refusal(Silent)
    expected = (
        "eval_args: expected a model with predict or full_sort_predict for Silent, which has no predict, got full"
    )
    assert message == expected


def test_the_settings_that_recbole_takes_are_taken():
    for split in ({"LS": "valid_only"}, {"LS": "test_only"}, {"RS": [8, 1, 1]}, {"TS": [0.5, 0, 0.5]}):
        for group_by in ("user", "none", "None", None):
            eval_args = {"split": split, "order": "TO", "group_by": group_by, "mode": {"test": "pop10"}}
            config = config_of(eval_args=eval_args)
            assert config["eval_args"] == {**eval_args, "mode": {"valid": "pop10", "test": "pop10"}}
    options = {"eval_step": 0, "stopping_step": -1, "epochs": 0, "loss_decimal_place": None, "tail_ratio": 0.5}
    assert {name: config_of(**options)[name] for name in options} == options


# --- what is refused as soon as the data are known -------------------------------------------------------------------


def run_refusal(model="GRU4Rec", **options):
    return refusal_of(run_recbole, model, "shop", config_dict={**PLAIN, **options})


@pytest.mark.usefixtures("untrained")
class TestWithTheData:
    @pytest.fixture
    def one_item(self, tmp_path):
        rows = [(user, "a", time) for user in "uvw" for time in range(5)]
        write_table(tmp_path / "shop" / "shop.inter", "user_id:token item_id:token timestamp:float", rows)

    @pytest.mark.parametrize("options", [{}, {"topk": [2, 8]}, {"topk": 8, "metrics": ["ItemCoverage"]}])
    @pytest.mark.parametrize("model", ["GRU4Rec", "BPR"])
    def test_a_ranking_longer_than_there_are_items(self, model, options):
        topk = [options["topk"]] if isinstance(options.get("topk"), int) else options.get("topk", [10])
        message = run_refusal(model, **options)
        assert message == f"topk: expected at most 7, the number of items and padding, got {topk}"

    @pytest.mark.parametrize(
        "options",
        [{"loss_type": "BPR"}, {"eval_args": SAMPLED}, {"eval_args": {**BY_TIME, "mode": {"test": "pop5"}}}],
        ids=str,
    )
    def test_one_item_has_no_negatives(self, one_item, options):
        message = run_refusal(topk=1, **options)
        assert message.startswith("dataset: expected in shop an item that is a negative for every row, got rows with")

    def test_one_item_may_be_ranked(self, one_item):
        with pytest.raises(AssertionError, match="a run was begun"):
            run_recbole("GRU4Rec", "shop", config_dict={**PLAIN, "topk": 1})

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (
                None,
                "expected a distribution uniform or popularity for GRU4Rec, which compares with negatives, got None",
            ),
            ({"distribution": None}, "expected a distribution uniform or popularity, got {'distribution': None}"),
            ({"distribution": "even"}, "expected a distribution uniform or popularity, got {'distribution': 'even'}"),
            ({"sample_num": 0}, "sample_num: expected a positive integer, got 0"),
            ({"sample_num": "x"}, "sample_num: expected a positive integer, got 'x'"),
            ({"dynamic": True}, "candidate_num: expected a positive integer, got 0"),
            ({"distribution": "popularity", "alpha": "x"}, "expected a number as alpha, got 'x'"),
            ("uniform", "expected a mapping or None, got 'uniform'"),
        ],
    )
    def test_negatives_that_cannot_be_sampled(self, given, message):
        found = run_refusal(topk=3, loss_type="BPR", train_neg_sample_args=given)
        assert found == f"train_neg_sample_args: {message}"

    @pytest.mark.parametrize("model", ["GRU4Rec", "SINE", "MultiDAE", "MacridVAE"])
    def test_models_that_read_no_negatives_need_none(self, model):
        """SINE and the auto-encoders declare pairwise input, and are documented to train without sampling."""
        config = config_of(model, topk=3, train_neg_sample_args=None)
        assert config["train_neg_sample_args"]["distribution"] == "none"

    @pytest.mark.parametrize("mode", ["pop5", "uni5"])
    def test_a_user_of_all_popular_items_has_no_negatives(self, tmp_path, mode):
        """The item f has no interactions, and is never popular."""
        write_table(tmp_path / "shop" / "shop.item", "item_id:token", [(item,) for item in "abcdef"])
        histories = {"u": "abcde", "v": "abac"}
        rows = [(user, item, time) for user, items in histories.items() for time, item in enumerate(items)]
        write_table(tmp_path / "shop" / "shop.inter", "user_id:token item_id:token timestamp:float", rows)
        columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]}
        options = {**PLAIN, "topk": 1, "load_col": columns, "eval_args": {**BY_TIME, "mode": mode}}
        line = (
            "dataset: expected in shop an item that is a negative for every row, got rows without one among 5 items to"
        )
        expected = (InputError, f"^{line}") if mode == "pop5" else (AssertionError, "a run was begun")
        with pytest.raises(expected[0], match=expected[1]):
            run_recbole("BPR", "shop", config_dict=options)

    def test_labels_that_are_not_there(self):
        message = run_refusal(metrics=["AUC"], eval_args=LABELED)
        expected = (
            "LABEL_FIELD: expected a column 'label' among those that are loaded, or a threshold to make it from, for "
        )
        assert message.startswith(f"{expected}the mode labeled of eval_args, got user_id, item_id, timestamp, ")
        assert run_refusal("FM", metrics=["AUC"], eval_args={"mode": "uni5"}).startswith(f"{expected}FM, which is ")

    @pytest.mark.parametrize(("least", "positive"), [(0, 4), (9, 0)])
    def test_labels_that_are_all_alike(self, least, positive):
        message = run_refusal(metrics=["AUC"], eval_args=LABELED, threshold={"rating": least}, load_col=RATED)
        expected = "valid_metric: expected rows with the label 1 and others in the validation part, for AUC, got "
        assert message == f"{expected}{positive} of 4 with it"

    def test_a_split_that_leaves_nothing_to_train_on(self):
        message = run_refusal(topk=3, eval_args={**BY_TIME, "split": {"RS": [0, 0.5, 0.5]}, "group_by": "none"})
        assert message == "eval_args: expected rows in the training part, got none, 6 for validation, 6 for test"


def test_as_many_places_as_items_can_be_ranked():
    """Padding is the last of them."""
    options = {**PLAIN, "topk": [7], "loss_type": "CE"}
    assert run_recbole(FixedScores, "shop", config_dict=options)["test_result"]["recall@7"] == 1


def test_metrics_without_a_k_do_not_mind_topk():
    result = run_recbole("GRU4Rec", "shop", config_dict={**PLAIN, "metrics": ["GAUC"]})
    assert set(result["test_result"]) == {"gauc"}


@pytest.mark.parametrize("split", ["valid_only", "test_only"])
def test_a_part_that_is_left_out_is_not_evaluated(split):
    eval_args = {"split": {"LS": split}, "order": "TO"}
    result = run_recbole("GRU4Rec", "shop", config_dict={**PLAIN, "topk": 2, "eval_args": eval_args})
    assert (result["best_valid_result"] is None) == (split == "test_only")
    assert (result["test_result"] is None) == (split == "valid_only")


@pytest.mark.parametrize("split", [{"LS": "valid_and_test"}, {"TS": [0.5, 0.25, 0.25]}])
def test_general_models_are_split_by_time_without_being_told_to_load_it(split):
    options = {"topk": 2, "eval_args": {"split": split, "order": "TO"}}
    result = run_recbole("BPR", "shop", config_dict={**PLAIN, **options})
    theirs, _ = stock_run("BPR", {**options, "metrics": METRICS_OF_RECBOLE, "valid_metric": "MRR@2"}, "shop")
    assert result == theirs


# --- the value of every metric ---------------------------------------------------------------------------------------

# Ranked by FixedScores, every user gets items 1, 2, 3, …; the test items are at places 1, 2, 4 and 6 of 6.
BY_HAND = {
    "hit@2": 2 / 4,
    "recall@2": 2 / 4,
    "precision@2": 2 / (4 * 2),
    "mrr@2": (1 + 1 / 2) / 4,
    "map@2": (1 + 1 / 2) / 4,
    "ndcg@2": (1 + 1 / math.log2(3)) / 4,
    "gauc": (5 + 4 + 2 + 0) / (4 * 5),  # of 5 other items, those that are ranked below
    "averagepopularity@2": (1 + 2) / 2,  # rows of training whose target is item 1 and item 2
    "itemcoverage@2": 2 / 7,  # RecBole counts padding among the items
    "shannonentropy@2": math.log(2) / 2,  # RecBole divides by the number of items that are recommended
    # Sorted counts 0, 0, 0, 0, 0, 4, 4 of 7 items, padding among them: (2 i - 7 - 1) of the last two.
    "giniindex@2": (4 * 4 + 6 * 4) / (7 * 8),
    "tailpercentage@2": 1 / 2,  # the tail is item 1 alone: a tenth, at least one, of items 2, 1 and 3
}


@pytest.mark.parametrize("name", BY_HAND)
def test_ranking_metrics_have_the_value_that_is_computed_by_hand(name):
    metric = name.partition("@")[0]
    options = {**PLAIN, "metrics": [metric], "topk": [2], "loss_type": "CE", "metric_decimal_place": 6}
    result = run_recbole(FixedScores, "shop", config_dict=options)
    assert result["test_result"] == {name: pytest.approx(BY_HAND[name], abs=1e-6)}
    assert set(result["best_valid_result"]) == {name}
    assert np.isfinite(result["best_valid_score"])


def test_all_ranking_metrics_at_once_and_over_two_epochs():
    """The counts of items, which metrics of a catalogue need, are collected once, and evaluated three times."""
    options = {**PLAIN, "metrics": [name.partition("@")[0] for name in BY_HAND], "topk": [2], "loss_type": "CE"}
    result = run_recbole(FixedScores, "shop", config_dict=options)["test_result"]
    assert result == {name: pytest.approx(value, abs=1e-4) for name, value in BY_HAND.items()}


def test_a_longer_tail():
    """Of 2 rows at most: items 1, 2 and 3. Of a share of 0.7 of three items: the two that are in one row each."""
    options = {**PLAIN, "metrics": ["TailPercentage"], "topk": [2], "loss_type": "CE"}
    for ratio, value in ((2, 1.0), (0.7, 0.5)):
        result = run_recbole(FixedScores, "shop", config_dict={**options, "tail_ratio": ratio})
        assert result["test_result"] == {"tailpercentage@2": value}


# Predicted: 0.1, 0.2, 0.4, 0.6; rated 3 or more: no, yes, no, yes.
VALUES_BY_HAND = {
    "auc": 3 / 4,  # the pairs of a yes and a no that are in order: all but 0.2 and 0.4
    "mae": (0.1 + 0.8 + 0.4 + 0.4) / 4,
    "rmse": math.sqrt((0.01 + 0.64 + 0.16 + 0.16) / 4),
    "logloss": -(math.log(0.9) + math.log(0.2) + math.log(0.6) + math.log(0.6)) / 4,
}


@pytest.mark.parametrize("name", VALUES_BY_HAND)
def test_value_metrics_have_the_value_that_is_computed_by_hand(name):
    options = {"metrics": [name], "eval_args": LABELED, "threshold": {"rating": 3}, "load_col": RATED}
    options |= {"loss_type": "CE", "metric_decimal_place": 6}
    result = run_recbole(FixedScores, "shop", config_dict={**PLAIN, **options})
    assert result["test_result"] == {name: pytest.approx(VALUES_BY_HAND[name], abs=1e-6)}
    assert result["valid_score_bigger"] == (name == "auc")


@pytest.mark.parametrize("mode", ["uni3", "pop3"])
@pytest.mark.parametrize("metrics", [["AUC", "MAE", "RMSE", "LogLoss"], [name.partition("@")[0] for name in BY_HAND]])
def test_metrics_among_sampled_negatives(metrics, mode):
    options = {"metrics": metrics, "topk": 2, "eval_args": {**BY_TIME, "mode": mode}}
    result = run_recbole("GRU4Rec", "shop", config_dict={**PLAIN, **options})["test_result"]
    assert [name.partition("@")[0] for name in result] == [metric.lower() for metric in metrics]
    assert all(np.isfinite(value) for value in result.values())


# --- how a model is trained ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learner", ["adam", "AdamW", "sgd", "adagrad", "rmsprop"])
@pytest.mark.parametrize("faster_layers", [False, True])
def test_every_learner_trains(learner, faster_layers):
    options = {"learner": learner, "topk": [2], "metrics": ["MRR"], "valid_metric": "MRR@2", "loss_type": "CE"}
    _, trainer = our_run(FixedScores, {**options, "faster_layers": faster_layers}, "shop")
    assert type(trainer.optimizer).__name__.lower() == learner.lower()
    assert trainer.train_loss_dict[1] < trainer.train_loss_dict[0] == 1


def test_an_unknown_learner_is_not_taken_for_adam():
    expected = "learner: expected one of adam, adamw, sgd, adagrad, rmsprop, sparse_adam, got "
    for learner in ("lion", "adam ", None):
        assert refusal(learner=learner) == f"{expected}{learner!r}"


class Sparse(FixedScores):
    """Trains one embedding with sparse gradients."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        del self.weight
        self.embedding = nn.Embedding(self.n_items, 4, sparse=True)

    def calculate_loss(self, interaction):
        return self.embedding(interaction[self.POS_ITEM_ID]).square().sum()


class HalfSparse(Sparse):
    """Trains a bias besides."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.bias = nn.Parameter(torch.ones(1))


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("model", ["SASRec", "BPR", "CL4SRec", HalfSparse, FixedScores])
def test_sparse_adam_is_refused_to_models_with_dense_gradients(model):
    message = run_refusal(model, learner="sparse_adam", topk=2, loss_type="BPR")
    name = model if isinstance(model, str) else model.__name__
    expected = f"learner: expected another than sparse_adam for {name}, whose gradients are not sparse, got sparse_adam"
    assert message == expected


def test_sparse_adam_trains_a_model_with_sparse_gradients():
    options = {"learner": "sparse_adam", "loss_type": "CE", "topk": [2], "metrics": ["MRR"], "valid_metric": "MRR@2"}
    _, trainer = our_run(Sparse, options, "shop")
    assert trainer.train_loss_dict[1] < trainer.train_loss_dict[0]
