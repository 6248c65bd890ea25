"""The Tencent Transfer Learning files (TTL): the paper's public corpus, as used by PeterRec, CONURE and AdaptSSR.

Their form, according to the code that reads them (fajieyuan/SIGIR2020_peterrec ``data_loader_recsys*.py`` and its two
files under ``Data/Session``; yflyl613/AdaptSSR ``Code/data_preprocess.py``; Sein-Kim/TERACON_Revised ``README.md``):

``original_desen_pretrain.csv``
    One sequence per line without a user: item numbers, oldest first, separated by commas, padded with 0 on the left.
``original_desen_age.csv``, ``original_desen_lifestatus.csv``, ``original_desen_gender.csv``
    ``sequence,,label``: only the sequence identifies the user.
``original_desen_finetune_click_nouserID.csv``, ``original_desen_finetune_like_nouserID.csv``
    ``sequence,,target,target,…``: items of another domain, with separate numbers.

The data were not available when this was written, so the following is our own reading. A 0 is left out wherever it is.
A user's name is the number of its line, counted from 0 (the authors' uid). Among equal sequences the k-th in a file of
labels is the k-th of the corpus (the authors give all labels to the last one).
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ...progress import Progress
from .converters import fingerprint
from .corpus_writer import make_writer
from .dataset_writer import Converted, DatasetWriter, file_sizes, numbered_lines

_SEPARATOR = ",,"
_NUMBERS = re.compile(r"-?\d{1,18}(?:,-?\d{1,18})*", re.ASCII)  # 64 bits hold any 18 digits
_AROUND_NAME = re.compile(r"^original_desen_|finetune_|_nouser(?:id)?$|_nosuerid$", re.IGNORECASE)


def convert_ttl(
    inputs: Sequence[str | Path],
    folder: str | Path,
    *,
    name: str | None = None,
    overwrite: bool = False,
    corpus: bool = False,
    show_progress: bool = True,
) -> Converted:
    """Convert TTL's files: the sequences, and any number of files with labels of them.

    The first line of a file says what it is; a single file of labelled sequences is both. Labels become a column of the
    ``.user`` file named after their file (``original_desen_age.csv``: age). Labels of a file with "finetune" in its
    name, or with several in a line, are targets of cold recommendation and become a file ``<name>.click.cold`` with a
    line for each. Behaviours get their positions as timestamps.

    Args:
        inputs: csv files in any order.
        folder: where the dataset goes.
        name: of the dataset; None: the folder's.
        overwrite: replace files of that name.
        corpus: as for :func:`~adaptssr_plugin.corpus.formats.converters.convert_lines`.
        show_progress: a progress bar on standard error, in a log a line every ten seconds.

    Returns:
        What was written; ``notes`` say how many rows of labels were left out because no sequence was left for them.

    Raises:
        InputError: a file that cannot be read or has another form; a line without behaviour or, in a file of labels,
            without label; text that is not a number; two files for one column; labels that belong to none of the
            sequences; existing files. Nothing is written then.
    """
    paths = [Path(path) for path in inputs]
    total = file_sizes(paths)
    histories, labelled = _sorted_out(paths)
    if histories in labelled.values():  # it is read twice
        total *= 2
    with (
        Progress(total, "convert", show_progress, "B") as bar,
        make_writer(folder, name, overwrite, corpus, [histories], kind="ttl") as writer,
    ):
        marks, lines = _write_histories(histories, histories in labelled.values(), writer, bar)
        columns = {column: _read_labels(path, bar) for column, path in labelled.items()}
        if columns:
            _write_labels(writer, marks, lines, columns, histories)
    return writer.converted()


@dataclass(frozen=True, eq=False)
class _Labels:
    """The rows of a file of labels.

    Attributes:
        path: of the file.
        marks: (M,) uint64, the fingerprint of each row's sequence.
        values: (V,) int64, the labels of all rows, concatenated.
        offsets: (M + 1,) int64, where those of each row begin.
        lines: (M,) int64, the line number of each row in the file.
    """

    path: Path
    marks: npt.NDArray[np.uint64]
    values: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    lines: npt.NDArray[np.int64]

    @property
    def are_targets(self) -> bool:
        """Whether they are items of another domain; a user may have several."""
        return "finetune" in self.path.stem.lower() or len(self.values) > len(self.marks)

    def of(self, row: int) -> list[str]:
        """Return the labels of a row; an empty list for -1."""
        return [] if row < 0 else list(map(str, self.values[self.offsets[row] : self.offsets[row + 1]].tolist()))


def _sorted_out(paths: Sequence[Path]) -> tuple[Path, dict[str, Path]]:
    """Find the file of sequences among those with labels, and name the columns of the latter."""
    with_labels = [path for path in paths if _SEPARATOR in _first_line(path)]
    plain = [path for path in paths if path not in with_labels]
    if len(plain) > 1 or (not plain and len(paths) > 1):
        came = ", ".join(map(str, plain)) or "none"
        raise InputError(f"input: expected one file of sequences without labels (no {_SEPARATOR!r}), got {came}")
    columns: dict[str, Path] = {}
    for path in with_labels:
        column = re.sub(r"\s+", "_", _AROUND_NAME.sub("", path.stem)) or path.stem
        if column in columns:
            raise InputError(f"input: expected one file for the column {column}, got {columns[column]} and {path}")
        columns[column] = path
    return (plain or with_labels)[0], columns


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                return line.decode(errors="replace")
    raise InputError(f"{path}: expected sequences of item numbers, got an empty file")


def _rows(path: Path, bar: Progress) -> Iterator[tuple[int, list[str], str | None]]:
    """Yield each line's number, its items without the padding, and the text after ",,", or None."""
    with path.open("rb") as file:
        for number, line in numbered_lines(file, path, bar):
            line = line.strip()
            if line:
                sequence, found, rest = line.partition(_SEPARATOR)
                yield number, _items(sequence, f"{path}, line {number}"), rest if found else None


