"""[MASK], padding, dropout, initialisation, names of the state, half precision and wrong calls."""

import math

import pytest
import torch
from encoder_cases import N_ITEMS, batch, encoder, random_lengths
from refusals import refusal_of
from torch.testing import assert_close

from adaptssr_plugin import UserEncoder

LAYER = [
    f"{part}.{kind}"
    for part in ("attention_norm", "attention_out", "feed_in", "feed_norm", "feed_out", "query_key_value")
    for kind in ("bias", "weight")
]
KEYS = ["embed_norm.bias", "embed_norm.weight", "items.mask", "items.weight"]
KEYS += [f"layers.{layer}.{name}" for layer in (0, 1) for name in LAYER]
KEYS += ["pooling.query", "positions"]


def test_mask_is_a_vector_of_its_own():
    made = encoder()
    sequences = torch.tensor([[3, N_ITEMS, 5], [3, 4, 5]]), torch.tensor([3, 3])
    before = made(*sequences).detach()
    with torch.no_grad():
        made.items.mask[0] += 1.0  # of one number alone: the norm takes out what all have in common
    changed = (made(*sequences) - before).abs().amax(1)
    assert changed[0] > 0.01
    assert changed[1] == 0
    assert made.item_weight.shape == (N_ITEMS, 6)
    assert made.item_weight is made.state_dict(keep_vars=True)["items.weight"]
    looked_up = made.items(torch.tensor([N_ITEMS, 0, N_ITEMS - 1]))
    assert_close(looked_up, torch.stack((made.items.mask, made.item_weight[0], made.item_weight[-1])))


def test_gradients_reach_mask_and_items_but_not_padding():
    made = encoder()
    item_seq = torch.tensor([[3, N_ITEMS, 5, 0], [7, 0, 0, 0], [3, 2, N_ITEMS, 9]])
    for method in (made.forward, made.hidden_states):
        made.zero_grad()
        method(item_seq, torch.tensor([3, 1, 4])).pow(2).sum().backward()
        touched = made.items.weight.grad.abs().amax(1) > 0
        assert touched.nonzero().flatten().tolist() == [2, 3, 5, 7, 9]
        assert made.items.mask.grad.abs().max() > 0
    made.zero_grad()
    made.items(item_seq).pow(2).sum().backward()  # the lookup alone, with no attention to hide padding
    assert (made.items.weight.grad[0] == 0).all()
    made.zero_grad()
    made(item_seq[1:2], torch.tensor([1])).pow(2).sum().backward()
    assert (made.items.mask.grad == 0).all()


@pytest.mark.parametrize("groups", [1, None])
def test_twin_rows_get_their_own_dropout(groups):
    made = encoder(length_groups=groups, dropout=0.3)
    item_seq, item_seq_len = batch(random_lengths(64, 8))
    twins = item_seq.repeat_interleave(2, 0), item_seq_len.repeat_interleave(2)
    first, second = made(*twins).view(64, 2, -1).unbind(1)
    assert_close(first, second)
    made.train()
    first, second = made(*twins).view(64, 2, -1).unbind(1)
    assert ((first - second).abs().amax(1) > 1e-3).all()


def test_dropout_follows_torchs_seed():
    made = encoder(dropout=0.3).train()
    sequences = batch(random_lengths(100, 8))
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(made(*sequences))
    assert_close(drawn[0], drawn[1], rtol=0, atol=0)
    assert (drawn[0] - drawn[2]).abs().max() > 1e-3


def captured(module, run):
    """What goes into and comes out of ``module`` while ``run`` runs."""
    seen = []
    handle = module.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].detach(), output.detach())))
    run()
    handle.remove()
    (only,) = seen
    return only


