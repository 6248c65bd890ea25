"""Gradient caching: the gradients of the whole batch, the same masks twice, and no more activations than a part's."""

import weakref

import pytest
import torch
from encoder_cases import gradients_of
from loss_cases import NEGATIVES, user_ids_of
from refusals import refusal_of
from torch import nn
from training_cases import batch_of, corpus_of, encoder_of, some_views, streams

from adaptssr_plugin import AdaptSSRLoss, InfoNCELoss, UserEncoder
from adaptssr_plugin.methods import recipe
from adaptssr_plugin.methods.plan import stage_plans
from adaptssr_plugin.methods.views import UserHistories
from adaptssr_plugin.training import PairwiseStage, encode_in_micro_batches
from adaptssr_plugin.training.stages.base import dropout_seeded

N_ROWS = 7
LENGTHS = (3, 8, 5, 1, 10, 2, 4)


class Recurrent(nn.Module):
    """``(n, t, 5)`` to four encodings ``(n, 3)``; dropout by a module, by a function, and by a draw of its own."""

    def __init__(self, dropout=0.5):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(1)
            self.read = nn.GRU(5, 6, batch_first=True)
            self.drop = nn.Dropout(dropout)
            self.out = nn.Linear(6, 3)
        self.double()
        self.seen = []  # what is alive of the activations, call by call

    def forward(self, sequences):
        hidden = self.read(sequences)[0][:, -1]  # (n, 6)
        activation = torch.tanh(self.drop(hidden)).sin()
        self.seen.append(weakref.ref(activation))
        encodings = []
        for _ in range(4):
            mask = torch.rand(activation.shape, dtype=torch.float64) > self.drop.p / 2
            encodings.append(self.out(nn.functional.dropout(activation.square(), self.drop.p) * mask + activation))
        return tuple(encodings)


def sequences_of(n_rows=N_ROWS):
    return torch.randn(n_rows, 4, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def alive(encoder):
    return sum(reference() is not None for reference in encoder.seen)


def gradients(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()))


def assert_same(got, right):
    for mine, whole in zip(got, right, strict=True):
        assert (whole != 0).any()
        torch.testing.assert_close(mine, whole, rtol=1e-10, atol=1e-13)


LOSSES = [
    *((AdaptSSRLoss, {"negatives": n}, 1) for n in NEGATIVES),
    *((InfoNCELoss, {"negatives": n}, 2) for n in NEGATIVES),
    (AdaptSSRLoss, {"gather": True, "scale": 3.0}, 1),
    (InfoNCELoss, {"similarity": "dot", "reduction": "sum"}, 2),
]
every_loss = pytest.mark.parametrize(
    ("module", "options", "step"), LOSSES, ids=[f"{m.__name__}-{'-'.join(map(str, o.values()))}" for m, o, _ in LOSSES]
)


@every_loss
@pytest.mark.parametrize("micro_batch", [1, 2, 3, 6])
class TestGradients:
    def test_without_dropout_they_are_those_of_the_whole_batch(self, module, options, step, micro_batch):
        encoder, criterion, ids = Recurrent(dropout=0.0), module(**options), user_ids_of("repeats", N_ROWS)
        sequences = sequences_of()
        whole = criterion(*encoder(sequences)[::step], ids)
        cached = criterion(*encode_in_micro_batches(encoder, sequences, micro_batch=micro_batch)[::step], ids)
        torch.testing.assert_close(cached, whole, rtol=1e-12, atol=0)
        assert_same(gradients(cached, encoder), gradients(whole, encoder))

    def test_under_dropout_the_masks_are_the_same_twice(self, module, options, step, micro_batch):
        encoder, criterion, sequences = Recurrent(), module(**options), sequences_of()
        torch.manual_seed(3)
        parts = [encoder(part) for part in torch.split(sequences, micro_batch)]
        whole = criterion(*[torch.cat(column) for column in zip(*parts, strict=True)][::step])
        after = torch.rand(4)
        torch.manual_seed(3)
        cached = criterion(*encode_in_micro_batches(encoder, sequences, micro_batch=micro_batch)[::step])
        assert torch.equal(cached, whole)
        assert torch.equal(torch.rand(4), after)  # the first pass draws what it would anyway,
        state = torch.get_rng_state()
        got = gradients(cached, encoder)
        assert torch.equal(torch.get_rng_state(), state)  # and the second draws nothing of anyone else's
        assert_same(got, gradients(whole, encoder))


