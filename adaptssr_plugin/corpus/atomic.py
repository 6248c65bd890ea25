"""From RecBole's atomic files to a corpus, whatever the order and the number of their lines."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..progress import progress_bar
from .behaviours import PAD_TOKEN
from .corpus_writer import InteractionsWriter, source_of
from .dataset_writer import Converted, file_sizes, numbered_lines
from .readers import parse_time

__all__ = ["convert_interactions"]


def convert_interactions(
    source: str | Path,
    folder: str | Path,
    *,
    user_column: str = "user_id",
    item_column: str = "item_id",
    time_column: str = "timestamp",
    name: str | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Converted:
    """Convert a RecBole ``.inter`` file to a corpus; all of its behaviours, where RecBole holds the newest out.

    Each user's behaviours are sorted by time, those at the same time in the file's order. The ``.user`` file beside
    it is taken along. What was broken off goes on where it was when the same call comes again.

    Args:
        source: the ``.inter`` file, or a folder that holds a single one.
        folder: where the corpus goes.
        user_column: the column of users, in the ``.user`` file too.
        item_column: the column of items.
        time_column: the column of times, as numbers.
        name: of the files of labels; None: the folder's.
        overwrite: replace a corpus that is there.
        show_progress: a progress bar on standard error.

    Raises:
        InputError: a file that cannot be read, a missing column, an odd line, or a corpus that is there already.
    """
    path = _inter_file(Path(source))
    total = file_sizes([path])
    columns = [user_column, item_column, time_column]
    user_file = path.with_suffix(".user")
    source_files = source_of([path], kind="recbole", columns=columns)
    with (
        InteractionsWriter(Path(folder), name, overwrite, source=source_files) as writer,
        progress_bar(total, "convert", show_progress, "B") as bar,
    ):
        bar.unit_scale = True
        _write_behaviours(path, columns, writer, bar)
        if user_file.exists():
            file_sizes([user_file])
            _write_profiles(user_file, user_column, writer)
    return writer.converted()


def _inter_file(source: Path) -> Path:
    if not source.is_dir():
        return source
    found = sorted(source.glob("*.inter"))
    if len(found) != 1:
        came = ", ".join(path.name for path in found) or "none"
        raise InputError(f"input: expected a single .inter file in {source}, got {came}")
    return found[0]


def _write_behaviours(path: Path, columns: list[str], writer: InteractionsWriter, bar: Any) -> None:
    with path.open("rb") as file:
        lines = numbered_lines(file, path, bar)
        header = [field.partition(":")[0] for field in next(lines, (1, ""))[1].split("\t")]
        for column in columns:
            if column not in header:
                raise InputError(f"{path}: expected a column {column}, got {', '.join(header) or 'an empty file'}")
        user_place, item_place, time_place = map(header.index, columns)
        rows = _rows(path, lines, len(header))
        for number, values in islice(rows, writer.already_written(), None):
            user, item, time = values[user_place], values[item_place], values[time_place]
            if not user or not item or user == PAD_TOKEN or item == PAD_TOKEN:
                place = f"{path}, line {number}"
                raise InputError(f"{place}: expected a user and an item, got {user!r} and {item!r}")
            writer.write_behaviour(user, item, parse_time(time, path, number, columns[2]))


def _rows(path: Path, lines: Iterator[tuple[int, str]], width: int) -> Iterator[tuple[int, list[str]]]:
    """Give the number and the values of every line that is not empty."""
    for number, line in lines:
        if line:
            values = line.split("\t")
            if len(values) != width:
                raise InputError(f"{path}, line {number}: expected {width} values separated by tabs, got {len(values)}")
            yield number, values


def _write_profiles(path: Path, user_column: str, writer: InteractionsWriter) -> None:
    """Write RecBole's file of users again, with the column of users called user_id and in front."""
    with path.open("rb") as file, progress_bar(0, "labels", False) as bar:
        lines = numbered_lines(file, path, bar)
        header = [field.partition(":")[::2] for field in next(lines, (1, ""))[1].split("\t")]
        names = [name for name, _ in header]
        if user_column not in names:
            raise InputError(f"{path}: expected a column {user_column}, got {', '.join(names) or 'an empty file'}")
        place = names.index(user_column)
        writer.begin_labels({name: kind for name, kind in header if name != user_column})
        for number, values in _rows(path, lines, len(header)):
            user = values.pop(place)
            writer.add_labels(f"{path}, line {number}", user, values)
