"""RecBole's parts, called one by one: while installed they honour the flag or refuse it, under any name.

The names at the top were imported before ``install()``, as a user's are.
"""

import functools
import importlib
import inspect
import pickle
import subprocess
import sys

import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.transform import MaskItemSequence
from recbole.model.general_recommender import BPR, Pop
from recbole.model.sequential_recommender import GRU4Rec, SASRec
from recbole.trainer import Trainer
from recbole.trainer.trainer import TraditionalTrainer
from recbole.utils import get_model, get_trainer, init_seed
from recbole_cases import MeanOfItems, recommenders
from refusals import refusal_of
from run_cases import SMALL, our_run, quiet_root, same_weights

from adaptssr_plugin.encoders.dropout import Dropout
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole import compat_patches, import_quick_start, install, installed, uninstall
from adaptssr_plugin.recbole.compat.layers import BatchMaskItemSequence
from adaptssr_plugin.recbole.recommender.joint import self_supervised_term
from adaptssr_plugin.recbole.recommender.trainer import RecommenderTrainer

HAND = {**SMALL, "train_neg_sample_args": None}  # as RecBole wants it said
ADAPTSSR, INFONCE = ({"ssl_loss": loss, "ssl_mode": "joint"} for loss in ("adaptssr", "infonce"))
STAGES = {**ADAPTSSR, "ssl_mode": "pretrain", "ssl_warmup_epochs": 1, "ssl_epochs": 1, "ssl_batch_size": 16}


@pytest.fixture(autouse=True)
def quiet(slice_here):
    with quiet_root():
        yield


class Mean(MeanOfItems):
    """A class of the user's, made before ``install()``."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.hidden = torch.nn.Dropout(0.1)


class OwnTrainer(Trainer):
    """A trainer of the user's."""

    def _train_epoch(self, *arguments, **options):
        return super()._train_epoch(*arguments, **options)


class LoopTrainer(Trainer):
    """A trainer of the user's in the form of RecBole's page on them: for losses of one number."""

    def loss(self, interaction):
        return self.model.calculate_loss(interaction)

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        self.model.train()
        total_loss = 0.0
        for interaction in train_data:
            self.optimizer.zero_grad()
            loss = self.loss(interaction.to(self.device))
            self._check_nan(loss)
            loss.backward()
            self.optimizer.step()
            total_loss += loss.item()
        return total_loss


class OtherLossTrainer(LoopTrainer):
    """One that trains by another loss of the model's."""

    def loss(self, interaction):
        return self.model.other_loss(interaction)


class OtherLoss(SASRec):
    """A model with a loss for that."""

    def other_loss(self, interaction):
        return SASRec.calculate_loss(self, interaction)


def config_of(model, options):
    return Config(model=model, dataset="slice", config_dict={**HAND, **options})


def data_of(config):
    init_seed(config["seed"], config["reproducibility"])
    data = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], config["reproducibility"])
    return data


def model_of(model, **options):
    """Make a model as RecBole's page on its modules does: config, loaders and model."""
    config = config_of(model, options)
    data = data_of(config)
    model_class = get_model(config["model"]) if isinstance(model, str) else model
    return config, data, model_class(config, data[0].dataset).to(config["device"])


def trained_by_hand(model, trainer_class=None, saved=True, **options):
    """Train and test as that page does: the trainer, and the result in the form of ``run_recbole``'s."""
    config, (train_data, valid_data, test_data), made = model_of(model, **options)
    trainer_class = trainer_class or get_trainer(config["MODEL_TYPE"], config["model"])
    trainer = trainer_class(config, made)
    score, result = trainer.fit(train_data, valid_data, saved=saved)
    return trainer, in_form(config, score, result, trainer.evaluate(test_data, load_best_model=saved))


def in_form(config, score, result, tested):
    return {
        "best_valid_score": score,
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": result,
        "test_result": tested,
    }


@functools.cache
def run_of(model, **options):
    """The run that the parts are held against, which tests share; its files are in the folder of the first of them."""
    return our_run(model, {**HAND, **options})


def assert_same_run(by_hand, run):
    (trainer, result), (its_result, its_trainer) = by_hand, run
    assert result == its_result
    assert trainer.train_loss_dict == its_trainer.train_loss_dict
    assert len(trainer.train_loss_dict) == 2
    assert same_weights(trainer.model, its_trainer.model)
    assert type(trainer) is type(its_trainer) is RecommenderTrainer