def test_dropout_stands_where_the_authors_have_it():
    """On the embedding sum after the norm, on attention weights and on both sub-layer outputs; with p and 1/(1-p)."""
    rate = 0.25
    made = encoder(dropout=rate, dim=8, n_layers=1, length_groups=1).train()
    sequences = batch([1] * 4000)  # one behaviour: its attention weight is 1 before dropout
    layer = made.layers[0]
    hidden, _ = captured(layer, lambda: made(*sequences))
    summed, kept = captured(made.embed_dropout, lambda: made(*sequences))
    assert_close(summed, made.embed_norm(made.items(sequences[0]) + made.positions[:1]))
    assert share_of_zeros(kept, summed / (1 - rate)) == pytest.approx(rate, abs=0.02)

    visible = torch.ones(4000, 1, dtype=torch.bool)
    value = layer.query_key_value(hidden)[..., 16:]
    context, out = captured(layer.attention_out, lambda: layer(hidden, visible))
    heads, full = context.view(-1, 2, 4), (value / (1 - rate)).view(-1, 2, 4)
    dropped = (heads == 0).all(-1)
    assert_close(heads[~dropped], full[~dropped])
    assert dropped.double().mean() == pytest.approx(rate, abs=0.02)
    assert 0.01 < dropped.all(1).double().mean() < 0.12  # heads drop out on their own: rate² = 0.06

    for norm, producer in ((layer.attention_norm, layer.attention_out), (layer.feed_norm, layer.feed_out)):
        torch.manual_seed(0)
        entered, left = captured(norm, lambda: layer(hidden, visible))
        torch.manual_seed(0)
        _, out = captured(producer, lambda: layer(hidden, visible))
        torch.manual_seed(0)
        before = hidden if norm is layer.attention_norm else captured(layer.feed_in, lambda: layer(hidden, visible))[0]
        assert share_of_zeros(entered - before, out / (1 - rate)) == pytest.approx(rate, abs=0.02)
        assert left.shape == hidden.shape


def share_of_zeros(dropped, full):
    """How many entries are 0; the others must be those of ``full``."""
    is_zero = dropped.abs() < 1e-12
    assert_close(dropped[~is_zero], full[~is_zero])
    return is_zero.double().mean().item()


def test_no_dropout_on_the_embedding_sum_by_eq2_to_the_letter():
    made = encoder(dropout=0.5, embed_dropout=False).train()
    entered, left = captured(made.embed_dropout, lambda: made(*batch([3, 4])))
    assert_close(entered, left, rtol=0, atol=0)
    first, second = made(*batch([3, 4])), made(*batch([3, 4]))
    assert (first - second).abs().max() > 1e-3


def test_names_of_the_state():
    """Checkpoints and the transfer from masked items to ranking go by these."""
    assert sorted(UserEncoder(9, n_layers=2).state_dict()) == sorted(KEYS)
    without = sorted(UserEncoder(9, n_layers=2, embed_norm=False, embed_dropout=False).state_dict())
    assert without == sorted(key for key in KEYS if not key.startswith("embed_norm"))
    shapes = {name: tuple(value.shape) for name, value in UserEncoder(9, dim=8, max_len=5).state_dict().items()}
    assert shapes["items.weight"] == (9, 8)
    assert shapes["items.mask"] == shapes["pooling.query"] == (8,)
    assert shapes["positions"] == (5, 8)
    assert shapes["layers.0.feed_in.weight"] == (32, 8)
    assert UserEncoder(9, dim=8).dim == 8


def test_initialisation():
    """METHODS.md, row 52: N(0, 0.02²) everywhere, the padding row too; biases 0; norms the identity."""
    torch.manual_seed(0)
    made = UserEncoder(2000)
    for name, parameter in made.named_parameters():
        if name.endswith("norm.weight"):
            assert (parameter == 1).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            error = 0.02 / math.sqrt(2 * parameter.numel())
            assert abs(parameter.std().item() - 0.02) < 5 * error, name
            assert abs(parameter.mean().item()) < 5 * 0.02 / math.sqrt(parameter.numel()), name
    assert (made.item_weight[0] != 0).all()
    torch.manual_seed(0)
    again = UserEncoder(2000)
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("groups", [1, None])
@pytest.mark.parametrize("training", [False, True])
def test_half_precision_module(dtype, groups, training):
    exact = encoder(dtype=torch.float32, spread=0.1, dim=16, dropout=0.1)
    made = encoder(dtype=dtype, spread=0.1, dim=16, dropout=0.1, length_groups=groups).train(training)
    item_seq, item_seq_len = batch(random_lengths(80, 11), width=13)
    for method in ("forward", "hidden_states"):
        got = getattr(made, method)(item_seq, item_seq_len)
        assert got.dtype == dtype
        assert got.isfinite().all()
        if not training:
            right = getattr(exact, method)(item_seq, item_seq_len)
            assert (got.float() - right).norm() / right.norm() < (0.02 if dtype == torch.bfloat16 else 0.003)
        made.zero_grad()
        got.float().pow(2).sum().backward()
        for name, parameter in made.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("groups", [1, None])
