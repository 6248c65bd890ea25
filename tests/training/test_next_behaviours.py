"""PTUM's objectives against their formula written out, what is asked and of whom, and where negatives come from."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from readbacks import count_readbacks
from refusals import refusal_of
from scipy.stats import chi2_contingency, chisquare
from torch.testing import assert_close
from training_cases import N_ITEMS, assert_same_weights, batch_of, batches_of, corpus_of, encoder_of, streams

from adaptssr_plugin import UserEncoder
from adaptssr_plugin.corpus import BehaviourCorpus
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.training import NegativeItems, NextBehaviourStage
from adaptssr_plugin.training.stages import negative_items

HISTORIES = [[1], [2, 2, 3], [1, 4, 4, 4], [3, 1, 2, 4, 4]]
LENGTHS = (1, 2, 3, 5, 10, 20)
tight = {"rtol": 1e-9, "atol": 1e-10}


def stage_of(n_negatives=4, n_next=2, weight=1.0, seed=0, **options):
    made = encoder_of(**{"kind": UserEncoder, "dropout": 0.0, **options}, seed=seed)
    return NextBehaviourStage(made, NegativeItems.uniform(N_ITEMS), n_negatives, n_next, weight)


def literal_losses(stage, batch, questions, future):
    """PTUM's two losses, one user, question and candidate at a time: a list of losses of MBP and one of NBP."""
    encoder = stage.encoder

    def share_of_first(user, candidates, position):
        scores = [user @ (encoder.items.weight[item] + position) for item in candidates.tolist()]
        return torch.exp(scores[0]) / sum(torch.exp(score) for score in scores)

    masked, following = [], []
    for row, n in enumerate(batch.item_seq_len.tolist()):
        history = batch.item_seq[row, :n]
        asked = questions.item_seq[row, :n]
        (t,) = [place for place in range(n) if asked[place] == encoder.n_items]
        user = encoder(asked[None], torch.tensor([n]))[0]
        candidates = questions.candidates[row, 0]
        assert candidates[0] == history[t]
        masked.append(-torch.log(share_of_first(user, candidates, encoder.positions[t])))
        hidden = min(stage.n_next, n - 1)
        user = encoder(history[None, : n - hidden], torch.tensor([n - hidden]))[0]
        for k in range(hidden):
            candidates = questions.candidates[row, 1 + k]
            assert candidates[0] == history[n - hidden + k]
            following.append(-torch.log(share_of_first(user, candidates, future[k])))
    return masked, following


@pytest.mark.parametrize(
    ("n_negatives", "n_next", "weight", "lengths"),
    [(4, 2, 1.0, LENGTHS), (1, 1, 0.3, (3, 2)), (7, 5, 2.5, (4, 9, 1)), (4, 2, 1.0, (1, 1, 1)), (3, 2, 1.0, (2,))],
)
def test_equals_the_formula(n_negatives, n_next, weight, lengths):
    """Values and gradients; the position vectors of candidates, which the formula has, cancel in both."""
    stage = stage_of(n_negatives, n_next, weight).double()
    batch = batch_of(*lengths)
    questions = stage._ask(batch, streams())
    future = torch.randn(n_next, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).requires_grad_()
    masked, following = literal_losses(stage, batch, questions, future)
    assert len(following) == sum(min(n_next, n - 1) for n in lengths)
    right = sum(masked) / len(masked)
    if following:
        right = right + weight * sum(following) / len(following)
    result = stage.step(batch, streams())
    assert_close(result.loss, right, **tight)
    assert_close(result.logs["masked_loss"], (sum(masked) / len(masked)).detach(), **tight)
    mean = sum(loss.item() for loss in following) / max(len(following), 1)
    assert result.logs["next_loss"].item() == pytest.approx(mean)
    parameters = dict(stage.named_parameters())
    ours = torch.autograd.grad(result.loss, parameters.values(), allow_unused=True, materialize_grads=True)
    theirs = torch.autograd.grad(right, [*parameters.values(), future], allow_unused=True, materialize_grads=True)
    for name, got, expected in zip(parameters, ours, theirs, strict=False):
        assert_close(got, expected, **tight, msg=lambda text, name=name: f"{name}: {text}")
    assert theirs[-1].abs().max() < 1e-12
    if max(lengths) > 1:
        for name in ("encoder.items.weight", "encoder.items.mask", "encoder.positions", "encoder.pooling.query"):
            assert ours[list(parameters).index(name)].abs().max() > 0, name


def test_what_is_asked():
    stage, batch = stage_of(n_next=3), batch_of(*LENGTHS)
    original = batch.item_seq.clone()
    questions = stage._ask(batch, streams())
    assert torch.equal(batch.item_seq, original)
    masked, truncated = questions.item_seq.chunk(2)
    masked_len, truncated_len = questions.item_seq_len.chunk(2)
    assert torch.equal(masked_len, batch.item_seq_len)
    assert ((masked == N_ITEMS).sum(1) == 1).all()  # of a user of one behaviour too
    assert torch.equal(masked[masked != N_ITEMS], original[masked != N_ITEMS])
    assert truncated_len.tolist() == [1, 1, 1, 2, 7, 17]
    for row, kept in enumerate(truncated_len.tolist()):
        assert truncated[row, :kept].tolist() == original[row, :kept].tolist()
        assert not truncated[row, kept:].any()
    assert questions.asked.sum(1).tolist() == [1, 2, 3, 4, 4, 4]
    assert questions.candidates.shape == (6, 4, 5)
    positives = questions.candidates[..., :1]
    assert (questions.candidates[..., 1:] != positives).all()
    assert (questions.candidates[..., 1:] > 0).all()