# --- it is the run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"ssl_loss": "none"}, ADAPTSSR, INFONCE], ids=str)
@pytest.mark.parametrize(
    ("model", "trainer_class"), [("SASRec", None), (SASRec, Trainer)], ids=["looked up", "directly"]
)
def test_the_parts_give_what_run_recbole_gives(model, trainer_class, options):
    run = run_of("SASRec", **options)
    install()
    by_hand = trained_by_hand(model, trainer_class, **options)
    assert_same_run(by_hand, run)
    assert (by_hand[0].term is not None) == (options.get("ssl_loss", "none") != "none")


@pytest.mark.parametrize("model", ["SASRec", "BERT4Rec", Mean, BPR])
def test_without_the_flag_every_number_is_recboles(model):
    options = {"loss_type": "CE"} if model is not BPR else {"train_neg_sample_args": {"distribution": "uniform"}}
    with compat_patches():
        theirs, their_result = trained_by_hand(model, saved=False, **options)
    install()
    for flag in ({}, {"ssl_loss": None}):
        ours, result = trained_by_hand(model, saved=False, **options, **flag)
        assert (type(theirs), type(ours)) == (Trainer, RecommenderTrainer)
        assert ours.train_loss_dict == theirs.train_loss_dict
        assert result == their_result
        assert same_weights(ours.model, theirs.model)
        assert type(ours.model) is type(theirs.model)


@pytest.mark.parametrize("faster", [True, False])
def test_faster_layers(faster):
    run = run_of("BERT4Rec", **ADAPTSSR, faster_layers=faster)
    install()
    trainer, result = trained_by_hand("BERT4Rec", **ADAPTSSR, faster_layers=faster)
    if faster:  # else the run has taken some of Python's random numbers, to count operations
        assert_same_run((trainer, result), run)
    assert type(trainer._train_data.transform) is (BatchMaskItemSequence if faster else MaskItemSequence)
    assert any(isinstance(module, Dropout) for module in trainer.model.modules()) == faster
    assert bool(trainer.optimizer.param_groups[0]["fused"]) == faster


def test_names_that_are_imported_while_installed():
    run = run_of("GRU4Rec", **INFONCE)
    with installed():
        names = [importlib.import_module("recbole.quick_start.quick_start"), importlib.import_module("recbole.utils")]
        config = names[0].Config("GRU4Rec", "slice", None, {**HAND, **INFONCE})
        names[0].init_seed(config["seed"], True)
        train_data, valid_data, test_data = names[0].data_preparation(config, names[0].create_dataset(config))
        names[1].init_seed(config["seed"], True)
        model = names[1].get_model("GRU4Rec")(config, train_data.dataset)
        trainer = names[0].get_trainer(config["MODEL_TYPE"], "GRU4Rec")(config=config, model=model)
        score, result = trainer.fit(train_data, valid_data)
        tested = trainer.evaluate(test_data)
    assert_same_run((trainer, in_form(config, score, result, tested)), run)


@pytest.mark.parametrize("options", [{}, ADAPTSSR, INFONCE], ids=str)
def test_a_class_of_the_users_own(options):
    run = run_of(Mean, loss_type="CE", **options)
    install()

    class Later(Mean):
        pass

    for model in (Mean, Later):
        trainer, result = trained_by_hand(model, loss_type="CE", **options)
        assert_same_run((trainer, result), run)
        assert isinstance(trainer.model, model)
        assert type(trainer.model).__name__ == model.__name__


def test_models_that_recbole_lacks_are_made_by_hand_too():
    run = run_of("DuoRec")
    install()
    by_hand = trained_by_hand("DuoRec")
    assert_same_run(by_hand, run)
    assert by_hand[0].term.settings.loss == "infonce"


@pytest.mark.parametrize("trainer_class", [OwnTrainer, LoopTrainer])
def test_a_trainer_of_the_users_own_has_the_loss_in_joint_mode(trainer_class):
    install()
    trainer, _ = trained_by_hand("SASRec", trainer_class, **ADAPTSSR, ssl_weight=3.0)
    assert type(trainer) is trainer_class
    without, _ = trained_by_hand("SASRec", trainer_class, **ADAPTSSR, ssl_weight=0.0)
    assert trainer.train_loss_dict[0] > without.train_loss_dict[0] + 1
    assert not same_weights(trainer.model, without.model)


