"""RecBole's ``save_dataloaders``: taking up the loaders that an earlier run has saved."""

import pickle
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole.data.utils import get_dataloader
from recbole.utils.argument_list import dataset_arguments

from ...errors import InputError
from ..compat.safe_config import one_line
from .checks import check_parts

# What the rows of a part and the sampler of their negatives depend on.
_SAME = (*dataset_arguments, "seed", "repeatable", "eval_args", "train_neg_sample_args", "MODEL_TYPE")


def load_split_dataloaders(config: Any) -> tuple[Any, ...] | None:
    """Stand in for RecBole's function of that name (data/utils.py:102): the rows are saved ones, the loaders are new.

    RecBole keeps the loaders of the run that saved them, with its batch size and its transform, whatever this run's
    options are, and BERT4Rec finds the names of its fields in the config of the run that made its transform. The
    order of rows is the same: both begin it from the seed, which has to be the same.

    Returns:
        The loaders for training, validation and test; None where there are none of a run with the same data.

    Raises:
        InputError: a file that cannot be read, rows that this run cannot do with, several processes.
    """
    default = Path(config["checkpoint_dir"]) / f"{config['dataset']}-for-{config['model']}-dataloader.pth"
    path = Path(config["dataloaders_save_path"] or default)
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            saved = [loader for loader, _ in pickle.load(file)]
        same = all(config[name] == saved[0].config[name] for name in _SAME)
        rows = [(loader._dataset, loader._sampler) for loader in saved]
    except Exception as error:  # whatever a foreign pickle raises
        raise InputError(f"dataloaders_save_path: cannot load {path}: {one_line(error)}") from error
    if not same:
        return None
    if config["single_spec"] is False:
        raise InputError(f"dataloaders_save_path: expected no saved loaders in several processes, got {path}")
    check_parts(config, [dataset for dataset, _ in rows])
    getLogger().info(f"Load split dataloaders from: [{path}]")
    return tuple(
        get_dataloader(config, phase)(config, dataset, sampler, shuffle=phase == "train" and config["shuffle"])
        for phase, (dataset, sampler) in zip(("train", "valid", "test"), rows, strict=True)
    )