def test_the_mask_is_uniform_over_places_and_questions_are_their_streams_alone():
    stage, batch = stage_of(), batch_of(*[5] * 1000)
    questions = stage._ask(batch, streams())
    places = (questions.item_seq[:1000] == N_ITEMS).int().argmax(1)
    assert chisquare(places.bincount(minlength=5).numpy()).pvalue > 1e-3
    torch.manual_seed(99)
    again, other = stage._ask(batch, streams()), stage._ask(batch, streams(0, "stage", 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(questions, again, strict=True))
    assert not torch.equal(questions.item_seq, other.item_seq)
    assert not torch.equal(questions.candidates[:, 1, 1:], other.candidates[:, 1, 1:])


def probabilities(positive):
    """Of every item: a random user, a random behaviour of that user, again while it is the positive."""
    weights = Counter()
    for history in HISTORIES:
        for item in history:
            weights[item] += Fraction(1, len(history))
    weights.pop(positive, None)
    return {item: float(weight / sum(weights.values())) for item, weight in weights.items()}


@pytest.mark.parametrize("positive", [1, 2, 3, 4, 5, 6, 0])
def test_negatives_are_random_behaviours_of_random_users(positive):
    """5 and 6 are in no history, and 0 is where nothing is asked."""
    negatives = NegativeItems.from_histories(BehaviourCorpus.from_lists(HISTORIES, 7))
    drawn = negatives(torch.full((50, 200), positive), 4, torch.Generator().manual_seed(positive))
    assert drawn.shape == (50, 200, 4)
    expected = probabilities(positive)
    counts = drawn.flatten().bincount(minlength=7)
    assert counts[[item not in expected for item in range(7)]].sum() == 0
    items = sorted(expected)
    assert chisquare(counts[items].numpy(), [expected[item] * drawn.numel() for item in items]).pvalue > 1e-3
    first, second = drawn[..., 0].flatten().numpy(), drawn[..., 1].flatten().numpy()
    pairs = np.zeros((7, 7))
    np.add.at(pairs, (first, second), 1)
    assert chi2_contingency(pairs[np.ix_(items, items)]).pvalue > 1e-3  # independent of each other


@pytest.mark.parametrize("positive", [1, 4, 6])
def test_negatives_from_the_catalogue_are_all_alike(positive):
    drawn = NegativeItems.uniform(7)(torch.full((10_000,), positive), 3, torch.Generator().manual_seed(1))
    counts = drawn.flatten().bincount(minlength=7)
    assert counts[0] == counts[positive] == 0
    assert chisquare(counts[counts > 0].numpy()).pvalue > 1e-3
    assert (counts > 0).sum() == 5


def test_negatives_of_a_large_catalogue_are_never_the_positive():
    """Every item has a share of the line, the rarest too; its borders are where a slip would show."""
    weights = np.random.default_rng(0).pareto(0.5, 5000) + 1e-9
    weights[0] = 0
    negatives = NegativeItems(weights)
    positives = torch.arange(5000)
    drawn = negatives(positives, 200, torch.Generator().manual_seed(0))
    assert (drawn != positives[:, None]).all()
    assert drawn.min() >= 1
    assert drawn.max() <= 4999
    assert (negatives.ends.diff() > 0).all()


@pytest.mark.parametrize("positive", [1, 2, 3, 4, 0])
def test_the_borders_between_items_are_where_they_should_be(positive, monkeypatch):
    """On a line of eight numbers, where each of them is drawn often enough to be counted."""
    monkeypatch.setattr(negative_items, "_TOTAL", 8)
    weights = np.array([0.0, 1, 2, 1, 4])
    drawn = NegativeItems(weights)(torch.tensor([positive]), 20_000, torch.Generator().manual_seed(positive))
    weights[positive] = 0
    counts = drawn[0].bincount(minlength=5).numpy()
    assert (counts[weights == 0] == 0).all()
    expected = weights / weights.sum() * 20_000
    assert chisquare(counts[weights > 0], expected[weights > 0]).pvalue > 1e-3


def test_two_items_leave_one_negative():
    drawn = NegativeItems.from_histories(BehaviourCorpus.from_lists([[3, 3, 5]], 9))(torch.tensor([3, 5]), 50)
    assert (drawn[0] == 5).all()
    assert (drawn[1] == 3).all()


def test_users_of_one_behaviour_alone_learn_from_the_masked_one():
    stage, batch = stage_of(), batch_of(1, 1, 1)
    assert stage.usable(batch)
    result = stage.step(batch, streams())
    result.loss.backward()
    assert result.logs["next_loss"] == 0
    assert result.loss == result.logs["masked_loss"] > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in stage.parameters())
    assert stage.encoder.items.mask.grad.abs().sum() > 0


