"""Cold recommendation: negatives, splits, masks, metrics by hand, and a stage that learns."""

import math

import numpy as np
import pytest
import torch
from training_cases import TINY, corpus_of, encoder_of, streams

from adaptssr_plugin.corpus import BatchLoader, BehaviourCorpus
from adaptssr_plugin.downstream import ColdRecommendationTask, popularity, ranking_metrics, target_ranks
from adaptssr_plugin.downstream.heads import MLPHead
from adaptssr_plugin.downstream.ranking import RANKING_METRICS
from adaptssr_plugin.downstream.tasks.cold import ColdRecommendationStage
from adaptssr_plugin.downstream.tasks.positives import Positives
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.methods import recipe


def task_of(n_users=20, n_labels=7, per_user=3, seed=0, **options):
    """A task in which every user has ``per_user`` different labels."""
    random = np.random.default_rng(seed)
    targets = np.concatenate([random.permutation(n_labels)[:per_user] for _ in range(n_users)])
    rows = np.repeat(np.arange(n_users), per_user)
    return ColdRecommendationTask("clicks", rows, targets, np.arange(n_labels).astype(str), **options)


def stage_of(task, **options):
    split = task.split(0)
    torch.manual_seed(0)
    return ColdRecommendationStage(encoder_of(), task, 8, 16, split, **options), split


def batches_of(corpus, part, batch_size=8):
    return BatchLoader(corpus, part.rows, batch_size=batch_size, max_len=10, seed=0, shuffle=False, labels=part.labels)


# --- positives and negatives ---------------------------------------------------------------------------------------


@pytest.fixture
def positives():
    """Users with some labels, none, all of them, all but one, the first and the last of seven; a pair comes twice."""
    labels = {0: [2, 5, 2], 2: list(range(7)), 3: [0, 1, 2, 4, 5, 6], 4: [0, 1], 5: [5, 6]}
    pairs = [(user, label) for user, own in labels.items() for label in own]
    random = np.random.default_rng(0)
    users, items = (np.array(column) for column in zip(*random.permutation(pairs), strict=True))
    return {user: set(own) for user, own in labels.items()} | {1: set()}, Positives(users, items, 6, 7)


def test_pairs_are_those_of_the_users_in_the_order_of_the_batch(positives):
    own, module = positives
    users = [5, 1, 0, 2, 0]
    rows, labels = module.pairs(torch.tensor(users))
    found = [sorted(labels[rows == place].tolist()) for place in range(len(users))]
    assert found == [sorted(own[user]) for user in users]
    assert module.pairs(torch.tensor([1]))[0].numel() == 0


def test_negatives_are_uniform_on_what_is_not_the_users(positives):
    own, module = positives
    draws = 40_000
    generator = torch.Generator().manual_seed(1)
    for user, positive in own.items():
        labels, possible = module.negatives(torch.full((draws,), user), generator)
        assert possible.all() if len(positive) < 7 else not possible.any()
        if len(positive) == 7:
            continue
        left = sorted(set(range(7)) - positive)
        counts = torch.bincount(labels, minlength=7)
        assert counts[sorted(positive)].sum() == 0
        expected = draws / len(left)
        assert ((counts[left] - expected) ** 2 / expected).sum() < 30  # chi square, at most 6 degrees of freedom


def test_a_user_with_every_label_gets_a_label_that_can_be_looked_up(positives):
    labels, possible = positives[1].negatives(torch.tensor([2, 1, 2]))
    assert possible.tolist() == [False, True, False]
    assert ((labels >= 0) & (labels < 7)).all()


