"""A pre-trained user model as files that other systems can read.

A folder holds ``model.safetensors`` (weights), ``model.json`` (sizes of the encoder and how it was made),
``items.json`` (the token of every item id, [PAD] first), and ``MODEL_CARD.md``, the same for people to read.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..encoders import UserEncoder, make_encoder
from ..errors import InputError
from .card import model_card
from .checkpoints import system_error_of, write_text, write_together

_WEIGHTS, _CARD, _ITEMS = "model.safetensors", "model.json", "items.json"
_FOR_PEOPLE = "MODEL_CARD.md"


@dataclass(frozen=True)
class Artefact:
    """A loaded pre-trained model.

    Attributes:
        encoder_arguments: of :class:`UserEncoder`, ``n_items`` included.
        weights: the ``state_dict`` of the encoder.
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
    """Write a model's files into ``folder``; returns their paths. Arguments as :class:`Artefact`.

    All or none: the files of a previous model are replaced only after all files of this one are written, and a card
    never lies beside weights or items of another model.

    Raises:
        OSError: a full disk or the like; the previous files are unchanged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}

    def write_weights(path: Path) -> None:
        try:
            save_file(weights, path, metadata={"format": "pt"})
        except SafetensorError as error:
            raise system_error_of(error) from None

    texts = {
        _FOR_PEOPLE: model_card(encoder_arguments, card),
        _ITEMS: _json([str(token) for token in item_tokens]),
        _CARD: _json({"encoder": encoder_arguments, **card}),
    }
    files: dict[Path, Callable[[Path], object]] = {folder / _WEIGHTS: write_weights}
    files |= {folder / name: partial(Path.write_text, data=text, encoding="utf-8") for name, text in texts.items()}
    write_together(files)
    return [folder / name for name in (_WEIGHTS, _CARD, _ITEMS, _FOR_PEOPLE)]


def load_artefact(folder: Path) -> Artefact:
    """Read a model's files.

    Raises:
        InputError: a folder without such files, or damaged files.
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
        numbers = sum(tensor.numel() for tensor in weights.values())
        for name, size in arguments.items():
            if isinstance(size, int) and size > numbers:  # checked before a tensor of that size is made
                raise ValueError(f"{name} is {size}, but there are {numbers} weights")
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise InputError(f"model: cannot read the files in {folder}: {' '.join(str(error).split())}") from None
    return Artefact(arguments, weights, card, item_tokens)


def encoder_of(artefact: Artefact, folder: Path) -> UserEncoder:
    """Make the encoder of a loaded model on the CPU, in evaluation mode.

    Raises:
        InputError: sizes, weights and card that do not agree.
    """
    try:
        encoder: UserEncoder = make_encoder(**artefact.encoder_arguments)
        encoder.load_state_dict(artefact.weights)
    except (RuntimeError, TypeError, InputError) as error:
        raise misfit(folder, error) from None
    return encoder.eval()


def misfit(folder: Path, error: Exception) -> InputError:
    """Make the error for files of a model that can be read but do not agree."""
    return InputError(f"model: the files in {folder} do not fit: {str(error).splitlines()[-1].strip()}")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    write_text(path, _json(content))


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
