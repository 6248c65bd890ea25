"""Item correlation: by shared users, by the model's vectors, the stronger of both; files."""

import math

import numpy as np
import pytest
import torch
from refusals import refusal_of
from safetensors.numpy import save_file

from adaptssr_plugin.augment import ItemSubstitute
from adaptssr_plugin.corpus import BehaviourCorpus, ItemCorrelation
from adaptssr_plugin.corpus.correlation_sources import item_cf, nearest_by_product
from adaptssr_plugin.errors import InputError

# User 1 has item 2 twice, which counts once; item 5 shares no user with another; nobody has item 6.
TOY = [[1, 2], [2, 1, 2, 3], [3, 1, 4, 2], [5]]


def corpus(histories=TOY, n_items=7):
    return BehaviourCorpus.from_lists(histories, n_items)


def random_histories(n_users=60, n_items=31, seed=0):
    """Popular and rare items, repeats within a user, and many users of one size, which makes for ties."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(2, n_items)
    return [
        rng.choice(np.arange(1, n_items - 1), rng.integers(1, 7), p=share / share.sum()).tolist()
        for _ in range(n_users)
    ]


def dense_item_cf(histories, n_items, iuf):
    """The formula of CoSeRec's code, pair by pair: (n_items, n_items), 0 where no user has both."""
    owned = [set(history) for history in histories]
    users = [{user for user, items in enumerate(owned) if item in items} for item in range(n_items)]
    scores = np.zeros((n_items, n_items))
    for i in range(1, n_items):
        for j in range(1, n_items):
            if i != j and users[i] & users[j]:
                weights = [1 / math.log(1 + len(owned[u])) if iuf else 1.0 for u in sorted(users[i] & users[j])]
                scores[i, j] = math.fsum(weights) / math.sqrt(len(users[i]) * len(users[j]))
    return scores


def best_of(row, allowed, k):
    """The k largest of a row of float32 scores, of equals the smaller id first, filled up with 0."""
    ids = sorted((j for j in range(len(row)) if allowed[j]), key=lambda j: (-row[j], j))[:k]
    return ids + [0] * (k - len(ids)), [row[j] for j in ids] + [0.0] * (k - len(ids))


def assert_same(nearest, expected):
    assert nearest.neighbours.tolist() == [ids for ids, _ in expected]
    np.testing.assert_allclose(nearest.scores, [scores for _, scores in expected], rtol=2e-6)
    assert (nearest.neighbours.dtype, nearest.scores.dtype) == (np.int64, np.float32)


# --- memory-based -------------------------------------------------------------------------------------------------


def test_item_cf_iuf_by_hand():
    found = ItemCorrelation.from_histories(corpus(), k=3)
    two, three, four = (1 / math.log(1 + n) for n in (2, 3, 4))  # the weights of users with 2, 3 and 4 items
    scores = {
        (1, 2): (two + three + four) / 3,  # both of all three users
        (1, 3): (three + four) / math.sqrt(3 * 2),
        (1, 4): four / math.sqrt(3 * 1),
        (3, 4): four / math.sqrt(2 * 1),
    }
    assert found.neighbours.tolist() == [[0] * 3, [2, 3, 4], [1, 3, 4], [1, 2, 4], [3, 1, 2], [0] * 3, [0] * 3]
    np.testing.assert_allclose(found.scores[1], [scores[1, 2], scores[1, 3], scores[1, 4]], rtol=1e-6)
    np.testing.assert_allclose(found.scores[3], [scores[1, 3], scores[1, 3], scores[3, 4]], rtol=1e-6)
    np.testing.assert_allclose(found.scores[4], [scores[3, 4], scores[1, 4], scores[1, 4]], rtol=1e-6)
    assert not found.scores[[0, 5, 6]].any()
    assert found.lowest == pytest.approx(scores[1, 4], rel=1e-6)


def test_item_cf_without_iuf_by_hand():
    found = ItemCorrelation.from_histories(corpus(), iuf=False)
    assert found.neighbours.tolist() == [[0], [2], [1], [1], [3], [0], [0]]
    np.testing.assert_allclose(found.scores[1:5, 0], [1, 1, 2 / math.sqrt(6), 1 / math.sqrt(2)], rtol=1e-6)


@pytest.mark.parametrize("iuf", [True, False])
@pytest.mark.parametrize("k", [1, 2, 5, 40])
@pytest.mark.parametrize("block_pairs", [1, 7, 100, 2**22])
def test_item_cf_against_a_dense_oracle_in_blocks_of_any_size(k, iuf, block_pairs):
    histories, n_items = random_histories(), 31
    dense = dense_item_cf(histories, n_items, iuf).astype(np.float32)
    found = item_cf(corpus(histories, n_items), k, iuf, block_pairs)
    assert_same(found, [best_of(row, row > 0, k) for row in dense])
    assert (found.lowest, found.highest) == pytest.approx((dense[dense > 0].min(), dense.max()), rel=1e-6)


