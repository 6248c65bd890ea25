"""The ssl_ options: what is refused, and which of several values counts."""

import dataclasses
from importlib.resources import files

import numpy as np
import pytest
import yaml
from refusals import refusal_of
from training_cases import assert_origins

from adaptssr_plugin.methods import view_methods
from adaptssr_plugin.recbole.recommender.settings import LOSSES, SelfSupervision, packaged_defaults, self_supervision

NAMES = {"ssl_" + field.name for field in dataclasses.fields(SelfSupervision)}
PACKAGED = [
    source
    for folder in ("models", "methods")
    for source in (files("adaptssr_plugin.recbole.recommender") / "defaults" / folder).iterdir()
    if source.name.endswith(".yaml")
]


def refusal(options, model="SASRec"):
    return refusal_of(self_supervision, model, options)


def test_without_options_nothing_is_added():
    settings = self_supervision("SASRec", {"epochs": 3, "learning_rate": 0.1})
    assert (settings.loss, settings.active) == ("none", False)
    assert (settings.mode, settings.weight, settings.method) == ("pretrain", 0.1, "cl4srec")


@pytest.mark.parametrize("text", ["none", "null", "~", ""])
def test_none_in_yaml_means_none(text):
    assert not self_supervision("CL4SRec", yaml.safe_load(f"ssl_loss: {text}")).active


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ssl_loss": "foo"}, "ssl_loss: expected adaptssr or infonce or none, got 'foo'"),
        ({"ssl_loss": "AdaptSSR"}, "ssl_loss: expected adaptssr or infonce or none, got 'AdaptSSR'"),
        ({"ssl_mode": "both"}, "ssl_mode: expected joint or pretrain, got 'both'"),
        ({"ssl_rows": 3}, "ssl_rows: expected text, got 3"),
        ({"ssl_weight": "heavy"}, "ssl_weight: expected a number, got 'heavy'"),
        ({"ssl_weight": None}, "ssl_weight: expected a number, got None"),
        ({"ssl_weight": True}, "ssl_weight: expected a number, got True"),
        ({"ssl_weight": np.True_}, "ssl_weight: expected a number, got True"),
        ({"ssl_weight": [0.1]}, "ssl_weight: expected a number, got [0.1]"),
        ({"ssl_weight": -0.1}, "ssl_weight: expected 0 or more, got -0.1"),
        ({"ssl_weight": float("nan")}, "ssl_weight: expected 0 or more, got nan"),
        ({"ssl_weight": float("inf")}, "ssl_weight: expected 0 or more, got inf"),
        ({"ssl_mask_ratio": 1.5}, "ssl_mask_ratio: expected a number in (0, 1], got 1.5"),
        ({"ssl_mask_ratio": 0}, "ssl_mask_ratio: expected a number in (0, 1], got 0.0"),
        ({"ssl_dropout": 0}, "ssl_dropout: expected a number in (0, 1), got 0.0"),
        ({"ssl_temperature": 0}, "ssl_temperature: expected a positive number, got 0.0"),
        ({"ssl_epochs": 2.5}, "ssl_epochs: expected an integer, got 2.5"),
        ({"ssl_epochs": "3"}, "ssl_epochs: expected an integer, got '3'"),
        ({"ssl_epochs": True}, "ssl_epochs: expected an integer, got True"),
        ({"ssl_epochs": float("inf")}, "ssl_epochs: expected an integer, got inf"),
        ({"ssl_epochs": 0}, "ssl_epochs: expected an integer of at least 1, got 0"),
        ({"ssl_batch_size": 1}, "ssl_batch_size: expected an integer of at least 2, got 1"),
        ({"ssl_mask_same_target": 1}, "ssl_mask_same_target: expected true or false, got 1"),
        ({"ssl_lambda_terms": 3}, "ssl_lambda_terms: expected 4 or 2, got 3"),
    ],
)
@pytest.mark.parametrize("loss", ["adaptssr", "none"])
def test_a_wrong_value_is_refused_whatever_the_loss(options, message, loss):
    assert refusal({"ssl_loss": loss, **options}) == message


def test_an_unknown_method_lists_those_that_there_are():
    message = refusal({"ssl_method": "foo"})
    assert message == f"ssl_method: expected {' or '.join(view_methods(with_filler=False))}, got 'foo'"
    assert {"cl4srec", "coserec", "duorec", "clue"} <= set(view_methods(with_filler=False))


@pytest.mark.parametrize(
    "name", ["ssl_wieght", "ssl_", "ssl_Loss", "ssl_ssl_loss", "ssl-loss", "SSL_loss", "sslloss", "ssl"]
)
def test_an_unknown_option_lists_those_that_there_are(name):
    message = refusal({name: 1})
    assert message.startswith(f"{name}: expected one of ")
    assert message.endswith(", got an unknown name")
    assert all(known in message for known in NAMES)


