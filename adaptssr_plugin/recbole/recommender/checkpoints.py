"""Checkpoints of RecBole runs: they load without executing code and identify their run."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from torch import Tensor, nn

from ...errors import InputError
from ...training import load_artefact, load_checkpoint, write_checkpoint
from ...training.known_items import KnownItems, known_items
from ..compat.training_rows import item_fingerprint, item_tokens
from .backbones import item_embedding
from .config import plain
from .data import tokens_in

# What a user can do about a file written by RecBole itself, which may execute code.
_TRUSTED = (
    "; if you made it yourself with RecBole alone, say so: trusted_files=True among the options, trusted=True to "
    "load_data_and_model"
)
_USER_ENCODER_ITEMS = "items.weight"  # of the models that `adaptssr pretrain` writes


def save_checkpoint(trainer: Any, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
    """Replace RecBole's ``Trainer._save_checkpoint``, whose files need ``weights_only=False`` (trainer.py:308)."""
    path = Path(kwargs.pop("saved_model_file", trainer.saved_model_file))
    state = {
        "config": plain(trainer.config),
        "epoch": epoch,
        "cur_step": trainer.cur_step,
        "best_valid_score": float(trainer.best_valid_score),
        "state_dict": trainer.model.state_dict(),
        "other_parameter": trainer.model.other_parameter(),
        "optimizer": trainer.optimizer.state_dict(),
    }
    write_checkpoint(path, state | (trainer.more_state() if hasattr(trainer, "more_state") else {}))
    if verbose:
        trainer.logger.info(f"Saving current: {path}")


def load_run(path: str | Path, trusted: bool = False) -> dict[str, Any]:
    """Load the checkpoint of a RecBole run onto the CPU; a trusted file may execute code, as RecBole's own do.

    Raises:
        InputError: a file that is missing, damaged, or would execute code.
    """
    state: Any
    if trusted:
        try:
            state = torch.load(path, map_location="cpu", weights_only=False)
        except Exception as error:  # whatever a foreign pickle raises
            raise InputError(f"checkpoint: cannot load {path}: {' '.join(str(error).split())}") from None
        if not isinstance(state, dict):
            raise InputError(f"checkpoint: expected a dictionary in {path}, got {type(state).__name__}")
    else:
        try:
            state = load_checkpoint(Path(path))
        except InputError as error:
            raise InputError(f"{error}{_TRUSTED if Path(path).is_file() else ''}") from None
    for name, fits in (("config", _is_options), ("state_dict", _is_weights)):
        if not fits(state.get(name)):
            lack = "has none that is one" if name in state else "has none"
            raise InputError(f"checkpoint: expected a {name!r} as of a RecBole run in {path}, which {lack}")
    return dict(state)


def _is_options(config: Any) -> bool:
    return isinstance(config, Config) or (isinstance(config, Mapping) and {"model", "dataset"} <= set(config))


def _is_weights(weights: Any) -> bool:
    return isinstance(weights, Mapping) and all(isinstance(tensor, Tensor) for tensor in weights.values())


# --- random numbers ------------------------------------------------------------------------------------------------


def random_states(generators: dict[str, torch.Generator]) -> dict[str, Any]:
    """Collect the state of every source of random numbers that a RecBole run draws from."""
    kind, keys, *place = np.random.get_state()  # noqa: NPY002 - RecBole draws from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *place],
        "generators": {name: generator.get_state() for name, generator in generators.items()},
    }


def restore_random_states(states: dict[str, Any], generators: dict[str, torch.Generator]) -> None:
    """Restore the states that :func:`random_states` collected."""
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, words, *place = states["numpy"]
    np.random.set_state((kind, words.cpu().numpy().astype(np.uint32), *place))  # noqa: NPY002
    for name, generator in generators.items():
        if name in states["generators"]:
            generator.set_state(states["generators"][name].cpu())


