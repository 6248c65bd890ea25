"""Dropout from packed random bits has the distribution of torch's own."""

import math

import pytest
import torch
from torch import nn

from adaptssr_plugin.encoders.dropout import Dropout, packs_bits, replace_dropout


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(401, 257), (3, 47, 31, 23), (100_003,)])
def test_share_and_scale(p, shape):
    torch.manual_seed(1)
    values = torch.ones(shape)
    dropped = Dropout(p)(values)
    kept = dropped != 0
    share = kept.float().mean().item()
    assert abs(share - (1 - p)) < 5 * math.sqrt(p * (1 - p) / values.numel())
    torch.testing.assert_close(dropped[kept], torch.full_like(dropped[kept], 1 / (1 - p)), rtol=2e-4, atol=0)
    assert torch.equal(values, torch.ones(shape))


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 64])
def test_neighbours_are_independent(distance):
    torch.manual_seed(2)
    kept = (Dropout(0.5)(torch.ones(400_000)) != 0).double() - 0.5
    correlation = 4 * (kept[distance:] * kept[:-distance]).mean().item()
    assert abs(correlation) < 5 / math.sqrt(400_000)


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_every_place_of_a_word_drops_alike(place):
    torch.manual_seed(3)
    kept = Dropout(0.3)(torch.ones(400_000))[place::4] != 0
    assert abs(kept.float().mean().item() - 0.7) < 5 * math.sqrt(0.21 / 100_000)


def test_the_gradient_passes_where_the_value_did():
    values = torch.randn(1_000, 7, requires_grad=True, dtype=torch.double)
    dropped = Dropout(0.4)(values)
    upstream = torch.randn_like(dropped)
    (grad,) = torch.autograd.grad(dropped, values, upstream)
    torch.testing.assert_close(grad, torch.where(dropped != 0, upstream * (dropped / values), 0).detach())


def test_the_seed_gives_the_mask():
    masks = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        masks.append(Dropout(0.5)(torch.ones(999)))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_where_bits_are_not_packed_it_is_torchs_own(monkeypatch):
    values = torch.ones(999)
    assert packs_bits(Dropout(0.5), values)
    others = [Dropout(0.5).eval(), Dropout(0.0), Dropout(1.0), Dropout(0.5, inplace=True)]
    assert not any(packs_bits(dropout, values) for dropout in others)
    assert not packs_bits(Dropout(0.5), values.to("meta"))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.manual_seed(5)
    dropped = Dropout(0.5)(values)
    torch.manual_seed(5)
    assert torch.equal(dropped, nn.functional.dropout(values, 0.5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_stays(dtype):
    assert Dropout(0.5)(torch.ones(10, dtype=dtype)).dtype == dtype


def test_nothing_is_dropped_in_evaluation_or_with_p_0_and_everything_with_p_1():
    values = torch.randn(100)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)
    assert torch.equal(Dropout(1.0)(values), torch.zeros(100))
    assert Dropout(0.5)(torch.ones(0, 3)).shape == (0, 3)


def test_replacement_keeps_names_probabilities_and_modes():
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3), nn.Sequential(nn.Dropout(0.1), nn.Dropout1d(0.2)))
    module[2].eval()
    names = list(module.state_dict())
    assert replace_dropout(module) == 2
    assert type(module[1]) is Dropout
    assert module[1].p == 0.3
    assert module[1].training
    assert type(module[2][0]) is Dropout
    assert not module[2][0].training
    assert type(module[2][1]) is nn.Dropout1d
    assert list(module.state_dict()) == names
