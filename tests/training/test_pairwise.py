"""Objectives on pairs of views: what is encoded in which order, and a validation that repeats itself."""

import numpy as np
import pytest
import torch
from oracle import literal_adaptssr, literal_coefficients, literal_info_nce, literal_terms, unit
from torch import nn
from training_cases import N_ITEMS, batch_of, batches_of, encoder_of, some_views, streams

from adaptssr_plugin import AdaptSSRLoss, InfoNCELoss
from adaptssr_plugin.augment import Sequences, ViewPair
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.training import PairwiseStage

LENGTHS = (3, 8, 5, 1, 10)


def stage_of(criterion=None, encoder=None, **options):
    return PairwiseStage(encoder or encoder_of(**options), some_views(), criterion or AdaptSSRLoss())


def unchanged(item_seq, item_seq_len, generator):
    """Views without any augmentation."""
    return ViewPair(Sequences(item_seq, item_seq_len), Sequences(item_seq, item_seq_len), None)


class OtherEncoder(nn.Module):
    """A user's own encoder; ``core`` turns (B, L, 16) into the same shape."""

    def __init__(self, core):
        super().__init__()
        self.embedding = nn.Embedding(N_ITEMS + 1, 16)
        self.core = core
        self.given = []

    def forward(self, item_seq, item_seq_len):
        hidden = self.core(self.embedding(item_seq))
        encoding = (hidden[0] if isinstance(hidden, tuple) else hidden)[:, -1]
        self.given.append(encoding.detach().clone())
        return encoding


class TestWhatIsEncoded:
    def test_adaptssr_encodes_each_view_twice_in_one_pass(self):
        stage, batch = stage_of(), batch_of(*LENGTHS)
        stage.step(batch, streams())
        ((item_seq, lengths, encodings),) = stage.encoder.calls
        first, first_again, second, second_again = item_seq.chunk(4)
        assert first.shape == batch.item_seq.shape
        assert torch.equal(first, first_again)
        assert torch.equal(second, second_again)
        assert not torch.equal(first, second)
        assert torch.equal(*lengths.chunk(4)[:2])
        assert torch.equal(*lengths.chunk(4)[2:])
        u1, u1_pos, u2, u2_pos = encodings.chunk(4)
        for once, again in ((u1, u1_pos), (u2, u2_pos)):  # by other dropout masks, for every user
            assert ((once - again).abs().amax(1) > 0).all()
        stage.eval()
        stage.encoder.calls.clear()
        stage.step(batch, streams())
        torch.testing.assert_close(*stage.encoder.calls[0][2].chunk(4)[:2])

    def test_infonce_encodes_each_view_once(self):
        stage, batch = stage_of(InfoNCELoss()), batch_of(*LENGTHS)
        result = stage.step(batch, streams())
        ((item_seq, _, encodings),) = stage.encoder.calls
        assert len(item_seq) == 2 * len(LENGTHS)
        ranking = stage_of()
        ranking.step(batch, streams())
        theirs = ranking.encoder.calls[0][0].chunk(4)  # the same views for either loss
        assert all(torch.equal(ours, view) for ours, view in zip(item_seq.chunk(2), theirs[::2], strict=True))
        assert result.loss.item() == pytest.approx(literal_info_nce(*encodings.chunk(2)).item(), rel=1e-5)
        assert list(result.logs) == ["loss"]

    @pytest.mark.parametrize("lengths", [(2, 2), LENGTHS])
    def test_the_loss_gets_the_encodings_in_their_order(self, lengths):
        stage = stage_of()
        result = stage.step(batch_of(*lengths), streams())
        encodings = stage.encoder.calls[0][2].chunk(4)
        assert result.loss.item() == pytest.approx(literal_adaptssr(*encodings).item(), rel=1e-5)
        u1, u1_pos, u2, u2_pos = encodings
        assert result.loss.item() != pytest.approx(literal_adaptssr(u1, u2, u1_pos, u2_pos).item(), rel=1e-3)

    @pytest.mark.parametrize("criterion", [AdaptSSRLoss(), InfoNCELoss()], ids=["adaptssr", "infonce"])
    def test_rows_of_one_user_are_no_negatives(self, criterion):
        stage, batch = stage_of(criterion), batch_of(*LENGTHS)
        batch.user_ids[:4] = batch.user_ids[0]
        result = stage.step(batch, streams())
        literal = literal_adaptssr if stage.ranks else literal_info_nce
        encodings = stage.encoder.calls[0][2].chunk(4 if stage.ranks else 2)
        expected = literal(*encodings, batch.user_ids).item()
        assert result.loss.item() == pytest.approx(expected, rel=1e-5)
        assert expected != pytest.approx(literal(*encodings).item(), rel=1e-3)

    def test_views_follow_from_the_streams_alone(self):
        stage, batch = stage_of(), batch_of(*LENGTHS)
        for seed in (1, 2):
            torch.manual_seed(seed)
            stage.step(batch, streams(0, "adaptssr", 3, 4))
        stage.step(batch, streams(0, "adaptssr", 3, 5))
        first, again, other = (call[0] for call in stage.encoder.calls)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_what_is_logged(self):
        stage = stage_of()
        logs = stage.step(batch_of(*LENGTHS), streams()).logs
        encodings = stage.encoder.calls[0][2].chunk(4)
        terms = literal_terms(*encodings)
        lambdas = torch.stack(literal_coefficients(*encodings)).numpy()
        expected = {
            "loss": float(terms.loss.mean()),
            "lambda_mean": lambdas.mean(),
            "sim_implicit": float(terms.positive.mean()),
            "sim_augmented": float(terms.augmented.mean()),
            "sim_hardest_negative": float(terms.hardest.mean()),
            **{f"lambda_q{share:02}": np.quantile(lambdas, share / 100) for share in (5, 50, 95)},
        }
        assert {name: float(value) for name, value in logs.items()} == pytest.approx(expected, rel=1e-4)
        assert not any(value.requires_grad for value in logs.values())

    def test_every_weight_but_none_else_learns(self):
        stage = stage_of()
        stage.step(batch_of(*LENGTHS), streams()).loss.backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in stage.parameters())

    @pytest.mark.parametrize(("lengths", "usable"), [((4,), False), ((1, 1), True)])
    def test_one_user_has_nobody_to_be_compared_with(self, lengths, usable):
        assert stage_of().usable(batch_of(*lengths)) is usable


