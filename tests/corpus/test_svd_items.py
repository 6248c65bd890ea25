"""Item vectors by a truncated SVD, against scikit-learn's TF-IDF and SciPy's sparse SVD."""

import sys

import numpy as np
import pytest
import torch
from refusals import refusal_of
from scipy.sparse.linalg import svds
from sklearn.feature_extraction.text import TfidfTransformer

from adaptssr_plugin.corpus import BehaviourCorpus, CorpusOnDisk, put_item_vectors, svd_item_vectors, svd_items


def histories(n_users=150, n_items=130, groups=8, seed=0):
    """Users of groups with items of their own, beside items of everyone's; item ``n_items - 1`` occurs nowhere."""
    random = np.random.default_rng(seed)
    made = []
    for user in range(n_users):
        own = 1 + (user % groups) * 14 + random.integers(0, 14, random.integers(4, 16 + user % groups))
        made.append([*own.tolist(), *random.integers(1, n_items - 1, 5).tolist()])
    return made


def corpus_of(lists=None, n_items=130):
    return BehaviourCorpus.from_lists(lists or histories(), n_items)


def oracle(lists, n_items, dim):
    """V S^½ of the TF-IDF matrix, less the mean over items that occur, every row of norm .8: (n_items, dim)."""
    counts = np.zeros((len(lists), n_items))
    for row, items in enumerate(lists):
        for item in items:
            counts[row, item] += 1
    weights = TfidfTransformer().fit_transform(counts)
    _, values, vectors = svds(weights, k=dim, random_state=0)
    order = np.argsort(-values)
    vectors = vectors[order].T * np.sqrt(values[order])
    for column in vectors.T:
        column *= np.sign(column[np.abs(column).argmax()])
    occurs = counts.any(axis=0)
    vectors -= vectors[occurs].mean(axis=0)
    vectors *= 0.8 / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[~occurs] = 0
    return vectors


@pytest.mark.parametrize("dim", [20, 8], ids=["whole space", "Krylov space"])
@pytest.mark.parametrize("behaviours", [1 << 22, 40], ids=["one block", "blocks"])
def test_equals_the_oracle(monkeypatch, dim, behaviours):
    monkeypatch.setattr(svd_items, "_BEHAVIOURS", behaviours)
    monkeypatch.setattr(svd_items, "_QR_ROWS", behaviours)
    lists = histories()
    rows = np.arange(0, len(lists), 2)
    vectors = svd_item_vectors(corpus_of(lists), dim, rows, max_len=12)
    assert (vectors.shape, vectors.dtype) == ((130, dim), torch.float32)
    expected = oracle([lists[row][-12:] for row in rows], 130, dim)
    np.testing.assert_allclose(vectors.numpy(), expected, atol=3e-3)
    assert not vectors[[0, 129]].any()
    assert vectors.norm(dim=1)[vectors.any(dim=1)].numpy() == pytest.approx(0.8)


def test_other_users_and_older_behaviours_change_nothing():
    lists = histories()
    rows = np.arange(50)
    before = svd_item_vectors(corpus_of(lists), 8, rows, max_len=6)
    changed = [[*range(1, 60), *items[-6:]] for items in lists[:50]] + [[7, 129]] * 100
    assert torch.equal(svd_item_vectors(corpus_of(changed), 8, rows, max_len=6), before)
    assert not torch.equal(svd_item_vectors(corpus_of(changed), 8, rows, max_len=7), before)
    assert not torch.equal(svd_item_vectors(corpus_of(changed), 8, np.arange(51), max_len=6), before)


def test_the_same_bits_from_disk_and_again(tmp_path):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    corpus = corpus_of()
    np.save(tmp_path / "items.npy", corpus.items.astype(np.int32))
    np.save(tmp_path / "offsets.npy", corpus.offsets)
    mapped = (np.load(tmp_path / name, mmap_mode="r").view(np.ndarray) for name in ("items.npy", "offsets.npy"))
    on_disk = CorpusOnDisk(tmp_path, *mapped, corpus.n_items)
    first = svd_item_vectors(corpus, 8, seed=3)
    assert torch.equal(first, svd_item_vectors(on_disk, 8, seed=3))
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(first, svd_item_vectors(corpus, 8, seed=4), atol=3e-3, rtol=0)  # signs are fixed


@pytest.mark.parametrize(
    ("lists", "rank"),
    [([[1, 2, 2], [3, 1], [2, 4]], 3), ([[1, 2]] * 4, 0), ([[3]], 0), ([[1], [2], [2]], 2)],
    ids=["fewer users than components", "equal items", "one item", "fewer items than components"],
)
def test_components_beyond_the_rank_are_0(lists, rank):
    vectors = svd_item_vectors(BehaviourCorpus.from_lists(lists, 6), 5)
    assert vectors.isfinite().all()
    assert not vectors[:, max(rank, 1) :].any()
    occurs = sorted({item for items in lists for item in items})
    assert vectors.any(dim=1).nonzero()[:, 0].tolist() == (occurs if rank else [])


def test_a_table_keeps_the_rows_of_unknown_items():
    vectors = torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    table = torch.nn.Parameter(torch.full((4, 2), 7.0, dtype=torch.float64))
    put_item_vectors(table, vectors)
    assert table.tolist() == [[7, 7], [1, 2], [7, 7], [7, 7]]
    assert refusal_of(put_item_vectors, torch.zeros(3, 3), vectors) == (
        "table: expected shape (3, 2) as the vectors, got (3, 3)"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim: expected a positive integer, got 0"),
        ({"dim": 2, "max_len": 0}, "max_len: expected a positive integer, got 0"),
        ({"dim": 2, "rows": []}, "rows: expected at least one row, got none"),
        ({"dim": 2, "rows": [150]}, "rows: expected rows from 0 to 149, got 150"),
    ],
)
def test_what_a_wrong_call_gets(arguments, message):
    assert refusal_of(svd_item_vectors, corpus_of(), **arguments) == message


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(ModuleNotFoundError, match=r'need SciPy: pip install "adaptssr-plugin\[recbole\]"$'):
        svd_item_vectors(corpus_of(), 2)
