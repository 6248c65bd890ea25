"""Checkpoints that are either whole or not there, and that load without executing anything."""

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside ``path`` and put it in place in one move, so that no reader sees half of it.

    Args:
        path: the file to make or replace.
        write: writes to the path that it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values; the result loads with ``weights_only=True``."""
    write_atomically(path, lambda temporary: torch.save(dict(state), temporary))


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Load a checkpoint, without executing anything that a file may contain.

    Raises:
        InputError: a file that is missing, damaged, or holds more than tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch itself looks at no checksum
                raise zipfile.BadZipFile
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"checkpoint: expected a file, got {path}, which does not exist") from None
    except Exception:  # a foreign file makes torch's unpickler raise IndexError, TypeError, AssertionError and more
        raise InputError(
            f"checkpoint: expected one written by this package, got {path}, which is damaged or foreign"
        ) from None
    if not isinstance(state, dict):
        raise InputError(f"checkpoint: expected a dictionary in {path}, got {type(state).__name__}")
    return state
