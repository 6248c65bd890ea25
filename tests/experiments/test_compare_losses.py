"""``adaptssr compare-losses``: plans, choice on validation values, tests over users, and the whole path."""

import dataclasses
import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from command_cases import call_command
from refusals import refusal_of
from run_cases import SMALL
from scipy import stats

from adaptssr_plugin.cli.main import main
from adaptssr_plugin.downstream.significance import Interval
from adaptssr_plugin.experiments.compare_losses import LossPlan, packaged_loss_plans, read_loss_plan
from adaptssr_plugin.experiments.compare_losses.cells import pack, unpack
from adaptssr_plugin.experiments.compare_losses.differences import Difference, difference, thirds, values_of
from adaptssr_plugin.experiments.compare_losses.grid import Grid, rows_of
from adaptssr_plugin.recbole import run_recbole
from benchmarks.support.plots import read_csv

# --- plans and rows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", packaged_loss_plans())
def test_packaged_plans_are_sound(name):
    plan = read_loss_plan(name)
    assert {(row.loss, row.mode) for row in rows_of(plan) if row.loss == "adaptssr"} == {
        ("adaptssr", "joint"), ("adaptssr", "pretrain"),
    }  # fmt: skip
    assert plan.recbole["stopping_step"] < plan.recbole["epochs"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seeds": 0}, "seeds: expected a positive integer, got 0"),
        ({"models": "SASRec"}, "models: expected a list, got 'SASRec'"),
        ({"models": [["SASRec"]]}, "models: expected names, got ['SASRec']"),
        ({"dataset": 2024}, "dataset: expected text, got 2024"),
        ({"note": 3}, "note: expected text, got 3"),
        ({"recbole": {1: 2}}, "recbole: expected names, got 1"),
        ({"models": []}, "models: expected one or more different values, got []"),
        (
            {"losses": ["adaptssr"]},
            "losses: expected none among them, which the others are compared with, got adaptssr",
        ),
        ({"losses": ["none", "x"]}, "losses: expected one or more of adaptssr, infonce, none, got 'x'"),
        ({"item_inits": ["pca"]}, "item_inits: expected one or more of random, svd, got 'pca'"),
        ({"modes": ["x"]}, "modes: expected one or more of joint, pretrain, got 'x'"),
        ({"weights": [0]}, "weights: expected positive numbers, got 0"),
        ({"shares": [1.5]}, "shares: expected numbers in (0, 1], got 1.5"),
        ({"recbole": {"seed": 1}}, "seed: expected no such option in a comparison, which sets it itself"),
        ({"recbole": {"ssl_x": 1}}, "ssl_x: expected one of"),
        ({"model": "SASRec"}, "model: expected a field of a plan"),
        ({"dataset": None}, "dataset: expected in the plan, got none"),
    ],
)
def test_wrong_plans_are_refused(changes, line):
    assert line in refusal_of(read_loss_plan, None, {"dataset": "ml-100k", **changes})


def test_options_of_the_command_line_are_read_as_a_run_reads_them():
    given = {"ssl_epochs": "3", "ssl_distinct_ops": "False", "ssl_rows": "user", "use_gpu": "False"}
    assert read_loss_plan(None, {"dataset": "ml-100k"}, given).recbole == given
    line = "ssl_epochs: expected an integer, got 'many'"
    assert line in refusal_of(read_loss_plan, None, {"dataset": "ml-100k"}, {"ssl_epochs": "many"})


