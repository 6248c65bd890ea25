"""A pre-trained user model as files that other systems can read.

A folder holds ``model.safetensors`` (weights), ``model.json`` (sizes of the encoder and how it was made) and
``items.json`` (the token of every item id, [PAD] first).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..encoders import UserEncoder
from ..errors import InputError
from .checkpoints import write_atomically, write_text

_WEIGHTS, _CARD, _ITEMS = "model.safetensors", "model.json", "items.json"


@dataclass(frozen=True)
class Artefact:
    """A pre-trained model as loaded.

    Attributes:
        encoder_arguments: of :class:`UserEncoder`, ``n_items`` included.
        weights: its ``state_dict``.
        card: how it was made: dataset, recipe, metrics, seeds, versions.
        item_tokens: ``(n_items,)`` strings, the token of every id; [0] is the padding.
    """

    encoder_arguments: dict[str, Any]
    weights: dict[str, Any]
    card: dict[str, Any]
    item_tokens: npt.NDArray[np.str_]


def save_artefact(
    folder: Path,
    encoder: UserEncoder,
    encoder_arguments: dict[str, Any],
    card: dict[str, Any],
    item_tokens: npt.NDArray[np.str_],
) -> list[Path]:
    """Write a model's files into ``folder``, each atomically; returns their paths. Arguments as :class:`Artefact`."""
    from safetensors.torch import save_file

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    write_atomically(folder / _WEIGHTS, lambda path: save_file(weights, path, metadata={"format": "pt"}))
    write_json(folder / _CARD, {"encoder": encoder_arguments, **card})
    write_json(folder / _ITEMS, [str(token) for token in item_tokens])
    return [folder / name for name in (_WEIGHTS, _CARD, _ITEMS)]


def load_artefact(folder: Path) -> Artefact:
    """Read a model's files.

    Raises:
        InputError: a folder that holds no such files, or damaged ones.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in (_WEIGHTS, _CARD, _ITEMS):
        if not (folder / name).is_file():
            raise InputError(f"model: expected a folder with {name}, got {folder} (has its pre-training finished?)")
    try:
        weights = load_file(folder / _WEIGHTS)
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        tokens = json.loads((folder / _ITEMS).read_text(encoding="utf-8"))
        arguments = dict(card.pop("encoder"))
        item_tokens = np.array(tokens, dtype=np.str_).reshape(arguments["n_items"])
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"model: cannot read the files in {folder}: {' '.join(str(error).split())}") from None
    return Artefact(arguments, weights, card, item_tokens)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
