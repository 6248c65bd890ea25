"""`python -m benchmarks augment --quick` runs, and the per-user references do what the batched operators do."""

import importlib.util
import random
import time
from collections import Counter

import pytest
import torch

from benchmarks import augment, step
from benchmarks.support import measure, per_user
from benchmarks.support.lengths import TTL_MEAN_LENGTH, ttl_lengths
from benchmarks.support.plots import read_csv

CPU = torch.device("cpu")
HAS_RECBOLE = importlib.util.find_spec("recbole") is not None


def test_the_quick_run_measures_every_candidate_and_draws_them(tmp_path, monkeypatch):
    monkeypatch.setattr(augment, "added_memory_mb", lambda setup, statement: exec(f"{setup}\n{statement}") or 1.5)
    augment.run(tmp_path, quick=True)
    rows = read_csv(tmp_path / "augment.csv")
    expected = {
        (what, name, batch)
        for what in augment.WHAT
        for name in augment.CANDIDATES
        for batch in ("16", "48")
        if name != "recbole" or (HAS_RECBOLE and what in augment.RECBOLE_HAS)
    }
    assert {(row["what"], row["candidate"], row["B"]) for row in rows} == expected
    assert len(rows) == len(expected)
    for row in rows:
        assert 0 < float(row["q20_ms"]) <= float(row["median_ms"]) <= float(row["q80_ms"])
        assert int(row["sequences_per_s"]) == pytest.approx(1e3 * int(row["B"]) / float(row["median_ms"]), abs=1)
        assert (row["phase"], row["L"], row["torch"]) == ("full", "9", torch.__version__)
    assert [row["candidate"] for row in read_csv(tmp_path / "augment-memory.csv")] == list(augment.MEMORY_OF)
    augment.plot(tmp_path)
    assert (tmp_path / "augment.png").stat().st_size > 10_000


@pytest.mark.parametrize("batch", [128, 512])
def test_from_128_users_on_whole_batches_take_less_time_than_per_user_python(batch):
    given = augment.data(batch, 100)
    calls = {name: augment.make_call(name, "pair", given, CPU) for name in (augment.BATCHED, "per_user")}
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(10):
        for name, call in calls.items():
            started = time.process_time()
            call()
            least[name] = min(least[name], time.process_time() - started)
    assert least[augment.BATCHED] < least["per_user"]


def test_augmentation_is_at_most_two_per_cent_of_a_step():
    take_step = step.CANDIDATES["adaptssr"](step.Data(128, 100, 5_000, CPU))
    shares = [phases[0] / sum(phases) for phases in (take_step() for _ in range(4))]
    assert min(shares) <= 0.02


def test_no_case_begins_when_the_time_is_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure._Settings, "ends", 0.0)
    augment.run(tmp_path, quick=True)
    assert not list(tmp_path.iterdir())
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 * len(augment.WHAT) + 1
    assert all(line.endswith("left out, the time is over") for line in printed)


def views_of(candidate, what, given):
    made = augment.make_call(candidate, what, given, CPU)()
    if candidate != augment.BATCHED:
        return made
    return made[:2] if what == "pair" else [made]


