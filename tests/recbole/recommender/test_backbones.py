"""RecBole's sequential models as encoders: every one of them in a run, and what is encoded, to the digit.

The docs' table of models comes from the same runs: ``python tests/helpers/backbone_cases.py`` writes it anew.
"""

import copy
import functools
from contextlib import nullcontext

import pytest
import torch
from backbone_cases import BROKEN_MODELS, TABLE, in_slice, made, outcome, run, sequential_models, table
from recbole.model.layers import ContextSeqEmbAbstractLayer

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole import installed
from adaptssr_plugin.recbole.recommender.backbones import BackboneEncoder, item_embedding, mask_vector, refusal
from adaptssr_plugin.recbole.recommender.joint import self_supervised_term

HOSTS = ("SASRec", "GRU4Rec", "BERT4Rec", "CORE", "NextItNet", "STAMP", "SRGNN", "LightSANs", "FEARec", "SASRecF")
outcome = functools.cache(outcome)


slice_of_ml_100k = in_slice()


@functools.cache
def backbone(model, **options):
    """A model with its encoder and 40 rows of the training data; shared, so that tests leave it as it was."""
    _, loader, made_model = made(model, ssl_loss="adaptssr", ssl_mode="joint", **options)
    rows = loader._dataset.inter_feat[torch.linspace(0, len(loader._dataset.inter_feat) - 1, 40).long()]
    encoder = self_supervised_term(made_model).stage.encoder
    return made_model, encoder, rows["item_id_list"], rows["item_length"]


def fresh(model, **options):
    """Make a model for a test that changes it."""
    return backbone.__wrapped__(model, **options)