# --- weights from elsewhere ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoadReport:
    """The result of loading weights into a model.

    Attributes:
        loaded: tensors of the model that were overwritten; tables over items perhaps only in part.
        skipped: tensors of the file that were not used, each with the reason.
        missing: tensors of the model that kept their initialisation.
        items: the items whose rows were copied, if the file has other items; None if tables were copied whole.
    """

    loaded: tuple[str, ...]
    skipped: dict[str, str]
    missing: tuple[str, ...]
    items: KnownItems | None = None

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} loaded: {', '.join(self.loaded)}"]
        lines += [] if self.items is None else [str(self.items)]
        lines += [f"{len(self.skipped)} skipped: " + ", ".join(f"{name} ({why})" for name, why in self.skipped.items())]
        lines += [f"{len(self.missing)} missing: {', '.join(self.missing) or 'none'}"]
        return "\n".join(lines)


def load_pretrained_weights(model: nn.Module, path: str | Path, dataset: Any, trusted: bool = False) -> LoadReport:
    """Overwrite every tensor of a model for which a file has one of the same name and shape.

    If the file has other items, the rows of common items, matched by token, are copied into tables over items (tables
    with one row per item, or one more for [MASK]); the other rows stay. A checkpoint without item tokens, such as
    RecBole's own, provides its tables only if it numbers the same items in the same way, if it says so at all. A
    ``.safetensors`` file says nothing about items, so only shapes count. From a model of ``adaptssr pretrain``, whose
    encoder has another architecture, only the item table is taken.

    Args:
        model: a RecBole model.
        path: a checkpoint of a run, a ``.safetensors`` file, or a folder of ``adaptssr pretrain``.
        dataset: the model's.
        trusted: whether the file may execute code.

    Raises:
        InputError: an unreadable file, no tensor that fits, or no common item.
    """
    path = Path(path)
    there: list[str] | None = None
    same_items = True
    if path.is_dir():
        artefact = load_artefact(path)
        items_weight = item_embedding(model, int(dataset.item_num)).weight
        table = next(name for name, own in model.named_parameters() if own is items_weight)
        weights = {table if name == _USER_ENCODER_ITEMS else name: tensor for name, tensor in artefact.weights.items()}
        there = artefact.item_tokens.tolist()
    elif path.suffix == ".safetensors":
        weights = _safetensors(path)
    else:
        state = load_run(path, trusted)
        weights = state["state_dict"]
        there = tokens_in(state, path)
        same_items = state.get("items") in (None, item_fingerprint(dataset))
    items = None
    if there is not None:
        items = known_items("pretrained", item_tokens(dataset), there, path)
        same_items = items is None
    report = _overwrite(model, weights, int(dataset.item_num), same_items, items)
    if not report.loaded:
        reasons = ", ".join(f"{name} ({why})" for name, why in report.skipped.items()) or "no tensors"
        raise InputError(f"pretrained: nothing in {path} fits {type(model).__name__}: {reasons}")
    return report


@torch.no_grad()
def _overwrite(
    model: nn.Module, weights: dict[str, Tensor], n_items: int, same_items: bool, items: KnownItems | None
) -> LoadReport:
    own = model.state_dict()
    loaded, skipped, tables = [], {}, 0
    for name, tensor in weights.items():
        if name not in own:
            skipped[name] = "not in the model"
        elif items is not None and items.fit(own[name], tensor):
            items.copy_rows(own[name], tensor)
            loaded.append(name)
            tables += 1
        elif own[name].shape != tensor.shape:
            skipped[name] = f"shape {tuple(tensor.shape)}, here {tuple(own[name].shape)}"
        elif not same_items and _over_items(tensor, n_items):
            skipped[name] = "of other items"
        else:
            own[name].copy_(tensor)
            loaded.append(name)
    missing = tuple(name for name in own if name not in loaded)
    return LoadReport(tuple(loaded), skipped, missing, items if tables else None)


def _over_items(tensor: Tensor, n_items: int) -> bool:
    """Tell whether a tensor has a row for every item, perhaps one more for [MASK], or a column for every item."""
    return bool(tensor.dim()) and (tensor.shape[0] - n_items in (0, 1) or n_items in tensor.shape[1:])


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"pretrained: cannot read {path}: {' '.join(str(error).split())}") from None
