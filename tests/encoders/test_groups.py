"""A user's encoding depends on the user's sequence alone; cutting a batch by length only saves work."""

from itertools import pairwise

import pytest
import torch
from encoder_cases import N_ITEMS, batch, encoder, random_lengths
from readbacks import count_readbacks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from adaptssr_plugin.encoders.length_groups import length_groups, restore_order

GROUPS = [1, 2, 5, None]
METHODS = ["forward", "hidden_states"]
every_method = pytest.mark.parametrize("method", METHODS)
tight = {"rtol": 1e-10, "atol": 1e-11}


def one_by_one(made, method, item_seq, item_seq_len):
    """Every row alone and without padding; hidden states are padded with 0 afterwards."""
    rows = []
    for row, length in zip(item_seq, item_seq_len.tolist(), strict=True):
        alone = getattr(made, method)(row[None, :length], torch.tensor([length]))[0]
        if method == "hidden_states":
            alone = torch.nn.functional.pad(alone, (0, 0, 0, item_seq.shape[1] - length))
        rows.append(alone)
    return torch.stack(rows)


@pytest.mark.parametrize("n_rows", [1, 2, 31, 64, 65, 200])
@every_method
def test_padding_split_and_neighbours_do_not_matter(method, n_rows):
    made = encoder()
    lengths = random_lengths(n_rows, 7)
    right = one_by_one(made, method, *batch(lengths, width=7))
    for made.length_groups in GROUPS:
        for width in (7, 8, 16):
            item_seq, item_seq_len = batch(lengths, width=7)
            item_seq = torch.nn.functional.pad(item_seq, (0, width - 7))
            got = getattr(made, method)(item_seq, item_seq_len)
            if method == "hidden_states":
                assert got.shape == (n_rows, width, made.dim)
                assert (got[:, 7:] == 0).all()
                got = got[:, :7]
            assert_close(got, right, **tight)


@pytest.mark.parametrize("groups", GROUPS)
@every_method
def test_hidden_states_of_padding_are_exactly_zero(method, groups):
    made = encoder(length_groups=groups)
    with torch.no_grad():
        made.items.weight[0] = 1e3  # would show, were it ever attended to
    item_seq, item_seq_len = batch(random_lengths(100, 9), width=12)
    got = getattr(made, method)(item_seq, item_seq_len)
    assert got.isfinite().all()
    if method == "hidden_states":
        padding = torch.arange(12) >= item_seq_len[:, None]
        assert padding.any()
        assert (got[padding] == 0).all()
        assert (got[~padding] != 0).any(-1).all()
    with torch.no_grad():
        made.items.weight[0] = 0.0
    assert_close(got, getattr(made, method)(item_seq, item_seq_len), rtol=0, atol=0)


@pytest.mark.parametrize("groups", GROUPS)
@every_method
def test_gradients_do_not_depend_on_the_split(method, groups):
    item_seq, item_seq_len = batch(random_lengths(150, 8), width=8)
    gradients = []
    for made in (encoder(length_groups=1), encoder(length_groups=groups)):
        output = getattr(made, method)(item_seq, item_seq_len)
        weights = torch.randn(output.shape, dtype=output.dtype, generator=torch.Generator().manual_seed(1))
        (output * weights).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in made.named_parameters()})
    for name, gradient in gradients[0].items():
        if method == "hidden_states" and name == "pooling.query":
            assert gradient is gradients[1][name] is None
        else:
            assert_close(gradient, gradients[1][name], **tight)


@pytest.mark.parametrize("groups", GROUPS)
@every_method
def test_results_follow_the_order_of_the_rows(method, groups):
    made = encoder(length_groups=groups)
    item_seq, item_seq_len = batch(random_lengths(130, 10))
    order = torch.randperm(130, generator=torch.Generator().manual_seed(3))
    straight = getattr(made, method)(item_seq, item_seq_len)
    shuffled = getattr(made, method)(item_seq[order], item_seq_len[order])
    assert_close(shuffled, straight[order], **tight)


