"""run_recbole: RecBole's numbers where the flag is off, its sources of options, and a process left as it was."""

import copy
import importlib
import inspect
import logging
import os
import sys
import warnings

import numpy as np
import pytest
import recbole.utils.argument_list as argument_list
import torch
import yaml
from readbacks import count_readbacks
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole_cases import MeanOfItems
from refusals import refusal_of
from run_cases import SMALL, our_run, same_weights, stock_run, write_slice

from adaptssr_plugin.errors import InputError, TrainingDivergedError
from adaptssr_plugin.recbole import compat_patches, import_quick_start, run_recbole
from adaptssr_plugin.recbole.recommender.config import RunConfig
from adaptssr_plugin.recbole.recommender.trainer import RecommenderTrainer

CROSS_ENTROPY = {"train_neg_sample_args": None}  # as RecBole wants it said
SSL = {"ssl_loss": "adaptssr", "ssl_mode": "joint"}
MODEL = (
    "model: expected the name of a RecBole model, spelt as in its table (SASRec, GRU4Rec, …), or a class that extends "
    "one of RecBole's,"
)
RESULT = {"best_valid_score", "valid_score_bigger", "best_valid_result", "test_result"}


pytestmark = pytest.mark.usefixtures("slice_here")


@pytest.fixture
def made(monkeypatch):
    """The configs that runs make; the runs end there."""
    configs = []

    class MadeError(Exception):
        pass

    def stop(config, *_):
        configs.append(config)
        raise MadeError

    import_quick_start()
    monkeypatch.setattr(importlib.import_module("recbole.quick_start.quick_start"), "create_dataset", stop)

    def make(*arguments, **options):
        with pytest.raises(MadeError):
            run_recbole(*arguments, **options)
        return configs[-1]

    return make


# --- nothing changes without the flag --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "flag"),
    [
        ("SASRec", CROSS_ENTROPY, {"ssl_loss": "none"}),
        ("GRU4Rec", CROSS_ENTROPY, {"ssl_loss": "none"}),
        ("BERT4Rec", CROSS_ENTROPY, {"ssl_loss": "none"}),
        ("BERT4Rec", CROSS_ENTROPY, {}),
        ("SASRec", {"loss_type": "BPR"}, {}),
        (
            "SASRec",
            {**CROSS_ENTROPY, "clip_grad_norm": {"max_norm": 0.5}, "weight_decay": 0.01, "learner": "adamw"},
            {"ssl_loss": None},
        ),
    ],
)
def test_without_the_flag_every_number_is_recboles(model, options, flag):
    options = {**options, "topk": [20], "valid_metric": "NDCG@20", "learning_rate": 0.01, "epochs": 3}
    theirs, their_trainer = stock_run(model, options)
    ours, our_trainer = our_run(model, {**options, **flag})
    assert type(our_trainer) is RecommenderTrainer
    assert type(our_trainer.model) is type(their_trainer.model)
    assert our_trainer.train_loss_dict == their_trainer.train_loss_dict
    assert len(our_trainer.train_loss_dict) == 3
    assert ours == theirs
    assert theirs["test_result"]["recall@20"] > 0
    assert same_weights(our_trainer.model, their_trainer.model)
    assert ours.keys() == theirs.keys() == RESULT


def test_with_the_flag_there_is_another_model():
    plain, trainer = our_run("SASRec", CROSS_ENTROPY)
    result, with_flag = our_run("SASRec", {**CROSS_ENTROPY, **SSL})
    assert result.keys() == plain.keys()
    assert set(with_flag.model.state_dict()) - set(trainer.model.state_dict()) == {"ssl_mask"}
    assert not torch.equal(with_flag.model.item_embedding.weight, trainer.model.item_embedding.weight)
    assert with_flag.term is not None
    assert trainer.term is None


def test_a_run_is_repeatable_with_the_flag():
    runs = [our_run("BERT4Rec", SSL) for _ in range(2)]
    assert runs[0][0] == runs[1][0]
    assert same_weights(runs[0][1].model, runs[1][1].model)


