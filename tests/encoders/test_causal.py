"""The causal encoders: literal oracles, causality, padding, and what they share with the paper's encoder."""

import math

import pytest
import torch
import torch.nn.functional as F
from encoder_cases import N_ITEMS, batch

from adaptssr_plugin.encoders import CausalTransformer, ConvolutionEncoder, GRUEncoder
from adaptssr_plugin.errors import InputError

KINDS = [GRUEncoder, ConvolutionEncoder, CausalTransformer]


def made(kind, seed=0, dropout=0.0, **options):
    torch.manual_seed(seed)
    encoder = kind(N_ITEMS, dim=6, max_len=16, dropout=dropout, **options).double()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.copy_((1.0 if "norm" in name and "weight" in name else 0.0) + 0.4 * torch.randn_like(parameter))
    return encoder.eval()


def literal_gru(encoder, vectors):
    """Cho et al.'s recurrence, one position at a time."""
    weights = dict(encoder.units.named_parameters())
    state = torch.zeros(encoder.units.hidden_size, dtype=vectors.dtype)
    states = []
    for vector in vectors:
        r_in, z_in, n_in = (weights["weight_ih_l0"] @ vector).chunk(3)
        r_back, z_back, n_back = (weights["weight_hh_l0"] @ state).chunk(3)
        reset, update = torch.sigmoid(r_in + r_back), torch.sigmoid(z_in + z_back)
        state = (1 - update) * torch.tanh(n_in + reset * n_back) + update * state
        states.append(encoder.out.weight @ state + encoder.out.bias)
    return torch.stack(states)


def literal_convolution(encoder, vectors):
    hidden = list(vectors)
    for block in encoder.blocks:
        out = hidden
        for dilation, convolution, norm in zip(block.dilations, block.convolutions, block.norms, strict=True):
            new = []
            for t in range(len(out)):
                total = convolution.bias.clone()
                for tap in range(3):
                    place = t - (2 - tap) * dilation
                    if place >= 0:
                        total = total + convolution.weight[:, :, tap] @ out[place]
                centred = total - total.mean()
                normed = centred / torch.sqrt(centred.pow(2).mean() + 1e-8) * norm.weight + norm.bias
                new.append(normed.clamp_min(0))
            out = new
        hidden = [a + b for a, b in zip(hidden, out, strict=True)]
    return torch.stack([encoder.out.weight @ state + encoder.out.bias for state in hidden])


def literal_transformer(encoder, vectors):
    hidden = encoder.norm(vectors + encoder.positions[: len(vectors)])
    for layer in encoder.layers:
        attention, size = layer.self_attn, hidden.shape[1] // layer.self_attn.num_heads
        projected = hidden @ attention.in_proj_weight.T + attention.in_proj_bias
        query, key, value = projected.chunk(3, 1)
        rows = []
        for t in range(len(hidden)):
            heads = []
            for head in range(attention.num_heads):
                part = slice(head * size, (head + 1) * size)
                scores = torch.stack([query[t, part] @ key[s, part] / math.sqrt(size) for s in range(t + 1)])
                heads.append(scores.softmax(0) @ value[: t + 1, part])
            rows.append(attention.out_proj.weight @ torch.cat(heads) + attention.out_proj.bias)
        hidden = layer.norm1(hidden + torch.stack(rows))
        fed = F.gelu(hidden @ layer.linear1.weight.T + layer.linear1.bias) @ layer.linear2.weight.T + layer.linear2.bias
        hidden = layer.norm2(hidden + fed)
    return hidden


@pytest.mark.parametrize(
    ("kind", "oracle"),
    [(GRUEncoder, literal_gru), (ConvolutionEncoder, literal_convolution), (CausalTransformer, literal_transformer)],
)
def test_every_state_equals_the_literal_one(kind, oracle):
    encoder = made(kind)
    item_seq, lengths = batch([1, 5, 16, 9])
    states, vectors = encoder.hidden_states(item_seq, lengths), encoder(item_seq, lengths)
    for row, length in enumerate(lengths.tolist()):
        expected = oracle(encoder, encoder.items(item_seq[row, :length]))
        torch.testing.assert_close(states[row, :length], expected)
        torch.testing.assert_close(vectors[row], expected[-1])
        assert not states[row, length:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_knows_nothing_of_later_behaviours_nor_of_padding(kind):
    encoder = made(kind)
    item_seq, lengths = batch([12, 12, 12])
    changed = item_seq.clone()
    changed[:, 7:] = 1 + changed[:, 7:] % (N_ITEMS - 1)
    assert not torch.equal(item_seq, changed)
    before, after = encoder.hidden_states(item_seq, lengths), encoder.hidden_states(changed, lengths)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])
    padded = F.pad(item_seq, (0, 4))
    torch.testing.assert_close(encoder(padded, lengths), encoder(item_seq, lengths))


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_makes_an_implicit_view_and_mask_is_no_row_of_the_table(kind):
    encoder = made(kind, dropout=0.3).train()
    item_seq, lengths = batch([9, 4])
    assert not torch.equal(encoder(item_seq, lengths), encoder(item_seq, lengths))
    encoder.eval()
    assert torch.equal(encoder(item_seq, lengths), encoder(item_seq, lengths))
    assert encoder.item_weight.shape == (N_ITEMS, 6)
    masked = item_seq.clone()
    masked[0, 2] = N_ITEMS
    encoder(masked, lengths).sum().backward()
    assert encoder.items.mask.grad.any()
    assert not encoder.item_weight.grad[0].any()


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_calls(kind):
    encoder = made(kind)
    with pytest.raises(InputError, match=r"^item_seq: expected at most max_len = 16 positions, .*, got 17$"):
        encoder(torch.ones(1, 17, dtype=torch.int64), torch.tensor([17]))
    with pytest.raises(InputError, match=r"^item_seq_len: expected shape \(1,\), .*, got \(2,\)$"):
        encoder(torch.ones(1, 3, dtype=torch.int64), torch.tensor([3, 3]))
    with pytest.raises(InputError, match=r"^dim: expected a positive integer, got 0$"):
        kind(5, dim=0)
    with pytest.raises(InputError, match=r"^dropout: expected a number in \[0, 1\), got 1$"):
        kind(5, dropout=1)