def test_a_model_with_a_published_loss_is_compared_under_that_and_adaptssr():
    values = {"weights": (0.1, 0.5), "temperatures": (1.0,), "scales": (1, 10), "item_inits": ("random",)}
    plan = LossPlan("ml-100k", models=("GRU4Rec", "DuoRec"), **values)
    rows = list(rows_of(plan))
    labels = [row.label for row in rows]
    assert labels[:5] == ["none", "infonce (joint)", "infonce (pretrain)", "adaptssr (joint)", "adaptssr (pretrain)"]
    assert labels[5:] == ["its own", "adaptssr (joint)", "adaptssr (pretrain)"]
    assert list(rows_of(plan).values()) == [None, *rows[:1] * 4, None, *rows[5:6] * 2]
    assert [len(row.points(plan)) for row in rows] == [1, 2, 1, 4, 2, 2, 4, 2]
    own = rows[5]
    assert own.points(plan)[0] == {"ssl_weight": 0.1, "ssl_temperature": 1.0}  # the published values
    assert len(own.points(dataclasses.replace(plan, weights=(0.5,)))) == 2
    assert "ssl_loss" not in own.options({})


def test_each_start_of_the_item_embedding_has_its_own_reference():
    plan = LossPlan("ml-100k", losses=("none", "adaptssr"), modes=("joint",))
    found = {row.label: None if against is None else against.label for row, against in rows_of(plan).items()}
    assert found == {
        "none": None,
        "adaptssr (joint)": "none",
        "none, SVD start": "none",
        "adaptssr (joint), SVD start": "none, SVD start",
    }
    options = [row.options({}) for row in rows_of(plan)]
    assert [one.get("ssl_item_init", "random") for one in options] == ["random", "random", "svd", "svd"]


def test_options_of_self_supervision_do_not_touch_runs_without_it():
    plan = LossPlan("ml-100k", recbole={"ssl_epochs": 3, "epochs": 7})
    none, joint, *_ = (plan.options(row.options({}), 1) for row in rows_of(plan))
    assert {name for name in none if name.startswith("ssl_")} == {"ssl_loss"}
    assert (joint["ssl_epochs"], joint["epochs"], joint["seed"], joint["faster_layers"]) == (3, 7, 1, True)


class Found:
    """A store in which every run is finished that has a value in ``valid``, by loss and scale."""

    def __init__(self, valid, test=0.0):
        self.valid, self.test = valid, test

    def get(self, cell):
        options = json.loads(cell.options)
        key = options["ssl_loss"], options.get("ssl_scale")
        # Another seed than the first would turn the order round.
        sign = 1 if options["seed"] == 0 else -1
        return {"valid_score": sign * self.valid[key], "test": self.test} if key in self.valid else None


def test_the_first_seeds_validation_value_chooses_and_nothing_else():
    plan = LossPlan("x", losses=("none", "adaptssr"), modes=("pretrain",), item_inits=("random",), scales=(1, 10, 3))
    none, row = rows_of(plan)
    values = {("none", None): 0.9, ("adaptssr", 1): 0.1, ("adaptssr", 10): 0.3, ("adaptssr", 3): 0.3}
    for test in (0.0, 1.0):
        assert Grid(plan, Found(values, test)).chosen(row) == {"ssl_scale": 10}  # the first of equals
    assert len(Grid(plan, Found(values)).results(row)) == 3
    del values["adaptssr", 3]
    grid = Grid(plan, Found(values))
    assert (grid.chosen(none), grid.chosen(row), grid.results(row)) == ({}, None, [])
    cells, later = grid.wanted()
    assert (len(cells), later) == (3 + 3, 2)  # three seeds without the loss, three values; two more seeds of one


# --- numbers ------------------------------------------------------------------------------------------------------


def test_ranks_survive_packing():
    ranks = np.random.default_rng(0).integers(1, 2**31 - 1, 1000)
    assert unpack(pack(ranks)).tolist() == ranks.tolist()