def test_general_models_run_as_ever():
    theirs, their_trainer = stock_run("BPR", {})
    ours, our_trainer = our_run("BPR", {})
    assert ours == theirs
    assert same_weights(our_trainer.model, their_trainer.model)


# --- options ---------------------------------------------------------------------------------------------------------


def test_the_signature_is_recboles():
    import_quick_start()
    own = inspect.signature(importlib.import_module("recbole.quick_start.quick_start").run_recbole)
    ours = inspect.signature(run_recbole)
    assert [(p.name, p.default, p.kind) for p in ours.parameters.values()] == [
        (p.name, p.default, p.kind) for p in own.parameters.values()
    ]


def test_command_line_over_dict_over_later_file_over_earlier_file(made, monkeypatch, tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("model: SASRec\ndataset: slice\nssl_weight: 0.2\nssl_mode: joint\nepochs: 9\nseed: 1\n")
    second.write_text("ssl_loss: infonce\nssl_weight: 0.3\nssl_rows: all\nepochs: 8\nlearning_rate: 1e-3\n")
    monkeypatch.setattr(sys, "argv", ["x", "--epochs=1", "--ssl_loss=adaptssr", "--ssl_mask_same_target=True"])
    config = made(config_file_list=[str(first), str(second)], config_dict={"epochs": 7, "ssl_weight": "0.4"})
    assert (config["model"], config["dataset"], config["seed"]) == ("SASRec", "slice", 1)
    assert (config["epochs"], config["learning_rate"]) == (1, 1e-3)
    wanted = ("adaptssr", 0.4, "joint", "all", True)
    ssl = config.ssl
    assert (ssl.loss, ssl.weight, ssl.mode, ssl.rows, ssl.mask_same_target) == wanted
    assert tuple(config[f"ssl_{name}"] for name in ("loss", "weight", "mode", "rows", "mask_same_target")) == wanted


def test_a_run_from_yaml_and_command_line_alone(monkeypatch, tmp_path):
    options = {name: value for name, value in SMALL.items() if name != "load_col"}  # timestamps come of themselves
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**options, "ssl_loss": "none"}))
    monkeypatch.setattr(sys, "argv", ["x", "--model=SASRec", "--dataset=slice", "--epochs=1", "--ssl_loss=adaptssr"])
    result = run_recbole(config_file_list=["run.yaml"])
    assert result.keys() == RESULT
    assert sys.argv == ["x", "--model=SASRec", "--dataset=slice", "--epochs=1", "--ssl_loss=adaptssr"]
    saved, before = sorted((tmp_path / "saved").glob("SASRec-*.pth"), key=lambda path: len(path.name))
    assert before.name == f"{saved.stem}-pretrained.pth"  # pretrain mode is the default
    assert torch.load(saved)["config"]["ssl_loss"] == "adaptssr"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("SASRec", "slice"), {"ssl_weight": "__import__('os').system('x')"}, "ssl_weight: expected a number, got "),
        (("SASRec", "slice"), {"ssl_loss": "foo"}, "ssl_loss: expected adaptssr or infonce or none, got 'foo'"),
        (("SASRec", "slice"), {"ssl_wieght": 0.1}, "ssl_wieght: expected one of ssl_"),
        (("sasrec", "slice"), {}, f"{MODEL} got 'sasrec'"),
        (("NoModel", "slice"), SSL, f"{MODEL} got 'NoModel'"),
        (("SASRec2", "slice"), {}, f"{MODEL} got 'SASRec2'"),
        (("layers", "slice"), {}, f"{MODEL} got 'layers'"),
        (("__init__", "slice"), {}, f"{MODEL} got '__init__'"),
        ((torch.nn.Linear, "slice"), {}, f"{MODEL} got <class 'torch.nn.modules.linear.Linear'>"),
        ((RecommenderTrainer, "slice"), {}, f"{MODEL} got <class 'adaptssr_plugin.recbole"),
        ((5, "slice"), {}, f"{MODEL} got 5"),
        ((None, "slice"), {}, "model: expected one as an argument or among the options"),
        (("SASRec",), {}, "dataset: expected one as an argument or among the options"),
        (("BPR", "slice"), SSL, "ssl_loss: BPR cannot have one"),
        (("SASRec", "slice"), {"repeatable": False}, "options: Sequential models currently only support repeatable"),
        (("SASRec", "slice"), {"train_neg_sample_args": {"distribution": "uniform"}}, "options: train_neg_sample_args"),
        (("SASRec", "slice"), {"nproc": 2, "world_size": 2, "local_rank": 0}, "nproc: expected 1, got 2; several"),
        (("SASRec", "slice"), {"faster_layers": "yes"}, "faster_layers: expected true or false, got 'yes'"),
        (("SASRec", "slice"), {"pretrained": "nowhere.pth"}, "checkpoint: expected a file, got nowhere.pth"),
        (("SASRec", "slice"), {"resume": "nowhere.pth"}, "checkpoint: expected a file, got nowhere.pth"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, options, message):
    assert refusal_of(run_recbole, *arguments, config_dict={**SMALL, **options}).startswith(message)


