"""Writing a dataset in RecBole's atomic files, user by user: either all files appear or none."""

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TextIO, TypeVar

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ...progress import Progress
from .atomic import UnusableTokenError, is_usable, missing_values

_HEADER = "user_id:token\titem_id:token\ttimestamp:float\n"
_BYTES_SHOWN = 1 << 18  # step of a progress bar
_NAME = re.compile(r"[^./\\\0][^/\\\0]*")
_COLUMN = re.compile(r"[^:\t\r\n\0]+")
_Writer = TypeVar("_Writer", bound="DatasetWriter")
_ODD = re.compile("[\\r\\n\\0]")


@dataclass(frozen=True)
class Converted:
    """The result of a conversion.

    Attributes:
        folder: where the files are; an argument for ``adaptssr pretrain --dataset``.
        files: their paths.
        users: number of users.
        items: number of different items.
        behaviours: number of behaviours of all users.
        labelled: number of users with a value, for each column of the ``.user`` file and each file of targets.
        notes: what was left out, a sentence each.
    """

    folder: Path
    files: tuple[Path, ...]
    users: int
    items: int
    behaviours: int
    labelled: Mapping[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Users:
    """Consecutive users, in the form of a columnar file.

    Attributes:
        where: they were read, for messages; the row number follows it.
        number: row number of the first one.
        users: (U,) their names.
        names: (N,) names of their items, each once.
        codes: (B,) integers, the items of all of them, user after user, as indices into ``names``.
        counts: (U,) integers, the number of items of each.
    """

    where: str
    number: int
    users: list[str]
    names: list[str]
    codes: npt.NDArray[np.integer[Any]]
    counts: npt.NDArray[np.integer[Any]]

    def rows(self) -> Iterator[tuple[str, str, list[str]]]:
        """Yield place, name and items of every user."""
        items = np.array(self.names, dtype=object)[self.codes].tolist()
        start = 0
        for row, (user, count) in enumerate(zip(self.users, self.counts.tolist(), strict=True), start=self.number):
            yield f"{self.where} {row}", user, items[start : start + count]
            start += count


class DatasetWriter:
    """Writes a dataset into a folder, user by user.

    ``<name>.inter`` holds the behaviours, ``<name>.user`` the labels of users, if there are any, and
    ``<name>.<column>.cold`` items of another domain that they came to (for ``finetune --task cold:FILE``).

    Use it as a context. All files are written as temporary files and moved into place when the context ends, the
    ``.inter`` file last, so that no reader sees half a dataset. After an exception nothing has changed.

    Args:
        folder: created if missing.
        name: with which the files begin; None: the folder's own name, for which RecBole looks.
        overwrite: replace the files of a dataset of this name.

    Raises:
        InputError: an invalid name, a folder that is a file, or existing files.
    """

    def __init__(self, folder: Path, name: str | None = None, overwrite: bool = False) -> None:
        # Not resolve(), which would follow a link to another name.
        name = Path(os.path.abspath(folder)).name if name is None else name  # noqa: PTH100
        if not _NAME.fullmatch(name):
            raise InputError(f"name: expected the name of a dataset, without slashes and leading dots, got {name!r}")
        if folder.exists() and not folder.is_dir():
            raise InputError(f"output: expected a folder, got the file {folder}")
        self.folder, self.name = folder, name
        self.main, self.user = self._main_file(), folder / f"{name}.user"
        self.overwrite = overwrite
        for path in (self.main, self.user):
            self._check_free(path)
        self.users = self.behaviours = 0
        self.labelled: dict[str, int] = {}
        self.notes: list[str] = []
        self._stack = ExitStack()
        self._user: TextIO | None = None
        self._missing: list[frozenset[str]] = []  # of each column of labels, the texts of a missing one
        self._targets: dict[str, TextIO] = {}
        self._files: list[TextIO] = []
        self._temporaries: dict[Path, Path] = {}  # of each file, the main one first

    def __enter__(self: _Writer) -> _Writer:
        self._made = not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        for half_written in self.folder.glob(f".{glob.escape(self.name)}.*.tmp"):  # left by a killed run
            half_written.unlink()
        self._begin()
        return self

    def _main_file(self) -> Path:
        """Return the file of the histories: without it there is no dataset."""
        return self.folder / f"{self.name}.inter"

    def _begin(self) -> None:
        """Open the file of the histories."""
        self._items: set[str] = set()
        self._inter = self._open(self.main)
        self._inter.write(_HEADER)

    @property
    def n_items(self) -> int:
        """The number of different items so far."""
        return len(self._items)

    def already_written(self) -> int:
        """Return how many first users need not be read, because an earlier run has written them. Here 0."""
        return 0

    def add(self, place: str, user: str, items: Sequence[str]) -> None:
        """Write the behaviours of one user, at the times 0, 1, 2, ...

        Args:
            place: where they were read, for messages.
            user: its name, unique among the users.
            items: at least one, oldest first.

        Raises:
            InputError: no items, or a name that an atomic file cannot contain.
        """
        if not items:
            raise InputError(f"{place}: expected a user and at least one item, got {user!r} alone")
        self._check(place, (user, *items))
        self.write(user, items)

    def add_users(self, users: Users) -> None:
        """Write the behaviours of some users; errors as :meth:`add`."""
        for place, user, items in users.rows():
            self.add(place, user, items)

    def write(self, user: str, items: Sequence[str]) -> None:
        """Write as :meth:`add`, without checking the names."""
        self._inter.write("".join([f"{user}\t{item}\t{time}\n" for time, item in enumerate(items)]))
        self.users += 1
        self.behaviours += len(items)
        self._items.update(items)

    def begin_labels(self, columns: Mapping[str, str]) -> None:
        """Begin the ``.user`` file, with columns of these names and types (token, float, token_seq)."""
        for column in columns:
            _check_column(column)
        self._user = self._open(self.user)
        self._user.write("\t".join(["user_id:token", *(f"{name}:{kind}" for name, kind in columns.items())]) + "\n")
        self._missing = [missing_values(kind) for kind in columns.values()]
        self.labelled |= dict.fromkeys(columns, 0)

    def add_labels(self, place: str, user: str, values: Sequence[str]) -> None:
        """Write the labels of one user, one per column; "" for none."""
        assert self._user is not None, "begin_labels comes first"
        self._check(place, [value for value in values if value])
        self._user.write("\t".join([user, *values]) + "\n")
        for column, value, missing in zip(self.labelled, values, self._missing, strict=False):  # targets come later
            self.labelled[column] += value not in missing

    def begin_targets(self, column: str) -> None:
        """Begin a file of targets, after :meth:`begin_labels` if there are labels too."""
        _check_column(column)
        path = self.folder / f"{self.name}.{column}.cold"
        self._check_free(path)
        self._targets[column] = self._open(path)
        self._targets[column].write("user_id:token\ttarget_id:token\n")
        self.labelled[column] = 0

    def add_targets(self, column: str, user: str, targets: Sequence[str]) -> None:
        """Write the targets of one user, whose names are not checked."""
        self._targets[column].write("".join([f"{user}\t{target}\n" for target in targets]))
        self.labelled[column] += bool(targets)

    def converted(self) -> Converted:
        """Return what was written, after the context has ended."""
        return Converted(
            self.folder,
            tuple(self._temporaries),
            self.users,
            self.n_items,
            self.behaviours,
            self.labelled,
            tuple(self.notes),
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.users == 0:
                raise InputError("input: expected at least one user, got none")
            if kind is None:
                self._put_in_place()
        finally:
            self._stack.close()
            for temporary in self._temporaries.values():
                temporary.unlink(missing_ok=True)
            if self._made and not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _put_in_place(self) -> None:
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        self._stack.close()
        # Between these moves there is no main file, and so no dataset, instead of a mixed one.
        self.main.unlink(missing_ok=True)
        self.user.unlink(missing_ok=True)
        for path, temporary in reversed(self._temporaries.items()):
            temporary.replace(path)

    def _temporary(self, path: Path) -> Path:
        self._temporaries[path] = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        return self._temporaries[path]

    def _open(self, path: Path) -> TextIO:
        temporary = self._temporary(path)
        file = self._stack.enter_context(temporary.open("w", encoding="utf-8", newline="\n", buffering=1 << 20))
        self._files.append(file)
        return file

    def _check_free(self, path: Path) -> None:
        if path.exists() and not self.overwrite:
            raise InputError(f"output: {path} is there already; --overwrite replaces it")

    def _check(self, place: str, names: Sequence[str]) -> None:
        joined = "\t".join(names)
        if not _ODD.search(joined) and joined.count("\t") == max(len(names) - 1, 0) and all(map(is_usable, names)):
            return
        odd = next(name for name in names if not is_usable(name) or "\t" in name or _ODD.search(name))
        if not is_usable(odd):
            raise InputError(f"{place}: {UnusableTokenError(odd)}")
        raise InputError(f"{place}: expected a name without tabs, ends of lines and NULs, got {odd!r}")


def _check_column(column: str) -> None:
    if not _COLUMN.fullmatch(column) or column == "user_id":
        raise InputError(f"label: expected the name of a column of the .user file, got {column!r}")


def numbered_lines(file: BinaryIO, path: str | Path, bar: Progress) -> Iterator[tuple[int, str]]:
    """Yield each line of UTF-8 text with its number, without line end and byte-order mark; the bar counts bytes.

    Raises:
        InputError: bytes that are not UTF-8 text.
    """
    read = 0
    for number, line in enumerate(file, start=1):
        read += len(line)
        if read >= _BYTES_SHOWN:
            bar.update(read)
            read = 0
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}, line {number}: expected UTF-8 text, got other bytes") from error
        yield number, (text.removeprefix("\ufeff") if number == 1 else text).rstrip("\r\n")
    bar.update(read)


def file_sizes(paths: Sequence[Path]) -> int:
    """Add up the sizes of files.

    Raises:
        InputError: no files, or one that cannot be read.
    """
    if not paths:
        raise InputError("input: expected at least one file, got none")
    for path in paths:
        if not path.is_file():
            fault = "is a folder" if path.exists() else "does not exist"
            raise InputError(f"input: expected a file, got {path}, which {fault}")
    return sum(path.stat().st_size for path in paths)