def test_a_trainer_that_leaves_the_loss_out_is_refused_at_its_first_step():
    install()
    line = r"^ssl_loss: expected none for OtherLoss, which OtherLossTrainer trains without its calculate_loss, got inf"
    with pytest.raises(InputError, match=line):
        trained_by_hand(OtherLoss, OtherLossTrainer, **INFONCE)
    assert trained_by_hand(OtherLoss, OtherLossTrainer)[1]["test_result"]


def test_stages_before_run_by_hand_too(tmp_path):
    run = run_of("SASRec", **STAGES)
    install()
    by_hand = trained_by_hand("SASRec", Trainer, **STAGES, checkpoint_dir="hand")
    assert_same_run(by_hand, run)
    assert len([*(tmp_path / "hand").glob("SASRec-*-pretrained.pth")]) == 1


def test_weights_to_start_from():
    install()
    trainer, _ = trained_by_hand("SASRec")
    saved = trainer.saved_model_file
    *_, model = model_of("SASRec", pretrained=saved, seed=3)
    weights = torch.load(saved)["state_dict"]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(InputError, match=r"^checkpoint: expected a file, got nowhere\.pth"):
        model_of("SASRec", pretrained="nowhere.pth")


# --- how a model may be made -----------------------------------------------------------------------------------------


