"""Checkpoints that are complete or absent, and that load without executing code."""

import contextlib
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..errors import DamagedCheckpointError, InputError

_OUT_OF_MEMORY = (MemoryError, torch.cuda.OutOfMemoryError)  # not caused by the file


def write_atomically(path: Path, write: Callable[[Path], object], keep: Path | None = None) -> None:
    """Write a temporary file beside ``path`` and move it into place, so that no reader sees an incomplete file.

    Args:
        path: the file to make or replace.
        write: writes to the path that it is given.
        keep: where the previous file is moved to; None: it is replaced.

    Raises:
        OSError: a full disk or the like; ``path`` and ``keep`` are unchanged.
    """
    write_together({path: write}, keep)


def write_together(files: Mapping[Path, Callable[[Path], object]], keep: Path | None = None) -> None:
    """Write files that belong together: first all of them as temporary files, then move them into place one by one.

    The last file is removed before any other is replaced, and is moved last. So whenever it exists, all files match.

    Args:
        files: the files of one folder, each with a function that writes it to a given path.
        keep: where the previous last file is moved to; None: it is removed.

    Raises:
        OSError: a full disk or the like; all files are unchanged.
    """
    *_, last = files
    last.parent.mkdir(parents=True, exist_ok=True)
    temporaries = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    try:
        for path, write in files.items():
            _write_whole(path, temporaries[path], write)
        if keep is not None and last.exists():
            last.replace(keep)
        elif len(files) > 1:
            last.unlink(missing_ok=True)
        for path, temporary in temporaries.items():
            temporary.replace(path)
        _sync_folder(last.parent)
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


def _write_whole(path: Path, temporary: Path, write: Callable[[Path], object]) -> None:
    """Write a temporary file and flush it to disk; a system error names the final file."""
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno is None:
            raise
        reason = f"cannot be written ({os.strerror(error.errno)}); what was there before is whole"
        raise OSError(error.errno, reason, str(path)) from error


def _sync_folder(folder: Path) -> None:
    """Make moves within a folder survive a power failure, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def system_error_of(error: Exception) -> Exception:
    """Return the system's error that a Rust library reports as text, ``... (os error 28)``, or the error itself."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return error if found is None else OSError(int(found[1]), os.strerror(int(found[1])))


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_checkpoint(path: Path, state: Mapping[str, Any], keep: Path | None = None) -> None:
    """Write tensors and plain values, which load with ``weights_only=True``; otherwise as :func:`write_atomically`."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            noted = _NotingErrors(file)
            try:
                torch.save(dict(state), noted)  # type: ignore[arg-type]
            except RuntimeError:
                raise noted.error or RuntimeError(f"{path}: torch could not write it") from None

    write_atomically(path, write, keep)


class _NotingErrors:
    """A file that records why a write failed; on a full disk torch itself reports only a wrong position."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._file.flush()


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Load a checkpoint without executing code that a file may contain.

    Raises:
        DamagedCheckpointError: a file that is damaged, or holds other things than tensors and plain values.
        InputError: a file that is missing or cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
            if packed or archive.testzip() is not None:  # torch neither compresses nor checks checksums
                raise zipfile.BadZipFile
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"checkpoint: expected a file, got {path}, which does not exist") from None
    except PermissionError as error:
        raise InputError(f"checkpoint: cannot read {path}: {error.strerror}") from None
    except _OUT_OF_MEMORY:
        raise
    except Exception:  # a foreign file makes torch's unpickler raise IndexError, TypeError, AssertionError and more
        raise DamagedCheckpointError(
            f"checkpoint: expected one written by this package, got {path}, which is damaged or foreign"
        ) from None
    if not isinstance(state, dict):
        raise DamagedCheckpointError(f"checkpoint: expected a dictionary in {path}, got {type(state).__name__}")
    return state


class LastTwo:
    """The last two checkpoints in a folder: ``last.pt``, and ``previous.pt``, the one before it.

    Whatever happens while one is written, the other one is intact.

    Attributes:
        last: path of the newest one.
        previous: path of the one before.
    """

    def __init__(self, folder: Path) -> None:
        self.last = folder / "last.pt"
        self.previous = folder / "previous.pt"
        self._last_is_whole = False  # a damaged one never replaces an intact one

    @property
    def newest(self) -> Path | None:
        """The newest one, intact or not."""
        return next((path for path in (self.last, self.previous) if path.exists()), None)

    def write(self, state: Mapping[str, Any]) -> None:
        """Write the next one; errors as :func:`write_checkpoint`."""
        write_checkpoint(self.last, state, self.previous if self._last_is_whole else None)
        self._last_is_whole = True

    def load(self, device: torch.device | str, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
        """Load the newest intact one, with its path; None if there is no checkpoint.

        Args:
            device: where the tensors go.
            say: is told, in one line, if the newest one is damaged.

        Raises:
            DamagedCheckpointError: all checkpoints are damaged.
            InputError: one that cannot be read.
        """
        damaged: list[DamagedCheckpointError] = []
        for path in (self.last, self.previous):
            if not path.exists():  # a run that was killed between two moves has only the one before
                continue
            try:
                state = load_checkpoint(path, device)
            except DamagedCheckpointError as error:
                damaged.append(error)
                continue
            if damaged:
                say(f"{damaged[0]}; going on from {path}, the one before it")
            self._last_is_whole = path == self.last
            return path, state
        if damaged:
            other = " as is the one before it" if len(damaged) > 1 else " and there is none before it"
            raise DamagedCheckpointError(f"{damaged[0]},{other}; remove {self.last.parent} to begin its training anew")
        return None
