"""One result file for every finished cell: what is there is not computed again, here or on another machine."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...training.checkpoints import write_text
from .cells import Cell


class Store:
    """Results in a folder: ``cells/KIND-KEY.json``, and models in ``models/KEY``.

    Files may be copied between machines; a model that is not there is trained again when something needs it.

    Args:
        folder: made if missing.
        fingerprint: of the corpus; results on another corpus are not seen.

    Raises:
        InputError: a file that cannot be read as a result.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.models = folder / "models"
        self._results: dict[str, Mapping[str, Any]] = {}
        for path in sorted((folder / "cells").glob("*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                key, result = content["key"], content["result"]
            except (OSError, ValueError, TypeError, KeyError):
                raise InputError(f"output: {path} is damaged or foreign; remove it, and its cell runs again") from None
            self._results[key] = {**result, "conditions": content.get("conditions", {})}

    def get(self, cell: Cell) -> Mapping[str, Any] | None:
        """Return the result of a cell, with the conditions it was computed under; None if it is not finished."""
        return self._results.get(cell.key(self.fingerprint))

    def has_model(self, cell: Cell) -> bool:
        """Tell whether the weights of a pre-training are here, and not its result alone."""
        return (self.models / cell.key(self.fingerprint) / "model.json").is_file()

    def path(self, cell: Cell) -> Path:
        """Where the result of a cell is, or will be."""
        return self.folder / "cells" / f"{cell.kind}-{cell.key(self.fingerprint)}.json"

    def put(self, cell: Cell, result: Mapping[str, Any], where: Mapping[str, Any]) -> None:
        """Write a result, whole or not at all.

        Args:
            cell: what was computed.
            result: plain values.
            where: conditions it was computed under.
        """
        key = cell.key(self.fingerprint)
        content = {"key": key, "corpus": self.fingerprint, "kind": cell.kind, "spec": cell.spec(), "result": result,
                   "conditions": where}  # fmt: skip
        write_text(self.path(cell), json.dumps(content, indent=1, sort_keys=True) + "\n")
        self._results[key] = {**result, "conditions": where}