class Mixin(torch.nn.Module):
    """Has an ``__init__`` that stands before those of RecBole's."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.mixed_in = True


class Mixed(Mixin, GRU4Rec):
    """Has none itself."""


class Teaching(SASRec):
    """Has a model within, and an argument that is neither config nor dataset."""

    def __init__(self, dataset, config, *, model):
        super().__init__(config, dataset)
        self.teacher = model(config, dataset)


def test_a_class_whose_init_is_no_recommenders():
    before = vars(Mixed).copy()
    install()
    *_, model = model_of(Mixed, **ADAPTSSR)
    assert model.mixed_in
    assert self_supervised_term(model) is not None
    assert self_supervised_term(model_of(Mixed)[2]) is None
    uninstall()
    assert vars(Mixed) == before


def test_a_model_within_a_model_is_a_part_of_it():
    with installed():
        config = config_of(Teaching, ADAPTSSR)
        train_data, *_ = data_of(config)
        model = Teaching(train_data.dataset, config=config, model=SASRec)
    assert self_supervised_term(model) is not None
    assert type(model.teacher) is SASRec


def test_a_model_of_the_class_of_another():
    install()
    config, (train_data, *_), model = model_of("SASRec", **ADAPTSSR)
    again = type(model)(config, train_data.dataset)
    assert self_supervised_term(again) is not self_supervised_term(model) is not None
    plain = config_of("SASRec", {})
    assert type(type(model)(plain, train_data.dataset)) is SASRec


def test_a_construction_that_fails_leaves_the_next_one_alone():
    install()
    with pytest.raises(ValueError, match="hidden size"):
        model_of("SASRec", n_heads=7, **ADAPTSSR)
    assert self_supervised_term(model_of("SASRec", **ADAPTSSR)[2]) is not None


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"ssl_loss": "nonsense"}, "ssl_loss: expected adaptssr or infonce or none, got 'nonsense'"),
        ({**ADAPTSSR, "ssl_wieght": 3}, "ssl_wieght: expected one of ssl_"),
        ({"faster_layers": "yes"}, "faster_layers: expected true or false, got 'yes'"),
    ],
)
def test_a_config_that_is_made_by_hand_is_checked(options, line):
    install()
    assert refusal_of(config_of, "SASRec", options).startswith(line)


@pytest.mark.parametrize("model", [BPR, Pop])
def test_models_that_cannot_have_the_loss(model):
    install()
    with pytest.raises(InputError, match=rf"^ssl_loss: {model.__name__} cannot have one: it is not a sequential model"):
        model_of(model, **ADAPTSSR, train_neg_sample_args={"distribution": "uniform"})


def test_a_trainer_of_the_users_own_is_refused_what_it_does_not_do():
    install()
    config, _, model = model_of("SASRec", **STAGES)
    with pytest.raises(InputError, match=r"^ssl_mode: expected joint for SASRec, which OwnTrainer trains, got p"):
        OwnTrainer(config, model)
    config["resume"] = "last.pth"
    Trainer(config, model)
    config["ssl_mode"] = "joint"
    config, _, model = model_of("SASRec", resume="last.pth")
    with pytest.raises(InputError, match=r"^resume: expected no checkpoint for SASRec, which OwnTrainer trains, got l"):
        OwnTrainer(config, model)
    config, _, model = model_of("Pop", resume="last.pth", train_neg_sample_args={"distribution": "uniform"})
    with pytest.raises(InputError, match=r"^resume: expected no checkpoint for Pop, which TraditionalTrainer trains"):
        TraditionalTrainer(config, model)


@pytest.mark.parametrize(
    ("made_with", "trained_with", "line"),
    [
        ({}, ADAPTSSR, "ssl_loss: expected a SASRec that was made with 'adaptssr', after install(), as the trainer's"),
        (ADAPTSSR, {}, "ssl_loss: expected a SASRec that was made with 'none', after install(), as the trainer's"),
        (ADAPTSSR, INFONCE, "ssl_loss: expected a SASRec that was made with 'infonce', after install(), as the"),
        (ADAPTSSR, {**ADAPTSSR, "ssl_weight": 0.5}, "ssl_weight: expected a SASRec that was made with 0.5, after"),
    ],
)
@pytest.mark.parametrize("trainer_class", [Trainer, OwnTrainer])
def test_a_trainer_whose_options_are_not_the_models(made_with, trained_with, line, trainer_class):
    install()
    *_, model = model_of("SASRec", **made_with)
    assert refusal_of(trainer_class, config_of("SASRec", trained_with), model).startswith(line)


def test_an_option_that_is_changed_by_hand():
    install()
    config, (train_data, valid_data, _), model = model_of("SASRec")
    trainer = Trainer(config, model)
    config["ssl_loss"] = "nonsense"
    for make in (lambda: SASRec(config, train_data.dataset), lambda: Trainer(config, model)):
        with pytest.raises(InputError, match=r"^ssl_loss: expected adaptssr or infonce or none, got 'nonsense'$"):
            make()
    config["ssl_loss"] = "infonce"
    assert self_supervised_term(SASRec(config, train_data.dataset)).settings.loss == "infonce"
    with pytest.raises(InputError, match=r"^ssl_loss: expected a SASRec that was made with 'infonce', after install"):
        trainer.fit(train_data, valid_data)


def test_rows_that_are_not_the_training_rows():
    install()
    config = config_of("SASRec", ADAPTSSR)
    dataset = create_dataset(config)
    with pytest.raises(InputError, match=r"^dataset: expected the training rows, train_data\.dataset of data_prep"):
        SASRec(config, dataset)
    train_data, valid_data, _ = data_preparation(config, dataset)
    rows, number = len(train_data.dataset), len(dataset)
    trainer = Trainer(config, SASRec(config, dataset))
    line = rf"^dataset: expected a model made with train_data.dataset, the {rows} training rows, got .* {number} rows$"
    with pytest.raises(InputError, match=line):
        trainer.fit(train_data, valid_data)


# --- what was made before install() ----------------------------------------------------------------------------------


def test_a_config_from_before():
    run = run_of("SASRec", **ADAPTSSR, faster_layers=False)
    with compat_patches():
        config, wrong = config_of("SASRec", ADAPTSSR), config_of("SASRec", {**ADAPTSSR, "ssl_wieght": 1})
    assert type(config) is Config
    install()
    train_data, valid_data, test_data = data_of(config)
    trainer = Trainer(config, SASRec(config, train_data.dataset))
    score, result = trainer.fit(train_data, valid_data)
    tested = trainer.evaluate(test_data)
    assert_same_run((trainer, in_form(config, score, result, tested)), run)
    with pytest.raises(InputError, match=r"^ssl_wieght: expected one of ssl_"):
        SASRec(wrong, train_data.dataset)


def test_a_model_from_before_is_refused_by_the_trainer():
    with compat_patches():
        config, _, model = model_of("SASRec", **ADAPTSSR)
    assert type(model) is SASRec
    install()
    line = r"^ssl_loss: expected a SASRec that was made with 'adaptssr', after install\(\), .*, got .* with 'none'$"
    for trainer_class in (Trainer, OwnTrainer):
        with pytest.raises(InputError, match=line):
            trainer_class(config, model)


class OwnConfig(Config):
    """A config of the user's, as RecBole's sister projects have them."""


def test_a_config_of_the_users_own_is_heeded():
    install()
    config = OwnConfig("SASRec", "slice", config_dict={**HAND, **ADAPTSSR})
    assert type(config) is OwnConfig
    train_data, *_ = data_of(config)
    assert self_supervised_term(SASRec(config, train_data.dataset)).settings.loss == "adaptssr"


# --- afterwards ------------------------------------------------------------------------------------------------------


def test_recboles_classes_make_what_they_made_before():
    before = {model: dict(vars(model)) for model in recommenders()}
    with compat_patches():
        stock = trained_by_hand("SASRec", saved=False)
    for _ in range(2):
        with installed():

            class Within(SASRec):
                pass

            class WithinWithInit(SASRec):
                def __init__(self, config, dataset):
                    super().__init__(config, dataset)

            trained_by_hand("SASRec", **ADAPTSSR, epochs=1)
        assert {model: dict(vars(model)) for model in before} == before
        assert "__init__" not in vars(Within)
        assert WithinWithInit.__init__.__qualname__.endswith("WithinWithInit.__init__")
        assert not hasattr(WithinWithInit.__init__, "__wrapped__")
        with compat_patches():
            config, (train_data, *_), _ = model_of("SASRec")
            assert type(config) is Config
            for model in (SASRec, Within, WithinWithInit, Mean):
                made = model(config, train_data.dataset)
                assert type(made) is model
                assert type(Trainer(config, made)) is Trainer
    with compat_patches():
        again = trained_by_hand("SASRec", saved=False, ssl_loss="adaptssr")  # of which RecBole alone knows nothing
    assert type(again[0]) is type(stock[0]) is Trainer
    assert again[0].train_loss_dict == stock[0].train_loss_dict
    assert again[1] == stock[1]
    with pytest.raises(TypeError):
        SASRec()


@pytest.mark.parametrize("options", [ADAPTSSR, STAGES], ids=["joint", "pretrain"])
def test_what_was_made_while_installed_goes_on(options):
    run = run_of("SASRec", **options)
    with installed():
        config, (train_data, valid_data, test_data), model = model_of("SASRec", **options)
        trainer = Trainer(config, model)
    score, result = trainer.fit(train_data, valid_data)
    with compat_patches():
        tested = trainer.evaluate(test_data)
    assert_same_run((trainer, in_form(config, score, result, tested)), run)


# --- RecBole's functions that begin a process ------------------------------------------------------------------------

CHILD = """
import pickle, sys
for name, call in pickle.load(open("calls", "rb")):
    try:
        call[0](*call[1:])
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}")
    import adaptssr_plugin.recbole.entry_points.installing as installing
    assert installing._stack is None
"""


def test_processes_that_begin_with_recboles_functions_are_installed_in(tmp_path):
    import_quick_start()
    quick_start = importlib.import_module("recbole.quick_start")
    own = quick_start.objective_function
    several = {"config_dict": {**HAND, **ADAPTSSR, "world_size": 2, "nproc": 2}}
    wrong = {**HAND, "model": "SASRec", "dataset": "slice", "ssl_loss": "nonsense"}
    with installed():
        parameters = inspect.signature(quick_start.objective_function).parameters.values()
        assert [(each.name, each.default) for each in parameters] == [
            (each.name, each.default) for each in inspect.signature(own).parameters.values()
        ]
        calls = [
            ("run_recboles", (quick_start.run_recboles, 1, "SASRec", "slice", None, several)),
            ("objective_function", (quick_start.objective_function, wrong)),
        ]
        (tmp_path / "calls").write_bytes(pickle.dumps(calls))
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("run_recboles: InputError: nproc: expected 1, got 2; several processes are those of")
    assert second == "objective_function: InputError: ssl_loss: expected adaptssr or infonce or none, got 'nonsense'"
