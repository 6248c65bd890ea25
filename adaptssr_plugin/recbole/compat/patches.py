"""Temporary patches with which RecBole 1.2.1 runs on current numpy and torch.

Importing this module changes nothing. Inside ``with compat_patches():`` RecBole is safe to use; afterwards numpy, the
warnings filters, autograd's anomaly mode and ``CUDA_VISIBLE_DEVICES`` are as before.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.data.transform import MaskItemSequence
from recbole.evaluator import Collector
from recbole.model.sequential_recommender import BERT4Rec

from adaptssr_plugin.recbole.compat.layers import sampled_negative
from adaptssr_plugin.recbole.compat.reading import REPLACEMENTS
from adaptssr_plugin.recbole.requirements import anomaly_mode_kept

# The names that RecBole's Config adds to numpy (config/configurator.py:628-635), with their current meaning.
_NUMPY_ALIASES: dict[str, type] = {
    "bool": np.bool_,
    "int": np.int_,
    "float": np.float64,
    "complex": np.complex128,
    "object": np.object_,
    "str": np.str_,
    "long": np.int_,
    "unicode": np.str_,
}
_data_struct, _bert4rec_loss = Collector.get_data_struct, BERT4Rec.calculate_loss


@contextmanager
def compat_patches() -> Iterator[None]:
    """Make RecBole safe to use within this context, or within a function decorated with ``@compat_patches()``.

    Contexts may be nested. Training, loading data and making a stock ``Config`` have to happen inside of one.
    """
    with (
        _quiet(),
        _numpy_aliases(),
        # Sets the aliases, and reads np.float_ for it (config/configurator.py:630), gone in numpy 2.
        temporary_attribute(Config, "compatibility_settings", lambda _config: None),
        temporary_attribute(Collector, "get_data_struct", _data_struct_with_counts),
        temporary_attribute(BERT4Rec, "calculate_loss", _finite_bert4rec_loss),
        temporary_attribute(MaskItemSequence, "_neg_sample", sampled_negative),
        anomaly_mode_kept(),
        _items_kept(os.environ, "CUDA_VISIBLE_DEVICES"),  # a stock Config overwrites it (config/configurator.py:484)
        ExitStack() as stack,
    ):
        for owner, name, value in REPLACEMENTS:
            stack.enter_context(temporary_attribute(owner, name, value))
        yield


def import_quick_start() -> ModuleType:
    """Import ``recbole.quick_start`` without ray, and return it.

    quick_start/quick_start.py:20 says ``from ray import tune``. The newest ray that RecBole allows, 2.6.3, can be
    imported neither with current setuptools (no ``pkg_resources``) nor with numpy 2 (no ``np.bool8``). A ray that is
    already imported is used; otherwise a stub is in ``sys.modules`` during this import.
    """
    if "recbole.quick_start" in sys.modules or "ray.tune" in sys.modules:
        return importlib.import_module("recbole.quick_start")
    ray, tune = ModuleType("ray"), ModuleType("ray.tune")
    # The only use, at line 223. Outside a ray session ray's own does nothing either, except warn.
    tune.report = lambda **_: None  # type: ignore[attr-defined]
    ray.tune = tune  # type: ignore[attr-defined]
    with compat_patches(), _items_kept(sys.modules, "ray", "ray.tune"):
        sys.modules.update({"ray": ray, "ray.tune": tune})
        return importlib.import_module("recbole.quick_start")


@contextmanager
def tensorboard_into(directory: str | Path | None) -> Iterator[None]:
    """Let a RecBole ``Trainer`` made in this context write its TensorBoard curves to ``directory``, or nowhere.

    RecBole's own ``get_tensorboard`` (utils/utils.py:208) always makes ``log_tensorboard/`` in the working directory.
    """

    def get_tensorboard(_logger: Any) -> Any:
        if directory is None:
            return SimpleNamespace(**dict.fromkeys(("add_scalar", "add_hparams", "flush", "close"), _write_nothing))
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(directory))

    # Trainer.__init__ looks the function up among the globals of its module (trainer/trainer.py:115).
    with temporary_attribute(importlib.import_module("recbole.trainer.trainer"), "get_tensorboard", get_tensorboard):
        yield


def _write_nothing(*_: Any, **__: Any) -> None:
    """Stand in for the methods of a SummaryWriter."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence deprecation warnings about RecBole's own lines, which a user cannot change.

    For instance torch.cuda.amp at trainer/trainer.py:235,262 and chained fillna at data/dataset/dataset.py:501,648.
    """
    with warnings.catch_warnings():
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category, module=r"recbole\.")
        # np.argsort of a tensor at data/interaction.py:347; numpy 2 reports the warning at one of its own lines.
        warnings.filterwarnings("ignore", category=DeprecationWarning, message="__array_wrap__ must accept context")
        yield


@contextmanager
def _numpy_aliases() -> Iterator[None]:
    """Add the aliases that numpy has removed, and no others.

    RecBole reads ``np.float`` whenever it makes an Interaction (data/interaction.py:31) or a metric
    (evaluator/metrics.py:90), and ``np.long``, ``np.bool`` and ``np.str`` elsewhere, so they stay while it runs.
    """
    added = [name for name in _NUMPY_ALIASES if name not in vars(np)]  # hasattr would warn with numpy 1
    for name in added:
        setattr(np, name, _NUMPY_ALIASES[name])
    try:
        yield
    finally:
        for name in added:
            delattr(np, name)


def _data_struct_with_counts(collector: Collector) -> Any:
    """Replace ``get_data_struct``, which moves counts to the CPU as if they were tensors.

    At evaluator/collector.py:227; because of it ItemCoverage, AveragePopularity, GiniIndex and TailPercentage fail.
    """
    everything = collector.data_struct._data_dict
    counts = {name: value for name, value in everything.items() if not isinstance(value, torch.Tensor)}
    collector.data_struct._data_dict = {name: everything[name] for name in everything if name not in counts}
    returned = _data_struct(collector)
    for struct in (collector.data_struct, returned):
        struct._data_dict.update(counts)
    return returned


def _finite_bert4rec_loss(model: BERT4Rec, interaction: Interaction) -> torch.Tensor:
    """Replace BERT4Rec's loss, which is 0/0 for a batch without a masked item that counts: here 0, with its graph.

    At model/sequential_recommender/bert4rec.py:197 and 212. An item at the first position does not count.
    """
    places = interaction[model.MASK_INDEX]  # (B, masked)
    counted = (places > 0).any()
    # If none counts, all are moved to a position that does, so that the loss is a number, which is multiplied by zero.
    moved = {model.MASK_INDEX: torch.where(counted, places, 1)}
    loss: torch.Tensor = counted * _bert4rec_loss(model, Interaction({**interaction.interaction, **moved}))
    return loss


@contextmanager
def temporary_attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute temporarily."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _items_kept(mapping: MutableMapping[str, Any], *names: str) -> Iterator[None]:
    """Restore some items of a mapping, or their absence."""
    before = {name: mapping[name] for name in names if name in mapping}
    try:
        yield
    finally:
        for name in names:
            mapping.pop(name, None)
        mapping.update(before)