def _items(sequence: str, place: str) -> list[str]:
    items = [str(item) for item in _integers(sequence, place, "item numbers") if item != 0]
    if not items:
        raise InputError(f"{place}: expected at least one item, got nothing but padding")
    if any(item[0] == "-" for item in items):
        raise InputError(f"{place}: expected item numbers of at least 0, got {next(i for i in items if i[0] == '-')}")
    return items


def _integers(text: str, place: str, what: str) -> list[int]:
    parts = text.split(",")
    if not _NUMBERS.fullmatch(text):
        odd = next(part for part in parts if not _NUMBERS.fullmatch(part))
        raise InputError(f"{place}: expected {what} separated by commas, got {odd[:40]!r}")
    return list(map(int, parts))


def _write_histories(
    path: Path, labelled: bool, writer: DatasetWriter, bar: Progress
) -> tuple[npt.NDArray[np.uint64], "array[int]"]:
    """Write the .inter file; return the fingerprint and the line number of every sequence."""
    marks, lines = array("Q"), array("q")
    for number, items, rest in _rows(path, bar):
        if rest is not None and not labelled:
            raise InputError(f"{path}, line {number}: expected no label, as in the first line, got {rest[:40]!r}")
        writer.write(str(number - 1), items)  # only digits, which are valid names
        marks.append(fingerprint(",".join(items)))
        lines.append(number)
    return np.frombuffer(marks, dtype=np.uint64), lines


def _read_labels(path: Path, bar: Progress) -> _Labels:
    marks, values, ends, lines = array("Q"), array("q"), array("q", [0]), array("q")
    for number, items, rest in _rows(path, bar):
        place = f"{path}, line {number}"
        if not rest:
            came = "nothing" if rest is not None else f"no {_SEPARATOR!r}"
            raise InputError(f"{place}: expected a label behind {_SEPARATOR!r}, got {came}")
        values.extend(_integers(rest, place, "labels"))
        ends.append(len(values))
        marks.append(fingerprint(",".join(items)))
        lines.append(number)
    return _Labels(
        path,
        np.frombuffer(marks, dtype=np.uint64),
        np.frombuffer(values, dtype=np.int64),
        np.frombuffer(ends, dtype=np.int64),
        np.frombuffer(lines, dtype=np.int64),
    )


def _write_labels(
    writer: DatasetWriter,
    marks: npt.NDArray[np.uint64],
    lines: "array[int]",
    columns: dict[str, _Labels],
    histories: Path,
) -> None:
    rows = {column: _matched(marks, labels.marks) for column, labels in columns.items()}
    for column, labels in columns.items():
        left = np.setdiff1d(np.arange(len(labels.marks)), rows[column])
        if len(left) == len(labels.marks):
            raise InputError(f"{labels.path}: expected labels of the sequences of {histories}, got none of those")
        if len(left):
            writer.notes.append(
                f"{column}: {len(left)} of {len(labels.marks)} rows left out, for which no sequence is left in "
                f"{histories.name} (the first in line {labels.lines[left[0]]})"
            )
    profiles = [column for column, labels in columns.items() if not labels.are_targets]
    if profiles:
        writer.begin_labels(dict.fromkeys(profiles, "token"))
    targets = [column for column in columns if column not in profiles]
    for column in targets:
        writer.begin_targets(column)
    for user, line in enumerate(lines):
        found = {column: labels.of(int(rows[column][user])) for column, labels in columns.items()}
        if profiles:
            values = [label for column in profiles for label in found[column] or [""]]
            writer.add_labels(f"{histories}, line {line}", str(line - 1), values)
        for column in targets:
            writer.add_targets(column, str(line - 1), found[column])


def _matched(marks: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return, for each of ``marks`` (N,), the place of the same mark in ``wanted``; the k-th equal one for the k-th.

    Returns:
        (N,) int64, -1 for none.
    """
    order = np.argsort(wanted, kind="stable")
    in_order = wanted[order]
    first, stop = (np.searchsorted(in_order, marks, side=side) for side in ("left", "right"))
    place = first + _rank(marks)
    found: npt.NDArray[np.int64] = np.where(place < stop, order[np.minimum(place, len(order) - 1)], -1)
    return found


def _rank(marks: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Number equal marks (N,) from 0 in their order: (N,) int64."""
    order = np.argsort(marks, kind="stable")
    place = np.arange(len(marks))
    begins = np.append(True, marks[order][1:] != marks[order][:-1])
    rank = np.empty(len(marks), dtype=np.int64)
    rank[order] = place - np.maximum.accumulate(np.where(begins, place, 0))
    return rank
