"""`python -m benchmarks scale` runs, on the corpora that it says."""

import numpy as np

from benchmarks import scale
from benchmarks.support.plots import read_csv


def test_a_quick_run_of_the_smaller_size(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "is_over", lambda case: "400" in case)
    scale.run(tmp_path, quick=True)
    scale.plot(tmp_path)
    rows = read_csv(tmp_path / "scale.csv")
    assert [row["users"] for row in rows] == ["140"]
    for row in rows:
        assert 0 < float(row["q20_ms"]) <= float(row["median_ms"]) <= float(row["q80_ms"])
        assert float(row["sequences_per_second"]) > 0
        assert float(row["steps_mb"]) > 0
        assert int(row["repeats"]) == 2
    assert (tmp_path / "scale.png").stat().st_size > 10_000


def test_lengths_and_items_of_the_corpus():
    corpus = scale.make_corpus(20_000, 5_000)
    assert abs(corpus.lengths.mean() - 54.84) < 4 * 54.3 / np.sqrt(20_000)
    assert (corpus.items.min(), corpus.items.max()) == (1, 4_999)
    # p(rank) about 1 / rank: each doubling of the rank holds as many behaviours as the one before.
    inside = [((corpus.items >= low) & (corpus.items < 2 * low)).mean() for low in (16, 128, 1024)]
    assert np.allclose(inside, np.log(2) / np.log(5_000), rtol=0.02)
