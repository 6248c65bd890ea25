"""Making RecBole honour the ``ssl_`` options, and undoing it.

While installed, RecBole's classes make instances that honour them (:mod:`.construction`), called by the user or by the
functions of ``recbole.quick_start``, which are RecBole's own except for what is named here. :func:`uninstall` restores
everything.
"""

import functools
import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import recbole.model.sequential_recommender as sequential_models
import torch
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer, hyper_tuning

from ...errors import InputError
from ..compat.layers import index_interaction
from ..compat.patches import compat_patches, import_quick_start, temporary_attribute
from ..recommender import models
from ..recommender.checkpoints import load_run, save_checkpoint
from ..recommender.checks import check_parts, check_samplers
from ..recommender.config import RunConfig
from ..recommender.data import find_data
from ..recommender.saved_loaders import load_split_dataloaders
from .construction import options_honoured
from .spawning import run_in_processes

_MODEL_NAMES = ("cl4srec", "coserec", "duorec")
_stack: ExitStack | None = None


def install() -> None:
    """Let RecBole honour ``ssl_loss``, find CL4SRec, CoSeRec and DuoRec, and train with this package's trainer.

    This applies to its functions, such as ``run_recbole``, and to its parts, called one by one: instances of
    ``Config``, of models and of ``Trainer`` made from now on, also under names that were imported before. A model that
    another trainer trains needs ``ssl_mode: joint``. Options that cannot be honoured are refused.

    RecBole's ``run`` starts several processes (``nproc``) on CPUs too; install() also takes effect in them.

    Until :func:`uninstall`, RecBole is also patched for current numpy, torch and pandas. A second call has no effect.
    """
    global _stack
    if _stack is None:
        with ExitStack() as stack:
            stack.enter_context(_installation())
            _stack = stack.pop_all()


def uninstall() -> None:
    """Restore everything that :func:`install` changed; without install() it has no effect.

    Instances made before keep working. A config with an active ``ssl_loss`` refuses to make a model from now on.
    """
    global _stack
    if _stack is not None:
        stack, _stack = _stack, None
        stack.close()


@contextmanager
def installed() -> Iterator[None]:
    """Install within a context; an earlier install() stays in effect afterwards."""
    before = _stack is not None
    install()
    try:
        yield
    finally:
        if not before:
            uninstall()


@contextmanager
def _installation() -> Iterator[None]:
    package = import_quick_start()
    module = package.quick_start
    data = importlib.import_module("recbole.data.utils")
    with ExitStack() as stack:
        stack.enter_context(compat_patches())
        stack.enter_context(options_honoured())
        stack.enter_context(_own_models())
        replacements: list[tuple[Any, str, Any]] = [
            (module, "init_logger", _logger_made(module.init_logger)),
            (module, "get_flops", _flops(module.get_flops)),
            (module, "get_model", _class_of_config),
            (data, "create_samplers", _parts_checked(data.create_samplers)),
            (data, "load_split_dataloaders", load_split_dataloaders),
            # RecBole destroys the process group at the end of a run; that is left to the code that initialised it.
            (module, "dist", SimpleNamespace(destroy_process_group=lambda: None)),
            (Trainer, "_save_checkpoint", save_checkpoint),
            (Interaction, "__getitem__", index_interaction),
            (hyper_tuning, "np", _NumpyOfHyperTuning()),
        ]
        _stock.update({name: getattr(module, name) for name in _IN_OTHER_PROCESSES})
        load = _loading(module.load_data_and_model)
        run = _run_here_or_there(module.run)
        for place in (package, module):
            replacements += [(place, "load_data_and_model", load), (place, "run", run)]
            replacements += [(place, name, stand_in) for name, stand_in in _IN_OTHER_PROCESSES.items()]
        for owner, name, value in replacements:
            stack.enter_context(temporary_attribute(owner, name, value))
        yield


@contextmanager
def _own_models() -> Iterator[None]:
    """Let RecBole's look-up by name also search our folder of models."""
    folder = str(Path(models.__file__).parent)
    sequential_models.__path__.append(folder)
    try:
        yield
    finally:
        sequential_models.__path__.remove(folder)
        for name in _MODEL_NAMES:
            sys.modules.pop(f"{sequential_models.__name__}.{name}", None)
            vars(sequential_models).pop(name, None)


# --- what stands in for the globals of RecBole's quick start ---------------------------------------------------------


