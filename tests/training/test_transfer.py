"""What moves from stage to stage."""

import pytest
import torch
from training_cases import N_ITEMS, encoder_of

from adaptssr_plugin import UserEncoder
from adaptssr_plugin.training import MLM_TO_RANKING, WHOLE_ENCODER, transfer


def encoder(seed, **options):
    return encoder_of(UserEncoder, seed, **options)


@pytest.mark.parametrize("embed_norm", [True, False])
def test_from_masked_items_everything_moves_but_the_pooling_query(embed_norm):
    source, target = encoder(1, embed_norm=embed_norm), encoder(2, dropout=0.5, embed_norm=embed_norm)
    with torch.no_grad():  # so that no weight is the same in both by way of its initialisation
        for parameter in source.parameters():
            parameter.uniform_(1, 2)
    query = target.pooling.query.clone()
    report = transfer(source.state_dict(), target, MLM_TO_RANKING)
    assert report.left == ("pooling.query",)
    assert set(report.moved) == set(target.state_dict()) - {"pooling.query"}
    assert torch.equal(target.pooling.query, query)
    for name in (
        "items.weight",
        "items.mask",
        "positions",
        "layers.0.query_key_value.weight",
        "layers.1.feed_norm.bias",
    ):
        assert name in report.moved
    for name in report.moved:
        assert torch.equal(target.state_dict()[name], source.state_dict()[name]), name
    assert target.embed_dropout.p == 0.5


def test_the_whole_encoder_moves():
    source, target = encoder(1), encoder(2)
    report = transfer(source.state_dict(), target, WHOLE_ENCODER)
    assert report.left == ()
    sequences = torch.tensor([[1, 2, N_ITEMS], [4, 0, 0]]), torch.tensor([3, 1])
    torch.testing.assert_close(target.eval()(*sequences), source.eval()(*sequences), rtol=0, atol=0)


@pytest.mark.parametrize("part", WHOLE_ENCODER)
def test_a_part_moves_alone(part):
    source, target = encoder(1), encoder(2)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.fill_(7)
    report = transfer(source.state_dict(), target, (part,))
    sevens = {name for name, tensor in target.state_dict().items() if (tensor == 7).all()}
    assert sevens == set(report.moved)
    assert 0 < len(report.moved) < len(target.state_dict())
    assert set(report.moved) | set(report.left) == set(target.state_dict())


def test_copies_are_taken():
    source, target = encoder(1), encoder(2)
    transfer(source.state_dict(), target, WHOLE_ENCODER)
    kept = source.items.weight.clone()
    with torch.no_grad():
        target.items.weight.add_(1)
    assert torch.equal(source.items.weight, kept)
    assert target.items.weight.requires_grad


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_items": N_ITEMS + 1}, r"^items\.weight: expected shape \(12, 8\), got \(13, 8\) in the weights$"),
        ({"dim": 4}, r"^positions: expected shape \(100, 8\), got \(100, 4\) in the weights$"),
        ({"max_len": 7}, r"^positions: expected shape \(100, 8\), got \(7, 8\) in the weights$"),
        ({"n_layers": 1}, r"^layers\.1\.query_key_value\.weight: expected in the weights, which lack it$"),
        ({"embed_norm": False}, r"^embed_norm\.weight: expected in the weights, which lack it$"),
    ],
)
def test_weights_of_other_sizes_are_refused_in_one_line(sizes, message):
    with pytest.raises(ValueError, match=message):
        transfer(encoder(1, **sizes).state_dict(), encoder(2), MLM_TO_RANKING)