@pytest.mark.parametrize(
    ("option", "value", "meant"),
    [
        ("weight", np.float64(0.25), 0.25),
        ("weight", np.float32(0.25), 0.25),
        ("weight", np.int64(1), 1.0),
        ("weight", 1, 1.0),
        ("weight", "2e-4", 2e-4),
        ("epochs", 3.0, 3),
        ("epochs", np.float64(3.0), 3),
        ("epochs", np.int64(3), 3),
        ("epochs", np.uint8(3), 3),
        ("lambda_terms", 2.0, 2),
        ("mask_same_target", np.True_, True),
        ("method", np.str_("clue"), "clue"),
    ],
)
def test_numbers_may_come_as_hyperopt_draws_them(option, value, meant):
    settings = self_supervision("SASRec", {"ssl_loss": "adaptssr", f"ssl_{option}": value})
    assert getattr(settings, option) == meant
    assert type(getattr(settings, option)) is type(meant)


def test_the_user_counts_more_than_the_model_and_the_model_more_than_the_method(monkeypatch):
    packaged = {
        ("models", "Model"): {"ssl_loss": "infonce", "ssl_weight": 0.2, "ssl_crop_ratio": 0.2, "ssl_method": "clue"},
        ("methods", "clue"): {"ssl_weight": 0.3, "ssl_crop_ratio": 0.3, "ssl_mask_ratio": 0.3, "ssl_scale": 3.0},
        ("methods", "duorec"): {"ssl_mask_ratio": 0.4},
    }
    monkeypatch.setattr(
        "adaptssr_plugin.recbole.recommender.settings.packaged_defaults",
        lambda kind, name: packaged.get((kind, name), {}),
    )
    settings = self_supervision("Model", {"ssl_weight": 0.1})
    assert (settings.loss, settings.method) == ("infonce", "clue")
    assert (settings.weight, settings.crop_ratio, settings.mask_ratio) == (0.1, 0.2, 0.3)
    assert (settings.scale, settings.reorder_ratio) == (3.0, SelfSupervision().reorder_ratio)
    assert self_supervision("Model", {"ssl_method": "duorec"}).mask_ratio == 0.4
    assert self_supervision("Other", {"ssl_method": "clue"}).weight == 0.3


@pytest.mark.parametrize(
    ("model", "method", "ratios"),
    [
        ("CL4SRec", "cl4srec", {"crop_ratio": 0.6, "mask_ratio": 0.3, "reorder_ratio": 0.6, "distinct_ops": True}),
        (
            "CoSeRec",
            "coserec",
            {
                "crop_ratio": 0.2,
                "mask_ratio": 0.7,
                "reorder_ratio": 0.2,
                "substitute_ratio": 0.1,
                "insert_ratio": 0.4,
            },
        ),
        ("DuoRec", "duorec", {}),
    ],
)
def test_models_that_recbole_lacks_have_their_published_defaults(model, method, ratios):
    settings = self_supervision(model, {})
    published = {"loss": "infonce", "method": method, "mode": "joint", "weight": 0.1, "similarity": "dot"}
    for name, value in {**published, "temperature": 1.0, "negatives": "auto", **ratios}.items():
        assert getattr(settings, name) == value, name
    assert self_supervision(model, {"ssl_loss": "adaptssr"}).loss == "adaptssr"
    assert not self_supervision(model, {"ssl_loss": "none"}).active


@pytest.mark.parametrize("source", PACKAGED, ids=lambda source: source.name)
def test_packaged_files_hold_known_options_that_pass(source):
    options = yaml.safe_load(source.read_text(encoding="utf-8"))
    assert options
    assert set(options) <= NAMES
    assert self_supervision("SASRec", options)


def test_every_method_with_a_file_is_one():
    methods = {source.name.removesuffix(".yaml") for source in PACKAGED if "ssl_loss" not in source.read_text()}
    assert methods - {"FEARec"} <= set(view_methods())


@pytest.mark.parametrize("loss", LOSSES)
def test_options_survive_the_names_that_users_write(loss):
    settings = SelfSupervision(loss=loss, weight=0.3, method="clue")
    assert set(settings.as_options()) == NAMES
    assert self_supervision("CL4SRec", settings.as_options()) == settings


def test_a_model_without_a_file_has_no_defaults():
    assert packaged_defaults("models", "SASRec") == {}


def test_each_default_says_where_it_comes_from():
    assert_origins(SelfSupervision)