def test_a_model_that_needs_a_package_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)  # as where it is not installed
    with pytest.raises(InputError, match=r"^model: xgboost cannot be imported: [^\n]*lightgbm"):
        run_recbole("xgboost", "slice", config_dict=SMALL)


def test_contradicting_command_lines_and_unreadable_files_are_refused(monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"^config_files: cannot read nowhere\.yaml"):
        run_recbole("SASRec", "slice", ["nowhere.yaml"])
    monkeypatch.setattr(sys, "argv", ["x", "--epochs=1", "--epochs=2"])
    with pytest.raises(InputError, match=r"^options: There are duplicate commend arg"):
        run_recbole("SASRec", "slice", config_dict=SMALL)


def test_a_folder_elsewhere_is_a_dataset(made, tmp_path):
    write_slice(tmp_path / "elsewhere" / "mine", users=5)
    config = made("SASRec", str(tmp_path / "elsewhere" / "mine"))
    assert (config["dataset"], config["data_path"]) == ("mine", str(tmp_path / "elsewhere" / "mine"))
    assert config["load_col"]["inter"] == ["user_id", "item_id", "timestamp"]
    assert made("SASRec", "slice", config_dict={"load_col": {"inter": ["user_id"]}})["load_col"] == {
        "inter": ["user_id"]
    }


# --- a class from outside --------------------------------------------------------------------------------------------


class Wider(SASRec):
    """Has SASRec's defaults."""


@pytest.mark.parametrize("flag", [{}, {"ssl_loss": "none"}, SSL, {**SSL, "ssl_loss": "infonce", "ssl_method": "clue"}])
@pytest.mark.parametrize("model", [MeanOfItems, Wider])
def test_a_class_from_outside_is_trained(model, flag):
    result, trainer = our_run(model, {"loss_type": "CE", **flag})
    assert result.keys() == RESULT
    assert isinstance(trainer.model, model)
    assert type(trainer.model).__name__ == model.__name__
    assert (trainer.term is not None) == (flag.get("ssl_loss", "none") != "none")


def test_a_class_that_says_nothing_of_its_loss_is_refused():
    with pytest.raises(InputError, match=r"^options: Either Model has attr 'input_type'"):
        run_recbole(MeanOfItems, "slice", config_dict=SMALL)


# --- the process afterwards ------------------------------------------------------------------------------------------


def process_state():
    root = logging.getLogger()
    return {
        "argv": list(sys.argv),
        "environment": dict(os.environ),
        "numpy": set(vars(np)),
        "filters": list(warnings.filters),
        "anomaly": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "dtype": torch.get_default_dtype(),
        "root": (list(root.handlers), root.level),
        "resolvers": copy.deepcopy(yaml.FullLoader.yaml_implicit_resolvers),
        "ray": {name for name in sys.modules if name.split(".")[0] == "ray"},
        "arguments": {name: list(value) for name, value in vars(argument_list).items() if isinstance(value, list)},
        "streams": (sys.stdout, sys.stderr),
        "trainer": dict(vars(Trainer)),
        "interaction": dict(vars(Interaction)),
        "load": torch.load,
    }


