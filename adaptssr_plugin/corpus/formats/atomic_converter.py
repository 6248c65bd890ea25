"""From RecBole's atomic files to a corpus, with lines in any order and number."""

from functools import partial
from pathlib import Path

from ...errors import InputError
from ...progress import Progress
from .atomic import AtomicFile, read_all, read_profiles
from .corpus_writer import InteractionsWriter, source_of
from .dataset_writer import Converted, file_sizes


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
    """Convert a RecBole ``.inter`` file to a corpus with all of its behaviours, where RecBole holds out the newest.

    Each user's behaviours are sorted by time, with ties in the file's order. The ``.user`` file beside it is converted
    too. An interrupted conversion resumes when the same call is repeated.

    Args:
        source: the ``.inter`` file, or a folder that holds a single one.
        folder: where the corpus goes.
        user_column: the column of users, in the ``.user`` file too.
        item_column: the column of items.
        time_column: the column of times, as numbers.
        name: of the files of labels; None: the folder's name.
        overwrite: replace an existing corpus.
        show_progress: a progress bar on standard error, in a log a line every ten seconds.

    Raises:
        InputError: a file that cannot be read, a missing column, a malformed line, or an existing corpus.
    """
    path = _inter_file(Path(source))
    total = file_sizes([path])
    columns = [user_column, item_column, time_column]
    user_file = path.with_suffix(".user")
    source_files = source_of([path], kind="recbole", columns=columns)
    with (
        InteractionsWriter(Path(folder), name, overwrite, source=source_files) as writer,
        Progress(total, "convert", show_progress, "B") as bar,
    ):
        _write_behaviours(AtomicFile(path), columns, writer, bar)
        if user_file.exists():
            _write_profiles(AtomicFile(user_file), user_column, writer)
    return writer.converted()


def _inter_file(source: Path) -> Path:
    if not source.is_dir():
        return source
    found = sorted(source.glob("*.inter"))
    if len(found) != 1:
        came = ", ".join(path.name for path in found) or "none"
        raise InputError(f"input: expected a single .inter file in {source}, got {came}")
    return found[0]


def _write_behaviours(file: AtomicFile, columns: list[str], writer: InteractionsWriter, bar: Progress) -> None:
    for column, kind in zip(columns, ("token", "token", "float"), strict=True):
        file.check(column, kind)
    user_column, item_column, time_column = columns
    known = writer.already_written()
    for (users, items, times), lines in file.rows(columns, bar.update):
        new = slice(min(known, len(lines)), None)
        known -= min(known, len(lines))
        lines = lines[new]
        writer.write_behaviours(
            *read_all(
                partial(file.number_tokens, user_column, writer.user_ids, users[new], lines),
                partial(file.number_tokens, item_column, writer.item_ids, items[new], lines),
                partial(file.times, time_column, times[new], lines),
            )
        )


def _write_profiles(file: AtomicFile, user_column: str, writer: InteractionsWriter) -> None:
    """Rewrite RecBole's file of users, with the column of users called user_id and first."""
    file.check(user_column, "token")
    others = {name: kind for name, kind in file.columns.items() if name != user_column}
    writer.begin_labels(others)
    for user, labels in read_profiles(file, user_column, list(others)):
        writer.add_labels(str(file.path), user, labels)