def test_differences_against_scipy_and_plain_loops():
    random = np.random.default_rng(1)
    users = np.sort(random.integers(0, 40, 90))  # some have several rows
    ours, theirs = ([random.integers(1, 30, 90) for _ in range(3)] for _ in range(2))

    def by_user(runs):
        values = {}
        for ranks in runs:
            for user, rank in zip(users, ranks, strict=True):
                values.setdefault(user, []).append(1 / math.log2(rank + 1) if rank <= 10 else 0.0)
        return [statistics.fmean(values[user]) for user in sorted(values)]

    mine, other = by_user(ours), by_user(theirs)
    test = stats.ttest_rel(mine, other)
    found = difference("NDCG@10", ours, theirs, users)
    assert found.p == pytest.approx(test.pvalue)
    assert found.interval[1:] == pytest.approx(test.confidence_interval(0.95))
    assert found.interval.mean == pytest.approx(statistics.fmean(mine) - statistics.fmean(other))
    assert (found.reference, found.n_users) == (pytest.approx(statistics.fmean(other)), len(mine))
    assert found.percent.mean == pytest.approx(100 * (statistics.fmean(mine) / statistics.fmean(other) - 1))
    single = [
        statistics.fmean(by_user([a])) - statistics.fmean(by_user([b])) for a, b in zip(ours, theirs, strict=True)
    ]
    assert found.by_seed == pytest.approx(single)
    assert difference("NDCG@10", [[1]], [[2]], np.array([7])) is None


def test_recall_of_a_user_is_the_share_of_its_rows():
    assert values_of("Recall@20", np.array([20, 21, 1, 99]), np.array([5, 5, 2, 2])).tolist() == [0.5, 0.5]


