"""``adaptssr finetune`` on cold recommendation and conversion: from a file of two domains to a table."""

import csv
from functools import partial

import numpy as np
import pytest
from command_cases import assert_one_line, call_command, words_of
from recbole_cases import write_table
from training_cases import TINY, TRAINING

from adaptssr_plugin.cli.main import main
from adaptssr_plugin.downstream import RANKING_METRICS, cold_task, read_cold_rows, two_domains
from adaptssr_plugin.experiments.task_tables import make_task
from adaptssr_plugin.methods import recipe
from adaptssr_plugin.recbole.compat.user_sequences import load_user_sequences
from adaptssr_plugin.recbole.user_model import finetune
from adaptssr_plugin.recbole.user_model.finetune import fine_tune, whole_histories
from adaptssr_plugin.recbole.user_model.pretrain import Source

PRE = [*words_of(TRAINING), "--set", "use_gpu=False", "--quiet"]
FINE = ["--ft-epochs", "8", "--ft-batch-size", "16", "--ft-learning-rate", "0.03", "--quiet"]
N_TOYS = 20


def write_mix(path, n_users=60):
    """Users of even games buy even toys, others odd ones; toys are 1 to 20, games 21 to 32."""
    random = np.random.default_rng(0)
    lines = []
    for user in range(n_users):
        games = 21 + 2 * random.integers(0, 6, 8) + user % 2
        toys = 1 + 2 * random.permutation(10)[:4] + user % 2
        items = [games[0], *random.permutation(np.concatenate([games[1:], toys]))]
        lines.append(f"u{user} {' '.join(map(str, items))}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with ``mix.txt``, the dataset ``mix`` made of it, and in ``run`` a model pre-trained on its games."""
    folder = tmp_path_factory.mktemp("place")
    write_mix(folder / "mix.txt")
    two_domains(folder / "mix.txt", N_TOYS).write(folder / "mix")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["pretrain", "--dataset", "mix", "--output", "run", *PRE])
    return folder


@pytest.fixture
def call(place, monkeypatch, capfd):
    """Run a command there; gives its exit status, output, errors."""
    monkeypatch.chdir(place)
    return partial(call_command, capfd)


def records_of(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_cold_recommendation_end_to_end(call, place):
    status, out, err = call("finetune", "run", "--task", "cold:mix/mix.cold", "--seeds", "2", *FINE)
    assert (status, err.partition(":")[0], err.count("\n")) == (0, "fine-tuning", 1)
    lines = out.splitlines()
    assert lines[0].split() == ["Method", "mix", "(NDCG@10)", "Impr", "%"]
    assert [line.split()[0] for line in lines[2:5]] == ["Popularity", "None", "AdaptSSR"]
    assert "240 pairs of 60 users and 20 items in mix; split 6:2:2 (split seed 2023), last 10 items of each" in out
    found = records_of(place / "run" / "finetune-mix.csv")
    test = [one for one in found if one["split"] == "test" and one["method"] == "adaptssr" and one["seed"] == "1"]
    assert tuple(one["metric"] for one in test) == RANKING_METRICS
    assert {one["split"] for one in found} == {"valid", "test"}
    hit = {one["method"]: float(one["value"]) for one in found if one["metric"] == "HR@10" and one["split"] == "test"}
    assert hit["none"] > 0.9  # ten toys are of the right parity
    assert hit["Popularity"] < 0.8


def test_inputs_are_whole_histories_up_to_the_target_under_the_models_ids(place):
    config = Source(str(place / "mix"), {"use_gpu": False}).config(10)
    corpus = load_user_sequences(config).corpus  # without the two newest games of each user
    plan = recipe(options=TINY)
    task = make_task(f"cold:{place / 'mix' / 'mix.cold'}", config, corpus, plan)
    literal = two_domains(place / "mix.txt", N_TOYS).task()
    assert task.inputs.item_tokens.tolist() == corpus.item_tokens.tolist()
    for row, expected in zip(task.rows, literal.rows, strict=True):
        ours, theirs = task.inputs.history(row), literal.inputs.history(expected)
        assert corpus.item_tokens[ours].tolist() == literal.inputs.item_tokens[theirs].tolist()
    assert max(task.inputs.lengths) == 8 > max(corpus.lengths) == 6


def test_a_file_without_lengths_shows_the_training_history(place, tmp_path):
    config = Source(str(place / "mix"), {"use_gpu": False}).config(10)
    corpus = load_user_sequences(config).corpus
    write_table(tmp_path / "t.cold", "user_id:token target_id:token", [(f"u{n}", f"t{n % 4}") for n in range(40)])
    task = make_task(f"cold:{tmp_path / 't.cold'}", config, corpus, recipe(options=TINY))
    assert task.inputs is None
    assert corpus.user_tokens[task.rows].tolist() == [f"u{n}" for n in range(40)]


def test_conversion_end_to_end(call, place):
    config = Source(str(place / "mix"), {"use_gpu": False}).config(10)
    item = whole_histories(config).item_tokens[1]
    words = ["--task", f"convert:{item}", "--task", "cold:mix/mix.cold", "--seeds", "2", *FINE, "--ft-epochs", "1"]
    status, out, err = call("finetune", "run", *words)
    assert (status, err.partition(":")[0], err.count("\n")) == (0, "fine-tuning", 1)
    assert f"convert:{item} (AUC)" in out.splitlines()[0]
    assert "mix (NDCG@10)" in out.splitlines()[0]
    assert "Conversion: the pre-training has seen whole histories" in out
    assert f"* convert:{item} (AUC): AdaptSSR against None" in out
    assert "NDCG" not in out.partition("* ")[2]  # nothing is concluded of rankings
    found = {
        (one["task"], one["method"], one["metric"])
        for one in records_of(place / "run" / f"finetune-convert-{item}-mix.csv")
    }
    assert {(f"convert:{item}", "TF-IDF + LR", "AUC"), ("mix", "Popularity", "MRR"), ("mix", "none", "HR@5")} <= found
    assert ("mix", "TF-IDF + LR", "NDCG@10") not in found


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("cold:", "task: expected the path of a file of pairs behind it, got 'cold:'"),
        ("convert:", "task: expected an item behind it, got 'convert:'"),
        ("warm:x", "task: expected a column of the .user file, cold:FILE or convert:ITEM, got 'warm:x'"),
        ("cold:none.cold", "none.cold: expected a readable file, got No such file or directory"),
        ("cold:mix.txt", "mix.txt: expected a first line of name:type columns separated by"),
        ("convert:7", "item: expected the token of an item of the corpus, got '7'"),
        ("cold:mix/other.cold", "lengths: expected 1 to 8 behaviours of user u1, got 9"),
    ],
)
def test_wrong_words_get_one_line(call, place, word, expected):
    write_table(place / "mix" / "other.cold", "user_id:token target_id:token input_length:float", [("u1", "3", 9)])
    assert_one_line(call("finetune", "run", "--task", word, "--quiet"), expected)


