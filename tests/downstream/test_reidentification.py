"""Re-identification: ranks against a literal loop, ties, chance, what needs no encoder, and the commands."""

import json

import numpy as np
import pytest
import torch
from command_cases import call_command, words_of
from recbole_cases import write_table
from refusals import refusal_of
from safetensors.torch import load_file
from training_cases import TRAINING, corpus_of, encoder_of, write_profiled_dataset

from adaptssr_plugin import UserEncoder
from adaptssr_plugin.corpus import BehaviourCorpus
from adaptssr_plugin.downstream.reidentification import (
    chance,
    plain_reidentification,
    reidentification_metrics,
    reidentification_ranks,
    reidentify,
)
from adaptssr_plugin.methods import recipe
from adaptssr_plugin.recbole.user_model.pretrain import Source, pretrain

WORDS = words_of(TRAINING)


def cosine(a, b):
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms else 0.0


def literal_ranks(older, newer):
    """Count for each user those whose older half is as similar as the own one, or more."""
    found = []
    for query, own in zip(newer, older, strict=True):
        rivals = [cosine(query, other) for other in older if other is not own]
        found.append(1 + sum(one > cosine(query, own) - 1e-6 for one in rivals))
    return found


def vectors(n=23, d=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    older = torch.randn(n, d, generator=generator, dtype=torch.float64)
    newer = older + torch.randn(n, d, generator=generator, dtype=torch.float64)
    older[3] = 5 * older[8]  # of the same direction: a tie for both
    older[5] = newer[6] = 0
    return older.to(dtype), newer.to(dtype)


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ranks_equal_the_literal_loop(chunk_size, dtype):
    older, newer = vectors(dtype=dtype)
    ranks = reidentification_ranks(older, newer, chunk_size)
    expected = literal_ranks(list(older.double().numpy()), list(newer.double().numpy()))
    assert (ranks.dtype, ranks.tolist()) == (torch.int64, expected)
    assert len(set(expected)) > 5
    assert expected[6] == len(expected)  # zeros are as similar to all


def test_ties_are_pessimistic_whatever_rounding_does():
    one = torch.randn(1, 64).expand(300, 64)
    assert reidentification_ranks(one, torch.randn(300, 64)).tolist() == [300] * 300
    assert reidentification_ranks(torch.eye(4), torch.eye(4)).tolist() == [1] * 4


def test_metrics_and_chance():
    ranks = torch.tensor([1, 2, 10, 11])
    assert reidentification_metrics(ranks) == {"HR@1": 0.25, "HR@10": 0.75, "MRR": (1 + 1 / 2 + 1 / 10 + 1 / 11) / 4}
    drawn = [np.random.default_rng(seed).integers(1, 41) for seed in range(20_000)]
    expected = reidentification_metrics(torch.tensor(np.array(drawn)))
    assert chance(40) == pytest.approx(expected, abs=0.01)
    assert chance(40)["HR@10"] == 10 / 40


def test_an_encoder_reads_the_newest_of_each_half():
    older, newer = corpus_of(9, 4, 12, 7, 5, 15).halves()
    encoder = encoder_of(UserEncoder)
    found = reidentify(encoder.train(), older, newer, max_len=3, batch_size=2)
    with torch.no_grad():
        halves = [encoder.eval()(*half.padded(np.arange(6), 3)) for half in (older, newer)]
    assert found == reidentification_metrics(reidentification_ranks(*halves))


def test_plain_rows_against_dense_algebra():
    """TF-IDF as scikit-learn documents it, weights and SVD of the older halves alone."""
    older, newer = corpus_of(*[6 + user % 5 for user in range(30)]).halves()
    n_users, n_items, max_len, dim = 30, older.n_items, 3, 4

    def counts(half):
        found = np.zeros((n_users, n_items))
        for row in range(n_users):
            np.add.at(found[row], half.history(row)[-max_len:], 1)
        return found

    idf = np.log((1 + n_users) / (1 + (counts(older) > 0).sum(axis=0))) + 1
    old, new = (
        part / np.linalg.norm(part, axis=1, keepdims=True) for part in (counts(older) * idf, counts(newer) * idf)
    )
    directions = np.linalg.svd(old)[2][:dim].T
    expected = {
        name: reidentification_metrics(torch.tensor(literal_ranks(list(old @ by), list(new @ by))))
        for name, by in (("TF-IDF cosine", np.eye(n_items)), ("LSA cosine", directions))
    }
    assert plain_reidentification(older, newer, max_len, dim) == {"Chance": chance(n_users), **expected}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((torch.ones(3, 2), torch.ones(4, 2)), r"newer: expected torch.float32 of shape (3, 2) on cpu as older, got"),
        ((torch.ones(3, 2), torch.ones(3, 2).double()), "newer: expected torch.float32 of shape (3, 2)"),
        (
            (torch.ones(3), torch.ones(3)),
            "older: expected a floating, dense tensor of shape (N, d) with values, got",
        ),
        ((torch.ones(3, 2), torch.tensor([[1.0, torch.nan]] * 3)), "newer: expected finite vectors, got NaN"),
        ((torch.ones(3, 2), torch.ones(3, 2), 0), "chunk_size: expected a positive integer or None, got 0"),
    ],
)
def test_wrong_vectors_get_one_line(arguments, line):
    assert line in refusal_of(reidentification_ranks, *arguments)


