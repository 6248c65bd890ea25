"""Cold recommendation from and to a file with one line per pair, joined to histories by user names."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...corpus import BehaviourCorpus
from ...corpus.formats.atomic import AtomicFile, TokenIds
from ...errors import InputError, check_kind
from ...training.checkpoints import write_text
from .cold import ColdRecommendationTask
from .inputs import prefixes, renumbered

_COUNT = re.compile(r"\d{1,18}(\.0)?", re.ASCII)  # 64 bits hold any 18 digits
_COLUMNS = {"user_id": "token", "target_id": "token", "input_length": "float"}  # the third is optional


class ColdRows(NamedTuple):
    """Pairs of a user and a target by name.

    Attributes:
        users: (N,) str.
        targets: (N,) str.
        lengths: (N,) int64, the number of the user's oldest behaviours before the target; None: the whole history is
            the input.
    """

    users: npt.NDArray[np.str_]
    targets: npt.NDArray[np.str_]
    lengths: npt.NDArray[np.int64] | None = None


def write_cold_rows(path: Path, rows: ColdRows) -> None:
    """Write pairs in the form of RecBole's atomic files, atomically."""
    columns = [rows.users.tolist(), rows.targets.tolist()]
    if rows.lengths is not None:
        columns.append([str(length) for length in rows.lengths.tolist()])
    header = [f"{name}:{kind}" for name, kind in _COLUMNS.items()][: len(columns)]
    lines = ["\t".join(header), *("\t".join(line) for line in zip(*columns, strict=True))]
    write_text(path, "\n".join(lines) + "\n")


def read_cold_rows(path: Path) -> ColdRows:
    """Read a file with the columns ``user_id:token``, ``target_id:token`` and optionally ``input_length:float``.

    Other columns are ignored; columns are separated by tabs.

    Raises:
        InputError: a file that is missing, unreadable or without rows, a missing column, a malformed line.
    """
    file = AtomicFile(path)
    columns = [name for name in _COLUMNS if name in file.columns or name != "input_length"]
    for name in columns:
        file.check(name, _COLUMNS[name])
    names, found = TokenIds(), []
    for cells, lines in file.rows(columns):
        for name, tokens in zip(columns[:2], cells, strict=False):
            file.number_tokens(name, names, tokens, lines)
        found.append(cells)
        for line, count in zip(lines, cells[2] if len(columns) == 3 else (), strict=False):
            if not _COUNT.fullmatch(count):
                raise InputError(f"{path}, line {line}: expected input_length to be a count, got {count!r}")
    if not found:
        raise InputError(f"{path}: expected at least one line below the header, got none")
    users, targets, *lengths = ([cell for cells in column for cell in cells] for column in zip(*found, strict=True))
    counts = [int(length.removesuffix(".0")) for length in lengths[0]] if lengths else None
    return ColdRows(np.array(users), np.array(targets), None if counts is None else np.array(counts, dtype=np.int64))


def cold_task(
    name: str, rows: ColdRows, histories: BehaviourCorpus, item_tokens: npt.NDArray[np.str_] | None = None
) -> ColdRecommendationTask:
    """Join pairs to histories. The label space consists of the targets of the remaining pairs.

    Left out, and counted in ``left_out``, are pairs of users without a history or without an input (no behaviour is
    before the target, or the model knows none), and repeated pairs.

    Args:
        name: of the task.
        rows: the pairs.
        histories: whole histories, to which ``rows.lengths`` refer; without lengths, the corpus of the pre-training.
        item_tokens: with lengths: the model's items by id, if ``histories`` has other ids.

    Raises:
        InputError: a length beyond a user's history, or no pair left.
    """
    check_kind("rows", rows, ColdRows, "ColdRows")
    check_kind("histories", histories, BehaviourCorpus, "a BehaviourCorpus")
    row_of = {token: row for row, token in enumerate(histories.user_tokens.tolist())}
    users = np.array([row_of.get(token, -1) for token in rows.users.tolist()], dtype=np.int64)
    if rows.lengths is None:
        inputs, row, kept = None, users, np.flatnonzero(users >= 0)
    else:
        inputs, row = _inputs(users, rows.lengths, histories, item_tokens)
        kept = np.flatnonzero(row >= 0)
    if len(kept) == 0:
        raise InputError(f"task: expected pairs of users with behaviours in {name}, got none")
    labels, targets = np.unique(rows.targets[kept], return_inverse=True)
    _, first = np.unique(users[kept] * len(labels) + targets, return_index=True)
    first.sort()
    kept, targets = kept[first], targets[first]
    left_out = len(rows.users) - len(kept)
    return ColdRecommendationTask(name, row[kept], targets, labels, inputs, users[kept], left_out)


def _inputs(
    users: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    histories: BehaviourCorpus,
    item_tokens: npt.NDArray[np.str_] | None,
) -> tuple[BehaviourCorpus, npt.NDArray[np.int64]]:
    """Make one history for every user and moment; returns it and each pair's row in it, -1 for pairs without one."""
    row = np.full(len(users), -1, dtype=np.int64)
    some = np.flatnonzero((users >= 0) & (lengths > 0))
    longest = int(lengths.max()) + 1
    moments, row[some] = np.unique(users[some] * longest + lengths[some], return_inverse=True)
    inputs = prefixes(histories, *np.divmod(moments, longest))
    if item_tokens is not None and len(moments):
        inputs, known = renumbered(inputs, item_tokens)
        new = np.full(len(moments), -1, dtype=np.int64)
        new[known] = np.arange(len(known))
        row[some] = new[row[some]]
    return inputs, row