@pytest.mark.parametrize("micro_batch", [1, 2, 5])
def test_activations_of_one_part_live_at_a_time(micro_batch):
    encoder, sequences = Recurrent(), sequences_of()
    at_once = []
    encoder.out.register_forward_hook(lambda *_: at_once.append(alive(encoder)))
    loss = AdaptSSRLoss()(*encode_in_micro_batches(encoder, sequences, micro_batch=micro_batch))
    n_parts = -(-N_ROWS // micro_batch)
    assert (len(encoder.seen), alive(encoder)) == (n_parts, 0)
    loss.backward()
    assert (len(encoder.seen), alive(encoder)) == (2 * n_parts, 0)
    assert set(at_once) == {1}


@pytest.mark.parametrize("micro_batch", [0, N_ROWS, 100])
def test_all_rows_at_once_is_the_encoder_itself(micro_batch):
    encoder, sequences = Recurrent(), sequences_of()
    encoded = encode_in_micro_batches(encoder, sequences, micro_batch=micro_batch)
    assert len(encoder.seen) == 1
    assert alive(encoder) == 1
    assert len(encoded) == 4


def test_rows_that_are_none():
    assert encode_in_micro_batches(nn.Linear(5, 3), torch.ones(0, 5), micro_batch=2).shape == (0, 3)


def test_without_gradient():
    encoder, sequences = Recurrent(dropout=0.0), sequences_of()
    with torch.no_grad():
        encoded = encode_in_micro_batches(encoder, sequences, micro_batch=3)
    torch.testing.assert_close(encoded[0], encoder(sequences)[0].detach(), rtol=1e-12, atol=1e-14)
    assert not encoded[0].requires_grad


def test_under_autocast_the_second_pass_is_as_the_first():
    encoder, given = nn.Sequential(nn.Linear(5, 3), nn.Tanh()), torch.randn(6, 5)
    dtypes = []
    encoder[0].register_forward_hook(lambda *call: dtypes.append(call[2].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoded = encode_in_micro_batches(encoder, given, micro_batch=2)
    encoded.float().square().sum().backward()
    assert dtypes == [torch.bfloat16] * 6


# --- in a stage ------------------------------------------------------------------------------------------------


def stage_of(criterion, encoder, micro_batch):
    return (
        PairwiseStage(encoder, some_views(), criterion, micro_batch=micro_batch)
        .train()
        .to(next(encoder.parameters()).dtype)
    )


@pytest.mark.parametrize("kind", ["encode-twice", "stacked"])
@pytest.mark.parametrize("criterion", [AdaptSSRLoss(), InfoNCELoss()], ids=["adaptssr", "info-nce"])
def test_a_stage_encodes_some_users_at_a_time(criterion, kind, monkeypatch):
    """Without dropout, which the stage wants of AdaptSSR: so its masks keep everything."""
    encoder = encoder_of(UserEncoder if kind == "encode-twice" else Other, dropout=0.5).double()
    batch, rows = batch_of(*LENGTHS), []
    whole = stage_of(criterion, encoder, 0)
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, *_, **__: x)
    monkeypatch.setattr(PairwiseStage, "_require_dropout", lambda *_: None)
    for module in encoder.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    right = whole.step(batch, streams())
    cached = stage_of(criterion, encoder, 3)
    cached._encode_views = counted(cached._encode_views, rows)
    got = cached.step(batch, streams())
    torch.testing.assert_close(got.loss, right.loss, rtol=1e-12, atol=0)
    assert got.logs.keys() == right.logs.keys()
    assert rows == [3, 3, 1]
    mine, whole_gradients = (gradients_of(x.loss, encoder) for x in (got, right))
    for name, one in mine.items():
        torch.testing.assert_close(one, whole_gradients[name], rtol=1e-10, atol=1e-13)
    assert sum((one != 0).any() for one in mine.values()) > 10


class Other(UserEncoder):
    """With a ``forward`` of its own, newer than ``encode_twice``."""

    def forward(self, item_seq, item_seq_len):
        return super().forward(item_seq, item_seq_len)


def counted(function, rows):
    def called(*parts):
        rows.append(len(parts[0]))
        return function(*parts)

    return called


def test_a_stage_keeps_the_implicit_view_apart():
    stage = stage_of(AdaptSSRLoss(), encoder_of(UserEncoder, dropout=0.4), 2)
    with dropout_seeded(torch.device("cpu"), 1):
        u1, u1_pos, u2, u2_pos = stage._encode(batch_of(*LENGTHS), streams())
    assert u1.shape == (len(LENGTHS), 8)
    assert ((u1 - u1_pos).abs().amax(1) > 0).all()
    assert ((u2 - u2_pos).abs().amax(1) > 0).all()
    stage.eval()
    u1, u1_pos, *_ = stage._encode(batch_of(*LENGTHS), streams())
    torch.testing.assert_close(u1, u1_pos)


@pytest.mark.parametrize("micro_batch", [0, 5])
def test_the_option_of_a_recipe(micro_batch):
    plan = stage_plans(recipe(options={"micro_batch": micro_batch, "warm_start": "none"}))[-1]
    made = plan.make(encoder_of(UserEncoder), UserHistories(corpus_of(5, 3, 7), max_len=10))
    assert made.micro_batch == micro_batch


# --- wrong calls -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1, 2.5, True, "3", None])
def test_wrong_micro_batch(value):
    expected = f"micro_batch: expected an integer of at least 0, got {value!r}"
    assert refusal_of(lambda: encode_in_micro_batches(nn.Linear(2, 2), torch.ones(3, 2), micro_batch=value)) == expected
    assert refusal_of(lambda: stage_of(AdaptSSRLoss(), encoder_of(UserEncoder), value)) == expected


def test_inputs_of_different_lengths():
    message = refusal_of(lambda: encode_in_micro_batches(torch.add, torch.ones(3), torch.ones(2), micro_batch=1))
    assert message == "inputs: expected tensors of as many rows, got [3, 2]"


def test_batch_norm_is_refused_while_it_looks_at_the_batch():
    encoder = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    def encoded():
        return encode_in_micro_batches(encoder, torch.ones(3, 2), micro_batch=2)

    assert refusal_of(encoded) == "micro_batch: expected rows encoded apart from one another, got batch norm (1)"
    encoder.eval()
    assert encoded().shape == (3, 2)


class WithBatchNorm(UserEncoder):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, item_seq, item_seq_len):
        return self.norm(super().forward(item_seq, item_seq_len))


def test_batch_norm_in_a_stage():
    stage = stage_of(AdaptSSRLoss(), encoder_of(WithBatchNorm), 2)
    message = refusal_of(lambda: stage.step(batch_of(*LENGTHS), streams()))
    assert message.endswith("got batch norm (encoder.norm)")


def test_distributed_data_parallel_goes_around(monkeypatch):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(2, 2)

    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", Wrapper)
    message = refusal_of(lambda: encode_in_micro_batches(Wrapper(), torch.ones(3, 2), micro_batch=2))
    assert message.startswith("micro_batch: expected an encoder inside of DistributedDataParallel")
