"""The manifest of a pre-training, ``run.json``: the options of the run, which reserve its folder for it."""

import dataclasses
import json
from collections.abc import Mapping
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


def claim(folder: Path, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write the manifest of a run into its folder, or check that the existing one is equal; remove half-written files.

    Returns:
        The manifest.

    Raises:
        InputError: a folder with another run or a damaged manifest, or a file of that name.
    """
    if any(path for pattern in _LEFT_BY_A_RUN for path in folder.glob(pattern)):
        _check_same(folder, manifest)
    elif folder.exists() and not folder.is_dir():
        raise InputError(f"output: expected a folder, got the file {folder}")
    else:
        write_json(folder / _NAME, manifest)
    for half_written in (path for pattern in _HALF_WRITTEN for path in folder.glob(pattern)):
        half_written.unlink()
    return manifest


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
