"""A dictionary of interests: the pooling against its formula, what the cosine of its vectors is, and the overlap R."""

import math

import pytest
import torch
from encoder_cases import batch, encoder, gradients_of, literal_softmax
from torch.testing import assert_close

from adaptssr_plugin import UserEncoder
from adaptssr_plugin.encoders import AttentionPooling, InterestPooling
from adaptssr_plugin.errors import InputError

tight = {"rtol": 1e-9, "atol": 1e-10}


def pooling_of(dim, interests, seed=0, spread=1.0):
    made = InterestPooling(dim, interests).double()
    with torch.no_grad():
        made.query.copy_(spread * torch.randn(interests, dim, generator=torch.Generator().manual_seed(seed)))
    return made


def literal_interests(hidden, dictionary):
    """The pooling for one user: a list of n vectors to M vectors of length 1."""
    blocks = []
    for d in dictionary:
        shares = literal_softmax([d @ h for h in hidden])
        pooled = sum(share * h for share, h in zip(shares, hidden, strict=True))
        blocks.append(pooled / torch.sqrt(sum(x * x for x in pooled)))
    return blocks


def literal_overlap(dictionary):
    units = [d / torch.sqrt(sum(x * x for x in d)) for d in dictionary]
    squares = [(units[i] @ units[j]) ** 2 for i in range(len(units)) for j in range(len(units)) if i != j]
    return torch.sqrt(sum(squares))


@pytest.mark.parametrize(("interests", "groups", "rows"), [(2, 1, 7), (7, 1, 7), (3, 2, 65)])
def test_user_vectors_and_their_gradients(interests, groups, rows):
    made = encoder(interests=interests, length_groups=groups)
    lengths = [1 + row % 5 for row in range(rows)]
    item_seq, item_seq_len = batch(lengths, width=9)
    users = made(item_seq, item_seq_len)
    assert users.shape == (rows, interests * 6) == (rows, made.out_dim)
    states = made.hidden_states(item_seq, item_seq_len)
    right = torch.stack(
        [torch.cat(literal_interests(list(states[row, :n]), list(made.pooling.query))) for row, n in enumerate(lengths)]
    )
    assert_close(users, right, **tight)
    weighting = torch.randn(users.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours, theirs = (gradients_of((vectors * weighting).sum(), made) for vectors in (users, right))
    for name, got in ours.items():
        assert_close(got, theirs[name], **tight, msg=lambda text, name=name: f"{name}: {text}")
    assert all((got != 0).any() for got in ours.values())
    assert ours["pooling.query"].abs().min() > 0


def test_the_cosine_of_the_vectors_is_the_mean_over_interests():
    made = encoder(interests=5)
    users = made(*batch([3, 9, 1, 6]))
    for i, j in ((0, 1), (2, 3), (0, 0)):
        cosine = (users[i] @ users[j]) / (users[i].norm() * users[j].norm())
        blocks = zip(users[i].split(6), users[j].split(6), strict=True)
        mean = sum((a @ b) / (a.norm() * b.norm()) for a, b in blocks) / 5
        assert_close(cosine, mean, **tight)
    assert float(cosine.detach()) == pytest.approx(1.0)  # not 1/M, as in the authors' code


@pytest.mark.parametrize("groups", [1, 2, None])
def test_neither_padding_nor_neighbours_matter(groups):
    made = encoder(interests=3, length_groups=groups)
    lengths = [4, 1, 7, 2, 7, 3] * 12
    item_seq, item_seq_len = batch(lengths, width=16)
    users = made(item_seq, item_seq_len)
    for row in (0, 1, 2, 5):
        alone = made(item_seq[row : row + 1, : lengths[row]], item_seq_len[row : row + 1])
        assert_close(users[row : row + 1], alone, **tight)


def test_the_gradient_of_pooling_stops_at_padding():
    made = pooling_of(3, 2)
    hidden = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    visible = torch.tensor([[True, True, True, False], [True, False, False, False]])
    weighting = torch.arange(12.0, dtype=torch.float64).view(2, 6)
    (gradient,) = torch.autograd.grad((made(hidden, visible) * weighting).sum(), hidden)
    assert (gradient[~visible] == 0).all()
    assert gradient[visible].abs().sum() > 0


def test_a_hidden_state_of_zeros_gives_no_nan():
    made = pooling_of(3, 2)
    hidden = torch.zeros(1, 2, 3, dtype=torch.float64, requires_grad=True)
    pooled = made(hidden, torch.tensor([[True, True]]))
    pooled.sum().backward()
    assert (pooled == 0).all()
    assert hidden.grad.isfinite().all()
    assert made.query.grad.isfinite().all()


@pytest.mark.parametrize("interests", [2, 3, 4])
def test_overlap_is_the_norm_of_what_stands_beside_the_diagonal(interests):
    made = pooling_of(5, interests, seed=3)
    right = literal_overlap(list(made.query))
    assert 0 < right <= math.sqrt(interests * (interests - 1))
    assert_close(made.overlap(), right, **tight)
    ours, theirs = (torch.autograd.grad(value, made.query)[0] for value in (made.overlap(), right))
    assert_close(ours, theirs, **tight)
    with torch.no_grad():
        made.query *= torch.linspace(0.5, 9, interests)[:, None]  # only directions count
    assert_close(made.overlap(), right.detach(), **tight)


def test_overlap_of_equal_and_of_orthogonal_interests():
    made = pooling_of(4, 4)
    with torch.no_grad():
        made.query.copy_(torch.ones(4, 4))
    assert made.overlap().item() == pytest.approx(math.sqrt(12))
    with torch.no_grad():
        made.query.copy_(3 * torch.eye(4))
    overlap = made.overlap()
    (gradient,) = torch.autograd.grad(overlap, made.query)
    assert overlap.item() == 0
    assert (gradient == 0).all()


def test_one_interest_overlaps_with_nothing():
    made = pooling_of(5, 1)
    overlap = made.overlap()
    (gradient,) = torch.autograd.grad(overlap, made.query)
    assert overlap.item() == 0.0  # exactly
    assert (gradient == 0).all()


def test_autocast_does_not_round_the_overlap():
    made = pooling_of(64, 4).float()
    right = made.overlap()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made.overlap(), right)


