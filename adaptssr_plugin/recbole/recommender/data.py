"""What a checkpoint of a RecBole run says about its data: where they are, and which items they have."""

import glob
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError, MissingDatasetError
from ..compat.atomic_files import datasets_within, inter_endings
from ..compat.training_rows import item_fingerprint, item_tokens

# Options that name a file which RecBole reads instead of the atomic files.
_PICKLED = ("dataset_save_path", "dataloaders_save_path")


def items_state(dataset: Any) -> dict[str, Any]:
    """Return, for a checkpoint, the items of a model in the order of their ids: fingerprint and tokens.

    The tokens are one tensor: a list of a million strings takes seconds to load with ``weights_only=True``.
    """
    text = json.dumps(item_tokens(dataset), ensure_ascii=False, separators=(",", ":"))
    tokens = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    return {"items": item_fingerprint(dataset), "item_tokens": tokens}


def tokens_in(state: Mapping[str, Any], path: str | Path) -> list[str] | None:
    """Read the tokens of a checkpoint's items, the padding first; None if it has none.

    Raises:
        InputError: something that is not item tokens.
    """
    if "item_tokens" not in state:  # RecBole's own checkpoints, and ours of early versions
        return None
    try:
        tokens = json.loads(state["item_tokens"].numpy().tobytes())
        if not all(isinstance(token, str) for token in tokens):
            raise TypeError
    except (AttributeError, TypeError, ValueError):
        raise InputError(f"checkpoint: expected item tokens as of a RecBole run in {path}, got others") from None
    return list(tokens)


def find_data(config: Any, path: str | Path, data_path: str | Path | None) -> None:
    """Update the config of a loaded run with the place of its data.

    Args:
        config: of the run, changed in place if ``data_path`` is given.
        path: the checkpoint, for the message.
        data_path: a folder of atomic files, or one that contains the dataset's folder; None: the place in the run.

    Raises:
        MissingDatasetError: the data are not there.
    """
    options = config.final_config_dict
    name, parts = str(options["dataset"]), list(options.get("benchmark_filename") or [])
    files = " and ".join(f"{name}{ending}" for ending in inter_endings(parts))
    if data_path is None:
        folder = Path(options.get("data_path") or "")
        if name not in datasets_within(folder, parts) and not _pickled(options):
            raise MissingDatasetError(
                f"dataset: expected {files} in {folder.absolute()}, where {path} was trained, found none; "
                "data_path= says where the data are now"
            )
        return
    given = Path(data_path).expanduser()
    places = [(folder, datasets_within(folder, parts)) for folder in (given, given / name)]
    exact = [(folder, name) for folder, found in places if name in found]
    renamed = [(folder, found[0]) for folder, found in places if len(found) == 1]
    if not exact + renamed:
        raise MissingDatasetError(
            f"data_path: expected {files}, on which {path} was trained, in {given.absolute()} or in a folder {name} "
            "there, found none"
        )
    folder, config.dataset = (exact + renamed)[0]
    options.update(data_path=str(folder), dataset=config.dataset)
    # Instead of the files RecBole would read what a run has pickled; it shall find none.
    options.update(dict.fromkeys(_PICKLED, str(folder / "nothing-pickled")))


def _pickled(options: Mapping[str, Any]) -> bool:
    """Tell whether RecBole finds a pickled dataset (``save_dataset``), which it reads instead of the files.

    Pickled loaders (``save_dataloaders``) do not replace them.
    """
    named = options.get("dataset_save_path")
    pattern = f"{glob.escape(str(options['dataset']))}-*Dataset.pth"
    return bool(named and Path(named).exists()) or any(Path(options.get("checkpoint_dir") or "").glob(pattern))


def check_items(dataset: Any, path: str | Path, state: Mapping[str, Any]) -> None:
    """Raise InputError unless a dataset numbers the same items in the same way as a checkpoint, if that says how."""
    if state.get("items") in (None, item_fingerprint(dataset)):
        return
    there, here = tokens_in(state, path), item_tokens(dataset)
    came, number = "others", ""
    if there is not None:
        both = len({*there[1:]} & {*here[1:]})
        came, number = f"{both:,} of them and {len(here) - 1 - both:,} others", f"{len(there) - 1:,} "
        if both == len(here) - 1 == len(there) - 1:
            came = "the same in another order"
    raise InputError(
        f"dataset: expected the {number}items that {path} was trained on, got {came} in {dataset.dataset_path}; "
        "data_path= says where its data are now"
    )
