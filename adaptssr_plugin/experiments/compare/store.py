"""All finished cells of a folder in one file, a line each, so that they are not computed again, here or elsewhere."""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from .cells import Cell

CELLS = "cells.jsonl"
_PARTS = ("spec", "result", "conditions")  # of a line


class Store:
    """Results in a folder: a line of JSON for every cell in ``cells.jsonl``, and models in ``models/KEY``.

    Files of several machines are merged by concatenation; among lines with one key the last one counts. An incomplete
    last line, left by a killed writer, is ignored, and cut off when the next line is written. A missing model is
    trained again when something needs it.

    Args:
        folder: created if missing.
        fingerprint: of the corpus; results on another corpus are ignored.
        tasks: a hash of the rows and labels of each task, by its description in a line (:func:`~.cells.task_hashes`).
            Results on other rows or labels are ignored; lines that have no such hash, from before there was one, stand.

    Raises:
        InputError: a line that cannot be read as a result.
    """

    def __init__(self, folder: Path, fingerprint: str, tasks: Mapping[str, str] | None = None) -> None:
        self.path = folder / CELLS
        self.fingerprint = fingerprint
        self._tasks = tasks or {}
        self.models = folder / "models"
        self._results: dict[str, Mapping[str, Any]] = {}
        try:
            lines = self.path.read_bytes().split(b"\n") if self.path.exists() else [b""]
        except OSError as error:
            raise InputError(f"output: cannot read {self.path}: {error.strerror}") from None
        for number, line in enumerate(lines, start=1):
            cell = _read(line)
            if cell is not None:
                if cell.get("task") not in (None, self._task(cell["spec"])):
                    continue
                self._results[cell["key"]] = {**cell["result"], "conditions": cell["conditions"]}
            elif number < len(lines):
                raise InputError(
                    f"output: line {number} of {self.path} is damaged or foreign; remove it, and its cell runs again"
                )

    def get(self, cell: Cell) -> Mapping[str, Any] | None:
        """Return the result of a cell, with the conditions of its computation; None if it is not finished."""
        return self._results.get(cell.key(self.fingerprint))

    def has_model(self, cell: Cell) -> bool:
        """Tell whether the weights of a pre-training are here, and not only its result."""
        return (self.models / cell.key(self.fingerprint) / "model.json").is_file()

    def put(self, cell: Cell, result: Mapping[str, Any], where: Mapping[str, Any]) -> None:
        """Append the line of a result and the conditions of its computation; several processes may do so at once."""
        key = cell.key(self.fingerprint)
        spec = cell.spec()
        content = {"key": key, "corpus": self.fingerprint, "task": self._task(spec), "kind": cell.kind, "spec": spec,
                   "result": result, "conditions": where}  # fmt: skip
        _append(self.path, json.dumps(content, sort_keys=True).encode())
        self._results[key] = {**result, "conditions": where}

    def _task(self, spec: Mapping[str, Any]) -> str | None:
        return self._tasks.get(json.dumps(spec.get("task"), sort_keys=True))


def _read(line: bytes) -> Mapping[str, Any] | None:
    """Read the line of a cell; None if it is incomplete."""
    try:
        cell = json.loads(line)
        whole = isinstance(cell["key"], str) and all(isinstance(cell[name], dict) for name in _PARTS)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return cell if whole else None


def _append(path: Path, line: bytes) -> None:
    """Append a line and flush it to disk; the rest of a line left by a killed writer is cut off first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
        file.seek(0)
        there = file.read()
        ends = there.rfind(b"\n") + 1
        if _read(there[ends:]) is None:
            file.truncate(ends)
        else:  # a complete line without its end, as some editors write it
            line = b"\n" + line
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
