"""From other forms to RecBole's atomic files or a corpus: one line per user, and Parquet with a list per user.

Each converter reads its input once, user by user, so that memory grows with the number of different items and by eight
bytes per user, not with the behaviours. Converters for one particular corpus are in separate files.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...progress import Progress
from .corpus_writer import CorpusWriter, make_writer
from .dataset_writer import Converted, DatasetWriter, Users, file_sizes, numbered_lines

__all__ = ["Converted", "convert_lines", "convert_parquet"]

_Row = tuple[str, str, list[str]]  # where a user was read, its name and its items
_BATCH = 1 << 14  # users of a Parquet file held as Python objects at once


def convert_lines(
    inputs: Sequence[str | Path],
    folder: str | Path,
    *,
    name: str | None = None,
    overwrite: bool = False,
    corpus: bool = False,
    show_progress: bool = True,
) -> Converted:
    """Convert text with one line per user: the user, then its items, oldest first, separated by blanks.

    Behaviours get their positions 0, 1, 2, ... as timestamps.

    Args:
        inputs: UTF-8 text files, one after another; blank lines are skipped.
        folder: where the dataset goes.
        name: of the dataset; None: the folder's name.
        overwrite: replace files of that name.
        corpus: write a corpus for :func:`~adaptssr_plugin.corpus.open_corpus` instead of RecBole's files; an
            interrupted conversion resumes when it is started again.
        show_progress: a progress bar on standard error, in a log a line every ten seconds.

    Raises:
        InputError: a file that cannot be read, a user without items or with two lines, a name that a file cannot
            hold, or existing files. Nothing is written then.
    """
    paths = [Path(path) for path in inputs]
    total = file_sizes(paths)
    with make_writer(folder, name, overwrite, corpus, paths, kind="lines") as writer:
        _write_users(lambda skip: _line_rows(paths, total, show_progress, skip), writer)
    return writer.converted()


def convert_parquet(
    inputs: Sequence[str | Path],
    folder: str | Path,
    *,
    user_column: str = "user_id",
    items_column: str = "item_id",
    label_columns: Sequence[str] = (),
    name: str | None = None,
    overwrite: bool = False,
    corpus: bool = False,
    show_progress: bool = True,
) -> Converted:
    """Convert Parquet with one row per user, whose items are a list, oldest first; needs pyarrow.

    Behaviours get their positions 0, 1, 2, ... as timestamps. Files are read by row groups.

    Args:
        inputs: Parquet files, one after another.
        folder: where the dataset goes.
        user_column: integers or strings.
        items_column: lists of integers or strings.
        label_columns: columns for the ``.user`` file: integers, strings or truth values, and floating numbers,
            which become a column of type float; null: no label.
        name: as :func:`convert_lines`, like the rest.
        overwrite: as there.
        corpus: as there.
        show_progress: as there.

    Raises:
        InputError: as :func:`convert_lines`; a missing column or one of another type.
    """
    paths = [Path(path) for path in inputs]
    file_sizes(paths)
    kinds: dict[str, str] = {}
    n_users = 0
    for path in paths:
        rows, found = parquet_columns(path, user_column, items_column, label_columns)
        if kinds and found != kinds:
            raise InputError(f"{path}: expected labels of the types of the first file, {kinds}, got {found}")
        kinds, n_users = found, n_users + rows
    columns = (user_column, items_column)
    with make_writer(folder, name, overwrite, corpus, paths, kind="parquet", columns=columns) as writer:
        if label_columns:
            writer.begin_labels(kinds)
        _write_users(lambda skip: _parquet_rows(paths, columns, n_users, show_progress, skip), writer)
        if label_columns:
            _write_parquet_labels(paths, user_column, label_columns, writer)
    return writer.converted()


def fingerprint(text: str) -> int:
    """Hash a text to 64 bits; among n texts two are equal with a probability of n² / 2^65."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _write_users(rows: Callable[[int], Iterator[_Row | Users]], writer: DatasetWriter) -> None:
    """Write all users, one or several at a time; every call of ``rows(n)`` starts after the first n.

    Raises:
        InputError: what :meth:`DatasetWriter.add` raises, and two rows for one user.
    """
    seen = array("Q")
    if isinstance(writer, CorpusWriter):
        seen.extend(map(fingerprint, writer.users_already_written()))
    for row in rows(writer.already_written()):
        if isinstance(row, Users):
            writer.add_users(row)
            seen.extend(map(fingerprint, row.users))
        else:
            writer.add(*row)
            seen.append(fingerprint(row[1]))
    # Names are compared at the end, as hashes: a set of them would be the largest object in memory.
    marks = np.frombuffer(seen, dtype=np.uint64)
    order = np.argsort(marks, kind="stable")
    again = order[1:][marks[order][1:] == marks[order][:-1]]
    if len(again):
        row = next(rows(int(again.min())))
        place, user, _ = next(row.rows()) if isinstance(row, Users) else row
        raise InputError(f"{place}: expected every user once, got {user!r} again")


