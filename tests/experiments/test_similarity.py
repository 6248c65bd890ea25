"""Figure 5: the samples, their densities and numbers, and the drawing."""

import sys
import threading

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import nn

from adaptssr_plugin.corpus.behaviours import BehaviourCorpus
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.experiments import SimilarityDistributions, draw_similarity, similarity_distributions
from adaptssr_plugin.experiments.figures.similarity import (
    GRID,
    area,
    density,
    derangement,
    overlap,
    separation,
)
from benchmarks.support.plots import read_csv

N_ITEMS = 30


def random_corpus(n_users, seed=0, longest=20):
    rng = np.random.default_rng(seed)
    histories = [rng.integers(1, N_ITEMS, rng.integers(1, longest + 1)) for _ in range(n_users)]
    return BehaviourCorpus.from_lists(histories, N_ITEMS)


class BagOfItems(nn.Module):
    """Encodes a sequence as its counts of items and of [MASK], and keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.frozen = nn.Dropout(0.5).eval()
        self.shown = []

    def forward(self, item_seq, item_seq_len):
        assert not torch.is_grad_enabled()
        self.shown.append((item_seq, item_seq_len))
        counts = torch.zeros(len(item_seq), N_ITEMS + 1).scatter_add_(1, item_seq, torch.ones(item_seq.shape))
        return self.frozen(self.dropout(counts[:, 1:]))


@pytest.mark.parametrize("training", [True, False])
def test_modes_come_back_module_by_module(training):
    encoder = BagOfItems()
    encoder.dropout.train(training)
    encoder.training = training
    similarity_distributions(encoder, random_corpus(9), seed=0, max_len=10)
    assert (encoder.training, encoder.dropout.training, encoder.frozen.training) == (training, training, False)


def test_modes_come_back_after_a_failure_too():
    class Fails(BagOfItems):
        def forward(self, item_seq, item_seq_len):
            raise RuntimeError("no")

    encoder = Fails()
    with pytest.raises(RuntimeError, match="no"):
        similarity_distributions(encoder, random_corpus(9), seed=0, max_len=10)
    assert encoder.training
    assert encoder.dropout.training


def test_augmented_sequences_are_those_asked_for():
    encoder = BagOfItems()
    corpus = random_corpus(50)
    result = similarity_distributions(
        encoder, corpus, mask_ratio=0.6, crop_ratio=0.4, seed=1, max_len=12, batch_size=16
    )
    n = int((corpus.lengths >= 2).sum())
    assert len(result.masked) == len(result.cropped) == len(result.other) == n
    assert len(encoder.shown) == 3 * -(-n // 16)
    for start in range(0, len(encoder.shown), 3):
        (_, length), (masked, masked_len), (cropped, cropped_len) = encoder.shown[start : start + 3]
        assert length.min() >= 2
        assert length.max() <= 12
        assert torch.equal(masked_len, length)
        # Ceil, but one stays visible (METHODS.md, row 16); 0.6 and 0.4 of n in integers.
        assert torch.equal((masked == N_ITEMS).sum(1), torch.minimum((6 * length + 9) // 10, length - 1))
        assert torch.equal(cropped_len, (4 * length + 9) // 10)
        assert torch.equal((cropped > 0).sum(1), cropped_len)


def test_similarities_are_cosines_of_the_encodings():
    encoder = BagOfItems()
    result = similarity_distributions(encoder, random_corpus(40), seed=2, max_len=8)
    original, masked, cropped = (
        torch.zeros(len(seq), N_ITEMS + 1).scatter_add_(1, seq, torch.ones(seq.shape))[:, 1:].double()
        for seq, _ in encoder.shown
    )
    for sample, other in ((result.masked, masked), (result.cropped, cropped)):
        expected = (original * other).sum(1) / (original.norm(dim=1) * other.norm(dim=1))
        np.testing.assert_allclose(sample, expected.numpy(), atol=1e-6)
    between = original / original.norm(dim=1, keepdim=True)
    table = (between @ between.T).fill_diagonal_(torch.nan).numpy()
    # Every user meets another one, and each other user is met once.
    assert all(np.isclose(table[row], value, atol=1e-6).any() for row, value in enumerate(result.other))


def test_users_are_drawn_without_replacement_by_the_seed():
    corpus = random_corpus(200, longest=10)

    def run(seed):
        return similarity_distributions(BagOfItems(), corpus, n_users=50, seed=seed, max_len=10)

    first, again, other = run(5), run(5), run(6)
    assert len(first.other) == 50
    for name, sample in first.curves.items():
        assert np.array_equal(sample, again.curves[name])
        assert not np.array_equal(sample, other.curves[name])


def test_global_random_state_neither_matters_nor_moves():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = similarity_distributions(BagOfItems(), random_corpus(20), seed=0, max_len=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    again = similarity_distributions(BagOfItems(), random_corpus(20), seed=0, max_len=5)
    assert np.array_equal(first.cropped, again.cropped)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_users": 1}, "n_users: expected an integer of at least 2, got 1"),
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
        ({"max_len": 1}, "max_len: expected an integer of at least 2, got 1"),
        ({"mask_ratio": 1.5}, "ratio: expected"),
    ],
)
def test_wrong_numbers_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        similarity_distributions(BagOfItems(), random_corpus(9), **{"seed": 0, "max_len": 5, **arguments})


def test_a_corpus_without_two_users_to_mask_is_refused():
    with pytest.raises(InputError, match="corpus: expected at least 2 users with 2 behaviours or more, got 0"):
        similarity_distributions(BagOfItems(), random_corpus(9, longest=1), seed=0, max_len=5)


@pytest.mark.parametrize("n", [2, 3, 10, 10_000])
def test_derangement_moves_everyone(n):
    order = derangement(n, np.random.default_rng(0))
    assert np.array_equal(np.sort(order), np.arange(n))
    assert not (order == np.arange(n)).any()


def test_every_derangement_of_four_is_as_likely():
    rng = np.random.default_rng(0)
    drawn, counts = np.unique([derangement(4, rng) for _ in range(4500)], axis=0, return_counts=True)
    assert len(drawn) == 9  # of 24 permutations; six of them are cycles of four
    assert counts == pytest.approx(500, abs=100)


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(0.2, 0.3, 5000).clip(-1, 1),
        np.random.default_rng(1).uniform(-1, 1, 30),
        np.full(100, 0.731),
        np.full(7, 1.0),
        1 - np.random.default_rng(2).exponential(1e-5, 1000),
        np.array([0.25]),
        np.array([-1.0, 1.0]),
        np.array([1 + 1e-7, 1.0]),
    ],
)
def test_density_has_area_one_whatever_the_sample(values):
    heights = density(values)
    assert heights.shape == (401,)
    assert (heights >= 0).all()
    assert abs(area(heights) - 1) < 1e-3


def test_density_is_scipys_where_nothing_reaches_the_ends():
    from scipy.stats import gaussian_kde

    values = np.random.default_rng(0).normal(0.1, 0.15, 9000)
    np.testing.assert_allclose(density(values), gaussian_kde(values, "scott")(GRID), rtol=1e-6, atol=1e-9)


def test_density_of_a_constant_is_a_thin_peak_in_its_place():
    heights = density(np.full(500, 0.5))
    assert GRID[heights.argmax()] == pytest.approx(0.5)
    assert area(np.where(abs(GRID - 0.5) < 0.021, heights, 0)) > 0.999


@pytest.mark.parametrize("values", [[], [[0.1]], [0.1, np.nan]])
def test_density_refuses_what_is_no_sample(values):
    with pytest.raises(InputError, match="values: expected a list of finite numbers"):
        density(np.asarray(values, dtype=float))


def test_overlap_and_separation_at_their_ends():
    rng = np.random.default_rng(0)
    low, high = rng.normal(-0.5, 0.05, 800), rng.normal(0.5, 0.05, 800)
    assert overlap(low, low) == pytest.approx(1)
    assert overlap(low, high) < 1e-6
    assert overlap(low, high) == overlap(high, low)
    assert (separation(high, low), separation(low, high), separation(low, low)) == (1, 0, 0.5)
    assert separation(np.array([0.0, 1.0]), np.array([0.0, 0.5, -1.0])) == pytest.approx(4.5 / 6)
    # Two normal curves one standard deviation apart share 2 Φ(-1/2) = .617 of their area.
    near, far = rng.normal(0, 0.1, 20_000), rng.normal(0.1, 0.1, 20_000)
    assert overlap(near, far) == pytest.approx(0.617, abs=0.02)


def distributions(seed, n=200):
    rng = np.random.default_rng(seed)
    return SimilarityDistributions(
        1 - rng.beta(2, 10, n), 1 - rng.beta(2, 6, n), rng.normal(0, 0.3, n).clip(-1, 1), mask_ratio=0.6, crop_ratio=0.6
    )


def test_numbers_are_those_of_the_samples():
    sample = distributions(0)
    numbers = sample.numbers()
    assert numbers["cropped"]["p95"] == np.percentile(sample.cropped, 95)
    assert numbers["other"] == {
        "mean": sample.other.mean(),
        "p5": np.percentile(sample.other, 5),
        "p50": np.median(sample.other),
        "p95": np.percentile(sample.other, 95),
    }
    assert numbers["masked"]["overlap"] == overlap(sample.masked, sample.other)
    assert numbers["masked"]["separation"] == separation(sample.masked, sample.other)


def test_figure_is_written_beside_its_numbers_and_the_same_each_time(tmp_path):
    panels = {"None": distributions(0), "AdaptSSR": distributions(1)}
    settings = dict(mpl.rcParams)
    paths = draw_similarity(panels, tmp_path / "new" / "figure5.v1", corpus="a corpus")
    assert [path.name for path in paths] == [
        "figure5.v1.png",
        "figure5.v1.svg",
        "figure5.v1.csv",
        "figure5.v1-numbers.csv",
    ]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == settings
    again = draw_similarity(panels, tmp_path / "again")
    other = draw_similarity(panels, tmp_path / "other")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in other]
    curves = read_csv(paths[2])
    assert len(curves) == 2 * 401
    np.testing.assert_allclose(
        [float(row["masked"]) for row in curves[401:]], density(panels["AdaptSSR"].masked), rtol=1e-5
    )
    numbers = read_csv(paths[3])
    assert [(row["panel"], row["curve"]) for row in numbers[2:4]] == [("None", "other"), ("AdaptSSR", "masked")]
    assert float(numbers[3]["overlap"]) == pytest.approx(panels["AdaptSSR"].numbers()["masked"]["overlap"], abs=1e-4)


@pytest.mark.parametrize("n_panels", [1, 4])
def test_figure_names_its_panels_and_conditions(tmp_path, n_panels):
    panels = {f"Method {place}": distributions(place) for place in range(n_panels)}
    svg = draw_similarity(panels, tmp_path / "figure", corpus="ml-100k & more")[1].read_text(encoding="utf-8")
    for text in (
        *panels,
        "200 users, ml-100k &amp; more, dropout off",
        "cosine similarity",
        "60% of the behaviours masked",
    ):
        assert f"<!-- {text}" in svg or text in svg
    assert svg.count("<!-- cosine similarity -->") == n_panels


def test_figure_can_be_drawn_beside_the_main_thread_without_a_backend(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    thread = threading.Thread(target=draw_similarity, args=({"None": distributions(0)}, tmp_path / "figure"))
    thread.start()
    thread.join()
    assert (tmp_path / "figure-numbers.csv").is_file()
    assert "matplotlib.pyplot" not in sys.modules


def test_figure_refuses_panels_of_different_conditions(tmp_path):
    with pytest.raises(InputError, match="panels: expected at least one"):
        draw_similarity({}, tmp_path / "figure")
    with pytest.raises(InputError, match=r"got \[\(100, 0.6, 0.6\), \(200, 0.6, 0.6\)\]"):
        draw_similarity({"None": distributions(0), "AdaptSSR": distributions(1, n=100)}, tmp_path / "figure")
    assert not list(tmp_path.iterdir())
