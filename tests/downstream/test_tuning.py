"""Partial fine-tuning: begins at the pre-trained encoder, trains what it says, and moves nothing else."""

import pytest
import torch
from encoder_cases import batch, encoder

from adaptssr_plugin.downstream.tuning import TUNED, trained_and_all, tune
from adaptssr_plugin.encoders import GRUEncoder
from adaptssr_plugin.errors import InputError

DIM, LAYERS, RANK = 6, 2, 2
TRAINED = {
    "head": 0,
    "adapter": LAYERS * (2 * (DIM * RANK + RANK + RANK * DIM + DIM) + 2 * 2 * DIM),
    "lora": LAYERS * (RANK * DIM + 3 * DIM * RANK + RANK * DIM + DIM * RANK),
    "item_adapter": DIM * RANK + RANK + RANK * DIM + DIM,
}


@pytest.mark.parametrize("what", TUNED)
def test_begins_at_the_pretrained_encoder_and_trains_only_its_share(what):
    made = encoder()
    item_seq, lengths = batch([9, 4, 1])
    before = made(item_seq, lengths).detach()
    _, total = trained_and_all(made)
    tune(made, what, RANK)
    torch.testing.assert_close(made(item_seq, lengths), before, rtol=0, atol=1e-12)
    trained, n_all = trained_and_all(made)
    assert trained == TRAINED.get(what, total)
    if what in ("all", "head"):
        assert n_all == total


@pytest.mark.parametrize("what", [what for what in TUNED if what != "head"])
def test_training_changes_vectors_and_nothing_that_is_frozen(what):
    torch.manual_seed(0)
    made = encoder()
    item_seq, lengths = batch([9, 4, 1])
    before = made(item_seq, lengths).detach()
    tune(made, what, RANK)
    frozen = {name: p.detach().clone() for name, p in made.named_parameters() if not p.requires_grad}
    assert bool(frozen) is (what != "all")
    trained = [parameter for parameter in made.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        made(item_seq, lengths).pow(2).sum().backward()
        optimizer.step()
    assert not torch.allclose(made(item_seq, lengths), before, atol=1e-3)
    for name, parameter in made.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name]), name


def test_every_trained_part_gets_a_gradient():
    for what in ("adapter", "lora", "item_adapter"):
        torch.manual_seed(0)
        made = encoder()
        tune(made, what, RANK)
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        made(*batch([9, 4, 1])).pow(2).sum().backward()
        assert all(parameter.grad.any() for parameter in made.parameters() if parameter.requires_grad), what


def test_wrong_calls():
    with pytest.raises(InputError, match=r"^ft_tune: expected all or head or adapter .*, got 'x'$"):
        tune(encoder(), "x")
    with pytest.raises(InputError, match=r"^ft_tune: expected all or head for GRUEncoder, got 'lora'$"):
        tune(GRUEncoder(9, dim=4), "lora")
    other = GRUEncoder(9, dim=4)
    tune(other, "head")
    assert trained_and_all(other)[0] == 0
