"""RecBole's ``save_dataloaders``: using the loaders that an earlier run has saved."""

import pickle
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole.data.utils import get_dataloader
from recbole.utils.argument_list import dataset_arguments

from ...errors import InputError
from ..compat.safe_config import one_line
from .checks import check_parts

# Options on which the rows of a part and the sampler of their negatives depend.
_SAME = (*dataset_arguments, "seed", "repeatable", "eval_args", "train_neg_sample_args", "MODEL_TYPE")


def load_split_dataloaders(config: Any) -> tuple[Any, ...] | None:
    """Replace RecBole's function of that name (data/utils.py:102): the rows are the saved ones, the loaders are new.

    RecBole keeps the saved loaders with their batch size and transform, whatever the options of this run, and
    BERT4Rec's transform uses the field names of the config with which it was made. The order of rows is the same:
    both start from the seed, which has to be equal.

    Returns:
        The loaders for training, validation and test; None if no run with the same data has saved any.

    Raises:
        InputError: a file that cannot be read, rows that this run cannot use, several processes.
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
