"""``run_recbole`` and ``load_data_and_model`` with the ``ssl_`` options and RecBole's own signatures."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ...training.processes import GO_ON_BY_RESUME, Processes
from ..compat.patches import import_quick_start
from .installing import installed


def run_recbole(
    model: Any = None,
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    saved: bool = True,
    queue: Any = None,
) -> dict[str, Any]:
    """Train and test a model by RecBole's own ``run_recbole``, with the ``ssl_`` options honoured.

    The command line (``--key=value``) overrides ``config_dict``, which overrides the YAML files. RecBole seeds the
    process's random numbers. Everything else is restored: ``config_dict``, numpy, warnings filters,
    autograd's modes, cuDNN's switches, CUDA_VISIBLE_DEVICES, the root logger, the standard streams.

    If torch's default process group has several processes, all of them call this with the same arguments and train one
    model: they share every batch, ``ssl_loss`` compares the rows of all, and the first one prints and writes files.
    Each gets the result.

    Args:
        model: name of a RecBole model, CL4SRec, CoSeRec or DuoRec; or a class.
        dataset: name of a dataset as RecBole knows it, or a folder of atomic files.
        config_file_list: YAML files; later ones override earlier ones.
        config_dict: options.
        saved: whether to write checkpoints, and test the best one.
        queue: where the result is also put, for a parent process.

    Returns:
        RecBole's: ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result``, ``test_result``.

    Raises:
        InputError: an unknown model, a model that cannot have a self-supervised loss, an unknown ``ssl_`` option or
            a value outside its range, an unreadable file.
        TrainingDivergedError: a loss that is not a number.
        ProcessLostError: another process ended or no longer answers.
    """
    with installed(), process_kept(), Processes(together=True).none_lost(GO_ON_BY_RESUME):
        result: dict[str, Any] = import_quick_start().quick_start.run_recbole(
            model, dataset, config_file_list, config_dict, saved=saved, queue=queue
        )
        return result


def load_data_and_model(
    model_file: str | Path,
    trusted: bool = False,
    model: type[Any] | None = None,
    data_path: str | Path | None = None,
) -> Any:
    """Load the checkpoint of a run, by RecBole's own function of that name.

    To evaluate the model with RecBole's trainer under numpy 2, do it within ``installed()`` or after ``install()``.

    Args:
        model_file: the checkpoint.
        trusted: whether the file may execute code, as a file written by RecBole itself does.
        model: class of the model, if RecBole does not find it by name.
        data_path: where the data of the run are now: a folder of atomic files, or RecBole's ``data_path``, which
            contains the dataset's folder. None: where they were in the run.

    Returns:
        config, model, dataset, and the loaders of training, validation and test.

    Raises:
        InputError: a file that is missing, damaged, or would execute code; a model that is not found by name; data
            that are missing or have other items than those of the training.
    """
    with installed(), process_kept():
        return import_quick_start().quick_start.load_data_and_model(model_file, trusted, model, data_path)


@contextmanager
def process_kept() -> Iterator[None]:
    """Restore what RecBole's ``init_logger`` and ``init_seed`` change in the process.

    Handlers added to the root logger are removed and closed. The standard streams, which colorama wraps
    (utils/logger.py:84), and cuDNN's switches (utils/utils.py:188) are restored.
    """
    root, cudnn = logging.getLogger(), torch.backends.cudnn
    before, level = list(root.handlers), root.level
    streams, switches = (sys.stdout, sys.stderr), (cudnn.benchmark, cudnn.deterministic)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        cudnn.benchmark, cudnn.deterministic = switches
        for handler in [handler for handler in root.handlers if handler not in before]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