def test_negatives_depend_on_the_generator_alone(positives):
    users = torch.arange(6).repeat(50)
    first, again, other = (positives[1].negatives(users, torch.Generator().manual_seed(seed))[0] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# --- the task ------------------------------------------------------------------------------------------------------


def pairs_of(part):
    return set(zip(part.rows.tolist(), part.labels.tolist(), strict=True))


def test_a_split_by_pairs_lets_users_straddle_and_one_by_users_does_not():
    task = task_of(n_users=30)
    everything = set(zip(task.rows.tolist(), task.targets.tolist(), strict=True))
    for unit, sizes in (("pair", [54, 18, 18]), ("user", [54, 18, 18])):
        split = task.split(5, unit)
        assert [len(part.rows) for part in split] == sizes
        assert set.union(*map(pairs_of, split)) == everything
        users = [set(part.rows.tolist()) for part in split]
        assert bool(users[0] & users[2]) is (unit == "pair")
        assert bool(users[0] & users[1]) is (unit == "pair")
    assert pairs_of(task.split(5).test) == pairs_of(task.split(5).test) != pairs_of(task.split(6).test)
    made = recipe(options={"ft_split_unit": "user", "split_seed": 5})
    assert pairs_of(task.parts(made).test) == pairs_of(task.split(5, "user").test)


def test_rows_of_one_user_at_several_moments_are_one_user():
    task = ColdRecommendationTask("t", np.arange(6), np.arange(6) % 3, "abc", users=np.array([7, 7, 7, 4, 4, 4]))
    assert task.user_of_row.tolist() == [1, 1, 1, 0, 0, 0]
    many = ColdRecommendationTask("t", np.arange(60), np.arange(60) % 3, "abc", users=np.arange(60) // 3)
    users = [set((part.rows // 3).tolist()) for part in many.split(0, "user")]
    assert sum(map(len, users)) == 20 == len(set.union(*users))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [0], "ab"), "targets: expected 2, one for each row, got 1"),
        (([0, 1], [0, 2], "ab"), r"targets: expected integers in \[0, 2\) in task t, got 0 to 2"),
        (([0, 0], [1, 1], "ab"), "targets: expected each pair of user and target once in task t, got one twice"),
        (([0, 1], [1, 1], "ab", None, [3, 3]), "targets: expected each pair of user and target once"),
        (([0, 0], [0, 1], "ab", None, [3, 4]), "users: expected one user for each row of the corpus in task t"),
        (([0, 1], [0, 1], "ab", None, [3]), "users: expected 2, one for each row, got 1"),
        (([-1, 1], [0, 1], "ab"), "rows: expected rows of the corpus in task t, got -1"),
        (([0], [0], "a"), "rows, labels: expected 1 and 2 or more in task t, got 1 and 1"),
        (([0, 1], [0.0, 1.0], "ab"), "targets: expected a list of integers, got float64"),
        (([0, 9], [0, 1], "ab", corpus_of(2, 3)), "rows: expected rows from 0 to 1, got 9"),
    ],
)
def test_the_task_names_what_does_not_fit(arguments, message):
    rows, targets, labels, *rest = arguments
    with pytest.raises(InputError, match=f"^{message}"):
        ColdRecommendationTask("t", np.array(rows), np.array(targets), list(labels), *map(as_array, rest))


def as_array(value):
    return np.array(value) if isinstance(value, list) else value


def test_another_unit_is_refused():
    with pytest.raises(InputError, match=r"^split_unit: expected pair or user, got 'row'$"):
        task_of().split(0, "row")


# --- metrics -------------------------------------------------------------------------------------------------------


def test_metrics_by_hand():
    """Two users of labels {0, 1} and {3}; scores so that the other positive stands before the target."""
    scores = torch.tensor([[9.0, 5.0, 7.0, 1.0], [9.0, 5.0, 7.0, 1.0], [4.0, 3.0, 2.0, 2.0]])
    known = Positives(np.array([0, 0, 1]), np.array([0, 1, 3]), 2, 4)
    rows, labels = known.pairs(torch.tensor([0, 0, 1]))
    ranks = target_ranks(scores, torch.tensor([0, 1, 3]), rows, labels)
    assert ranks.tolist() == [1, 2, 4]  # without the mask 1, 3, 4; the last ties with label 2 and stands behind it
    values = ranking_metrics(ranks)
    assert tuple(values) == RANKING_METRICS
    expected = (1 + 1 / math.log2(3) + 1 / math.log2(5)) / 3
    assert [values[f"NDCG@{k}"] for k in (5, 10, 20)] == pytest.approx([expected] * 3)
    assert values["MRR"] == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
    assert [values[f"HR@{k}"] for k in (5, 10, 20)] == [1, 1, 1]
    far = ranking_metrics(torch.tensor([6.0, 11.0, 21.0, 5.0]))
    assert [far[f"HR@{k}"] for k in (5, 10, 20)] == [0.25, 0.5, 0.75]
    assert far["NDCG@10"] == pytest.approx((1 / math.log2(7) + 1 / math.log2(6)) / 4)


@pytest.mark.parametrize("where", [(0, 0), (0, 2)])
def test_scores_that_are_no_numbers_rank_nowhere(where):
    scores, none = torch.zeros(2, 3), torch.empty(0, dtype=torch.int64)
    scores[where] = torch.nan
    ranks = target_ranks(scores, torch.tensor([0, 1]), none, none, "optimistic")
    assert ranks[0].isnan()
    assert ranks[1] == 1
    assert all(map(math.isnan, ranking_metrics(ranks).values()))


def test_ranks_do_not_depend_on_the_dtype_or_the_block():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 99, (5, 1 << 17), generator=generator).float()  # two rows in a block
    targets, none = torch.tensor([3, 1, 4, 1, 5]), torch.empty(0, dtype=torch.int64)
    expected = 1 + (scores >= scores.gather(1, targets[:, None])).sum(1) - 1
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        assert torch.equal(target_ranks(scores.to(dtype), targets, none, none), expected.double())