@pytest.mark.parametrize("devices", [None, "7"])
def test_the_process_is_as_before(monkeypatch, devices):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if devices:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    options = {**SMALL, **SSL, "epochs": "1", "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO"}}
    given = copy.deepcopy(options)
    with compat_patches():
        pass  # what is imported late is imported
    before = process_state()
    run_recbole("SASRec", "slice", config_dict=options)
    assert process_state() == before
    assert options == given


@pytest.mark.parametrize("where", ["config", "model", "training"])
def test_the_process_is_as_before_after_a_failure(monkeypatch, where):
    def broken(*_):
        raise KeyError("a step")

    wrong = {"config": {"ssl_wieght": 1}, "model": {"pretrained": "nowhere"}, "training": {}}
    options = {**SMALL, **SSL, **wrong[where]}
    if where == "training":
        monkeypatch.setattr(RecommenderTrainer, "_step", broken)
    given, before = copy.deepcopy(options), process_state()
    with pytest.raises(KeyError if where == "training" else InputError):
        run_recbole("SASRec", "slice", config_dict=options)
    assert process_state() == before
    assert options == given


def test_anomaly_mode_of_the_caller_stays(monkeypatch):
    torch.autograd.set_detect_anomaly(True, check_nan=False)
    try:
        run_recbole("GRU4Rec", "slice", config_dict={**SMALL, "epochs": 1})
        assert torch.is_anomaly_enabled()
        assert not torch.is_anomaly_check_nan_enabled()
    finally:
        torch.autograd.set_detect_anomaly(False)


def test_lists_of_recbole_do_not_grow_with_every_config(monkeypatch):
    monkeypatch.setattr(argument_list, "dataset_arguments", argument_list.dataset_arguments)
    before = list(argument_list.dataset_arguments)
    with compat_patches():
        config = RunConfig("SASRec", "ml-100k")
    assert "kg_reverse_r" in config.parameters["Dataset"]
    assert argument_list.dataset_arguments == before


# --- the trainer -----------------------------------------------------------------------------------------------------


def test_datasets_and_loaders_that_recbole_keeps_are_taken_up():
    options = {**CROSS_ENTROPY, **SSL, "checkpoint_dir": "kept", "save_dataset": True, "save_dataloaders": True}
    our_run("SASRec", options)
    again, trainer = our_run("SASRec", options)
    fresh, fresh_trainer = our_run("SASRec", {**CROSS_ENTROPY, **SSL, "checkpoint_dir": "elsewhere"})
    assert again == fresh
    assert same_weights(trainer.model, fresh_trainer.model)


class Diverging(MeanOfItems):
    """A model whose loss goes bad at a step."""

    at, value, steps = 6, float("nan"), 0

    def calculate_loss(self, interaction):
        type(self).steps += 1
        loss = super().calculate_loss(interaction)
        return loss * self.value if type(self).steps == self.at else loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("at", "epoch", "step", "saved", "kept"),
    [(2, 0, 1, True, False), (6, 1, 1, True, True), (5, 1, 0, True, True), (6, 1, 1, False, False)],
)
def test_a_loss_that_goes_bad_stops_the_run(monkeypatch, tmp_path, value, at, epoch, step, saved, kept):
    for name, new in (("at", at), ("value", value), ("steps", 0)):
        monkeypatch.setattr(Diverging, name, new)
    # 60 users of 20 interactions: 17 training rows each, 1,020 in all, four batches in an epoch.
    with pytest.raises(TrainingDivergedError) as diverged:
        run_recbole(Diverging, "slice", config_dict={**SMALL, "loss_type": "CE"}, saved=saved)
    message = str(diverged.value)
    start = f"Diverging: the loss was NaN or infinite at epoch {epoch}, step {step}; last good checkpoint: "
    assert message.startswith(start)
    assert "\n" not in message
    last_good = message.removeprefix(start)
    assert last_good.endswith(".pth") if kept else last_good == "none yet"
    if kept:
        weights = torch.load(last_good)["state_dict"]
        assert all(tensor.isfinite().all() for tensor in weights.values())