def _line_rows(paths: Sequence[Path], total: int, show_progress: bool, skip: int) -> Iterator[_Row]:
    with Progress(total, "convert", show_progress, "B") as bar:
        for path in paths:
            with path.open("rb") as file:
                for number, line in numbered_lines(file, path, bar):
                    if skip and not line.isspace() and line:
                        skip -= 1
                        continue
                    user, *items = line.split() or [""]
                    if user:
                        yield f"{path}, line {number}", user, items


def parquet_columns(
    path: Path, user_column: str, items_column: str, label_columns: Sequence[str]
) -> tuple[int, dict[str, str]]:
    """Check a file's columns; returns its number of rows, and the type in the ``.user`` file of each label."""
    import pyarrow as pa
    from pyarrow import parquet, types

    try:
        with parquet.ParquetFile(path) as file:
            schema, n_rows = file.schema_arrow, int(file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: expected a Parquet file, got something else ({_one_line(error)})") from None
    for option, column in (
        ("user_column", user_column),
        ("items_column", items_column),
        *(("label_column", label) for label in label_columns),
    ):
        if schema.names.count(column) != 1:
            raise InputError(f"{option}: expected a column of {path} ({', '.join(schema.names)}), got {column!r}")

    def plain(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))

    users, items = schema.field(user_column).type, schema.field(items_column).type
    if not plain(users):
        raise InputError(f"user_column: expected integers or strings in {user_column!r} of {path}, got {users}")
    is_list = types.is_list(items) or types.is_large_list(items) or types.is_fixed_size_list(items)
    if not is_list or not plain(items.value_type):
        raise InputError(
            f"items_column: expected lists of integers or strings in {items_column!r} of {path}, got {items}"
        )
    labels = {}
    for column in label_columns:
        kind = schema.field(column).type
        if not (plain(kind) or types.is_boolean(kind) or types.is_floating(kind)):
            raise InputError(f"label_column: expected numbers or strings in {column!r} of {path}, got {kind}")
        labels[column] = "float" if types.is_floating(kind) else "token"
    return n_rows, labels


def _parquet_rows(
    paths: Sequence[Path], columns: tuple[str, str], n_users: int, show_progress: bool, skip: int
) -> Iterator[Users]:
    with Progress(n_users, "convert", show_progress, "user") as bar:
        for path, number, batch in parquet_batches(paths, columns):
            passed = min(skip, len(batch))
            skip -= passed
            if passed < len(batch):
                yield _parquet_users(f"{path}, row", number + passed + 1, *map(batch.slice(passed).column, columns))
            bar.update(len(batch))


def parquet_batches(
    paths: Sequence[Path], columns: Sequence[str], size: int = _BATCH
) -> Iterator[tuple[Path, int, Any]]:
    """Return some rows at a time, up to ``size``, with their file and the number of its earlier rows."""
    import pyarrow as pa
    from pyarrow import parquet

    for path in paths:
        number = 0
        try:
            with parquet.ParquetFile(path) as file:
                # Row groups one by one: pyarrow has no lists of dictionaries across groups.
                for group in range(file.num_row_groups):
                    for batch in file.iter_batches(size, row_groups=[group], columns=list(columns)):
                        yield path, number, batch
                        number += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: cannot be read after row {number} ({_one_line(error)})") from None


def _parquet_users(where: str, number: int, users: Any, lists: Any) -> Users:
    from pyarrow import compute

    values = lists.flatten()
    if users.null_count or lists.null_count or values.null_count:
        for row, (user, items) in enumerate(zip(users.to_pylist(), lists.to_pylist(), strict=True), start=number):
            if user is None or items is None or None in items:
                raise InputError(f"{where} {row}: expected a user and a list of items, got null among them")
    if hasattr(values, "dictionary"):  # it may contain names that do not occur
        values = values.dictionary_decode()
    coded = values.dictionary_encode()
    return Users(
        where,
        number,
        users=list(map(str, users.to_pylist())),
        names=list(map(str, coded.dictionary.to_pylist())),
        codes=coded.indices.to_numpy(zero_copy_only=False),
        counts=compute.list_value_length(lists).to_numpy(zero_copy_only=False),
    )


def _write_parquet_labels(
    paths: Sequence[Path], user_column: str, label_columns: Sequence[str], writer: DatasetWriter
) -> None:
    for path, number, batch in parquet_batches(paths, [user_column, *label_columns]):
        values = [batch.column(column).to_pylist() for column in (user_column, *label_columns)]
        for row, (user, *labels) in enumerate(zip(*values, strict=True), start=number + 1):
            # NaN is not a label either.
            known = ["" if label is None or label != label else str(label) for label in labels]
            writer.add_labels(f"{path}, row {row}", str(user), known)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