def test_popularity_equals_ranking_by_counts():
    task = task_of(n_users=40, n_labels=9, per_user=4)
    split = task.split(1)
    counts = np.bincount(split.train.labels, minlength=9)
    for ties in ("pessimistic", "mean"):
        found = popularity(task, split, ties)
        for part, values in ((split.valid, found.valid), (split.test, found.test)):
            scores = torch.from_numpy(counts).float().expand(len(part.rows), -1)
            known = [
                (place, int(label)) for place, row in enumerate(part.rows) for label in task.targets[task.rows == row]
            ]
            rows, labels = (torch.tensor(column) for column in zip(*known, strict=True))
            ranks = target_ranks(scores, torch.from_numpy(part.labels), rows, labels, ties)
            assert values == pytest.approx(ranking_metrics(ranks))


# --- the stage -----------------------------------------------------------------------------------------------------


def test_scores_of_some_outputs_are_those_of_all():
    head = MLPHead(4, 9, hidden=5)
    torch.nn.init.normal_(head.output.bias)
    user, outputs = torch.randn(3, 4), torch.tensor([[0, 8], [3, 3], [7, 1]])
    torch.testing.assert_close(head.scores_of(user, outputs), head(user).gather(1, outputs))


def test_bpr_is_the_logistic_loss_of_the_difference():
    task, corpus = task_of(), corpus_of(*[5] * 20)
    stage, split = stage_of(task)
    stage.eval()
    (batch,) = batches_of(corpus, split.train, 100)
    drawn, possible = stage.excluded.negatives(batch.user_ids, streams().generator("negatives"))
    scores = stage.head(stage.encoder(batch.item_seq, batch.item_seq_len))
    positive, negative = (scores.gather(1, column[:, None])[:, 0] for column in (batch.labels, drawn))
    assert possible.all()
    expected = -torch.log(torch.sigmoid(positive - negative)).mean()
    torch.testing.assert_close(stage.step(batch, streams()).loss, expected)


def test_cross_entropy_is_over_the_label_space():
    task, corpus = task_of(), corpus_of(*[5] * 20)
    stage, split = stage_of(task, loss="ce")
    stage.eval()
    (batch,) = batches_of(corpus, split.train, 100)
    scores = stage.head(stage.encoder(batch.item_seq, batch.item_seq_len))
    torch.testing.assert_close(
        stage.step(batch, streams()).loss, torch.nn.functional.cross_entropy(scores, batch.labels)
    )


def test_which_positives_are_never_negatives():
    task = task_of(n_users=40, n_labels=5, per_user=3)
    for exclude in ("all", "train"):
        stage, split = stage_of(task, neg_exclude=exclude)
        users = torch.from_numpy(task.rows).repeat(200)
        drawn, _ = stage.excluded.negatives(users, torch.Generator().manual_seed(0))
        found = set(zip(users.tolist(), drawn.tolist(), strict=True))
        held_out = pairs_of(split.valid) | pairs_of(split.test)
        assert not found & pairs_of(split.train)
        assert found & held_out == (held_out if exclude == "train" else set())