class Parts(MeanOfItems):
    """Gives its loss in parts, one of the shape (1,) as RecBole's EmbLoss gives it."""

    def calculate_loss(self, interaction):
        return super().calculate_loss(interaction), self.embedding.weight.square().mean().reshape(1)


@pytest.mark.parametrize("flag", [{}, SSL])
def test_losses_in_parts_are_summed_part_by_part(flag):
    _, trainer = our_run(Parts, {"loss_type": "CE", **flag})
    assert all(isinstance(loss, float) for loss in trainer.train_loss_dict.values())
    whole, _ = our_run(Parts, {"loss_type": "CE", "epochs": 1, **flag})
    assert np.isfinite(whole["best_valid_score"])


def one_epoch_trainer(options, monkeypatch):
    """A trainer and its loader of training rows, before the first epoch."""
    found = []

    def fit(trainer, train_data, *_, **__):
        found.append((trainer, train_data))
        raise KeyboardInterrupt

    monkeypatch.setattr(RecommenderTrainer, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        run_recbole("SASRec", "slice", config_dict={**SMALL, **options})
    return found[0]


@pytest.mark.parametrize(
    "flag",
    [{}, SSL, {**SSL, "ssl_rows": "all"}, {**SSL, "ssl_method": "clue"}, {**SSL, "ssl_loss": "infonce"}],
    ids=str,
)
def test_a_step_reads_lengths_back_once_for_each_forward(monkeypatch, flag):
    """Which are two with the flag, whose faster layers compute the model's own forward by length, too."""
    # SGD, since Adam's step counter, which lies on the CPU wherever the model is, is read in every step.
    options = {"learner": "sgd", "clip_grad_norm": {"max_norm": 1.0}, **flag}
    trainer, train_data = one_epoch_trainer(options, monkeypatch)
    with compat_patches():
        batches = list(train_data)[:3]
        trainer.model.train()
        trainer._step(trainer.model.calculate_loss, batches[0])  # probes the backbone
        if flag:  # chosen on the CPU, where the batch is
            rows = trainer.term.compared_rows(batches[1])
            monkeypatch.setattr(trainer.term, "compared_rows", lambda _: rows)
        with count_readbacks() as reads:
            trainer._step(trainer.model.calculate_loss, batches[1])
    assert len(reads) <= (2 if flag else 0), reads


def test_losses_are_looked_at_once_in_fifty_steps(monkeypatch):
    trainer, train_data = one_epoch_trainer({"train_batch_size": 9, "learner": "sgd"}, monkeypatch)
    looks = []
    own = RecommenderTrainer._check
    monkeypatch.setattr(RecommenderTrainer, "_check", lambda *arguments: (looks.append(1), own(*arguments)))
    with compat_patches():
        trainer._train_epoch(train_data, 0)
    assert len(looks) == len(train_data) // 50 + 1 == 3


@pytest.mark.parametrize("clip", [None, {"max_norm": 0.1, "norm_type": 2}])
def test_gradients_are_clipped_after_they_are_unscaled(monkeypatch, clip):
    trainer, train_data = one_epoch_trainer({"learner": "sgd", "clip_grad_norm": clip}, monkeypatch)
    order = []

    class Scaler:
        """Scales as a GradScaler on CUDA does."""

        def scale(self, loss):
            return loss * 1024

        def unscale_(self, optimizer):
            order.append("unscaled")
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad /= 1024

        def step(self, optimizer):
            if "unscaled" not in order:
                self.unscale_(optimizer)
            norms = [p.grad.norm() for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
            order.append(float(torch.stack(norms).norm()))

        def update(self):
            order.append("updated")

    trainer.scaler = Scaler()
    with compat_patches():
        trainer.model.train()
        trainer._step(trainer.model.calculate_loss, next(iter(train_data)))
    assert order[0] == "unscaled"
    assert order[2:] == ["updated"]
    assert (order[1] == pytest.approx(0.1, rel=1e-4)) if clip else (0.1 < order[1] < 100)