class TestDropoutThatIsOff:
    @pytest.mark.parametrize(
        "encoder",
        [lambda: encoder_of(dropout=0.0), lambda: OtherEncoder(nn.Linear(16, 16)), lambda: encoder_of().eval()],
        ids=["p=0", "none at all", "left in evaluation mode"],
    )
    def test_is_refused_at_the_first_step(self, encoder):
        encoder = encoder()
        with pytest.raises(
            InputError, match=rf"^encoder: expected active dropout.*{type(encoder).__name__}$"
        ) as refused:
            stage_of(encoder=encoder).step(batch_of(*LENGTHS), streams())
        assert "\n" not in str(refused.value)

    def test_is_no_matter_for_infonce(self):
        assert stage_of(InfoNCELoss(), dropout=0.0).step(batch_of(*LENGTHS), streams()).loss.isfinite()


def literal_order(calls, users):
    """Shares of (anchor, v) with P > v and of (anchor, v, w) with v > w, pooled over batches (METHODS.md, row 30)."""
    over_augmented, augmented_pairs, over_negative, negative_pairs = 0, 0, 0, 0
    for (_, _, encodings), ids in zip(calls, users, strict=True):
        a, a_pos, b, b_pos = ([unit(row) for row in part] for part in encodings.double().chunk(4))
        for own, own_pos, other, other_pos in ((a, a_pos, b, b_pos), (b, b_pos, a, a_pos)):
            for i in range(len(ids)):
                for v in (own[i] @ other[i], own[i] @ other_pos[i]):
                    over_augmented += bool(own[i] @ own_pos[i] > v)
                    augmented_pairs += 1
                    for j in range(len(ids)):
                        if ids[j] == ids[i]:
                            continue
                        for w in (own[i] @ view[j] for view in (a, a_pos, b, b_pos)):
                            over_negative += bool(v > w)
                            negative_pairs += 1
    return over_augmented / augmented_pairs, over_negative / negative_pairs