def test_rows_without_a_negative_contribute_nothing():
    rows, targets = np.append(np.repeat(0, 3), np.arange(1, 8)), np.append(np.arange(3), np.arange(7) % 3)
    task = ColdRecommendationTask("t", rows, targets, list("abc"))
    stage, _ = stage_of(task)
    stage.eval()
    corpus = corpus_of(*[4] * 8)
    whole, without = (
        BatchLoader(corpus, rows[k:], batch_size=99, max_len=9, seed=0, shuffle=False, labels=targets[k:])
        for k in (0, 3)
    )
    stage.excluded.negatives = lambda users, _: ((users + 1) % 3, users > 0)
    losses = [stage.step(batch, streams()).loss for loader in (whole, without) for batch in loader]
    torch.testing.assert_close(*losses)
    only = ColdRecommendationTask("t", np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4), list("abc"))
    with pytest.raises(InputError, match=r"^loss: expected ce in task t, where every user has all labels, got bpr$"):
        stage_of(only)
    assert stage_of(only, loss="ce")


def test_ranks_are_the_same_for_any_batch_size_and_mask_other_positives():
    task, corpus = task_of(), corpus_of(*[5] * 20)
    stage, split = stage_of(task)
    ranks = [stage.ranks(batches_of(corpus, split.test, size)) for size in (1, 5, 100)]
    assert torch.equal(ranks[0], ranks[1])
    assert torch.equal(ranks[0], ranks[2])
    with torch.no_grad():
        scores = [stage.head(stage.encoder(b.item_seq, b.item_seq_len)) for b in batches_of(corpus, split.test, 1)]
    for rank, score, row, target in zip(ranks[0], scores, *split.test, strict=True):
        others = set(task.targets[task.rows == row].tolist()) - {target}
        rivals = [label for label in range(7) if label not in others]
        assert rank == 1 + sum(score[0, label] > score[0, target] for label in rivals)


def test_no_more_than_a_batch_of_scores_at_a_time(monkeypatch):
    task, corpus = task_of(), corpus_of(*[5] * 20)
    stage, split = stage_of(task)
    sizes = []
    forward = MLPHead.forward
    monkeypatch.setattr(MLPHead, "forward", lambda head, user: sizes.append(len(user)) or forward(head, user))
    values = stage.evaluate(batches_of(corpus, split.test, 5))
    assert sizes == [5, 5, 2]
    assert tuple(values) == RANKING_METRICS


def test_nothing_of_the_data_is_in_the_checkpoint():
    stage, _ = stage_of(task_of())
    assert {name.partition(".")[0] for name in stage.state_dict()} == {"encoder", "head"}


@pytest.mark.parametrize(("loss", "unit"), [("bpr", "pair"), ("ce", "user")])
def test_it_learns_what_can_be_learnt(loss, unit):
    """Users of even items take even labels, others odd ones."""
    random = np.random.default_rng(0)
    histories = [(2 * random.integers(1, 6, 6) - user % 2).tolist() for user in range(80)]
    corpus = BehaviourCorpus.from_lists(histories, 12)
    targets = np.concatenate([2 * random.permutation(10)[:3] + user % 2 for user in range(80)])
    task = ColdRecommendationTask("t", np.repeat(np.arange(80), 3), targets, np.arange(20).astype(str))
    made = recipe(options={**TINY, "ft_coldrec_loss": loss, "ft_split_unit": unit})
    torch.manual_seed(0)
    stage = task.stage(encoder_of(), 8, made)
    split = task.parts(made)
    optimizer = torch.optim.Adam(stage.parameters(), 3e-2)
    before = stage.evaluate(batches_of(corpus, split.test))["HR@10"]
    stage.train()
    for epoch in range(10):
        for step, batch in enumerate(batches_of(corpus, split.train, 48)):
            optimizer.zero_grad()
            stage.step(batch, streams(0, "t", epoch, step)).loss.backward()
            optimizer.step()
    after = stage.evaluate(batches_of(corpus, split.test))["HR@10"]
    assert before < 0.8
    assert after == 1.0  # the ten labels of the right parity, less the user's own, come first