def test_tasks_of_one_name_are_refused(call, place):
    (place / "mix.cold").write_bytes((place / "mix" / "mix.cold").read_bytes())
    status, _, err = call("finetune", "run", "--task", "cold:mix.cold", "--task", "cold:mix/mix.cold", "--quiet")
    assert (status, err) == (2, "adaptssr: task: expected tasks of different names, got mix, mix\n")


def test_the_recipes_options_reach_the_task(place, monkeypatch):
    config = Source(str(place / "mix"), {"use_gpu": False}).config(10)
    corpus = load_user_sequences(config).corpus
    task = cold_task("mix", read_cold_rows(place / "mix" / "mix.cold"), whole_histories(config), corpus.item_tokens)
    stages = []

    class Watched(finetune.StageTrainer):
        def __init__(self, config, stage, *args, **options):
            stages.append(stage)
            super().__init__(config, stage, *args, **options)

    monkeypatch.setattr(finetune, "StageTrainer", Watched)
    changed = {"ft_neg_exclude": "train", "ft_ties": "mean", "ft_split_unit": "user", "ft_hidden": 5, "ft_epochs": 3}
    changed["ft_coldrec_loss"] = "ce"
    made = recipe(options={**TINY, **changed})
    done = fine_tune(config, corpus, task, made, 0)
    (stage,) = stages
    assert (stage.loss, stage.ties, stage.head.hidden.out_features) == ("ce", "mean", 5)
    assert stage.excluded is not stage.known
    assert tuple(done.test_metrics) == tuple(done.valid_metrics) == RANKING_METRICS
    assert (done.valid, done.test) == (done.valid_metrics["NDCG@10"], done.test_metrics["NDCG@10"])
    again = fine_tune(config, corpus, task, made, 0)
    assert (again.test_metrics, again.valid_metrics) == (done.test_metrics, done.valid_metrics)


def test_inputs_of_another_number_of_items_are_refused(place):
    config = Source(str(place / "mix"), {"use_gpu": False}).config(10)
    corpus = load_user_sequences(config).corpus
    task = cold_task(
        "mix", read_cold_rows(place / "mix" / "mix.cold"), whole_histories(config), np.array(["[PAD]", "21"])
    )
    with pytest.raises(ValueError, match=r"^task: expected inputs of 13 items in mix, got 2$"):
        fine_tune(config, corpus, task, recipe(options=TINY), 0)
