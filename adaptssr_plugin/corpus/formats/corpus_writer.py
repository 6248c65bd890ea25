"""Writing a memory-mapped corpus in parts; an interrupted conversion resumes after the last complete part."""

import json
import os
import shutil
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ..behaviours import PAD_TOKEN, blocks
from ..on_disk import FILES, ITEM_TOKENS, ITEMS, MANIFEST, OFFSETS, PARTS, USER_TOKENS, checksum, make_manifest
from .atomic import TokenIds, UnusableTokenError, is_usable
from .dataset_writer import DatasetWriter, Users
from .times import ExactTimes, as_text, from_text, join_times, sortable

PART = 1 << 22  # behaviours in a part, and in a block of sorted ones
_SOURCE, _NAMES, _SUMS = "source.json", "names.json", "checksums.json"

Arrays = Mapping[str, npt.NDArray[Any]]
Behaviours = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], ExactTimes]
Block = tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]


def make_writer(
    folder: str | Path, name: str | None, overwrite: bool, corpus: bool, paths: Sequence[Path], **options: Any
) -> DatasetWriter:
    """Make the writer of RecBole's files, or of a corpus, from some files with some options."""
    if not corpus:
        return DatasetWriter(Path(folder), name, overwrite)
    return CorpusWriter(Path(folder), name, overwrite, source=source_of(paths, **options))


def source_of(paths: Sequence[Path], **options: Any) -> dict[str, Any]:
    """Identify a conversion by its files, their sizes and times, and its options."""
    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return {"files": files, "options": options}