def hooks_of(model):
    return [hook for module in model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


# --- every model in a run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", sequential_models())
def test_every_sequential_model_works_or_is_refused_in_one_line(model):
    result = outcome(model)  # asserts as it goes
    assert result.works or result.reason


def test_the_table_in_the_docs_is_what_came_of_the_runs():
    assert TABLE.read_text(encoding="utf-8") == table(outcome(model) for model in sequential_models())


@pytest.mark.parametrize("model", BROKEN_MODELS)
def test_models_that_recbole_cannot_run_either(model):
    with pytest.raises((AssertionError, RuntimeError)):
        run(model, ssl_loss="none")


@pytest.mark.parametrize("model", ["BPR", "SGL", "NCL"])
def test_models_without_a_sequence_are_refused(model):
    with pytest.raises(InputError, match=f"^ssl_loss: {model} cannot have one: it is not a sequential model[^\n]*$"):
        run(model, ssl_loss="adaptssr", ssl_method="clue", train_neg_sample_args={"distribution": "uniform"})


def test_a_class_of_ones_own_without_a_sequence_is_refused():
    class OfTime(made("GRU4Rec")[2].__class__):
        def forward(self, timestamps):
            return timestamps

    assert refusal(OfTime) == "its forward takes no item sequence"


# --- what is encoded -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", HOSTS)
def test_vectors_are_the_models_own(model):
    made_model, encoder, item_seq, lengths = backbone(model)
    made_model.eval()
    with torch.no_grad():
        if model == "BERT4Rec":
            appended = made_model.reconstruct_test_data(item_seq, lengths)  # row by row, in Python
            own = made_model.gather_indexes(made_model.forward(appended), lengths - 1)
        elif model in ("CORE", "NextItNet"):
            own = made_model.forward(item_seq)
        else:
            own = made_model.forward(item_seq, lengths)
        torch.testing.assert_close(encoder(item_seq, lengths), own, rtol=1e-4, atol=1e-6)


def test_bert4rec_at_its_full_length_too():
    made_model, encoder, item_seq, _ = backbone("BERT4Rec")
    full = torch.randint(1, 50, (7, item_seq.shape[1]), generator=torch.Generator().manual_seed(1))
    lengths = torch.full((7,), item_seq.shape[1])
    made_model.eval()
    with torch.no_grad():
        own = made_model.forward(made_model.reconstruct_test_data(full, lengths))[:, -1]
        torch.testing.assert_close(encoder(full, lengths), own)


@pytest.mark.parametrize("model", HOSTS)
def test_no_rows_are_encoded_as_no_rows(model):
    """As one of several processes may have of a batch; it still takes part in the backward."""
    _, _, backbone = made(model, ssl_loss="infonce", ssl_mode="joint")
    encoder = self_supervised_term(backbone).stage.encoder
    vectors = encoder(*(torch.zeros(size, dtype=torch.int64) for size in ((0, 1), (0,))))
    assert vectors.shape == (0, 16)
    vectors.sum().backward()
    assert not item_embedding(backbone, encoder.n_items).weight.grad.any()


@pytest.mark.parametrize("model", HOSTS)
def test_rows_in_groups_of_similar_length_are_rows_at_full_width(model):
    made_model, encoder, item_seq, lengths = backbone(model)
    made_model.eval()
    item_seq, lengths = item_seq.repeat(13, 1), lengths.repeat(13)  # 520 rows: two groups
    with torch.no_grad():
        grouped = encoder(item_seq, lengths)
        with encoder._hooks():
            whole = encoder._encode(item_seq, lengths)
    torch.testing.assert_close(grouped, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model", ["NextItNet", "SINE", "SASRec"])
def test_rows_that_come_without_their_padding_are_encoded_as_with_it(model):
    made_model, encoder, item_seq, lengths = backbone(model)
    made_model.eval()
    short = lengths <= 4
    with torch.no_grad():
        padded = encoder(item_seq[short], lengths[short])
        torch.testing.assert_close(encoder(item_seq[short, :4], lengths[short]), padded, rtol=1e-4, atol=1e-6)


# --- [MASK] --------------------------------------------------------------------------------------------------------


def masked_rows(item_seq, lengths, n_items):
    """Hide the second item of every row that has one."""
    item_seq = item_seq.clone()
    item_seq[lengths > 1, 1] = n_items
    return item_seq


@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec", "CORE", "NextItNet", "SRGNN", "GCSAN", "SASRecF", "GRU4RecKG"])
def test_mask_is_a_learned_vector_and_no_row_of_the_table(model):
    made_model, encoder, item_seq, lengths = fresh(model)
    table = item_embedding(made_model, encoder.n_items)
    hidden = masked_rows(item_seq, lengths, encoder.n_items)
    encoder(hidden, lengths).square().sum().backward()
    assert made_model.ssl_mask.grad.abs().sum() > 0
    assert table.weight.grad[0].abs().sum() == 0
    assert len(table.weight) == encoder.n_items
    made_model.eval()
    with torch.no_grad():
        before = encoder(hidden, lengths)
        made_model.ssl_mask.copy_(torch.linspace(-3, 2, len(made_model.ssl_mask)))
        changed = (encoder(hidden, lengths) != before).any(1)
    assert torch.equal(changed | (lengths == 1), torch.ones(len(lengths), dtype=torch.bool))
    assert not changed[lengths == 1].any()


def test_a_masked_item_is_as_if_the_table_had_the_vector_in_its_place():
    made_model, encoder, item_seq, lengths = fresh("SASRec")
    made_model.eval()
    stand_in = encoder.n_items - 1
    assert not (item_seq == stand_in).any()
    with torch.no_grad():
        made_model.item_embedding.weight[stand_in] = made_model.ssl_mask
        own = made_model.forward(masked_rows(item_seq, lengths, stand_in), lengths)
        torch.testing.assert_close(encoder(masked_rows(item_seq, lengths, encoder.n_items), lengths), own)


def test_features_of_a_masked_item_are_those_of_padding():
    made_model, encoder, item_seq, lengths = backbone("SASRecF")
    layer = next(module for module in made_model.modules() if isinstance(module, ContextSeqEmbAbstractLayer))
    seen = []
    handle = layer.register_forward_hook(lambda _module, arguments, _output: seen.append(arguments[1]))
    encoder(masked_rows(item_seq, lengths, encoder.n_items), lengths)
    handle.remove()
    assert (seen[0] < encoder.n_items).all()
    assert (seen[0][lengths > 1, 1] == 0).all()


def test_bert4rec_has_a_mask_of_its_own():
    made_model, encoder, *_ = backbone("BERT4Rec")
    assert encoder.mask is None
    assert "ssl_mask" not in made_model.state_dict()
    assert mask_vector(made_model, encoder.n_items, 1) is None


def test_the_mask_vector_depends_on_the_seed_alone():
    made_model, encoder, *_ = backbone("SASRec")
    first, again, other = (mask_vector(made_model, encoder.n_items, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# --- nothing is left behind ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["SASRec", "STAMP", "SASRecF"])
def test_hooks_are_there_for_one_encode_only(model):
    made_model, encoder, item_seq, lengths = backbone(model)
    before = hooks_of(made_model)
    made_model.eval()
    with torch.no_grad(), installed():
        own = made_model.forward(item_seq, lengths)
        encoder(masked_rows(item_seq, lengths, encoder.n_items), lengths)
        assert hooks_of(made_model) == before
        assert torch.equal(made_model.forward(item_seq, lengths), own)


def test_hooks_are_gone_after_an_exception():
    made_model, encoder, item_seq, lengths = backbone("SASRec")
    before = hooks_of(made_model)
    with pytest.raises(IndexError):
        encoder(item_seq + encoder.n_items + 1, lengths)
    assert hooks_of(made_model) == before


class _Counting(torch.nn.Module):
    """A backbone with a batch norm and a counter, so that trying it leaves traces if nobody wipes them."""

    def __init__(self, fails=False):
        super().__init__()
        self.item_embedding = torch.nn.Embedding(20, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.dropout = torch.nn.Dropout(0.5)
        self.dropout.eval()
        self.fails = fails

    def forward(self, item_seq, item_seq_len):
        vectors = self.norm(self.dropout(self.item_embedding(item_seq)).sum(1))
        return vectors[:, None] if self.fails else vectors


@pytest.mark.parametrize("fails", [False, True])
def test_trying_a_backbone_leaves_no_trace(fails):
    counting = _Counting(fails)
    encoder = BackboneEncoder(counting, 20, None, 0.1)
    state = {name: value.clone() for name, value in counting.state_dict().items()}
    random = torch.get_rng_state()
    rows = torch.randint(1, 20, (8, 6), generator=torch.Generator().manual_seed(1))
    refusal = pytest.raises(InputError, match=r"_Counting cannot have one: expected a user vector \(8, d\)")
    with refusal if fails else nullcontext():
        encoder.probe(rows, torch.full((8,), 6))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in counting.state_dict().items())
    assert counting.training
    assert not counting.dropout.training
    assert all(parameter.grad is None for parameter in counting.parameters())


def test_the_copy_that_recbole_counts_operations_on_has_its_own_encoder():
    made_model, encoder, *_ = backbone("SASRec")
    twin = copy.deepcopy(made_model)
    encoder_of_twin = self_supervised_term(twin).stage.encoder
    assert encoder_of_twin is not encoder
    assert encoder_of_twin.backbone is twin
    assert encoder_of_twin.mask is twin.ssl_mask
    assert twin.ssl_mask is not made_model.ssl_mask


# --- dropout -------------------------------------------------------------------------------------------------------

WITHOUT_DROPOUT = [
    ("STAMP", {}),
    ("NextItNet", {}),
    ("SRGNN", {}),
    ("SINE", {}),
    ("SASRec", {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}),
    ("GRU4Rec", {"dropout_prob": 0.0}),
]


@pytest.mark.parametrize(("model", "options"), WITHOUT_DROPOUT, ids=[model for model, _ in WITHOUT_DROPOUT])
def test_ssl_dropout_acts_in_self_supervised_encodes_of_backbones_without_any(model, options):
    made_model, encoder, item_seq, lengths = fresh(model, **options)
    assert not encoder.drops_out
    made_model.train()
    with torch.no_grad():
        assert not torch.equal(encoder(item_seq, lengths), encoder(item_seq, lengths))
        arguments = (item_seq,) if model == "NextItNet" else (item_seq, lengths)
        assert torch.equal(made_model.forward(*arguments), made_model.forward(*arguments))
        made_model.eval()
        assert torch.equal(encoder(item_seq, lengths), encoder(item_seq, lengths))


@pytest.mark.parametrize("rate", [0.25, 0.75])
def test_ssl_dropout_drops_the_share_that_it_says(rate):
    made_model, encoder, *_ = fresh("STAMP", ssl_dropout=rate)
    made_model.train()
    with encoder._hooks():
        vectors = made_model.item_embedding(torch.ones(200, 10, dtype=torch.int64))
        dropped = (vectors == 0).float().mean()
    assert abs(dropped - rate) < 0.02
    kept = vectors[vectors[:, :, 0] != 0][0, 0]
    torch.testing.assert_close(kept, made_model.item_embedding.weight[1, 0] / (1 - rate))


def test_backbones_with_dropout_get_no_other():
    made_model, encoder, item_seq, _ = backbone("SASRec")
    assert encoder.drops_out
    made_model.train()
    with encoder._hooks():
        own = made_model.item_embedding.weight[item_seq]
        assert torch.equal(made_model.item_embedding(item_seq), own)


# --- finding the item table ----------------------------------------------------------------------------------------


def test_item_embedding_by_name_among_several_and_by_size_alone():
    several = torch.nn.Module()
    several.items, several.item_embedding = torch.nn.Embedding(9, 2), torch.nn.Embedding(9, 2)
    assert item_embedding(several, 9) is several.item_embedding
    single = torch.nn.Module()
    single.anything, single.users = torch.nn.Embedding(10, 2), torch.nn.Embedding(7, 2)
    assert item_embedding(single, 9) is single.anything


@pytest.mark.parametrize("names", [(), ("one", "two")])
def test_no_item_embedding_or_several_are_named(names):
    module = torch.nn.Module()
    for name in names:
        setattr(module, name, torch.nn.Embedding(9, 2))
    with pytest.raises(InputError, match=f"of 9 rows in Module, found {', '.join(names) or 'none'}$"):
        item_embedding(module, 9)
