"""A corpus of any size: a folder with the histories of all users in flat arrays, which are memory-mapped.

``items.npy`` (int32) and ``offsets.npy`` (int64) are the arrays of :class:`BehaviourCorpus`; ``user_tokens.parquet``
and ``item_tokens.parquet`` are the names, which are read when they are needed; ``corpus.json`` contains the sizes. It
is written last, so that a folder without it is not a corpus.
"""

import json
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .behaviours import PAD_TOKEN, BehaviourCorpus, StrArray

MANIFEST = "corpus.json"
ITEMS, OFFSETS = "items.npy", "offsets.npy"
USER_TOKENS, ITEM_TOKENS = "user_tokens.parquet", "item_tokens.parquet"
FILES = (ITEMS, OFFSETS, USER_TOKENS, ITEM_TOKENS)
PARTS = ".parts"  # of an unfinished conversion
_FORMAT, _VERSION = "adaptssr corpus", 1
_CHUNK = 1 << 20  # bytes read at once


def is_corpus(folder: str | Path) -> bool:
    """Tell whether a folder is meant for :func:`open_corpus`, damaged or not."""
    return (Path(folder) / MANIFEST).is_file()


def is_unfinished_corpus(folder: str | Path) -> bool:
    """Tell whether a folder holds an unfinished conversion to a corpus."""
    return not is_corpus(folder) and (Path(folder) / PARTS).is_dir()


def open_corpus(folder: str | Path) -> "CorpusOnDisk":
    """Open a corpus that ``adaptssr convert --corpus`` has written, for reading.

    Every file is read once, in small pieces, and compared with its checksum (about a second per gigabyte). After that
    only the parts in use are read.

    Args:
        folder: with ``corpus.json`` and the files that it names.

    Raises:
        InputError: not a corpus, a damaged one, or one of a later version of this package.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    for name in FILES:
        _check_file(folder / name, manifest["files"][name])
    try:
        items, offsets = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (ITEMS, OFFSETS))
    except (ValueError, OSError):
        raise _damaged(folder, f"{ITEMS} or {OFFSETS}") from None
    users, behaviours, n_items = (manifest[name] for name in ("users", "behaviours", "n_items"))
    fits = items.shape == (behaviours,) and items.dtype == np.int32
    if not fits or not _within(folder / ITEMS, items.offset, behaviours, n_items):
        raise _damaged(folder, ITEMS)
    fits = offsets.shape == (users + 1,) and offsets.dtype == np.int64 and users > 0
    if not fits or offsets[0] != 0 or offsets[-1] != behaviours or not (offsets[1:] > offsets[:-1]).all():
        raise _damaged(folder, OFFSETS)
    return CorpusOnDisk(folder, items.view(np.ndarray), offsets.view(np.ndarray), n_items)


class CorpusOnDisk(BehaviourCorpus):
    """A :class:`BehaviourCorpus` over files; made by :func:`open_corpus`.

    ``items`` and ``offsets`` are mapped, not read: the operating system can reclaim their memory. The names of users
    and items are read on first use.

    Attributes:
        folder: where the files are.
    """

    def __init__(
        self, folder: Path, items: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], n_items: int
    ) -> None:
        self.__dict__.update(folder=folder, items=items, offsets=offsets, n_items=n_items)  # frozen, as its parent

    folder: Path

    def __repr__(self) -> str:
        return f"CorpusOnDisk({str(self.folder)!r}, n_users={len(self)}, n_items={self.n_items})"

    @cached_property
    def user_tokens(self) -> StrArray:
        """(n_users,) str, the names of the users in the source."""
        return self._tokens(USER_TOKENS, "user_id", len(self))

    @cached_property
    def item_tokens(self) -> StrArray:
        """(n_items,) str, the names of the items in the source; ``"[PAD]"`` for id 0."""
        tokens = self._tokens(ITEM_TOKENS, "item_id", self.n_items)
        if tokens[0] != PAD_TOKEN:
            raise _damaged(self.folder, ITEM_TOKENS)
        return tokens

    def _tokens(self, name: str, column: str, count: int) -> StrArray:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(self.folder / name) as file:
                parts = [
                    np.array(batch.column(column).to_pylist(), dtype=np.str_)
                    for batch in file.iter_batches(columns=[column])
                ]
            tokens = np.concatenate(parts)
        except (pa.ArrowException, KeyError, ValueError, OSError):
            raise _damaged(self.folder, name) from None
        if len(tokens) != count:
            raise _damaged(self.folder, name)
        return tokens


def make_manifest(name: str, users: int, n_items: int, behaviours: int, files: dict[str, Path]) -> str:
    """Describe the contents of a corpus as JSON.

    Args:
        name: of the corpus; files beside it begin with it.
        users: number of users.
        n_items: number of items, including the padding.
        behaviours: number of behaviours of all users.
        files: by name, their current paths.
    """
    sizes = {file: {"bytes": path.stat().st_size, "crc32": checksum(path)} for file, path in files.items()}
    numbers = {"users": users, "n_items": n_items, "behaviours": behaviours}
    return json.dumps({"format": _FORMAT, "version": _VERSION, "name": name, **numbers, "files": sizes}, indent=1)


def corpus_name(folder: str | Path) -> str:
    """Return the name of a corpus, with which its files of labels begin; errors as :func:`open_corpus`."""
    return str(_read_manifest(Path(folder))["name"])


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if is_unfinished_corpus(folder):
        raise InputError(f"corpus: {folder} holds a conversion that was broken off; the same command goes on with it")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != _FORMAT:
            raise ValueError
        version = manifest["version"]
        if version == _VERSION:
            numbers = [manifest[name] for name in ("users", "n_items", "behaviours")]
            numbers += [manifest["files"][name][number] for name in FILES for number in ("bytes", "crc32")]
            if not isinstance(manifest["name"], str) or any(type(number) is not int for number in numbers):
                raise ValueError
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"corpus: expected {MANIFEST} of adaptssr convert --corpus in {folder}, got another") from None
    if version != _VERSION:
        raise InputError(f"corpus: expected files of version {_VERSION}, got version {version!r} in {folder}")
    return manifest


def _check_file(path: Path, expected: dict[str, int]) -> None:
    try:
        whole = path.stat().st_size == expected["bytes"] and checksum(path) == expected["crc32"]
    except OSError:
        whole = False
    if not whole:
        raise _damaged(path.parent, path.name)


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file, which is read in small pieces."""
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found = zlib.crc32(chunk, found)
    return found


def _within(path: Path, header: int, count: int, n_items: int) -> bool:
    """Tell whether all ids are items. Reads the file, since pages of a mapping would stay in memory."""
    with path.open("rb") as file:
        file.seek(header)
        for start in range(0, count, _CHUNK):
            ids = np.fromfile(file, dtype=np.int32, count=min(_CHUNK, count - start))
            if ids.min() < 1 or ids.max() >= n_items:
                return False
    return True


def _damaged(folder: Path, name: str) -> InputError:
    return InputError(f"corpus: {name} in {folder} is missing or damaged; convert it again with --overwrite")
