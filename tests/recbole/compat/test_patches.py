import os
import sys
import warnings
from contextlib import nullcontext
from types import ModuleType

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector
from recbole.model.sequential_recommender import BERT4Rec
from recbole.trainer import Trainer
from recbole.trainer import trainer as trainer_module
from recbole_cases import MeanOfItems, write_odd_dataset

from adaptssr_plugin.recbole import build_config, compat_patches, import_quick_start, tensorboard_into


def process_state():
    return {
        "numpy": set(vars(np)),
        "filters": list(warnings.filters),
        "anomaly": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "argv": list(sys.argv),
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "settings": Config.compatibility_settings,
        "counts": Collector.get_data_struct,
        "loss": BERT4Rec.calculate_loss,
        "ray": {name for name in sys.modules if name.split(".")[0] == "ray"},
        "tensorboard": trainer_module.get_tensorboard,
    }


@pytest.mark.parametrize("devices", [None, "5"])
@pytest.mark.parametrize("failing", [False, True])
def test_afterwards_everything_is_as_before(monkeypatch, devices, failing):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if devices:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    monkeypatch.setattr(sys, "argv", ["program"])
    before = process_state()
    with pytest.raises(KeyError, match="anything") if failing else nullcontext(), compat_patches(), compat_patches():
        config = Config(model="SASRec", dataset="ml-100k", config_dict={"train_neg_sample_args": None})
        assert config["n_layers"] == 2
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"  # a stock Config does that
        torch.autograd.set_detect_anomaly(True, check_nan=False)
        warnings.simplefilter("ignore")
        if failing:
            raise KeyError("anything")
    assert process_state() == before


def test_what_numpy_dropped_is_there_while_recbole_runs():
    made_of_numpy = {"score": np.array([0.5, 0.25])}  # reads np.float
    with pytest.raises(AttributeError, match="float"):
        Interaction(made_of_numpy)
    with compat_patches():
        assert Interaction(made_of_numpy)["score"].tolist() == [0.5, 0.25]
        assert np.dtype(np.float) == np.float64  # noqa: NPY001
        assert np.dtype(np.long) == np.int64
        assert np.dtype(np.bool) == np.bool_


def test_an_alias_that_is_there_already_stays(monkeypatch):
    monkeypatch.setattr(np, "float", "mine", raising=False)
    with compat_patches():
        assert vars(np)["float"] == "mine"
    assert vars(np)["float"] == "mine"


def test_recbole_does_not_complain_of_its_own_lines_within():
    with compat_patches():
        rows = Interaction({"time": torch.tensor([3.0, 1.0, 2.0])})
        rows.sort(by="time")  # np.argsort of a tensor: deprecated in numpy 2, and warnings are errors here
        assert rows["time"].tolist() == [1, 2, 3]
        with pytest.raises(DeprecationWarning, match="of ours"):
            warnings.warn("of ours", DeprecationWarning, stacklevel=1)


@pytest.mark.parametrize("other_ray", [None, ModuleType("ray")])
def test_quick_start_is_imported_without_ray(monkeypatch, other_ray):
    for name in ("recbole.quick_start", "recbole.quick_start.quick_start", "ray", "ray.tune"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    if other_ray:
        monkeypatch.setitem(sys.modules, "ray", other_ray)
    before = process_state()
    quick_start = import_quick_start()
    assert callable(quick_start.run_recbole)
    assert quick_start.quick_start.tune.report(hit=1.0) is None
    assert import_quick_start() is quick_start
    assert process_state() == before
    assert sys.modules.get("ray") is other_ray


def test_a_ray_that_works_is_used(monkeypatch):
    for name in ("recbole.quick_start", "recbole.quick_start.quick_start"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    ray, tune = ModuleType("ray"), ModuleType("ray.tune")
    ray.tune = tune
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.tune", tune)
    assert import_quick_start().quick_start.tune is tune


def test_a_trainer_writes_its_curves_where_it_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_odd_dataset(tmp_path / "odd")
    config = build_config(MeanOfItems, "odd", {"checkpoint_dir": str(tmp_path / "saved"), "data_path": tmp_path})
    own = trainer_module.get_tensorboard
    with compat_patches(), tensorboard_into(tmp_path / "curves"):
        from recbole.data import create_dataset

        trainer = Trainer(config, MeanOfItems(config, create_dataset(config)))
        trainer.tensorboard.add_scalar("loss", 1.0, 0)
        trainer.tensorboard.close()
    assert trainer_module.get_tensorboard is own
    assert len(list((tmp_path / "curves").glob("events.out.tfevents.*"))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves", "odd", "saved"]