def test_under_autocast_vectors_are_float32_of_length_one():
    made = encoder(interests=4, dtype=torch.float32)
    sequences = batch([4, 1, 5])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        users = made(*sequences)
    assert users.dtype == torch.float32
    assert_close(users.view(3, 4, 6).norm(dim=-1), torch.ones(3, 4))
    assert_close(users, made(*sequences), rtol=0, atol=0.05)


def test_one_interest_is_the_encoder_as_it_was():
    made, asked = UserEncoder(9, dim=4), UserEncoder(9, dim=4, interests=1)
    assert type(made.pooling) is type(asked.pooling) is AttentionPooling
    assert made.state_dict().keys() == asked.state_dict().keys()
    assert made.pooling.query.shape == (4,)
    assert made.out_dim == asked.out_dim == 4
    assert [name for name in asked.state_dict() if name.startswith("pooling")] == ["pooling.query"]


def test_several_interests_have_a_name_and_a_width_of_their_own():
    made = UserEncoder(9, dim=4, interests=3)
    assert isinstance(made.pooling, InterestPooling)
    assert made.pooling.query.shape == (3, 4)
    assert made.state_dict().keys() == UserEncoder(9, dim=4).state_dict().keys()
    assert made.pooling.query.std() < 0.05  # N(0, 0.02²)
    assert "interests=3" in repr(made.pooling)


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "4"])
def test_refuses(wrong):
    for make in (lambda: InterestPooling(4, wrong), lambda: UserEncoder(9, dim=4, interests=wrong)):
        with pytest.raises(InputError, match=rf"^interests: expected a positive integer, got {wrong!r}$"):
            make()
