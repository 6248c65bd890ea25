"""The encoder against the literal oracle, values and gradients in float64."""

import pytest
import torch
from encoder_cases import batch, encoder, gradients_of, literal_encodings, literal_pooling
from torch.testing import assert_close

from adaptssr_plugin.encoders import AttentionPooling, MaskedItemHead

SHAPES = {
    "paper": {},
    "literal-eq-2": {"embed_norm": False, "embed_dropout": False},
    "one-head": {"n_heads": 1, "n_layers": 1},
    "one-number-per-head": {"n_heads": 6, "dim": 6, "n_layers": 3},
    "narrow-feed-forward": {"ff_dim": 5, "dim": 9, "n_heads": 3},
}
every_shape = pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
tight = {"rtol": 1e-9, "atol": 1e-10}


def gradients(output, made):
    """Gradients of all parameters for a fixed random weighting of the output."""
    weights = torch.randn(output.shape, dtype=output.dtype, generator=torch.Generator().manual_seed(7))
    return gradients_of((output * weights).sum(), made)


@every_shape
@pytest.mark.parametrize("groups", [1, None])
def test_user_vectors_and_hidden_states(options, groups):
    made = encoder(**options, length_groups=groups)
    item_seq, item_seq_len = batch([4, 1, 5, 2], width=6)
    users, states = literal_encodings(made, item_seq, item_seq_len)
    for got, right in ((made(item_seq, item_seq_len), users), (made.hidden_states(item_seq, item_seq_len), states)):
        assert_close(got, right, **tight)
        right_gradients = gradients(right, made)
        for name, gradient in gradients(got, made).items():
            assert_close(gradient, right_gradients[name], **tight, msg=lambda text, name=name: f"{name}: {text}")


def test_a_batch_cut_into_several_groups():
    made = encoder(length_groups=3, n_layers=1)
    item_seq, item_seq_len = batch([1 + row % 4 for row in range(100)])
    users, states = literal_encodings(made, item_seq, item_seq_len)
    assert_close(made(item_seq, item_seq_len), users, **tight)
    assert_close(made.hidden_states(item_seq, item_seq_len), states, **tight)


def test_training_without_dropout_is_the_oracle_too():
    made = encoder(dropout=0.0).train()
    item_seq, item_seq_len = batch([3, 5])
    assert_close(made(item_seq, item_seq_len), literal_encodings(made, item_seq, item_seq_len)[0], **tight)


def test_the_two_readings_of_eq_2_differ():
    item_seq, item_seq_len = batch([4, 3])
    with_norm, without = encoder(), encoder(embed_norm=False)
    without.load_state_dict({name: with_norm.state_dict()[name] for name in without.state_dict()})
    assert (with_norm(item_seq, item_seq_len) - without(item_seq, item_seq_len)).abs().max() > 0.1


def test_pooling_alone():
    pooling = AttentionPooling(3).double()
    torch.nn.init.normal_(pooling.query, std=2.0)
    hidden = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    visible = torch.tensor([[True, False, True, True], [False, True, False, False]])
    pooled = pooling(hidden, visible)
    right = [literal_pooling(h[seen].unbind(), pooling.query) for h, seen in zip(hidden, visible, strict=True)]
    assert_close(pooled, torch.stack(right), **tight)
    assert_close(pooled[1], hidden[1, 1])
    (gradient,) = torch.autograd.grad(pooled.sum(), hidden)
    assert (gradient[~visible] == 0).all()


def test_scores_of_masked_items():
    head = MaskedItemHead(5).double()
    torch.nn.init.normal_(head.bias)
    hidden, table = torch.randn(3, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    right = [[h @ e + b for e, b in zip(table, head.bias, strict=True)] for h in hidden]
    assert_close(head(hidden, table), torch.stack([torch.stack(row) for row in right]))