def test_a_step_reads_back_the_lengths_at_most():
    batch = batch_of(*LENGTHS)
    stage = stage_of(length_groups=1)
    with count_readbacks() as reads:
        stage.step(batch, streams()).loss.backward()
    assert reads == []
    stage = stage_of()
    with count_readbacks() as reads:
        stage.step(batch, streams()).loss.backward()
    assert len(reads) == 1


def test_the_data_of_the_negatives_stay_out_of_checkpoints():
    stage = stage_of()
    assert stage.state_dict().keys() == {f"encoder.{name}" for name in stage.encoder.state_dict()}


def test_validation_asks_the_same_every_time_without_dropout():
    batches = batches_of(*LENGTHS, batch_size=4)
    dropping, without = stage_of(dropout=0.5).train(), stage_of()
    results = [stage.validate(batches, streams()) for stage in (dropping, dropping, without)]
    assert results[0] == results[1] == results[2]
    assert_same_weights(dropping.state_dict(), without.state_dict())
    assert without.validate(batches, streams(1)) != results[0]


def test_validation_counts_right_answers_and_averages_losses():
    stage, batches = stage_of(weight=0.5).double(), batches_of(*LENGTHS, batch_size=4)
    masked, following = [], []
    for number, batch in enumerate(batches):
        questions = stage._ask(batch, streams(0, "stage", 0, 0, number))
        future = torch.zeros(2, 8)
        for total, part in zip((masked, following), literal_losses(stage, batch, questions, future), strict=True):
            total += [loss.item() for loss in part]
    result = stage.validate(batches, streams())
    mean = sum(masked) / len(masked) + 0.5 * sum(following) / len(following)
    assert result["loss"] == pytest.approx(mean)
    assert result["accuracy"] == (result["masked_accuracy"] + result["next_accuracy"]) / 2
    # The positive's share is above a half only if it is first, and below a fifth only if it is not.
    for losses, accuracy in ((masked, result["masked_accuracy"]), (following, result["next_accuracy"])):
        shares = np.exp(-np.array(losses))
        assert (shares > 0.5).mean() <= accuracy <= (shares >= 0.2).mean()
        assert 0 < accuracy < 1


def test_equal_scores_are_no_right_answers():
    stage = stage_of(weight=2.0)
    with torch.no_grad():
        stage.encoder.items.weight.zero_()
    result = stage.validate(batches_of(9, 8, 1), streams())
    assert (result["accuracy"], result["masked_accuracy"], result["next_accuracy"]) == (0, 0, 0)
    assert result["loss"] == pytest.approx(3 * math.log(5))


class OneForAll(UserEncoder):
    """Gives every user the same vector."""

    def forward(self, item_seq, item_seq_len):
        return torch.ones(len(item_seq), self.dim)


def test_the_item_nearest_to_the_user_is_the_answer():
    batch = batch_of(4, 1, 3)
    stage = stage_of(kind=OneForAll)
    table = stage.encoder.items.weight
    sevens = type(batch)(batch.item_seq.sign() * 7, batch.item_seq_len, batch.user_ids, batch.lengths)
    for nearness, accuracy in ((1.0, 1), (-1.0, 0)):
        with torch.no_grad():
            table.zero_()
            table[7] = nearness
            table[0] = 9  # padding, where nothing is asked
        result = stage.validate([sevens], streams())
        assert result["accuracy"] == result["masked_accuracy"] == result["next_accuracy"] == accuracy
        each = -8 * nearness + math.log(math.exp(8 * nearness) + 4)
        assert result["loss"] == pytest.approx(2 * each, rel=1e-4)


def test_validation_without_a_second_behaviour_is_of_the_masked_one():
    result = stage_of().validate(batches_of(1, 1, 1), streams())
    assert result.keys() == {"accuracy", "masked_accuracy", "loss"}
    assert result["accuracy"] == result["masked_accuracy"]
    with pytest.raises(InputError, match=r"^validation users: expected at least one, got none; raise valid_share$"):
        stage_of().validate([], streams())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_negatives": 0}, "n_negatives: expected a positive integer, got 0"),
        ({"n_next": 1.0}, "n_next: expected a positive integer, got 1.0"),
        ({"n_next": True}, "n_next: expected a positive integer, got True"),
        ({"weight": 0}, "weight: expected a positive number, got 0"),
        ({"weight": math.nan}, "weight: expected a positive number, got nan"),
        ({"interests": 4}, "interests: expected 1, for user vectors as long as those of items, 8, got vectors of 32"),
    ],
)
def test_a_stage_refuses(options, message):
    assert refusal_of(stage_of, **options) == message


@pytest.mark.parametrize("histories", [[[4], [4, 4]], [[1]]])
def test_one_item_in_all_histories_leaves_no_negative(histories):
    message = "negatives: expected two different items or more in the training histories, got 1"
    with pytest.raises(InputError, match=f"^{message}$"):
        NegativeItems.from_histories(BehaviourCorpus.from_lists(histories, 9))
    NegativeItems.from_histories(corpus_of(5, 3))
