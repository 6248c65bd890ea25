"""RecBole's atomic files, read without interpretation: the only reader of them in this package.

The first line names the columns, as ``user_id:token<TAB>item_id:token<TAB>timestamp:float``; every other line is a
row. A token is the text between two separators: quotation marks, blanks and words such as NA stand for themselves.
"""

import codecs
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ..behaviours import PAD_TOKEN
from .times import ExactTimes, NotATimeError, Times, join_times, parse_times, sortable

KINDS = ("token", "float", "token_seq", "float_seq")
LONGEST_TOKEN = 4096  # characters; arrays of names are as wide as the longest one
_LONGEST_LINE = 1 << 26
_CHUNK = 1 << 22  # characters read at once
# The texts of a missing number in a column of floats, as in pandas. In a column of tokens only "" is missing.
_WORDS = "#N/A #NA -1.#IND -1.#QNAN -NaN -nan 1.#IND 1.#QNAN <NA> N/A NA NULL NaN None n/a nan null"
MISSING_NUMBERS = frozenset(["", "#N/A N/A", *_WORDS.split()])


class Rows(NamedTuple):
    """Some rows of a file.

    Attributes:
        cells: for each column that was asked for, (N,) texts.
        lines: (N,) the number of each row's line.
    """

    cells: list[list[str]]
    lines: Sequence[int]