def test_the_order_of_behaviours_matters():
    made = encoder()
    item_seq = torch.tensor([[3, 9, 4], [4, 9, 3]])
    first, second = made(item_seq, torch.tensor([3, 3]))
    assert (first - second).abs().max() > 0.01


def test_an_empty_batch():
    made = encoder()
    nothing = torch.empty(0, 5, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    assert made(*nothing).shape == (0, 6)
    assert made.hidden_states(*nothing).shape == (0, 5, 6)


@pytest.mark.parametrize("max_groups", [None, 1, 2, 3, 7, 1000])
@pytest.mark.parametrize("n_rows", [1, 2, 63, 64, 65, 97, 1000])
def test_groups_hold_every_row_once(n_rows, max_groups):
    lengths = torch.tensor(random_lengths(n_rows, 40))
    groups = list(length_groups(lengths, max_groups))
    assert torch.cat([group.rows for group in groups]).sort().values.tolist() == list(range(n_rows))
    assert len(groups) <= (16 if max_groups is None else max_groups)
    assert len(groups) <= max(1, n_rows // 32)
    assert [group.width for group in groups] == [int(lengths[group.rows].max()) for group in groups]
    assert all(a.width < b.width for a, b in pairwise(groups))


def test_rows_of_one_length_stay_together():
    assert [len(group.rows) for group in length_groups(torch.full((640,), 9))] == [640]


def test_restored_order():
    lengths = torch.tensor(random_lengths(200, 50))
    groups = list(length_groups(lengths, 5))
    values = torch.randn(200, 3)
    assert_close(restore_order([values[group.rows] for group in groups], groups), values, rtol=0, atol=0)


@every_method
@pytest.mark.parametrize(("groups", "n_reads"), [(1, 0), (2, 1), (None, 1)])
@pytest.mark.parametrize("n_rows", [3, 300])
def test_read_backs(method, groups, n_reads, n_rows):
    made = encoder(length_groups=groups).train()
    item_seq, item_seq_len = batch(random_lengths(n_rows, 9))
    with count_readbacks() as reads:
        getattr(made, method)(item_seq, item_seq_len).sum().backward()
    assert reads == ["Tensor.tolist"] * n_reads


def operations(made, method, item_seq, item_seq_len):
    """Multiply-adds of forward and backward, those of attention included."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        getattr(made, method)(item_seq, item_seq_len).sum().backward()
    return counter.get_total_flops()


@every_method
def test_a_batch_of_half_the_length_costs_far_less(method):
    """Four views of 128 users, of mean length about half of L, as in the paper's setting."""
    item_seq, item_seq_len = batch(random_lengths(512, 50), width=50)
    assert 0.45 < item_seq_len.double().mean() / 50 < 0.55
    made = encoder(dim=16, max_len=50, dtype=torch.float32)
    whole, split = (operations(made, method, item_seq, item_seq_len) for made.length_groups in (1, None))
    assert (
        0.45 * whole < split < 0.7 * whole
    )  # less than the share of behaviours is not possible: then it did not count


def test_one_group_is_still_cut_to_its_longest_row():
    item_seq, item_seq_len = batch([3, 5, 4], width=10)
    made = encoder(dtype=torch.float32)
    whole, trimmed = (operations(made, "forward", item_seq, item_seq_len) for made.length_groups in (1, None))
    assert trimmed < 0.6 * whole


def test_the_table_is_looked_up_once_for_all_groups():
    """Every lookup makes a gradient as large as the table, and catalogues are large."""
    made = encoder()
    item_seq, item_seq_len = batch(random_lengths(200, 12))
    calls = []
    made.items.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0].numel()))
    made(item_seq, item_seq_len)
    assert len(calls) == 1
    assert int(item_seq_len.sum()) <= calls[0] < item_seq.numel()
    assert made.item_weight.shape == (N_ITEMS, 6)
