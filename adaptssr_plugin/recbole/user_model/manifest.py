"""The manifest of a pre-training, ``run.json``: the options of the run, which reserve its folder for it."""

import dataclasses
import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ...corpus import BehaviourCorpus
from ...errors import InputError
from ...methods import Recipe
from ...training.artefacts import write_json
from .source import Source

_NAME = "run.json"
# A run that was refused before its first epoch has written none of these, and may be corrected in the same folder.
_LEFT_BY_A_RUN = ("*/last.pt", "*/previous.pt", "model.json")
_HALF_WRITTEN = (".*.tmp", "*/.*.tmp")  # by a run that was killed


def manifest_of(source: Source, recipe: Recipe, corpus: BehaviourCorpus) -> dict[str, Any]:
    """Return the options of a run, as plain values in named parts."""
    asked = {
        "recipe": dataclasses.asdict(recipe),
        "source": {
            "dataset": source.dataset,
            "options": dict(source.options),
            "config_files": list(source.config_files),
        },
        "corpus": {
            "users": len(corpus),
            "items": corpus.n_items,
            "behaviours": len(corpus.items),
            "histories_crc32": corpus.checksum(),
        },
    }
    return as_json(asked)


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values in the form that JSON gives them; unknown types become text."""
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def claim(folder: Path, manifest: Mapping[str, Any], held: ExitStack) -> Mapping[str, Any]:
    """Write the manifest of a run into its folder, or check that the existing one is equal; remove half-written files.

    Until ``held`` is closed, nobody else can claim the folder.

    Returns:
        The manifest.

    Raises:
        InputError: a folder in use, with another run or a damaged manifest, or a file of that name.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output: expected a folder, got the file {folder}")
    _lock(folder, held)
    if any(path for pattern in _LEFT_BY_A_RUN for path in folder.glob(pattern)):
        _check_same(folder, manifest)
    else:
        write_json(folder / _NAME, manifest)
    for half_written in (path for pattern in _HALF_WRITTEN for path in folder.glob(pattern)):
        half_written.unlink()
    return manifest


def _lock(folder: Path, held: ExitStack) -> None:
    """Lock the folder; the system unlocks it when this process ends, however it does."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    held.callback(os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"output: {folder} is in use by another process that pre-trains in it") from None
    except OSError:  # a file system without locks
        pass


def _check_same(folder: Path, manifest: Mapping[str, Any]) -> None:
    try:
        there = json.loads((folder / _NAME).read_text(encoding="utf-8"))
        known = {part: dict(there[part]) for part in manifest}
    except (OSError, ValueError, TypeError, KeyError):
        raise InputError(f"output: {folder / _NAME} is missing or damaged; choose another folder") from None
    for part, values in manifest.items():
        for name, value in values.items():
            if known[part].get(name) != value:
                raise InputError(
                    f"output: {folder} holds another run ({name}: {known[part].get(name)!r} there, "
                    f"{value!r} here); choose another folder"
                )
