"""What `python -m benchmarks corpus` measures, on a small corpus and within this process."""

import json
import time

import numpy as np
import pytest

from adaptssr_plugin.corpus import open_corpus
from adaptssr_plugin.training import PairwiseStage
from benchmarks import corpus as benchmark


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A corpus of 400 users, that of its first 150, and what the conversion printed about itself."""
    folder = tmp_path_factory.mktemp("benchmark")
    behaviours = benchmark.write_parquet(folder / "users.parquet", 400, 500)
    benchmark.convert(str(folder / "users.parquet"), str(folder / "all"), str(time.time()))
    benchmark.keep_first_users(folder / "all", folder / "few", 150)
    return folder, behaviours


def test_the_corpora(converted):
    folder, behaviours = converted
    whole, few = open_corpus(folder / "all"), open_corpus(folder / "few")
    assert (len(whole), len(whole.items), len(few)) == (400, behaviours, 150)
    assert abs(whole.lengths.mean() - 54.84) < 4 * 54.3 / np.sqrt(400)
    # p(rank) about 1 / rank: the first 22 of 500 items hold half of all behaviours.
    items = whole.item_tokens[whole.items].astype(int)
    assert abs((items < np.sqrt(500)).mean() - 0.5) < 0.05
    assert few.n_items == whole.n_items
    assert [few.history(row).tolist() for row in (0, 149)] == [whole.history(row).tolist() for row in (0, 149)]


def test_what_is_printed(converted, tmp_path, capsys, monkeypatch):
    folder, _ = converted
    begun = str(time.time())
    benchmark.read(str(folder / "all"), begun)
    benchmark.item_vectors(str(folder / "all"), begun)
    monkeypatch.setattr(PairwiseStage, "step", PairwiseStage.step)  # which the next call replaces
    benchmark.start(str(folder / "all"), str(tmp_path / "run"), "2", begun)
    read, vectors, start = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert 0 < read["open_seconds"] < start["start_seconds"]
    assert read["epoch_growth_mb"] <= read["epoch_own_mb"] < 100
    assert len(start["step_seconds"]) == 1
    assert start["step_seconds"][0] > 0
    assert 0 <= start["own_growth_mb"] < 100
    n_items = open_corpus(folder / "all").n_items
    assert start["model_mb"] > 4 * 64 * 4 * n_items / 1e6  # the item table, its gradient and Adam's moments
    assert set(benchmark.LIMITS) <= {"convert_seconds", "convert_peak_mb", "relative_speed", *read, *vectors, *start}
    assert min(vectors.values()) > 0