def test_thirds_are_equal_and_never_part_equal_values():
    assert thirds(np.array([9, 1, 5, 2, 8, 4])).tolist() == [2, 0, 1, 0, 2, 1]
    assert thirds(np.array([4, 4, 4, 4, 5, 9])).tolist() == [0, 0, 0, 0, 2, 2]
    random = np.random.default_rng(2).permutation(99)
    assert thirds(random).tolist() == (random // 33).tolist()


@pytest.mark.parametrize(
    ("interval", "by_seed", "finding"),
    [
        ((0.1, -0.1, 0.3), (0.1, 0.1), "no difference beyond noise"),
        ((0.0, 0.0, 0.0), (0.0, 0.0), "no difference beyond noise"),
        ((0.2, 0.1, 0.3), (0.1, 0.3), "a gain"),
        ((-0.2, -0.3, -0.1), (-0.1, -0.3), "a loss"),
        ((0.2, 0.1, 0.3), (0.5, -0.1), "no difference beyond noise, since only 1 of 2 seeds show a gain"),
        ((0.2, 0.1, 0.3), (0.2,), "a gain for this seed, which more seeds have to confirm"),
    ],
)
def test_a_gain_is_what_users_and_all_seeds_show(interval, by_seed, finding):
    assert Difference(1.0, Interval(*interval), 0.01, by_seed, 9).finding == finding


# --- the whole path -----------------------------------------------------------------------------------------------


RECBOLE = {name: value for name, value in SMALL.items() if name not in ("topk", "metrics", "valid_metric")}
RECBOLE |= {"epochs": 1}


def point_of(options):
    return f"weight 0.1, scale {options['ssl_scale']:g}" if "ssl_scale" in options else "-"


@pytest.mark.usefixtures("slice_here")
def test_the_command_end_to_end(capsys):
    fields = {"dataset": "slice", "losses": ["none", "adaptssr"], "modes": ["joint"], "shares": [1], "seeds": 2,
              "weights": [0.1], "item_inits": ["random"], "recbole": RECBOLE}  # fmt: skip
    Path("plan.yaml").write_text(json.dumps(fields), encoding="utf-8")
    call = ["compare-losses", "plan.yaml", "--output", "out", "--quiet"]
    main(call)
    first = capsys.readouterr().out
    assert "5 runs computed" in first  # two seeds without the loss, two scales, and the second seed of one
    assert "adaptssr (joint) changes NDCG@10 of SASRec by " in first or "NDCG@10 of SASRec is 0" in first

    cells = [json.loads(line) for line in Path("out/cells.jsonl").read_text(encoding="utf-8").splitlines()]
    none, ours = read_csv(Path("out/quality.csv"))
    tried = {
        line["point"]: float(line["valid_NDCG@10"]) for line in read_csv(Path("out/search.csv")) if line["point"] != "-"
    }
    assert len(tried) == 2
    assert tried[ours["point"]] == max(tried.values())
    for line in (none, ours):
        own = [one["result"]["test"] for one in cells if point_of(one["spec"]["options"]) == line["point"]]
        assert len(own) == 2
        for metric in ("NDCG@10", "NDCG@20", "Recall@10", "Recall@20"):
            mean = statistics.fmean(test[metric.lower()] for test in own)
            assert float(line[metric]) == pytest.approx(100 * mean, abs=1e-3)
    change = float(ours["NDCG@10"]) - float(none["NDCG@10"])
    assert float(ours["change"]) == pytest.approx(change, abs=2e-4)
    assert ours["test_users"] == "60"
    # What was compared is what users get from run_recbole with the same options.
    spec = next(one for one in cells if one["spec"]["options"]["ssl_loss"] == "none")
    reference = run_recbole(
        "SASRec", "slice", config_dict={**spec["spec"]["options"], "data_path": ".", "use_gpu": False}
    )
    assert spec["result"]["test"] == reference["test_result"]

    groups = read_csv(Path("out/groups.csv"))
    assert {line["group"] for line in groups} <= {
        f"{third} {what}" for what in ("history", "target") for third in ("short", "middle", "long", "rare", "popular")
    }
    targets = [line for line in groups if line["group"].endswith("target") and line["loss"] == "none"]
    assert sum(int(line["test_rows"]) for line in targets) == 60

    names = ("cells.jsonl", "quality.csv", "quality.md", "groups.csv", "groups.md", "search.csv", "differences.png")
    before = {name: Path("out", name).read_bytes() for name in names}
    main([*call, "--report-only"])
    assert "0 runs computed" in capsys.readouterr().out
    assert before == {name: Path("out", name).read_bytes() for name in names}


@pytest.mark.usefixtures("slice_here")
def test_a_start_of_the_item_embedding_is_compared_by_itself(capsys):
    """Without an added loss, against the same from the first start; so a loss does not get the start's gain."""
    fields = {"dataset": "slice", "losses": ["none"], "seeds": 1, "recbole": RECBOLE}
    Path("plan.yaml").write_text(json.dumps(fields), encoding="utf-8")
    main(["compare-losses", "plan.yaml", "--output", "out", "--quiet", "--item-inits", "random,svd"])
    said = capsys.readouterr().out
    assert "2 runs computed" in said
    random, svd = [json.loads(line)["spec"]["options"] for line in Path("out/cells.jsonl").read_text().splitlines()]
    assert svd == {**random, "ssl_item_init": "svd"}
    first, second = read_csv(Path("out/quality.csv"))
    assert (first["loss"], second["loss"]) == ("none", "none, SVD start")
    assert float(second["change"]) == pytest.approx(float(second["NDCG@10"]) - float(first["NDCG@10"]), abs=2e-4)
    assert "none, SVD start changes NDCG@10 of SASRec by " in said or "NDCG@10 of SASRec is 0" in said


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "plan: expected a plan or --dataset, got none"),
        (["x"], "plan: expected one of beauty, ml-100k or a YAML file, got 'x'"),
        (["--dataset", "none-such"], "Neither [dataset/none-such] exists"),
        (["ml-100k", "--models", "Nothing"], "model: expected the name of a RecBole model"),
        (["ml-100k", "--item-inits", "svd,pca"], "item_inits: expected one or more of random, svd, got 'pca'"),
        (["ml-100k", "--shares", "a"], "shares: expected numbers such as 0.1,1, got 'a'"),
        (["ml-100k", "--set", "stopping_step=x"], "stopping_step"),
    ],
)
def test_wrong_calls_end_with_one_line(untrained, tmp_path, monkeypatch, capfd, words, line):
    monkeypatch.chdir(tmp_path)
    status, _, error = call_command(capfd, "compare-losses", *words)
    assert (status, error.count("\n")) == (2, 1)
    assert line in error