def test_autocast(groups):
    made = encoder(dtype=torch.float32, spread=0.1, dim=16, length_groups=groups)
    item_seq, item_seq_len = batch(random_lengths(80, 11), width=13)
    right = made(item_seq, item_seq_len)
    with torch.autocast("cpu", torch.bfloat16):
        got = made(item_seq, item_seq_len)
        states = made.hidden_states(item_seq, item_seq_len)
    assert (got.float() - right).norm() / right.norm() < 0.02
    assert states.isfinite().all()
    got.float().sum().backward()
    assert made.items.mask.grad.isfinite().all()
    assert made.items.weight.grad.dtype == torch.float32


SEQ, LEN = torch.ones(3, 4, dtype=torch.int64), torch.full((3,), 4)
WRONG_CALLS = {
    "seq-no-tensor": (([[1]], LEN), "item_seq: expected a tensor, got list"),
    "len-no-tensor": ((SEQ, [4, 4, 4]), "item_seq_len: expected a tensor, got list"),
    "seq-dtype": ((SEQ.int(), LEN), "item_seq: expected int64, got int32"),
    "seq-float": ((SEQ.float(), LEN), "item_seq: expected int64, got float32"),
    "seq-shape": ((SEQ[0], LEN), "item_seq: expected shape (B, L) with L >= 1, got (4,)"),
    "len-shape": ((SEQ, LEN[:2]), "item_seq_len: expected shape (3,), one per row of item_seq, got (2,)"),
    "len-mask": ((SEQ, SEQ > 0), "item_seq_len: expected int64, got bool"),
    "len-dtype": ((SEQ, LEN.float()), "item_seq_len: expected int64, got float32"),
    "len-device": ((SEQ, LEN.to("meta")), "item_seq_len: expected device cpu as item_seq, got meta"),
    "too-long": (
        (torch.ones(3, 6, dtype=torch.int64), LEN),
        "item_seq: expected at most max_len = 5 positions, padding included, got 6",
    ),
    "no-position": ((SEQ[:, :0], LEN), "item_seq: expected shape (B, L) with L >= 1, got (3, 0)"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG_CALLS.values(), ids=WRONG_CALLS)
@pytest.mark.parametrize("groups", [1, None])
@pytest.mark.parametrize("method", ["__call__", "hidden_states"])
def test_wrong_calls(method, groups, arguments, message):
    """The same refusal whether or not batches are split."""
    made = UserEncoder(9, dim=4, max_len=5, length_groups=groups)
    assert refusal_of(lambda: getattr(made, method)(*arguments)) == message


WRONG_OPTIONS = {
    "heads": ({"dim": 64, "n_heads": 3}, "n_heads: expected a divisor of dim = 64, got 3"),
    "dropout-1": ({"dropout": 1.0}, "dropout: expected a number in [0, 1), got 1.0"),
    "dropout-negative": ({"dropout": -0.1}, "dropout: expected a number in [0, 1), got -0.1"),
    "dropout-nan": ({"dropout": math.nan}, "dropout: expected a number in [0, 1), got nan"),
    "dropout-text": ({"dropout": "0.1"}, "dropout: expected a number in [0, 1), got '0.1'"),
    "dropout-bool": ({"dropout": False}, "dropout: expected a number in [0, 1), got False"),
    "dim-0": ({"dim": 0}, "dim: expected a positive integer, got 0"),
    "layers-0": ({"n_layers": 0}, "n_layers: expected a positive integer, got 0"),
    "heads-float": ({"n_heads": 2.0}, "n_heads: expected a positive integer, got 2.0"),
    "max-len": ({"max_len": -1}, "max_len: expected a positive integer, got -1"),
    "n-items-bool": ({"n_items": True}, "n_items: expected a positive integer, got True"),
    "ff-dim-0": ({"ff_dim": 0}, "ff_dim: expected a positive integer or None, got 0"),
    "groups-0": ({"length_groups": 0}, "length_groups: expected a positive integer or None, got 0"),
    "groups-text": ({"length_groups": "auto"}, "length_groups: expected a positive integer or None, got 'auto'"),
}


@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS)
def test_wrong_options(options, message):
    assert refusal_of(UserEncoder, **({"n_items": 9} | options)) == message
