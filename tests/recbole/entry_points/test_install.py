"""install(): RecBole's own functions honour the flag, and everything is put back."""

import gc
import importlib
import inspect
import subprocess
import sys

import numpy as np
import pytest
import recbole.model.sequential_recommender as sequential_models
import torch
import yaml
from recbole.config import Config
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer, hyper_tuning
from recbole.trainer.trainer import AbstractTrainer
from recbole.utils import get_model
from recbole_cases import recommenders
from run_cases import SMALL, our_run, quiet_root

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole import import_quick_start, install, installed, uninstall

OPTIONS = {**SMALL, "ssl_loss": "adaptssr", "ssl_mode": "joint", "epochs": 1}
ADDED = ("CL4SRec", "CoSeRec", "DuoRec")


@pytest.fixture(autouse=True)
def quick_start(slice_here):
    import_quick_start()


def places():
    """Everything of RecBole, numpy and torch that an installation rebinds, object by object."""
    for name in ("general", "context_aware", "sequential", "knowledge_aware"):  # which a look-up imports
        importlib.import_module(f"recbole.model.{name}_recommender")
    gc.collect()  # classes of models that nobody has any more
    module = importlib.import_module("recbole.quick_start.quick_start")
    owners = [importlib.import_module("recbole.quick_start"), module, hyper_tuning, Trainer, Interaction, Config]
    owners += [AbstractTrainer, AbstractDataLoader, *recommenders()]
    bound = {f"{owner.__name__}.{name}": value for owner in owners for name, value in vars(owner).items()}
    return {
        **bound,
        **{f"numpy.{name}": getattr(np, name) for name in ("float", "str", "long", "bool") if name in vars(np)},
        "torch.load": torch.load,
        "models": tuple(sequential_models.__path__),
        **dict.fromkeys(vars(sequential_models), True),
        **{name: True for name in sys.modules if name.startswith("recbole.model.sequential_recommender.")},
    }


def changed(before):
    now = places()
    return sorted(name for name in before.keys() | now.keys() if before.get(name) is not now.get(name, 0)
                  and before.get(name) != now.get(name, 0))  # fmt: skip


def test_everything_is_put_back():
    before = places()
    install()
    assert changed(before)
    first = places()
    install()
    assert changed(first) == []  # twice is as good as once
    uninstall()
    assert changed(before) == []
    uninstall()
    assert changed(before) == []


def test_contexts_may_be_nested():
    before = places()
    with installed():
        inside = places()
        with installed():
            assert changed(inside) == []
        assert changed(inside) == []
    assert changed(before) == []
    install()
    with installed():
        pass
    assert get_model("CL4SRec").__name__ == "CL4SRec"  # what was installed before stays so
    assert changed(before)
    uninstall()
    assert changed(before) == []


def test_a_failure_within_puts_everything_back():
    before = places()
    with pytest.raises(KeyError), installed():
        raise KeyError
    assert changed(before) == []


