"""Any encoder: pre-trained and fine-tuned on a small RecBole dataset, saved and loaded; users' own; what is refused."""

import pytest
import torch
from torch import nn
from training_cases import TINY, write_profiled_dataset

from adaptssr_plugin.encoders import (
    CausalTransformer,
    ConvolutionEncoder,
    EncoderKind,
    GRUEncoder,
    UserEncoder,
    available_encoders,
    make_encoder,
    register_encoder,
    unregister_encoder,
)
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.methods import recipe
from adaptssr_plugin.methods.plan import stage_plans
from adaptssr_plugin.recbole.compat.user_sequences import load_user_sequences
from adaptssr_plugin.recbole.user_model.finetune import fine_tune, profile_task
from adaptssr_plugin.recbole.user_model.pretrain import Source, load_pretrained, pretrain

CLASSES = {
    "transformer": UserEncoder,
    "gru4rec": GRUEncoder,
    "nextitnet": ConvolutionEncoder,
    "sasrec": CausalTransformer,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return Source(str(write_profiled_dataset(tmp_path_factory.mktemp("data") / "tiny")))


class MeanOfItems(nn.Module):
    """A user's own encoder: the mean of its items, under dropout."""

    def __init__(self, n_items, dim, dropout, max_len):
        super().__init__()
        self.n_items, self.out_dim, self.max_len = n_items, dim, max_len
        self.table = nn.Embedding(n_items + 1, dim, padding_idx=0)  # the last row is [MASK]
        self.dropout = nn.Dropout(dropout)

    @property
    def item_weight(self):
        return self.table.weight[:-1]

    def hidden_states(self, item_seq, item_seq_len):
        return self.dropout(self.table(item_seq))

    def forward(self, item_seq, item_seq_len):
        return self.hidden_states(item_seq, item_seq_len).sum(1) / item_seq_len[:, None]


@pytest.fixture
def mean_of_items():
    register_encoder("mean", EncoderKind(MeanOfItems))
    yield
    unregister_encoder("mean")


def run(source, folder, **options):
    return pretrain(source, recipe(options={**TINY, **options}), folder, show_progress=False)


def test_the_four_encoders_are_there():
    assert available_encoders() == list(CLASSES)
    assert recipe().encoder == "transformer"


@pytest.mark.parametrize("kind", list(CLASSES))
@pytest.mark.parametrize("loss", ["adaptssr", "infonce"])
def test_every_encoder_is_pretrained_saved_loaded_and_fine_tuned(kind, loss, source, tmp_path):
    made = run(source, tmp_path / "run", encoder=kind, loss=loss)
    assert type(made.encoder) is CLASSES[kind]
    assert [stage.name for stage in made.stages] == ["mlm", "adaptssr"]
    warm_up = made.stages[0].history
    assert min(epoch["loss"] for epoch in warm_up[1:]) < warm_up[0]["loss"]
    loaded = load_pretrained(tmp_path / "run")
    assert type(loaded.encoder) is CLASSES[kind]
    for name, tensor in made.encoder.state_dict().items():
        assert torch.equal(tensor, loaded.encoder.state_dict()[name]), name
    config = source.config(TINY["max_len"])
    corpus = load_user_sequences(config).corpus
    plan = recipe(options={**TINY, "encoder": kind})
    done = fine_tune(config, corpus, profile_task(config, corpus, "gender"), plan, 0, loaded.encoder)
    assert 0 <= done.test <= 1


def test_the_warm_up_moves_all_but_the_pooling_query(source, tmp_path):
    made = run(source, tmp_path / "run", encoder="gru4rec", epochs=1, learning_rate=1e-12)
    for name, tensor in made.warm_up.state_dict().items():
        torch.testing.assert_close(tensor, made.encoder.state_dict()[name], rtol=0, atol=1e-9)


def test_an_encoder_of_the_users_own(source, tmp_path, mean_of_items):
    made = run(source, tmp_path / "run", encoder="mean")
    assert isinstance(load_pretrained(tmp_path / "run").encoder, MeanOfItems)
    assert made.stages[0].history[-1]["loss"] < made.stages[0].history[0]["loss"]
    with pytest.raises(InputError, match=r"^encoder: expected a new name, got 'mean', which is registered already$"):
        register_encoder("mean", EncoderKind(MeanOfItems))


def test_an_encoder_without_dropout_is_refused_at_the_first_step(source, tmp_path):
    register_encoder("still", EncoderKind(lambda dropout, **sizes: MeanOfItems(dropout=0.0, **sizes)))
    try:
        with pytest.raises(InputError, match=r"^encoder: expected active dropout, .*MeanOfItems$"):
            run(source, tmp_path / "run", encoder="still", warm_start="none")
    finally:
        unregister_encoder("still")


def test_ptum_takes_an_encoder_without_positions(source, tmp_path):
    made = pretrain(source, recipe("ptum", options={**TINY, "encoder": "gru4rec"}), tmp_path / "run", False)
    assert type(made.encoder) is GRUEncoder


def test_what_an_encoder_cannot_do_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"^encoder: expected transformer or gru4rec or .*, got 'lstm'$"):
        recipe(options={"encoder": "lstm"})
    with pytest.raises(InputError, match=r"^encoder: expected one of gru4rec, .*, transformer, got 'lstm'$"):
        make_encoder("lstm", n_items=3)
    with pytest.raises(InputError, match=r"^interests: expected 1 for encoder sasrec, got 4$"):
        recipe("idicl", options={"encoder": "sasrec"})
    with pytest.raises(InputError, match=r"^encoder: expected one that predicts masked items, .*ccl, got gru4rec$"):
        stage_plans(recipe("ccl", options={"encoder": "gru4rec"}))


def test_causal_encoders_are_warmed_up_on_the_next_item():
    from training_cases import corpus_of

    from adaptssr_plugin.methods.views import UserHistories
    from adaptssr_plugin.training import MaskedItemStage, NextItemStage

    histories = UserHistories(corpus_of(5, 3, 7), max_len=10)
    for kind, expected in {"transformer": MaskedItemStage, "nextitnet": NextItemStage}.items():
        for made in (recipe(options={"encoder": kind}), recipe("peterrec", options={"encoder": kind})):
            encoder = make_encoder(dropout=0.1, **made.encoder_arguments(12))
            assert type(stage_plans(made)[0].make(encoder, histories)) is expected