class CellError(InputError):
    """A cell that cannot be used; errors compare by line, then by the place of the column."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.place = (line, column)


def read_all(*reads: Callable[[], Any]) -> list[Any]:
    """Read several columns of the same rows, each by one of ``reads``; raises the first CellError of the file."""
    found, errors = [], []
    for read in reads:
        try:
            found.append(read())
        except CellError as error:  # noqa: PERF203 (a handful of columns)
            errors.append(error)
    if errors:
        raise min(errors, key=lambda error: error.place)
    return found


class AtomicFile:
    """An atomic file, whose header has been read and checked.

    Args:
        path: the file.
        separator: RecBole's ``field_separator``, one character or more.
        encoding: RecBole's ``encoding``.

    Attributes:
        path: the file.
        columns: the type of each column by name, in the file's order: token, float, token_seq or float_seq.

    Raises:
        InputError: a file that is missing or unreadable, or a header that does not consist of different ``name:type``.
    """

    def __init__(self, path: str | Path, separator: str = "\t", encoding: str = "utf-8") -> None:
        self.path = Path(path)
        self._separator = separator
        if not isinstance(separator, str) or not separator or any(mark in separator for mark in "\r\n\0"):
            raise InputError(f"field_separator: expected one character or more within a line, got {separator!r}")
        try:
            codec = codecs.lookup(encoding or "utf-8").name
        except (LookupError, TypeError):
            raise InputError(f"encoding: expected one that Python knows, got {encoding!r}") from None
        self._encoding = "utf-8-sig" if codec == "utf-8" else codec  # a byte-order mark is not part of a name
        with self._open() as file:
            header = file.readline(1 << 20).removesuffix("\n").removesuffix("\r")
        self.columns = self._parsed(header)

    def _parsed(self, header: str) -> dict[str, str]:
        columns: dict[str, str] = {}
        for field in header.split(self._separator):
            column, _, kind = field.partition(":")
            if not column or kind not in KINDS:
                raise InputError(
                    f"{self.path}: expected a first line of name:type columns separated by {self._separator!r} "
                    f"(types {', '.join(KINDS)}), got {repr(field[:80]) if header else 'an empty one'}"
                )
            if column in columns:
                raise InputError(f"{self.path}: expected one column called {column}, got two")
            columns[column] = kind
        return columns

    def check(self, column: str, kind: str) -> None:
        """Raise InputError unless there is a column of this name and type."""
        if column not in self.columns:
            raise InputError(f"{self.path}: expected a column {column}, got {', '.join(self.columns)}")
        if self.columns[column] != kind:
            raise InputError(
                f"{self.path}, line 1: expected {column} to be of type {kind}, got {column}:{self.columns[column]}"
            )

    def rows(self, columns: Sequence[str], seen: Callable[[int], Any] | None = None) -> Iterator[Rows]:
        """Iterate over the rows, some at a time; empty lines are skipped.

        Args:
            columns: names of columns of the file.
            seen: is told after every chunk how many bytes of the file have been read since the last call.

        Yields:
            At least one row at a time.

        Raises:
            InputError: bytes that are not text, a row with too few or too many cells.
        """
        places = [list(self.columns).index(column) for column in columns]
        number, rest, position = 2, "", 0
        with self._open() as file:
            file.readline()
            while text := file.read(_CHUNK):
                if seen is not None:
                    seen(file.buffer.tell() - position)  # what is read ahead counts
                    position = file.buffer.tell()
                whole, newline, last = text.rpartition("\n")
                if not newline:
                    rest += text
                    if len(rest) > _LONGEST_LINE:
                        raise self._error(number, f"expected at most {_LONGEST_LINE:,} characters, got more")
                    continue
                lines = self._lines(rest + whole, number)
                rest = last
                if found := self._found(lines, number, places):
                    yield found
                number += len(lines)
            if rest and (found := self._found(self._lines(rest, number), number, places)):
                yield found

    def _lines(self, text: str, number: int) -> list[str]:
        """Split text into lines without their ends; the first line has this number."""
        lines = text.split("\n")
        for mark, name in (("\r", "a carriage return"), ("\0", "a NUL")):
            if mark in text:
                lines = [line.removesuffix("\r") for line in lines]
                for place, line in enumerate(lines):
                    if mark in line:
                        raise self._error(number + place, f"expected lines of text that end in \\n, got {name} in one")
        return lines

    def _found(self, lines: list[str], number: int, places: Sequence[int]) -> Rows | None:
        """Split lines into cells; the first line has this number."""
        numbers: Sequence[int] = range(number, number + len(lines))
        if not all(lines):
            numbers = [number for number, line in zip(numbers, lines, strict=True) if line]
            lines = [line for line in lines if line]
        width = len(self.columns)
        counts = [line.count(self._separator) for line in lines]
        if counts.count(width - 1) != len(lines):
            odd = next(place for place, count in enumerate(counts) if count != width - 1)
            named = "tabs" if self._separator == "\t" else repr(self._separator)
            raise self._error(numbers[odd], f"expected {width} values separated by {named}, got {counts[odd] + 1}")
        cells = self._separator.join(lines).split(self._separator)
        return Rows([cells[place::width] for place in places], numbers) if lines else None

    @contextmanager
    def _open(self) -> Iterator[TextIO]:
        try:
            with self.path.open(encoding=self._encoding, newline="\n") as file:
                yield file
        except OSError as error:
            raise InputError(f"{self.path}: expected a readable file, got {error.strerror or error}") from None
        except UnicodeError as error:
            reason = f"({getattr(error, 'reason', error)})"
            name = self._encoding.removesuffix("-sig").upper()
            raise InputError(
                f"{self.path}{self._undecodable_line()}: expected {name} text, got other bytes {reason}"
            ) from None

    def _undecodable_line(self) -> str:
        with self.path.open("rb") as file:
            odd = (number for number, line in enumerate(file, start=1) if not _is_text(line, self._encoding))
            number = next(odd, None)
        return "" if number is None else f", line {number}"

    def _error(self, line: int, complaint: str) -> InputError:
        return InputError(f"{self.path}, line {line}: {complaint}")

    # --- columns ------------------------------------------------------------------------------------------------------

    def number_tokens(
        self, column: str, ids: "TokenIds", cells: list[str], lines: Sequence[int]
    ) -> npt.NDArray[np.int32]:
        """Look up the numbers of a column's tokens, (N,) int32; new tokens get the next ones.

        Raises:
            InputError: a missing token, the padding's name, or a token that is too long.
        """
        try:
            return np.fromiter(map(ids.__getitem__, cells), dtype=np.int32, count=len(cells))
        except UnusableTokenError as error:
            raise self._cell_error(lines[cells.index(error.token)], column, str(error)) from None

    def times(self, column: str, cells: list[str], lines: Sequence[int]) -> ExactTimes:
        """Read the times of some rows without rounding them; for :meth:`sortable_times`.

        Raises:
            InputError: a cell that is not a number in the range of float64.
        """
        try:
            return parse_times(cells)
        except NotATimeError as error:
            raise self._not_a_number(column, cells[error.place], lines[error.place]) from None

    def sortable_times(self, parts: Sequence[ExactTimes]) -> Times:
        """Join the times of all rows for sorting by them (:func:`~.times.sortable`)."""
        try:
            return sortable(join_times(parts))
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None

    def floats(self, column: str, cells: list[str], lines: Sequence[int]) -> npt.NDArray[np.float64]:
        """Read numbers, NaN for a missing one: an empty cell, NA and the like.

        Raises:
            InputError: any other text.
        """
        try:
            if "_" not in "".join(cells):
                return np.array(array("d", map(float, cells)), dtype=np.float64)
        except ValueError:
            pass
        numbers = [_float(cell) for cell in cells]
        if None in numbers:
            place = numbers.index(None)
            raise self._not_a_number(column, cells[place], lines[place])
        return np.array(numbers, dtype=np.float64)

    def _not_a_number(self, column: str, cell: str, line: int) -> CellError:
        return self._cell_error(line, column, f"expected a number, got {cell[:80]!r}")

    def _cell_error(self, line: int, column: str, complaint: str) -> CellError:
        place = list(self.columns).index(column)
        return CellError(f"{self.path}, line {line}: {column}: {complaint}", line, place)


def read_profiles(file: AtomicFile, user_column: str, columns: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Read a ``.user`` file: each user and the texts of some columns; a user's first line counts.

    Raises:
        InputError: a file that cannot be read, a missing column, a malformed line, or text instead of a number.
    """
    for column, kind in {user_column: "token", **{name: file.columns.get(name, "") for name in columns}}.items():
        file.check(column, kind)
    users, labels, next_user = TokenIds(first=0), TokenIds(missing=0), 0
    for (names, *cells), lines in file.rows([user_column, *columns]):
        checks: list[Callable[[], Any]] = []
        for column, texts in zip(columns, cells, strict=True):
            if file.columns[column] == "float":
                checks.append(partial(file.floats, column, texts, lines))
            elif file.columns[column] == "token":
                checks.append(partial(file.number_tokens, column, labels, texts, lines))
        ids, *_ = read_all(partial(file.number_tokens, user_column, users, names, lines), *checks)
        for number, name, *texts in zip(ids.tolist(), names, *cells, strict=True):
            if number == next_user:  # ids count up in the order of the users
                next_user += 1
                yield name, texts