def test_of_equals_the_smaller_id_comes_first():
    """Four items, each pair in one user of two items: all correlations are equal."""
    pairs = [[i, j] for i in (4, 3, 2, 1) for j in (1, 2, 3, 4) if i != j]
    assert ItemCorrelation.from_histories(corpus(pairs, 5), k=2).neighbours.tolist() == [
        [0, 0], [2, 3], [1, 3], [1, 2], [1, 2],
    ]  # fmt: skip


def test_equal_sums_in_another_order_are_equal():
    """Items 2 and 3 share users of the same sizes with item 1, met in another order."""
    sizes = list(range(2, 40))
    histories, fresh = [], 4
    for other, order in ((3, sizes), (2, sizes[::-1])):
        for size in order:
            histories.append([1, other, *range(fresh, fresh + size - 2)])
            fresh += size - 2
    found = ItemCorrelation.from_histories(corpus(histories, fresh), k=2)
    assert found.neighbours[1].tolist() == [2, 3]
    assert found.scores[1, 0] == found.scores[1, 1]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_the_corpus_is_not_written_to(dtype):
    users = corpus()
    arrays = users.items.astype(dtype), users.offsets.copy()
    for array in arrays:
        array.setflags(write=False)
    frozen = BehaviourCorpus(*arrays, users.n_items, users.user_tokens, users.item_tokens)
    found, same = ItemCorrelation.from_histories(frozen, 2), ItemCorrelation.from_histories(users, 2)
    assert frozen.items.tolist() == users.items.tolist()
    assert found.neighbours.tolist() == same.neighbours.tolist()


@pytest.mark.parametrize("histories", [[[1], [2], [3]], []])
def test_no_pairs_at_all(histories):
    found = ItemCorrelation.from_histories(corpus(histories, 4), k=2)
    assert (found.neighbours.tolist(), found.lowest) == ([[0, 0]] * 4, 0.0)


def test_no_more_pairs_are_held_than_asked_for(monkeypatch):
    """The blocks of a corpus of 400 items hold a few thousand pairs, not 160,000."""
    rows, held = np.random.default_rng(3).permuted(np.tile(np.arange(1, 400), (120, 1)), axis=1)[:, :30], []
    repeat = np.repeat
    monkeypatch.setattr(np, "repeat", lambda *a: held.append(len(out := repeat(*a))) or out)
    found = item_cf(corpus(rows.tolist(), 400), 1, True, 3000)
    assert (found.neighbours[1:] > 0).all()
    assert 3000 / 2 < max(held[1:]) <= 3000  # the first is one weight per behaviour
    assert 120 * 30 * 30 / 3000 <= len(held) - 1 < 1.2 * 120 * 30 * 30 / 3000 + 2


# --- model-based --------------------------------------------------------------------------------------------------


def item_weight(n_items=23, dim=5, seed=0):
    return torch.randn(n_items, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 3, 30])
@pytest.mark.parametrize("block_rows", [1, 7, 22, 64, None])
def test_nearest_by_product_against_a_dense_oracle_in_blocks_of_any_size(k, block_rows):
    weight = item_weight()
    dense = (weight @ weight.T).numpy()
    found = nearest_by_product(weight, k, block_rows)
    expected = [([0] * k, [0.0] * k)]
    expected += [best_of(dense[i], [j not in (0, i) for j in range(23)], k) for i in range(1, 23)]
    assert found.neighbours.tolist() == [ids for ids, _ in expected]
    np.testing.assert_allclose(found.scores, [scores for _, scores in expected], rtol=1e-5, atol=1e-6)
    inner = dense[1:, 1:]
    assert (found.lowest, found.highest) == pytest.approx((inner.min(), inner.max()), rel=1e-5)


def test_the_model_never_returns_the_padding_mask_or_the_item_itself():
    """The padding's vector has the largest product with all, the item itself the next, and all others are equal."""
    weight = torch.ones(9, 4)
    weight[0] = 100
    weight[5] = 2
    found = ItemCorrelation.from_item_weight(weight, k=9)
    for item in range(1, 9):
        others = [5] * (item != 5) + [j for j in range(1, 9) if j not in (5, item)]
        assert found.neighbours[item].tolist() == [*others, 0, 0]
    assert not found.neighbours[0].any()
    assert found.lowest == 4.0


def test_a_model_may_hold_gradients_and_half_precision():
    weight = item_weight().bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ItemCorrelation.from_item_weight(weight, 2)
    exact = weight.detach().float()
    np.testing.assert_allclose(
        found.scores[1:, 0], (exact[1:] * exact[found.neighbours[1:, 0]]).sum(1).numpy(), rtol=1e-5
    )
    assert weight.grad is None