class TestValidation:
    def test_order_accuracies_are_the_literal_shares(self):
        stage, batches = stage_of(dropout=0.5), batches_of(3, 8, 5, 1, 10, 4, 6, 7, 9, batch_size=4)
        batches[1].user_ids[1] = batches[1].user_ids[0]  # the same user twice
        result = stage.validate(batches, streams())
        assert len(stage.encoder.calls) == 2  # the third batch has one user
        users = [batch.user_ids.tolist() for batch in batches[:2]]
        implicit, augmented = literal_order(stage.encoder.calls, users)
        assert 0.05 < implicit < 0.95
        assert 0.05 < augmented < 0.95
        assert result["implicit_over_augmented"] == pytest.approx(implicit)
        assert result["augmented_over_others"] == pytest.approx(augmented)
        assert result["order_accuracy"] == pytest.approx(implicit + augmented)
        lambdas = torch.cat([torch.stack(literal_coefficients(*call[2].chunk(4))) for call in stage.encoder.calls])
        assert result["lambda_mean"] == pytest.approx(float(lambdas.mean()), rel=1e-5)

    @pytest.mark.parametrize("criterion", [AdaptSSRLoss(), InfoNCELoss()], ids=["adaptssr", "infonce"])
    def test_repeats_itself_with_dropout_on(self, criterion):
        stage, batches = stage_of(criterion, dropout=0.3), batches_of(*LENGTHS, 6, 6, 2, batch_size=4)
        first = stage.validate(batches, streams(0, "valid"))
        calls = [call[2] for call in stage.encoder.calls]
        stage.encoder.calls.clear()
        torch.manual_seed(77)
        stage.eval()
        assert stage.validate(batches, streams(0, "valid")) == first
        again = [call[2] for call in stage.encoder.calls]
        assert all(torch.equal(one, other) for one, other in zip(calls, again, strict=True))
        if stage.ranks:
            u1, u1_pos, *_ = calls[0].chunk(4)
            assert ((u1 - u1_pos).abs().amax(1) > 0).all()
        assert stage.validate(batches, streams(1, "valid")) != first

    def test_batches_and_runs_have_views_and_dropout_masks_of_their_own(self):
        stage = stage_of(dropout=0.3)
        batches = [batch_of(9, 9, 9)] * 2
        stage.validate(batches, streams(0, "valid"))
        one, other = (call[0] for call in stage.encoder.calls)
        assert not torch.equal(one, other)
        stage = PairwiseStage(encoder_of(dropout=0.3), unchanged, AdaptSSRLoss())
        stage.validate(batches, streams(0, "valid"))
        stage.validate(batches, streams(1, "valid"))
        encodings = [call[2] for call in stage.encoder.calls]
        assert not torch.equal(encodings[0], encodings[1])
        assert not torch.equal(encodings[0], encodings[2])

    def test_leaves_modes_random_numbers_and_gradients_alone(self):
        stage = stage_of()
        stage.train()
        stage.encoder.layers[0].eval()
        modes = [module.training for module in stage.modules()]
        state = torch.get_rng_state()
        stage.validate(batches_of(*LENGTHS), streams())
        assert [module.training for module in stage.modules()] == modes
        assert torch.equal(torch.get_rng_state(), state)
        assert all(parameter.grad is None for parameter in stage.parameters())

    def test_modes_come_back_after_an_error(self):
        stage = stage_of()
        stage.encoder.pooling.forward = lambda *_: 1 / 0
        with pytest.raises(ZeroDivisionError):
            stage.validate(batches_of(*LENGTHS), streams())
        assert all(module.training for module in stage.modules())

    @pytest.mark.parametrize(
        "core",
        [
            lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, 0.3, batch_first=True), 1),
            lambda: nn.GRU(16, 16, 2, batch_first=True, dropout=0.3),
            lambda: nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.3)),
        ],
        ids=["TransformerEncoder", "GRU", "Dropout"],
    )
    def test_keeps_every_kind_of_dropout_on(self, core):
        stage = stage_of(encoder=OtherEncoder(core()))
        stage.eval()
        stage.validate(batches_of(*LENGTHS), streams())
        u1, u1_pos, *_ = stage.encoder.given[0].chunk(4)
        assert ((u1 - u1_pos).abs().amax(1) > 0).all()

    def test_leaves_running_statistics_alone(self):
        norm = nn.BatchNorm1d(10)
        stage = stage_of(encoder=OtherEncoder(nn.Sequential(norm, nn.Dropout(0.3))))
        stage.validate(batches_of(*LENGTHS), streams())
        assert norm.num_batches_tracked == 0

    def test_refuses_users_that_are_all_alone_in_their_batches(self):
        with pytest.raises(InputError, match=r"^validation users: expected at least two in a batch, got fewer"):
            stage_of().validate(batches_of(4, 5, batch_size=1), streams())

    @pytest.mark.parametrize(
        ("criterion", "named", "bigger"), [(AdaptSSRLoss(), "order_accuracy", True), (InfoNCELoss(), "loss", False)]
    )
    def test_names_its_criterion(self, criterion, named, bigger):
        stage = stage_of(criterion)
        assert (stage.criterion, stage.bigger_is_better) == (named, bigger)
        assert named in stage.validate(batches_of(*LENGTHS), streams())