def missing_values(kind: str) -> frozenset[str]:
    """Return the texts of a missing value in a column of this type."""
    return MISSING_NUMBERS if kind == "float" else frozenset([""])


def _is_text(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeError:
        return False
    return True


def _float(cell: str) -> float | None:
    """Read a number, NaN for a missing one; None for anything else."""
    if cell in MISSING_NUMBERS:
        return math.nan
    try:
        return None if "_" in cell else float(cell)  # Python allows _ in numbers, files do not
    except ValueError:
        return None


def is_usable(token: str) -> bool:
    """Tell whether a text can be a name."""
    return token not in ("", PAD_TOKEN) and len(token) <= LONGEST_TOKEN


class UnusableTokenError(InputError):
    """A text that cannot be a name."""

    def __init__(self, token: str) -> None:
        self.token = token
        if len(token) > LONGEST_TOKEN:
            super().__init__(f"expected a token of at most {LONGEST_TOKEN:,} characters, got {len(token):,}")
        elif token:
            super().__init__(f"expected a token, got {token}, the name of the padding")
        else:
            super().__init__("expected a token, got an empty cell")


class TokenIds(dict[str, int]):
    """Numbers tokens in the order in which they are first looked up.

    Args:
        first: the first number.
        missing: the number of an empty cell; None: empty cells are errors.
    """

    def __init__(self, first: int = 1, missing: int | None = None) -> None:
        super().__init__()
        self._first = first
        self._missing = missing

    def __missing__(self, token: str) -> int:
        if token == "" and self._missing is not None:
            return self._missing
        if not is_usable(token):
            raise UnusableTokenError(token)
        number = self[token] = len(self) + self._first
        return number

    def add(self, tokens: Iterable[str]) -> None:
        """Number tokens that are new, valid and all different."""
        self.update((token, number) for number, token in enumerate(tokens, start=len(self) + self._first))