# --- hybrid -------------------------------------------------------------------------------------------------------


def table(*rows):
    return np.array(rows)[:, None]


def memory(neighbours, scores, lowest=None):
    return ItemCorrelation(table(0, *neighbours), table(0, *scores).astype(np.float32), lowest)


# Products 4, 2, 0 with itself and 4, 2, 0, -2 among items 1 to 4: the model's scores are (product + 2) / 6 ...
VECTORS = torch.tensor([[9.0, 9], [2, 0], [1, 0], [2, 0], [-1, 0]])


def test_hybrid_takes_the_larger_scaled_score():
    of_model = ItemCorrelation.from_item_weight(VECTORS)
    assert of_model.neighbours[:, 0].tolist() == [0, 3, 1, 1, 2]
    assert of_model.scores[:, 0].tolist() == [0, 4, 2, 4, -1]
    # ... here 1, 4/6, 1 and 1/6; those of memory are (score - 1) / 10.
    found = ItemCorrelation.hybrid(memory([2, 4, 4, 3], [10, 8, 11, 2], lowest=1), VECTORS)
    assert found.neighbours[:, 0].tolist() == [0, 3, 4, 4, 2]
    np.testing.assert_allclose(found.scores[:, 0], [0, 1, 0.7, 1, 1 / 6], rtol=1e-6)


def test_hybrid_tie_goes_to_memory():
    """Item 1: both have 1. Item 2: 4/6 against 4/6. Item 3: 1 against 9/10."""
    found = ItemCorrelation.hybrid(memory([2, 4, 4, 1], [7, 5, 6.4, 1]), VECTORS)
    assert found.neighbours[:, 0].tolist() == [0, 2, 4, 1, 2]


def test_hybrid_where_memory_has_no_neighbour():
    """The model's item, unless that has the smallest of all products: then one is drawn as before."""
    found = ItemCorrelation.hybrid(memory([0, 3, 2, 0], [0, 1, 3, 0]), VECTORS)
    assert found.neighbours[:, 0].tolist() == [0, 3, 1, 2, 2]
    lonely = ItemCorrelation.hybrid(memory([0, 0], [0, 0]), torch.tensor([[0.0], [1], [-1]]))
    assert lonely.neighbours.tolist() == [[0], [0], [0]]


def test_hybrid_with_a_source_that_tells_nothing():
    """All its scores are equal, so it counts as 0 rather than as NaN."""
    flat = ItemCorrelation.hybrid(memory([2, 3, 4, 3], [1, 2, 3, 4]), torch.ones(5, 2))
    assert flat.neighbours[:, 0].tolist() == [0, 2, 3, 4, 3]
    np.testing.assert_allclose(flat.scores[:, 0], [0, 0, 1 / 3, 2 / 3, 1], rtol=1e-6)
    constant = ItemCorrelation.hybrid(memory([2, 3, 4, 3], [5, 5, 5, 5]), VECTORS)
    assert constant.neighbours[:, 0].tolist() == [0, 3, 1, 1, 2]


def test_hybrid_does_not_depend_on_how_many_neighbours_are_kept():
    """The scale counts from the weakest of all pairs, which the first neighbours alone do not show."""
    users = corpus(random_histories(), 31)
    weight = item_weight(31) * 0.5
    one, ten = (ItemCorrelation.hybrid(ItemCorrelation.from_histories(users, k), weight) for k in (1, 10))
    assert one.neighbours.tolist() == ten.neighbours.tolist()
    assert one.scores.tolist() == ten.scores.tolist()
    of_memory = ItemCorrelation.from_histories(users).neighbours[:, 0] == one.neighbours[:, 0]
    assert 2 < of_memory.sum() < 29


def test_hybrid_never_returns_the_padding_mask_or_the_item_itself():
    for seed in range(5):
        weight = item_weight(31, seed=seed)
        weight[0] = 50
        found = ItemCorrelation.hybrid(ItemCorrelation.from_histories(corpus(random_histories(), 31), 3), weight)
        first = found.neighbours[1:, 0]
        assert ((first >= 1) & (first < 31) & (first != np.arange(1, 31))).all()


def test_operators_take_it_as_it_is():
    found = ItemCorrelation.from_histories(corpus(), 2)
    operator = ItemSubstitute(1.0, neighbours=torch.from_numpy(found.neighbours))
    out = operator(torch.tensor([[1, 2, 3, 4]]), torch.tensor([4])).item_seq
    assert out.tolist() == [[2, 1, 1, 3]]


