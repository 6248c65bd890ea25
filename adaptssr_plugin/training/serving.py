"""Use of a finished pre-training: vectors of users and items as Parquet, the encoder as a torch graph."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..corpus import BatchLoader, BehaviourCorpus
from ..corpus.formats.vector_file import VectorWriter
from ..corpus.known_histories import KnownHistories
from ..encoders import UserEncoder
from ..encoders.exporting import export_encoder
from ..errors import InputError
from .artefacts import Artefact, encoder_of, load_artefact
from .checkpoints import write_atomically

_ITEMS_AT_ONCE = 16384


@dataclass(frozen=True)
class UserModel:
    """A pre-trained encoder with its files.

    Attributes:
        encoder: on the CPU, in evaluation mode, without gradients.
        artefact: its files as loaded.
        folder: where they are.
    """

    encoder: UserEncoder
    artefact: Artefact
    folder: Path

    @property
    def max_len(self) -> int:
        """The number of newest behaviours that the encoder reads."""
        return int(self.artefact.encoder_arguments["max_len"])

    def about(self) -> dict[str, str]:
        """Describe the model in a few words."""
        card = self.artefact.card
        known = {str(name): str(card[name]) for name in ("dataset", "finished") if name in card}
        return {"adaptssr_plugin": __version__, "model": str(self.folder)} | known


@dataclass(frozen=True)
class Embedded:
    """What was written.

    Attributes:
        rows: vectors in the file.
        dim: length of a vector.
        behaviours: the number that was read, of all users.
        unknown: the number of these that were left out because the model does not know the item.
        skipped: users who were left out because the model knows none of their items.
    """

    rows: int
    dim: int
    behaviours: int = 0
    unknown: int = 0
    skipped: int = 0


def load_user_model(folder: str | Path) -> UserModel:
    """Load a finished pre-training; needs safetensors but not RecBole.

    Raises:
        InputError: a folder without a finished run, or damaged files.
    """
    folder = Path(folder)
    artefact = load_artefact(folder)
    return UserModel(encoder_of(artefact, folder).requires_grad_(False), artefact, folder)


def user_vectors(
    encoder: UserEncoder,
    corpus: BehaviourCorpus,
    max_len: int,
    batch_size: int,
    device: torch.device | str = "cpu",
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Encode users of a corpus: ``(U, d)`` float32, in its order, from the newest ``max_len`` behaviours of each.

    Args:
        encoder: on ``device``, in evaluation mode.
        corpus: in the item ids of the encoder.
        max_len: at most that of the encoder.
        batch_size: users encoded at once.
        device: where to encode.
        rows: ``(U,)``, the users in another order; None: all.
    """
    if len(corpus) == 0:
        return np.zeros((0, encoder.out_dim), dtype=np.float32)
    loader = BatchLoader(corpus, rows, batch_size=batch_size, max_len=max_len, seed=0, shuffle=False)
    parts = []
    with torch.inference_mode():
        for batch in loader:
            moved = batch.to(device)
            parts.append(encoder(moved.item_seq, moved.item_seq_len).float().cpu())
    return torch.cat(parts).numpy()


def embed_users(
    model: UserModel,
    chunks: Iterable[KnownHistories],
    output: str | Path,
    batch_size: int = 512,
    device: str = "auto",
) -> Embedded:
    """Write the vectors of users as Parquet: ``user_id`` as in the source, and ``vector``.

    One chunk of users is in memory at a time.

    Args:
        model: from :func:`load_user_model`.
        chunks: their histories in the model's ids, from :mod:`adaptssr_plugin.corpus.known_histories`.
        output: the file, replaced if it exists.
        batch_size: users encoded at once.
        device: where they are encoded: cpu, cuda, cuda:1 …; auto: cuda if there is one.

    Raises:
        InputError: no such device, or no user with an item that the model knows; then nothing is written.
    """
    where = _device(device)
    encoder = model.encoder.to(where)
    behaviours = unknown = skipped = 0
    with VectorWriter(Path(output), "user_id", encoder.out_dim, model.about()) as writer:
        for chunk in chunks:
            if len(chunk.users):
                writer.write(chunk.users, user_vectors(encoder, chunk.corpus, model.max_len, batch_size, where))
            behaviours += chunk.behaviours
            unknown += chunk.unknown
            skipped += chunk.skipped
        if writer.rows == 0:
            raise InputError(
                f"input: expected a user with an item that the model knows, got {skipped} users with none "
                f"({unknown} behaviours of unknown items)"
            )
    return Embedded(writer.rows, encoder.out_dim, behaviours, unknown, skipped)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()  # meta, which holds no values, fails here
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # AssertionError: torch is built without CUDA
        first = str(error).strip().partition("\n")[0]
        raise InputError(f"device: expected one that torch has here, got {name!r} ({first})") from None
    return device


def embed_items(model: UserModel, output: str | Path) -> Embedded:
    """Write the item table as Parquet: ``item_id``, and ``vector``, without padding and [MASK].

    Raises:
        InputError: an encoder without an item table.
    """
    table: torch.Tensor | None = getattr(model.encoder, "item_weight", None)
    if table is None:
        raise InputError(f"model: expected an encoder with item_weight, got {type(model.encoder).__name__}")
    tokens = model.artefact.item_tokens
    with VectorWriter(Path(output), "item_id", table.shape[1], model.about()) as writer:
        for start in range(1, len(tokens), _ITEMS_AT_ONCE):
            names = tokens[start : start + _ITEMS_AT_ONCE].tolist()
            writer.write(names, table[start : start + _ITEMS_AT_ONCE].detach().float().cpu().numpy())
    return Embedded(writer.rows, table.shape[1])


def export_model(model: UserModel, output: str | Path, device: str = "cpu") -> Path:
    """Write the encoder as a graph that torch loads and runs without this package (:func:`export_encoder`).

    The file also holds ``items.json``, the token of every item id, and ``model.json``, how the model was made:
    ``extra_files`` of ``torch.export.load``.

    Args:
        model: from :func:`load_user_model`.
        output: the file; its name has to end in ``.pt2``, as torch wants it. Replaced if it exists.
        device: where the graph is to run, as in :func:`embed_users`; it runs nowhere else.

    Raises:
        InputError: another file name, no such device, or an encoder that cannot be traced.
    """
    output = Path(output)
    if output.suffix != ".pt2" or output.is_dir():
        raise InputError(f"output: expected the name of a file that ends in .pt2, got {output}")
    artefact = model.artefact
    program = export_encoder(model.encoder.to(_device(device)), len(artefact.item_tokens), model.max_len)
    extra: dict[str, Any] = {
        "items.json": json.dumps(artefact.item_tokens.tolist(), ensure_ascii=False),
        "model.json": json.dumps({"encoder": artefact.encoder_arguments, **artefact.card}, ensure_ascii=False),
    }

    def write(path: Path) -> None:
        with path.open("wb") as file:  # given a name, torch would complain about the temporary file's ending
            torch.export.save(program, file, extra_files=extra)

    write_atomically(output, write)
    return output