def test_an_installation_that_fails_midway_leaves_nothing(monkeypatch):
    before = places()
    monkeypatch.setattr("adaptssr_plugin.recbole.entry_points.installing._run_here_or_there", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        install()
    assert changed(before) == []


@pytest.mark.parametrize("name", ADDED)
def test_models_that_recbole_lacks_are_found_while_installed(name):
    for _ in range(2):
        with pytest.raises((ValueError, ImportError)):
            get_model(name)
        with installed():
            assert get_model(name).__name__ == name
            assert get_model("SASRec") is sequential_models.SASRec


def test_importing_alone_changes_nothing(tmp_path):
    script = """
import importlib, sys, warnings
import numpy as np
names = ("recbole.config", "recbole.data.interaction", "recbole.trainer", "recbole.model.sequential_recommender")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    modules = [importlib.import_module(name) for name in names]
from recbole.config import Config
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer, hyper_tuning
from recbole.trainer.trainer import AbstractTrainer
import torch, yaml
torch.autograd.set_detect_anomaly(False)

def facts():
    owners = [*modules, hyper_tuning, Trainer, Interaction, Config, torch]
    bound = [{name: id(value) for name, value in vars(owner).items()} for owner in owners]
    folders = list(modules[-1].__path__)
    return bound, folders, set(vars(np)), list(warnings.filters), torch.is_anomaly_enabled(), list(sys.argv)

before = facts()
import adaptssr_plugin.recbole
after = facts()
for one, other in zip(before[0], after[0]):
    assert {name: value for name, value in other.items() if name in one} == one
assert after[1:] == before[1:]
assert "recbole.quick_start" not in sys.modules
assert not [name for name in sys.modules if name.split(".")[0] == "ray"]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


# --- RecBole's own functions -----------------------------------------------------------------------------------------


def test_recboles_run_recbole_honours_the_flag():
    ours, _ = our_run("SASRec", OPTIONS)
    plain, _ = our_run("SASRec", {**OPTIONS, "ssl_loss": "none"})
    with installed(), quiet_root():
        from recbole.quick_start import run_recbole

        theirs = run_recbole(model="SASRec", dataset="slice", config_dict=OPTIONS)
    assert theirs == ours
    assert theirs.keys() == plain.keys()


def test_a_function_imported_before_honours_the_flag_too():
    from recbole.quick_start import objective_function, run_recbole

    with installed(), quiet_root():
        assert run_recbole("CL4SRec", "slice", config_dict=OPTIONS)
        with pytest.raises(InputError, match="ssl_loss: expected adaptssr"):
            objective_function({**OPTIONS, "model": "SASRec", "dataset": "slice", "ssl_loss": "foo"})


def test_recboles_load_data_and_model_reads_what_its_run_wrote(tmp_path):
    with installed(), quiet_root():
        from recbole.quick_start import load_data_and_model, run_recbole

        result = run_recbole("CL4SRec", "slice", config_dict=OPTIONS)
        (saved,) = (tmp_path / "saved").glob("CL4SRec-*.pth")
        config, model, dataset, train_data, valid_data, test_data = load_data_and_model(model_file=str(saved))
        assert type(model).__name__ == "CL4SRec"
        assert config["ssl_loss"] == "adaptssr"
        again = Trainer(config, model).evaluate(test_data, load_best_model=False)
    assert again == result["test_result"]
    assert len(dataset) > len(valid_data._dataset)
    assert train_data._dataset.item_num == dataset.item_num


def test_what_hyper_tuning_calls_takes_the_values_that_it_draws(tmp_path):
    (tmp_path / "fixed.yaml").write_text(yaml.safe_dump({**OPTIONS, "model": "SASRec", "dataset": "slice"}))
    drawn = {
        "ssl_weight": np.float64(0.2),
        "ssl_epochs": 3.0,  # of quniform
        "ssl_batch_size": np.float64(16.0),
        "ssl_method": "clue",
        "learning_rate": np.float64(0.01),
    }
    with installed(), quiet_root():
        from recbole.quick_start import objective_function

        result = objective_function(dict(drawn), ["fixed.yaml"])
    assert set(result) == {"model", "best_valid_score", "valid_score_bigger", "best_valid_result", "test_result"}
    (saved,) = (tmp_path / "saved").glob("SASRec-*.pth")
    options = torch.load(saved)["config"]
    assert {name: options[name] for name in drawn} == drawn
    assert type(options["ssl_epochs"]) is int


@pytest.mark.parametrize("algorithm", ["exhaustive", "bayes", "random"])
def test_hyper_tuning(tmp_path, algorithm, capsys):
    pytest.importorskip("hyperopt")
    from recbole.trainer import HyperTuning

    (tmp_path / "fixed.yaml").write_text(yaml.safe_dump({**OPTIONS, "model": "SASRec", "dataset": "slice"}))
    space = {"choice": {"ssl_method": ["cl4srec", "clue"]}}
    if algorithm != "exhaustive":
        space |= {"quniform": {"ssl_epochs": [1, 3, 1]}, "uniform": {"ssl_weight": [0.05, 0.2]}}
    with installed(), quiet_root():
        from recbole.quick_start import objective_function

        search = HyperTuning(
            objective_function, params_dict=space, fixed_config_file_list=["fixed.yaml"], algo=algorithm, max_evals=2
        )
        search.run()
    assert len(search.params2result) == 2
    if algorithm == "exhaustive":
        assert {"ssl_method:cl4srec", "ssl_method:clue"} == set(search.params_list)


def test_the_search_of_hyper_tuning_draws_as_hyperopt_asks_it_to():
    with installed():
        source = hyper_tuning.np.random.RandomState(3)
        assert sorted({int(source.integers(0, 3)) for _ in range(60)}) == [0, 1, 2]
        assert source.integers(5, size=4).shape == (4,)
        assert hyper_tuning.np.prod is np.prod
        assert hyper_tuning.np.str is np.str_  # its plot reads that
    assert not hasattr(np.random.RandomState(3), "integers")
    assert hyper_tuning.np is np


@pytest.mark.parametrize("name", ["nproc", "world_size", "local_rank"])
def test_several_processes_among_the_options_are_refused(name):
    with installed():
        from recbole.quick_start import run, run_recbole

        for function in (run, run_recbole):
            line = rf"^{name}: expected .*; several processes are those of adaptssr run --nproc, or of the arguments of"
            with pytest.raises(InputError, match=line):
                function("SASRec", "slice", config_dict={**OPTIONS, name: 2})


@pytest.mark.parametrize("options", [{}, {"nproc": 1}, {"nproc": 1, "world_size": 1}])
def test_one_process_is_a_run(options):
    own = inspect.signature(importlib.import_module("recbole.quick_start").run)
    with installed(), quiet_root():
        from recbole.quick_start import run

        assert inspect.signature(run) == own
        if options != {}:
            assert run("SASRec", "slice", config_dict=OPTIONS, **options)["test_result"]