# --- files and wrong calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3])
def test_saved_and_loaded(tmp_path, k):
    path = tmp_path / "new" / "correlation.safetensors"
    for seed in (1, 2):  # the second replaces the first
        found = ItemCorrelation.from_histories(corpus(random_histories(seed=seed), 31), k)
        found.save(path)
    again = ItemCorrelation.load(path)
    np.testing.assert_array_equal(again.neighbours, found.neighbours)
    np.testing.assert_array_equal(again.scores, found.scores)
    assert again.lowest == found.lowest
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "correlation.safetensors"
    found = ItemCorrelation.from_histories(corpus())
    found.save(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        ItemCorrelation.from_histories(corpus(), 3).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_every_cut_of_a_file_is_refused(tmp_path):
    path = tmp_path / "correlation.safetensors"
    ItemCorrelation.from_histories(corpus(), 2).save(path)
    whole = path.read_bytes()
    assert len(whole) > 200
    for size in (0, 1, 8, 9, 60, 150, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"^correlation: cannot read .*correlation\.safetensors: [^\n]+$"):
            ItemCorrelation.load(path)


GOOD = {"neighbours": table(0, 2, 1), "scores": table(0, 1, 1).astype(np.float32), "lowest": np.ones(1, np.float32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neighbours": table(0, 3, 1)}, "cannot read {}: neighbours: expected ids from 0 to 2, got 3"),
        ({"neighbours": table(0, -1, 1)}, "cannot read {}: neighbours: expected ids from 0 to 2, got -1"),
        (
            {"neighbours": table(0, 1, 1)},
            "cannot read {}: neighbours: expected other items in row 1, got the item itself",
        ),
        ({"neighbours": table(2, 2, 1)}, "cannot read {}: neighbours: expected none in row 0, the padding, got 2"),
        ({"neighbours": table(0, 2)}, "cannot read {}: scores: expected shape (2, 1) as neighbours, got (3, 1)"),
        (
            {"neighbours": np.arange(3)},
            "cannot read {}: neighbours: expected int64 of shape (n_items, k), both at least 1, "
            "got int64 of shape (3,)",
        ),
        (
            {"scores": table(0.0, 1, 1)},
            "cannot read {}: scores: expected float32 of shape (n_items, k), both at least 1, "
            "got float64 of shape (3, 1)",
        ),
        (
            {"scores": np.float32([[0], [1], [np.nan]])},
            "cannot read {}: scores: expected finite numbers, got NaN or infinity among them",
        ),
        ({"scores": None}, "expected an item correlation in {}, which has no 'scores'"),
        ({"lowest": None}, "expected an item correlation in {}, which has no 'lowest'"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path, change, message):
    path = tmp_path / "x.safetensors"
    save_file({name: value for name, value in (GOOD | change).items() if value is not None}, path)
    assert refusal_of(ItemCorrelation.load, path) == "correlation: " + message.format(path)
    save_file(GOOD, path)
    assert ItemCorrelation.load(path).neighbours.tolist() == [[0], [2], [1]]


def test_no_file_and_no_safetensors_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"^correlation: expected a file, got .*gone, which does not exist$"):
        ItemCorrelation.load(tmp_path / "gone")
    (tmp_path / "text").write_text("1 2 3\n" * 50)
    for path in (tmp_path / "text", tmp_path):
        with pytest.raises(InputError, match=r"^correlation: cannot read [^\n]+$"):
            ItemCorrelation.load(path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ItemCorrelation.from_histories(corpus(), 0), "k: expected a positive integer, got 0"),
        (lambda: ItemCorrelation.from_histories(corpus(), True), "k: expected a positive integer, got True"),
        (lambda: ItemCorrelation.from_item_weight(VECTORS, 1.0), "k: expected a positive integer, got 1.0"),
        (lambda: ItemCorrelation.from_item_weight([[1.0]]), "item_weight: expected a tensor, got list"),
        (
            lambda: ItemCorrelation.from_item_weight(VECTORS[0]),
            "item_weight: expected floats of shape (n_items, d) with n_items >= 2, got float32 of shape (2,)",
        ),
        (
            lambda: ItemCorrelation.from_item_weight(VECTORS[:1]),
            "item_weight: expected floats of shape (n_items, d) with n_items >= 2, got float32 of shape (1, 2)",
        ),
        (
            lambda: ItemCorrelation.from_item_weight(VECTORS.long()),
            "item_weight: expected floats of shape (n_items, d) with n_items >= 2, got int64 of shape (5, 2)",
        ),
        (
            lambda: ItemCorrelation.from_item_weight(VECTORS / torch.tensor([[1.0]] * 4 + [[0.0]])),
            "item_weight: expected finite products, got some from nan to nan",
        ),
        (
            lambda: ItemCorrelation.hybrid(memory([2, 1], [1, 1]), VECTORS),
            "item_weight: expected 3 rows as in memory, got 5",
        ),
        (
            lambda: ItemCorrelation([[0], [0]], table(0, 0)),
            "neighbours: expected a numpy array, int64 of shape (n_items, k), got list",
        ),
    ],
)
def test_wrong_calls_get_one_line(call, message):
    assert refusal_of(call) == message
