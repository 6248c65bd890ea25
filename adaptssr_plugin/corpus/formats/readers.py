"""Readers for the two common plain-text forms of behaviour sequences."""

from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adaptssr_plugin.corpus.behaviours import PAD_TOKEN, BehaviourCorpus
from adaptssr_plugin.corpus.formats.atomic import AtomicFile, TokenIds, UnusableTokenError, read_all
from adaptssr_plugin.corpus.formats.times import ExactTimes
from adaptssr_plugin.errors import InputError


def read_sequence_lines(path: str | Path) -> BehaviourCorpus:
    """Read a file with one line per user: the user, then its items, oldest first, separated by blanks.

    Args:
        path: a UTF-8 text file; blank lines are skipped.

    Returns:
        A corpus with users in the file's order, and items numbered from 1 in order of first appearance.

    Raises:
        InputError: a file that is missing, unreadable or empty, a user without items or with two lines.
    """
    users: dict[str, int] = {}
    numbers = TokenIds()
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
        try:
            items.extend([numbers[token] for token in tokens])
        except UnusableTokenError as error:
            raise InputError(f"{path}, line {line_number}: {error}") from None
        ends.append(len(items))
    if not users:
        raise InputError(f"{path}: expected one line per user, got an empty file")
    return _corpus(np.frombuffer(items, dtype=np.int32), np.frombuffer(ends, dtype=np.int64), list(users), numbers)


def read_interactions(
    path: str | Path,
    *,
    user_field: str = "user_id",
    item_field: str = "item_id",
    time_field: str | None = "timestamp",
    separator: str = "\t",
    encoding: str = "utf-8",
) -> BehaviourCorpus:
    """Read a RecBole atomic file of interactions: one line per behaviour, in any order.

    Args:
        path: a file whose first line names the columns, as in
            ``user_id:token<TAB>item_id:token<TAB>timestamp:float``; other columns are ignored.
        user_field: the column of users.
        item_field: the column of items.
        time_field: the column by which each user's behaviours are sorted, as numbers compared without rounding; ties
            keep the file's order. None keeps the file's order throughout.
        separator: between the cells of a row.
        encoding: of the text.

    Returns:
        A corpus with users and items in order of first appearance in the file, items numbered from 1.

    Raises:
        InputError: a file that is missing, unreadable or empty, a missing column, or a malformed row.
    """
    file = AtomicFile(path, separator, encoding)
    wanted = {user_field: "token", item_field: "token"} | ({} if time_field is None else {time_field: "float"})
    for field, kind in wanted.items():
        file.check(field, kind)
    users, numbers = TokenIds(first=0), TokenIds()
    parts: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]] = []
    times: list[ExactTimes] = []
    for (user_cells, item_cells, *time_cells), lines in file.rows(list(wanted)):
        found_users, found_items, *found_times = read_all(
            partial(file.number_tokens, user_field, users, user_cells, lines),
            partial(file.number_tokens, item_field, numbers, item_cells, lines),
            *(partial(file.times, name, cells, lines) for name, cells in zip([*wanted][2:], time_cells, strict=True)),
        )
        parts.append((found_users, found_items))
        times += found_times
    if not parts:
        raise InputError(f"{path}: expected at least one interaction, got none below the header")
    user_rows, items = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    # Both sorts are stable, so ties keep the file's order.
    order = np.lexsort((file.sortable_times(times), user_rows)) if times else np.argsort(user_rows, kind="stable")
    offsets = np.zeros(len(users) + 1, dtype=np.int64)
    np.cumsum(np.bincount(user_rows), out=offsets[1:])
    return _corpus(items[order], offsets, list(users), numbers)


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, without its end."""
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            for line_number, line in enumerate(file, start=1):
                yield line_number, line.rstrip("\r\n")
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text, got other bytes ({error.reason})") from error


def _corpus(
    items: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], users: list[str], numbers: dict[str, int]
) -> BehaviourCorpus:
    item_tokens = np.array([PAD_TOKEN, *numbers], dtype=np.str_)
    return BehaviourCorpus(items, offsets, len(item_tokens), np.array(users, dtype=np.str_), item_tokens)
