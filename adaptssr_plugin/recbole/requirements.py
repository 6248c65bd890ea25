"""What this package needs installed, and the message that says how to install it."""

import importlib
import importlib.metadata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import INSTALL

RECBOLE_VERSION = "1.2.1"

# The parts of RecBole on which this package builds. The sequential models are listed because of
# recbole/model/sequential_recommender/sine.py:25, which switches autograd's anomaly mode on when it is imported, and
# any look-up of a model by name imports it. Imported once, below, it cannot do so later.
_MODULES = (
    "recbole.config",
    "recbole.data",
    "recbole.data.dataset",
    "recbole.model.abstract_recommender",
    "recbole.model.sequential_recommender",
    "recbole.trainer",
)


def require_recbole() -> None:
    """Import what is needed of RecBole, and keep warnings filters and anomaly mode as they were.

    Raises:
        ImportError: RecBole, or a package that it imports, is missing or has a version that does not work.
    """
    _check_versions()
    try:
        with warnings.catch_warnings(), anomaly_mode_kept():
            warnings.simplefilter("ignore")
            for name in _MODULES:
                importlib.import_module(name)
    except ImportError as error:
        raise ImportError(_message(f"RecBole cannot be imported ({error})")) from error


@contextmanager
def anomaly_mode_kept() -> Iterator[None]:
    """Restore autograd's anomaly mode, whatever is imported or done within this context."""
    before = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    try:
        yield
    finally:
        torch.autograd.set_detect_anomaly(*before)


def _check_versions() -> None:
    try:
        recbole = importlib.import_module("recbole")  # imports nothing else
    except ImportError as error:
        raise ImportError(_message(f"RecBole {RECBOLE_VERSION} is not installed")) from error
    if recbole.__version__ != RECBOLE_VERSION:
        raise ImportError(_message(f"expected RecBole {RECBOLE_VERSION}, found {recbole.__version__}"))
    try:
        pandas = importlib.metadata.version("pandas")
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(_message("pandas 2 is not installed")) from error
    # Under pandas 3, RecBole's chained `fillna(inplace=True)` (data/dataset/dataset.py:648) silently does nothing.
    if not pandas.startswith("2."):
        raise ImportError(_message(f"expected pandas 2, found {pandas}"))


def _message(complaint: str) -> str:
    return f"adaptssr_plugin.recbole: {complaint}; {INSTALL}"
