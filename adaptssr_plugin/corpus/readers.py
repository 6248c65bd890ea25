"""Readers for the two plain-text forms in which behaviour sequences are passed around."""

import math
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adaptssr_plugin.corpus.behaviours import PAD_TOKEN, BehaviourCorpus
from adaptssr_plugin.errors import InputError


def read_sequence_lines(path: str | Path) -> BehaviourCorpus:
    """Read a file with one line per user: the user, then its items, oldest first, separated by blanks.

    Args:
        path: a UTF-8 text file; blank lines are passed over.

    Returns:
        A corpus with users in the file's order, and items numbered from 1 in order of first appearance.

    Raises:
        InputError: a file that is missing, unreadable or empty, a user without items or with two lines.
    """
    users: dict[str, int] = {}
    numbers = _Numbers(path)
    items, ends = array("i"), array("q", [0])
    for line_number, line in _lines(path):
        user, *tokens = line.split() or [""]
        if not user:
            continue
        if not tokens:
            raise InputError(f"{path}, line {line_number}: expected a user and at least one item, got {user!r} alone")
        if user in users:
            raise InputError(f"{path}, line {line_number}: expected one line per user, got {user!r} again")
        users[user] = len(users)
        items.extend([numbers[token] for token in tokens])
        ends.append(len(items))
    if not users:
        raise InputError(f"{path}: expected one line per user, got an empty file")
    return _corpus(_int32(items), np.frombuffer(ends, dtype=np.int64), list(users), numbers)


def read_interactions(
    path: str | Path,
    *,
    user_field: str = "user_id",
    item_field: str = "item_id",
    time_field: str | None = "timestamp",
) -> BehaviourCorpus:
    """Read a RecBole atomic file of interactions: one line per behaviour, in any order.

    Args:
        path: a tab-separated UTF-8 file whose first line names the columns, as in
            ``user_id:token<TAB>item_id:token<TAB>timestamp:float``; further columns are not looked at.
        user_field: the column of users.
        item_field: the column of items.
        time_field: the column to sort each user's behaviours by, as numbers; behaviours at the same time stay
            in the file's order. None keeps the file's order throughout.

    Returns:
        A corpus with users and items in order of first appearance in the file, items numbered from 1.

    Raises:
        InputError: a file that is missing, unreadable or empty, a missing column, or an odd row.
    """
    lines = _lines(path)
    header = [field.partition(":")[0] for field in next(lines, (1, ""))[1].split("\t")]
    wanted = [user_field, item_field] if time_field is None else [user_field, item_field, time_field]
    for field in wanted:
        if field not in header:
            raise InputError(f"{path}: expected a column {field}, got {', '.join(header) or 'an empty file'}")
    user_column, item_column, *time_column = (header.index(field) for field in wanted)
    users: dict[str, int] = {}
    numbers = _Numbers(path)
    rows, items, times = array("i"), array("i"), array("d")
    for line_number, line in lines:
        if not line:
            continue
        values = line.split("\t")
        if len(values) != len(header):
            raise InputError(
                f"{path}, line {line_number}: expected {len(header)} values separated by tabs, got {len(values)}"
            )
        user, item = values[user_column], values[item_column]
        if not user or not item:
            raise InputError(f"{path}, line {line_number}: expected a user and an item, got {user!r} and {item!r}")
        rows.append(users.setdefault(user, len(users)))
        items.append(numbers[item])
        if time_column:
            times.append(parse_time(values[time_column[0]], path, line_number, time_field))
    if not users:
        raise InputError(f"{path}: expected at least one interaction, got none below the header")
    user_rows = _int32(rows)
    # Both sorts are stable: the file's order decides what time leaves open.
    order = np.lexsort((np.frombuffer(times), user_rows)) if time_column else np.argsort(user_rows, kind="stable")
    offsets = np.zeros(len(users) + 1, dtype=np.int64)
    np.cumsum(np.bincount(user_rows), out=offsets[1:])
    return _corpus(_int32(items)[order], offsets, list(users), numbers)


class _Numbers(dict[str, int]):
    """Numbers item tokens from 1 in the order in which they are first looked up."""

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = path

    def __missing__(self, token: str) -> int:
        if token == PAD_TOKEN:
            raise InputError(f"{self.path}: expected no item called {PAD_TOKEN!r}, the name of the padding, got one")
        number = self[token] = len(self) + 1
        return number


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Give each line with its number, without its end."""
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            for line_number, line in enumerate(file, start=1):
                yield line_number, line.rstrip("\r\n")
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text, got a byte that is none ({error.reason})") from error


def parse_time(text: str, path: str | Path, line_number: int, field: str | None) -> float:
    """Read a number to sort by; raise InputError for anything else."""
    try:
        time = float(text)
    except ValueError:
        time = math.nan
    if math.isnan(time):  # would sort anywhere
        raise InputError(f"{path}, line {line_number}: {field}: expected a number, got {text!r}")
    return time


def _int32(numbers: "array[int]") -> npt.NDArray[np.int32]:
    return np.frombuffer(numbers, dtype=np.int32)


def _corpus(
    items: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], users: list[str], numbers: _Numbers
) -> BehaviourCorpus:
    item_tokens = np.array([PAD_TOKEN, *numbers], dtype=np.str_)
    return BehaviourCorpus(items, offsets, len(item_tokens), np.array(users, dtype=np.str_), item_tokens)
