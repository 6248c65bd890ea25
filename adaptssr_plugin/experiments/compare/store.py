"""All finished cells of a folder in one file, a line each: what is there is not computed again, here or elsewhere."""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from .cells import Cell

CELLS = "cells.jsonl"


class Store:
    """Results in a folder: a line of JSON for every cell in ``cells.jsonl``, and models in ``models/KEY``.

    Files of several machines are brought together by concatenating them; of two lines with one key the later one
    holds. A last line that is incomplete, since its writer was killed, is passed over, and cut off when the next one
    is written. A model that is not there is trained again when something needs it.

    Args:
        folder: made if missing.
        fingerprint: of the corpus; results on another corpus are not seen.

    Raises:
        InputError: a line that cannot be read as a result.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.path = folder / CELLS
        self.fingerprint = fingerprint
        self.models = folder / "models"
        self._results: dict[str, Mapping[str, Any]] = {}
        try:
            lines = self.path.read_bytes().split(b"\n") if self.path.exists() else [b""]
        except OSError as error:
            raise InputError(f"output: cannot read {self.path}: {error.strerror}") from None
        for number, line in enumerate(lines, start=1):
            cell = _read(line)
            if cell is not None:
                self._results[cell["key"]] = {**cell["result"], "conditions": cell["conditions"]}
            elif number < len(lines):
                raise InputError(
                    f"output: line {number} of {self.path} is damaged or foreign; remove it, and its cell runs again"
                )

    def get(self, cell: Cell) -> Mapping[str, Any] | None:
        """Return the result of a cell, with the conditions it was computed under; None if it is not finished."""
        return self._results.get(cell.key(self.fingerprint))

    def has_model(self, cell: Cell) -> bool:
        """Tell whether the weights of a pre-training are here, and not its result alone."""
        return (self.models / cell.key(self.fingerprint) / "model.json").is_file()

    def put(self, cell: Cell, result: Mapping[str, Any], where: Mapping[str, Any]) -> None:
        """Add the line of a result; several processes may do so at once.

        Args:
            cell: what was computed.
            result: plain values.
            where: conditions it was computed under.
        """
        key = cell.key(self.fingerprint)
        content = {"key": key, "corpus": self.fingerprint, "kind": cell.kind, "spec": cell.spec(), "result": result,
                   "conditions": where}  # fmt: skip
        _append(self.path, json.dumps(content, sort_keys=True).encode())
        self._results[key] = {**result, "conditions": where}


def _read(line: bytes) -> Mapping[str, Any] | None:
    """Read the line of a cell; None if it is not a whole one."""
    try:
        cell = json.loads(line)
        whole = isinstance(cell["key"], str) and all(isinstance(cell[name], dict) for name in ("result", "conditions"))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return cell if whole else None


def _append(path: Path, line: bytes) -> None:
    """Write a line at the end, on the disk when this returns; what a killed writer left behind is cut off before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
        file.seek(0)
        there = file.read()
        ends = there.rfind(b"\n") + 1
        if _read(there[ends:]) is None:
            file.truncate(ends)
        else:  # a whole one that lacks its end, as some editors leave it
            line = b"\n" + line
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