@pytest.mark.parametrize("candidate", augment.MEMORY_OF)
@pytest.mark.parametrize("what", augment.WHAT)
def test_candidates_change_as_many_items_of_every_row(candidate, what):
    """Lengths and numbers of changed items are fixed by those of the history, whoever draws."""
    given = augment.data(40, 20)
    for _ in range(2):
        for item_seq, length in views_of(candidate, what, given):
            assert (item_seq.shape, item_seq.dtype, length.dtype) == ((40, 20), torch.int64, torch.int64)
            assert torch.equal(item_seq > 0, torch.arange(20) < length[:, None])
            n = given.item_seq_len
            if what == "crop":
                assert torch.equal(length, (2 * n + 4) // 5)
            elif what == "insert":
                assert torch.equal(length, (n + (2 * n // 5).clamp(min=1)).clamp(max=20))
            elif what != "pair":
                assert torch.equal(length, n)
            if what == "mask":
                up = (3 * n + 4) // 5
                assert torch.equal((item_seq == augment.N_ITEMS).sum(1), torch.minimum(up, n - 1))
            if what == "substitute":
                changed = (item_seq != given.item_seq).sum(1)
                assert torch.equal(changed, (n // 10).clamp(min=1))
            if what == "reorder":
                assert torch.equal(item_seq.sort(1).values, given.item_seq.sort(1).values)


@pytest.mark.parametrize("candidate", augment.MEMORY_OF)
@pytest.mark.parametrize("what", ["pair", "reorder"])
def test_candidates_draw_from_the_same_distribution(candidate, what):
    item_seq = torch.tensor([[5, 6, 7]] * 6000)
    given = augment.Data(item_seq, torch.full((6000,), 3), torch.ones(augment.N_ITEMS, dtype=torch.int64))
    view, length = views_of(candidate, what, given)[-1]
    mask = augment.N_ITEMS
    reordered = {(5, 6, 7): 1 / 2, (6, 5, 7): 1 / 4, (5, 7, 6): 1 / 4}
    masked = {(5, mask, mask): 1 / 3, (mask, 6, mask): 1 / 3, (mask, mask, 7): 1 / 3}
    cropped = {(5, 6): 1 / 2, (6, 7): 1 / 2}
    kinds = [reordered] if what == "reorder" else [reordered, masked, cropped]
    expected = {row: share / len(kinds) for kind in kinds for row, share in kind.items()}
    seen = Counter(tuple(row[:n]) for row, n in zip(view.tolist(), length.tolist(), strict=True))
    assert {row: count / 6000 for row, count in seen.items()} == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("make", [per_user.PerUser, per_user.PerUserArrays])
def test_correlated_items_are_the_neighbours_or_drawn(make):
    neighbours = [0, 2, 0, 0, 0]
    reference = make(5, neighbours, seed=1)
    items = torch.tensor([1] * 10).numpy() if make is per_user.PerUserArrays else [1] * 10
    assert Counter(reference.substitute(items, 0.3)) == {1: 7, 2: 3}
    assert list(reference.insert(items, 1.0)) == [2, 1] * 10
    threes = items * 0 + 3 if make is per_user.PerUserArrays else [3] * 10
    drawn = set()
    for _ in range(20):
        drawn |= {int(item) for item in reference.insert(threes, 1.0)[::2]}
    assert drawn == {1, 2, 3, 4}


@pytest.mark.skipif(not HAS_RECBOLE, reason="needs RecBole")
def test_recboles_transforms_are_called_on_the_rows_that_drew_them():
    pytest.importorskip("recbole")
    random.seed(0)
    torch.manual_seed(0)
    item_seq, length, _ = augment.data(300, 20)
    before = item_seq.clone()
    views = per_user.RecBole(augment.N_ITEMS, 20).batch("pair", item_seq, length)
    assert torch.equal(item_seq, before)
    for view, view_len in views:
        assert (view.shape, view_len.shape) == ((300, 20), (300,))
        long = length >= 15
        masked = (view == augment.N_ITEMS).any(1) & long
        cropped = (view_len < length) & long
        reordered = (view.sort(1).values == item_seq.sort(1).values).all(1) & long
        assert torch.equal(masked.long() + cropped.long() + reordered.long(), long.long())
        assert min(masked.sum(), cropped.sum(), reordered.sum()) > 10


def test_padded_keeps_the_newest_items():
    for item_seq, length in (
        per_user.padded([[1, 2, 3], [4]], 2),
        per_user.padded_arrays([torch.tensor([1, 2, 3]).numpy(), torch.tensor([4]).numpy()], 2),
    ):
        assert item_seq.tolist() == [[2, 3], [4, 0]]
        assert length.tolist() == [2, 1]


def test_lengths_have_the_mean_of_ttl_before_they_are_clipped():
    whole = ttl_lengths(100_000, 10**9, torch.Generator().manual_seed(1))
    assert whole.double().mean().item() == pytest.approx(TTL_MEAN_LENGTH, rel=0.01)
    clipped = ttl_lengths(100_000, 100, torch.Generator().manual_seed(1))
    assert torch.equal(clipped, whole.clamp(max=100))
    assert (clipped.min().item(), clipped.dtype) == (1, torch.int64)
    assert clipped.double().mean().item() == pytest.approx(46.1, abs=0.3)
