"""`python -m benchmarks step` runs, and the usual way computes what ours does."""

import pytest
import torch
from augment_reference import masked_count, up
from encoder_cases import batch, random_lengths
from torch.testing import assert_close

from adaptssr_plugin import AdaptSSRLoss, UserEncoder
from benchmarks import step
from benchmarks.support import measure, usual_way
from benchmarks.support.per_user import PerUser
from benchmarks.support.plots import read_csv

SIZES = {"dim": 8, "n_layers": 2, "n_heads": 2, "dropout": 0.1, "max_len": 12}
N_ITEMS = 30


def test_the_quick_run_measures_every_candidate_and_phase(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "added_memory_mb", lambda setup, statement: exec(f"{setup}\n{statement}") or 1.5)
    step.run(tmp_path, quick=True)
    rows = read_csv(tmp_path / "step.csv")
    cases = {(row["candidate"], row["phase"], row["L"]) for row in rows}
    assert cases == {(name, phase, n) for name in step.CANDIDATES for phase in step.PHASES for n in ("8", "20")}
    assert len(cases) == len(rows)
    for row in rows:
        assert 0 < float(row["q20_ms"]) <= float(row["median_ms"]) <= float(row["q80_ms"])
        assert (row["B"], row["d"], row["n_items"], row["torch"]) == ("16", "64", "500", torch.__version__)
        if row["phase"] == "full":
            assert int(row["sequences_per_second"]) == pytest.approx(16e3 / float(row["median_ms"]), abs=1)
    assert [row["candidate"] for row in read_csv(tmp_path / "step-memory.csv")] == 2 * list(step.CANDIDATES)
    step.plot(tmp_path)
    assert (tmp_path / "step.png").stat().st_size > 1000


def test_on_cuda_the_memory_is_that_of_the_device(monkeypatch):
    taken = []
    monkeypatch.setattr(measure, "added_cuda_memory_mb", lambda call: call() or 2.5)
    assert measure.added_mb(lambda *given: taken.append(given), (2, 4), (6, 8), torch.device("cuda")) == 2.5
    assert taken == [(2, 4, "cuda"), (6, 8, "cuda")]


def usual_model_of(ours):
    """The usual model with our weights."""
    model = usual_way.UserModel(N_ITEMS, **SIZES).eval()
    state = dict(ours.state_dict())
    state["items.weight"] = torch.cat([state["items.weight"], state.pop("items.mask")[None]])
    state["pooling"] = state.pop("pooling.query")
    for kind in ("weight", "bias"):
        for number in range(SIZES["n_layers"]):
            prefix = f"layers.{number}."
            parts = state.pop(f"{prefix}query_key_value.{kind}").chunk(3)
            for name, part in zip(("query", "key", "value"), parts, strict=True):
                state[f"{prefix}{name}.{kind}"] = part
    model.load_state_dict(state)
    return model


def test_the_usual_way_has_our_loss_and_gradients():
    ours = UserEncoder(N_ITEMS, **SIZES).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    usual = usual_model_of(ours)
    views = [batch(random_lengths(9, 12, seed=seed), width=12, n_items=N_ITEMS, seed=seed) for seed in (0, 1)]
    user_ids = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 0])
    loss = AdaptSSRLoss()(*(ours(*each) for each in views for _ in range(2)), user_ids)
    theirs = usual_way.loss_of(usual, views, user_ids)
    assert_close(theirs, loss)
    loss.backward()
    theirs.backward()
    assert_close(usual.items.weight.grad[:-1], ours.items.weight.grad, rtol=1e-3, atol=1e-6)
    assert_close(usual.items.weight.grad[-1], ours.items.mask.grad, rtol=1e-3, atol=1e-6)
    assert_close(usual.layers[1].feed_in.weight.grad, ours.layers[1].feed_in.weight.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 5, 10, 37])
def test_the_usual_operators_are_those_of_the_paper(n):
    items, operators = list(range(1, n + 1)), PerUser(99, (), n)
    masked = operators.mask(items) if n > 1 else items
    assert masked.count(99) == masked_count(0.6, n)
    assert all(new in (99, old) for new, old in zip(masked, items, strict=True))
    cropped = operators.crop(items)
    assert len(cropped) == up(0.4, n)
    assert cropped == items[cropped[0] - 1 :][: len(cropped)]
    reordered = operators.reorder(items)
    assert sorted(reordered) == items
    item_seq, lengths = usual_way.padded_views([items, items[:1]], n + 2, operators)
    assert item_seq.shape == (2, n + 2)
    assert (item_seq != 0).sum(1).tolist() == lengths.tolist()
