"""Training passes on blocks of rows: attention under given masks, two encodings at once, the lookup's gradient."""

import pytest
import torch
import torch.nn.functional as F
from encoder_cases import N_ITEMS, batch, encoder, random_lengths
from readbacks import count_readbacks
from torch.testing import assert_close
from training_cases import batch_of, encoder_of, some_views, streams

from adaptssr_plugin import AdaptSSRLoss, UserEncoder
from adaptssr_plugin.encoders import attention
from adaptssr_plugin.encoders.dropout import Dropout, kept_levels
from adaptssr_plugin.encoders.embedding import ItemEmbedding
from adaptssr_plugin.encoders.length_groups import length_blocks
from adaptssr_plugin.training import PairwiseStage

tight = {"rtol": 1e-10, "atol": 1e-11}


@pytest.fixture
def drawn(monkeypatch):
    """The levels that attention draws, one tensor per call."""
    seen = []

    def recorded(size, draw=attention.random_levels):
        seen.append(draw(size))
        return seen[-1]

    monkeypatch.setattr(attention, "random_levels", recorded)
    return seen


def by_rows(projected, blocks, n_heads, p, levels):
    """Attention of one copy, row and head at a time, with the mask that the levels stand for."""
    least, scale = kept_levels(p)
    copies, _, width = projected.shape
    context, start, drawn = [], 0, 0
    for block in blocks:
        size = copies * len(block.rows) * n_heads * block.width**2
        masks = (levels[drawn : drawn + size] >= least).double() * scale
        masks = masks.view(copies, len(block.rows), n_heads, block.width, block.width)
        rows = projected[:, start : start + block.size].reshape(copies, len(block.rows), block.width, width)
        of_block = rows.new_empty(copies, len(block.rows), block.width, width // 3)
        for copy in range(copies):
            for row in range(len(block.rows)):
                query, key, value = (part.chunk(n_heads, -1) for part in rows[copy, row].chunk(3, -1))
                heads = []
                for head in range(n_heads):
                    scores = query[head] @ key[head].T / query[head].shape[-1] ** 0.5
                    if block.visible is not None:
                        scores = scores.masked_fill(~block.visible[row], -torch.inf)
                    heads.append((scores.softmax(-1) * masks[copy, row, head]) @ value[head])
                of_block = of_block.index_put((torch.tensor(copy), torch.tensor(row)), torch.cat(heads, -1))
        context.append(of_block.view(copies, block.size, -1))
        start, drawn = start + block.size, drawn + size
    return torch.cat(context, 1)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("n_heads", [1, 3])
@pytest.mark.parametrize("p", [0.1, 0.7])
def test_attention_with_the_masks_that_were_drawn(drawn, copies, n_heads, p):
    blocks = length_blocks(torch.tensor([1, 1, 4, 5, 5, 19]))
    assert {block.visible is None for block in blocks} == {True, False}
    shape = copies, sum(block.size for block in blocks), 18
    generator = torch.Generator().manual_seed(0)
    projected = torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
    got = attention.attend(projected, blocks, n_heads, Dropout(p))
    right = by_rows(projected, blocks, n_heads, p, drawn[0])
    assert len(drawn) == 1
    assert_close(got, right, **tight)
    upstream = torch.randn(got.shape, dtype=torch.float64, generator=generator)
    gradients = [torch.autograd.grad(output, projected, upstream)[0] for output in (got, right)]
    assert_close(*gradients, **tight)


def test_attention_without_dropout_is_that_of_torch(drawn):
    blocks = length_blocks(torch.tensor([3, 7, 7]))
    projected = torch.randn(2, sum(block.size for block in blocks), 12, dtype=torch.float64)
    got = attention.attend(projected, blocks, 2, Dropout(0.5).eval())
    assert drawn == []
    never = torch.full((10_000,), torch.iinfo(torch.int16).max, dtype=torch.int16)
    assert_close(got, by_rows(projected, blocks, 2, 0.0, never), **tight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_draws_the_same_masks(dtype, autocast):
    blocks = length_blocks(torch.tensor([3, 7, 7]))
    projected = torch.randn(1, sum(block.size for block in blocks), 12).to(dtype).requires_grad_()
    found = []
    for values in (projected, projected.double()):
        torch.manual_seed(3)
        with torch.autocast("cpu", dtype, enabled=autocast):
            found.append(attention.attend(values, blocks, 2, Dropout(0.5)))
    assert found[0].dtype == dtype
    assert_close(found[0].double(), found[1], rtol=0.01, atol=0.01)
    gradients = [torch.autograd.grad(one.sum(), projected)[0].double() for one in found]
    assert_close(*gradients, rtol=0.02, atol=0.02)


class TestBlocks:
    @pytest.mark.parametrize("max_groups", [None, 1, 3])
    @pytest.mark.parametrize("n_rows", [1, 2, 65, 500])
    def test_hold_every_row_once_and_are_no_wider_than_they_must_be(self, n_rows, max_groups):
        lengths = torch.tensor(random_lengths(n_rows, 60))
        blocks = length_blocks(lengths, max_groups)
        assert torch.cat([block.rows for block in blocks]).sort().values.tolist() == list(range(n_rows))
        for block in blocks:
            own = lengths[block.rows]
            assert block.width == own.max()
            assert torch.equal(block.mask(), torch.arange(block.width) < own[:, None])
            assert (block.visible is None) <= bool((own == own[0]).all())

    def test_little_is_padding(self):
        lengths = torch.tensor(random_lengths(512, 100))
        blocks = length_blocks(lengths)
        assert sum(block.size for block in blocks) < 1.05 * lengths.sum()
        assert len(blocks) < 60

    def test_rows_of_one_length_are_one_block_without_a_mask(self):
        (block,) = length_blocks(torch.full((40,), 9))
        assert block.visible is None


class TestTwoEncodingsAtOnce:
    @pytest.mark.parametrize("groups", [1, 2, None])
    def test_are_what_two_calls_give(self, groups):
        made = encoder(length_groups=groups, interests=2)
        sequences = batch(random_lengths(90, 9), width=11)
        right = made(*sequences)
        for got in made.encode_twice(*sequences):
            assert_close(got, right, **tight)

    @pytest.mark.parametrize("groups", [1, None])
    def test_have_the_gradients_of_two_calls(self, groups):
        found = []
        sequences = batch(random_lengths(70, 9), width=11)
        weights = torch.randn(2, 70, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        for twice in (lambda made: made.encode_twice(*sequences), lambda made: (made(*sequences), made(*sequences))):
            made = encoder(length_groups=groups)
            (torch.stack(list(twice(made))) * weights).sum().backward()
            found.append([parameter.grad for parameter in made.parameters()])
        for got, right in zip(*found, strict=True):
            assert_close(got, right, **tight)

    def test_differ_by_their_dropout_in_every_row(self):
        made = encoder(dropout=0.3).train()
        first, second = made.encode_twice(*batch(random_lengths(90, 9)))
        assert ((first - second).abs().amax(1) > 1e-3).all()

    @pytest.mark.parametrize("where", ["embed_dropout", "attention", "hidden"])
    def test_every_dropout_has_a_mask_for_each(self, where, drawn):
        """One kind of dropout alone makes them differ."""
        made = encoder(dropout=0.3).eval()
        if where == "embed_dropout":
            made.embed_dropout.train()
        else:
            made.layers[0].dropout.train()
        first, second = made.encode_twice(*batch([2] * 40))
        assert ((first - second).abs().amax(1) > 1e-3).double().mean() > 0.8

    def test_look_the_table_up_once(self):
        made = encoder().train()
        looked_up = []
        made.items.register_forward_hook(lambda module, inputs, output: looked_up.append(inputs[0].numel()))
        item_seq, item_seq_len = batch([4] * 30)
        made.encode_twice(item_seq, item_seq_len)
        assert looked_up == [120]

    def test_read_the_lengths_back_once(self):
        made = encoder().train()
        sequences = batch(random_lengths(300, 9))
        with count_readbacks() as reads:
            sum(one.sum() for one in made.encode_twice(*sequences)).backward()
        assert reads == ["Tensor.tolist"]


class Own(UserEncoder):
    """A subclass with a forward of its own."""

    def forward(self, item_seq, item_seq_len):
        self.rows = len(item_seq)
        return super().forward(item_seq, item_seq_len)


class TestTheStage:
    def calls(self, made, monkeypatch):
        seen = []
        original = UserEncoder.encode_twice
        monkeypatch.setattr(UserEncoder, "encode_twice", lambda *args: seen.append(1) or original(*args))
        result = PairwiseStage(made, some_views(), AdaptSSRLoss()).step(batch_of(3, 8, 5), streams())
        assert result.loss.isfinite()
        return len(seen)

    def test_encodes_twice_at_once_where_the_encoder_can(self, monkeypatch):
        assert self.calls(encoder_of(UserEncoder), monkeypatch) == 1

    def test_calls_a_forward_that_somebody_wrote(self, monkeypatch):
        made = encoder_of(Own)
        assert self.calls(made, monkeypatch) == 0
        assert made.rows == 12

    @pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
    def test_calls_an_encoder_with_hooks(self, register, monkeypatch):
        made, called = encoder_of(UserEncoder), []
        getattr(made, register)(lambda *_: called.append(1))
        assert self.calls(made, monkeypatch) == 0
        assert called == [1]

    def test_either_way_gives_the_same_vectors_to_the_loss(self):
        """Without dropout in the layers, so that both ways can be compared."""
        found = []
        for kind in (UserEncoder, Own):
            stage = PairwiseStage(encoder_of(kind), some_views(), AdaptSSRLoss()).eval()
            found.append(stage._encode(batch_of(3, 8, 5, 1), streams()))
        assert len(found[0]) == 4
        for got, right in zip(*found, strict=True):
            assert_close(got, right)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_gradient_of_the_lookup_is_that_of_torch(dtype):
    made = ItemEmbedding(N_ITEMS, 5).to(dtype)
    item_seq = torch.tensor([[3, N_ITEMS, 3, 0], [7, 3, 0, 0]])
    upstream = torch.randn(2, 4, 5, dtype=dtype, generator=torch.Generator().manual_seed(0))
    got = torch.autograd.grad(made(item_seq), made.weight, upstream)[0]
    ids = item_seq.masked_fill(item_seq == N_ITEMS, 0)
    looked_up = F.embedding(ids, made.weight, padding_idx=0)
    assert_close(got, torch.autograd.grad(looked_up, made.weight, upstream)[0])