def _logger_made(init_logger: Callable[..., None]) -> Callable[[Any], None]:
    """If the caller has set up logging, avoid the log file that RecBole opens, never writes to and never closes."""
    own: list[logging.Handler] = []

    def logger_made(config: Any) -> None:
        root = logging.getLogger()
        for handler in own:
            if handler not in root.handlers:  # objective_function removes them in every trial
                handler.close()
        if not root.handlers:
            if config["local_rank"]:
                logging.basicConfig(level=logging.ERROR)  # only the first of several processes writes the log
            else:
                init_logger(config)
            own[:] = root.handlers

    return logger_made


def _flops(get_flops: Callable[..., Any]) -> Callable[..., Any]:
    """Allow training of a model without ``predict``, with which RecBole counts FLOPs: it scores all items at once."""

    def flops(*arguments: Any, **options: Any) -> Any:
        try:
            return get_flops(*arguments, **options)
        except NotImplementedError:
            return "unknown, for the model has no predict"

    return flops


def _class_of_config(_name: str) -> Callable[[Any, Any], Any]:
    """Replace ``get_model``: RecBole looks the class up by name although the config already has it."""
    return lambda config, dataset: config.model_class(config, dataset)


def _run_recboles(rank: int, *arguments: Any) -> None:
    """Replace RecBole's function of one of several processes."""
    with installed():
        _stock["run_recboles"](rank, *arguments)


def _objective_function(config_dict: Any = None, config_file_list: Any = None, saved: bool = True) -> Any:
    """Replace RecBole's function of one trial, which ray calls in separate processes."""
    with installed():
        return _stock["objective_function"](config_dict, config_file_list, saved)


# RecBole's functions that begin a new process, where nothing is installed yet. Ours can be pickled by name.
_IN_OTHER_PROCESSES: dict[str, Callable[..., Any]] = {
    "run_recboles": _run_recboles,
    "objective_function": _objective_function,
}
_stock: dict[str, Callable[..., Any]] = {}


def _parts_checked(create_samplers: Callable[..., Any]) -> Callable[..., Any]:
    """Check the parts of the data as soon as RecBole has split them, and the samplers of negatives."""

    def parts_checked(config: Any, dataset: Any, built_datasets: Any) -> Any:
        check_parts(config, built_datasets)
        samplers = create_samplers(config, dataset, built_datasets)
        check_samplers(config, samplers)
        return samplers

    return parts_checked


def _loading(load_data_and_model: Callable[..., Any]) -> Callable[..., Any]:
    def load_checked(
        model_file: str | Path,
        trusted: bool = False,
        model: type[Any] | None = None,
        data_path: str | Path | None = None,
    ) -> Any:
        """Load the checkpoint of a run, as :func:`adaptssr_plugin.recbole.load_data_and_model` says."""
        state = load_run(model_file, trusted)
        if isinstance(state["config"], dict):
            state["config"] = RunConfig.restored(state["config"], model)
        find_data(state["config"], model_file, data_path)
        items = {name: state[name] for name in ("items", "item_tokens") if name in state}
        state["config"].trained_items = model_file, items
        own = torch.load  # also called to unpickle a saved dataset or saved loaders

        def load(file: Any, *arguments: Any, **options: Any) -> Any:
            return state if file == str(model_file) else own(file, *arguments, **options)

        # RecBole's own code reads the file itself, with torch.load.
        with temporary_attribute(torch, "load", load):
            try:
                return load_data_and_model(str(model_file))
            except RuntimeError as error:
                if "loading state_dict" not in str(error):
                    raise
                # The items are the same, so users or features differ.
                reason = str(error).splitlines()[-1].strip()
                raise InputError(f"checkpoint: the weights in {model_file} do not fit these data: {reason}") from None

    return load_checked


def _run_here_or_there(run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def run_here_or_there(*arguments: Any, **options: Any) -> Any:
        call = signature.bind(*arguments, **options)
        call.apply_defaults()
        return run_in_processes(run, **call.arguments)

    signature = inspect.signature(run)
    return run_here_or_there


class _RandomState(np.random.RandomState):
    """numpy's old source of random numbers with the one method of the new one that current hyperopt uses."""

    def integers(self, *arguments: Any, **options: Any) -> Any:
        """Draw integers, as ``Generator.integers`` does."""
        return self.randint(*arguments, **options)


class _NumpyOfHyperTuning:
    """numpy as HyperTuning's exhaustive search, its default, needs it (trainer/hyper_tuning.py:117)."""

    random = SimpleNamespace(RandomState=_RandomState)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)