class CorpusWriter(DatasetWriter):
    """Writes what :func:`~adaptssr_plugin.corpus.open_corpus` reads, user by user, as :class:`DatasetWriter`.

    Every ``PART`` behaviours are written to a part, a folder under ``.parts/`` that is complete or absent. When the
    context ends, the parts become the files, the manifest is written last, and the parts are removed. A writer of the
    same source that finds parts treats their users as written. An InputError removes the parts; any other interruption
    leaves them.

    ``source`` identifies the conversion: files, their sizes and times, options. Other arguments and errors as
    :class:`DatasetWriter`.
    """

    def __init__(
        self, folder: Path, name: str | None = None, overwrite: bool = False, *, source: Mapping[str, Any]
    ) -> None:
        self._parts = Parts(folder / PARTS, source)
        super().__init__(folder, name, overwrite)
        self._user_names: list[str] = []  # of the part that is being filled
        self._ids, self._counts = array("i"), array("q")
        self._passed_over = 0

    def _main_file(self) -> Path:
        return self.folder / MANIFEST

    def _check_free(self, path: Path) -> None:
        if not self._parts.are_there():  # otherwise the files may come from a run that was killed at its very end
            super()._check_free(path)

    def _temporary(self, path: Path) -> Path:
        self._temporaries[path] = self._parts.folder / f"{path.name}.tmp"
        return self._temporaries[path]

    def _begin(self) -> None:
        self._parts.begin()
        for path in (self.main, *(self.folder / name for name in FILES)):
            self._temporary(path)
        self.item_ids = TokenIds()
        for part in self._parts:
            if not part.is_whole():
                self._discard()
                raise InputError(
                    f"corpus: expected whole parts to go on with, got {part.folder}; it is removed, begin anew"
                )
            users, items = part.names()
            self.behaviours += int(part["items"].size)
            self.users += len(users)
            self.item_ids.add(items)
        self._first_new_item = len(self.item_ids)
        self._to_pass_over = self.users

    @property
    def n_items(self) -> int:
        """The number of different items so far."""
        return len(self.item_ids)

    def already_written(self) -> int:
        """Return how many users an earlier run has written; they need not be added again."""
        self._to_pass_over = 0
        return self.users

    def users_already_written(self) -> Iterator[str]:
        """Return the names of these users."""
        for part in self._parts:
            yield from part.names()[0]

    def write(self, user: str, items: Sequence[str]) -> None:
        """Write as :meth:`add`, without checking the names."""
        if self._passed_over < self._to_pass_over:
            self._passed_over += 1
            return
        self._ids.extend(map(self.item_ids.__getitem__, items))
        self._counts.append(len(items))
        self._user_names.append(user)
        self._count(1, len(items))

    def add_users(self, users: Users) -> None:
        """Write the behaviours of some users, looking up each different item once; errors as :meth:`add`."""
        odd = not users.counts.all() or not all(map(is_usable, (*users.names, *users.users)))
        if odd or self._passed_over < self._to_pass_over:
            super().add_users(users)
            return
        ids = np.fromiter(map(self.item_ids.__getitem__, users.names), dtype=np.int32, count=len(users.names))
        self._ids.frombytes(ids[users.codes].tobytes())
        self._counts.extend(users.counts.tolist())
        self._user_names += users.users
        self._count(len(users.users), len(users.codes))

    def _count(self, users: int, behaviours: int) -> None:
        self.users += users
        self.behaviours += behaviours
        if len(self._ids) >= PART:
            self._end_part()

    def add_labels(self, place: str, user: str, values: Sequence[str]) -> None:
        """Write the labels of one user, whose name has to be valid in an atomic file."""
        super()._check(place, [user])
        super().add_labels(place, user, values)

    def _check(self, place: str, names: Sequence[str]) -> None:
        """Check names for a corpus, which may contain what an atomic file cannot: tabs and line ends."""
        for name in names:
            if not is_usable(name):
                raise InputError(f"{place}: {UnusableTokenError(name)}")

    def _end_part(self) -> None:
        ids, counts = np.array(self._ids, dtype=np.int32), np.array(self._counts, dtype=np.int64)
        self._add_part({"items": ids, "counts": counts})
        self._ids, self._counts = array("i"), array("q")

    def _add_part(self, arrays: Arrays) -> None:
        self._parts.add(arrays, self._user_names, list(islice(self.item_ids, self._first_new_item, None)))
        self._user_names, self._first_new_item = [], len(self.item_ids)

    def _put_in_place(self) -> None:
        if self._ids:
            self._end_part()
        self._write_files()
        super()._put_in_place()
        shutil.rmtree(self._parts.folder)

    def _blocks(self) -> Iterator[Block]:
        """Yield the ids of some users, oldest first, and each one's number of them, until all users have come."""
        for part in self._parts:
            yield part["items"], part["counts"]

    def _write_files(self) -> None:
        paths = {name: self._temporaries[self.folder / name] for name in FILES}
        with paths[ITEMS].open("wb") as items, paths[OFFSETS].open("wb") as offsets:
            _write_header(items, np.dtype(np.int32), self.behaviours)
            _write_header(offsets, np.dtype(np.int64), self.users + 1)
            end = np.zeros(1, dtype=np.int64)
            end.tofile(offsets)
            for ids, counts in self._blocks():
                ids.tofile(items)
                ends = end[-1] + np.cumsum(counts)
                ends.tofile(offsets)
                end = ends[-1:]
        _write_names(paths[USER_TOKENS], "user_id", (part.names()[0] for part in self._parts))
        _write_names(paths[ITEM_TOKENS], "item_id", [[PAD_TOKEN, *self.item_ids]])
        manifest = make_manifest(self.name, self.users, self.n_items + 1, self.behaviours, paths)
        self._temporaries[self.main].write_text(manifest + "\n", encoding="utf-8")
        for path in (*paths.values(), self._temporaries[self.main]):
            _synchronise(path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        except InputError:
            self._discard()
            raise
        if kind is not None and issubclass(kind, InputError):
            self._discard()

    def _discard(self) -> None:
        shutil.rmtree(self._parts.folder, ignore_errors=True)
        if self._made and not any(self.folder.iterdir()):
            self.folder.rmdir()


class InteractionsWriter(CorpusWriter):
    """Writes a corpus from behaviours in any order, by sorting them outside of memory.

    A part holds behaviours in the order of arrival, grouped by user. At the end the behaviours of some users at a time
    are read from all parts and sorted by time. Ties keep the order of arrival.
    """

    def _begin(self) -> None:
        super()._begin()
        self.user_ids = TokenIds(first=0)
        self.user_ids.add(self.users_already_written())
        self._first_new_user = self.users
        self._pieces: list[Behaviours] = []  # of the part that is being filled
        self._filled = 0

    def already_written(self) -> int:
        """Return how many behaviours an earlier run has written; they need not be added again."""
        return self.behaviours

    def write_behaviours(self, users: npt.NDArray[np.int32], items: npt.NDArray[np.int32], times: ExactTimes) -> None:
        """Write some behaviours: (N,) ids from ``user_ids`` and ``item_ids``, and the times."""
        self.users = len(self.user_ids)
        start = 0
        while start < len(users):
            part = slice(start, start + PART - self._filled)
            self._pieces.append((users[part], items[part], times[part]))
            written = len(users[part])
            start += written
            self._filled += written
            self.behaviours += written
            if self._filled == PART:
                self._end_part()

    def _put_in_place(self) -> None:
        if self._filled:
            self._end_part()
        super()._put_in_place()

    def _end_part(self) -> None:
        rows, items, times = zip(*self._pieces, strict=True)
        self._pieces, self._filled = [], 0
        users = np.concatenate(rows)
        order = np.argsort(users, kind="stable")
        self._user_names = list(islice(self.user_ids, self._first_new_user, None))
        self._first_new_user = len(self.user_ids)
        columns = {"rows": users, "items": np.concatenate(items), "times": as_text(join_times(times))}
        self._add_part({name: column[order] for name, column in columns.items()})

    def _blocks(self) -> Iterator[Block]:
        parts = [[part[name] for name in ("rows", "times", "items")] for part in self._parts]
        counts = np.zeros(self.users, dtype=np.int64)
        for rows, *_ in parts:
            counts += np.bincount(rows, minlength=self.users)
        for start, stop in blocks(counts, PART):
            pieces = []
            for columns in parts:
                inside = slice(*np.searchsorted(columns[0], [start, stop]).tolist())
                pieces.append([column[inside] for column in columns])
            of_parts = list(zip(*pieces, strict=True))
            rows, items = (np.concatenate(of_parts[column]) for column in (0, 2))
            times = sortable(join_times([from_text(part) for part in of_parts[1]]))
            yield items[np.lexsort((times, rows))], counts[start:stop]


class Parts:
    """The parts of an unfinished conversion, in the order in which they were written."""

    def __init__(self, folder: Path, source: Mapping[str, Any]) -> None:
        self.folder = folder
        self._source = json.dumps(source, sort_keys=True)
        self._parts: list[Part] = []

    def begin(self) -> None:
        """Use the existing parts, or remove those of another source."""
        if not self.are_there():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            path = self.folder / _SOURCE
            path.write_text(self._source, encoding="utf-8")
            _synchronise(path)
        while (part := Part(self._place(len(self._parts)))).folder.is_dir():
            self._parts.append(part)

    def are_there(self) -> bool:
        """Tell whether a conversion of this source was interrupted here."""
        try:
            return (self.folder / _SOURCE).read_text(encoding="utf-8") == self._source
        except (OSError, ValueError):
            return False

    def __iter__(self) -> Iterator["Part"]:
        return iter(self._parts)

    def add(self, arrays: Arrays, users: list[str], items: list[str]) -> None:
        """Write a part: arrays by name, its new users, and its new items."""
        half_written = self.folder / "part.tmp"
        shutil.rmtree(half_written, ignore_errors=True)
        half_written.mkdir()
        for name, values in arrays.items():
            np.save(half_written / f"{name}.npy", values, allow_pickle=False)
        (half_written / _NAMES).write_text(json.dumps([users, items]), encoding="utf-8")
        sums = {path.name: checksum(path) for path in half_written.iterdir()}
        (half_written / _SUMS).write_text(json.dumps(sums), encoding="utf-8")
        for path in half_written.iterdir():
            _synchronise(path)
        place = self._place(len(self._parts))
        half_written.rename(place)
        self._parts.append(Part(place))

    def _place(self, number: int) -> Path:
        return self.folder / f"{number:06d}"


class Part:
    """One part: arrays by name, and names of users and items."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> Any:
        """Memory-map an array."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def is_whole(self) -> bool:
        """Tell whether all files are as they were written."""
        try:
            sums = json.loads((self.folder / _SUMS).read_text(encoding="utf-8"))
            return len(sums) > 1 and all(checksum(self.folder / name) == value for name, value in sums.items())
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return False

    def names(self) -> tuple[list[str], list[str]]:
        """Return the users and the items that are new in this part."""
        users, items = json.loads((self.folder / _NAMES).read_text(encoding="utf-8"))
        return users, items


def _write_header(file: Any, dtype: np.dtype[Any], count: int) -> None:
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    )


def _write_names(path: Path, column: str, parts: Iterable[list[str]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(column, pa.string())])
    with parquet.ParquetWriter(path, schema) as writer:
        for names in parts:
            writer.write_table(pa.table({column: pa.array(names, pa.string())}))


def _synchronise(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