def test_nobody_to_ask():
    halves = BehaviourCorpus.from_lists([[1], [2]]).halves()
    line = "halves: expected users with two behaviours or more, as many of both, got 0 and 0"
    assert refusal_of(plain_reidentification, *halves, 3, 2) == line
    assert refusal_of(reidentify, encoder_of(UserEncoder), *halves, 3) == line


# --- pre-training ---------------------------------------------------------------------------------------------------


def write_changed(folder, change):
    """Users whose training histories have 8 behaviours; ``change`` makes the newer half of each and what is held out.

    Nothing else differs: every item is there in an older half.
    """
    items = [[f"i{(5 * user + place * place) % 9}" for place in range(10)] for user in range(24)]
    for history in items:
        history[4:] = change(history[4:])
    rows = [(f"u{user}", items[user][place], place) for place in range(10) for user in range(24)]
    write_table(folder / f"{folder.name}.inter", "user_id:token item_id:token timestamp:float", rows)
    return folder


@pytest.mark.parametrize("method", ["adaptssr", "coserec", "duorec", "ccl", "ptum"])
def test_the_newer_halves_change_no_weight(tmp_path, method):
    def weights(name, change, **options):
        made = recipe(method, options={**TRAINING, **options})
        folder = write_changed(tmp_path / name / "small", change)
        pretrain(Source(str(folder), {"use_gpu": False}), made, tmp_path / name / "run", show_progress=False)
        return load_file(tmp_path / name / "run" / "model.safetensors")

    first = weights("a", lambda newer: newer, history="older")
    second = weights("b", lambda newer: newer[::-1][:3] + newer[:1] * 3, history="older")
    assert all(first[name].equal(second[name]) for name in first)
    whole = weights("c", lambda newer: newer)
    assert not all(first[name].equal(whole[name]) for name in first)


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Run a command in a folder with the dataset ``small`` and, in ``run``, a model of its older halves."""
    write_profiled_dataset(tmp_path / "small", least=1)  # some histories of a single behaviour
    monkeypatch.chdir(tmp_path)

    def run(*words):
        return call_command(capfd, *words)

    def train(output, *words):
        return run(
            "pretrain", "--dataset", "small", "--output", output, *WORDS, "--quiet", "--set", "use_gpu=False", *words
        )

    assert train("run", "--history", "older")[0] == 0
    run.train, run.folder = train, tmp_path
    return run


def test_the_command(call):
    status, out, err = call("reidentify", "run")
    assert (status, err) == (0, "")
    rows = [line.split("  ")[0] for line in out.splitlines()[2:7]]
    assert rows == ["Chance", "TF-IDF cosine", "LSA cosine", "Random encoder", "AdaptSSR"]
    card = json.loads((call.folder / "run" / "model.json").read_text(encoding="utf-8"))
    assert card["recipe"]["history"] == "older"
    assert f"the newer halves of {card['users']} users' training histories ({24 - card['users']} with a single" in out
    assert "| history | older |" in (call.folder / "run" / "MODEL_CARD.md").read_text(encoding="utf-8")
    lines = (call.folder / "run" / "reidentification.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 5 * 3
    assert (call.folder / "run" / "reidentification.md").read_text(encoding="utf-8").count("\n| ") >= 6


def test_models_that_have_seen_the_newer_halves_are_refused(call):
    assert call.train("whole")[0] == 0
    line = "expected a model of --history older, got one of --history whole in whole\n"
    assert call("reidentify", "whole") == (2, "", f"adaptssr: model: {line}")
    started = call.train("new", "--history", "older", "--warm-start", "whole")
    assert started == (2, "", f"adaptssr: warm_start: {line}")
    assert call.train("new", "--history", "older", "--warm-start", "run")[0] == 0


def test_other_histories_are_refused(call):
    path = call.folder / "small" / "small.inter"
    later = [f"u0\ti{item}\t{90 + item}" for item in range(4)]  # what came since: the middle moves
    path.write_text("\n".join([path.read_text(encoding="utf-8").rstrip(), *later, ""]), encoding="utf-8")
    line = "dataset: its older halves are not those that the model in run was pre-trained on"
    assert call("reidentify", "run") == (2, "", f"adaptssr: {line}\n")
