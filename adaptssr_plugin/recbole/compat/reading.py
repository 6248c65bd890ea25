"""RecBole's datasets, read by this package's reader and kept in the exact order of their times.

RecBole 1.2.1 reads its files with pandas, which does not treat quotation marks and words such as NA as text
(data/dataset/dataset.py:486). It compares times rounded to float32 (data/interaction.py:41), so Unix seconds within
some 128 of each other have no order. This module replaces these methods, and the loop over rows that cuts histories
into prefixes (data/dataset/sequential_dataset.py:109).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from recbole.data.dataset import Dataset, DIENDataset, SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType
from torch import Tensor

from ...corpus.formats.atomic import AtomicFile, TokenIds, read_all
from ...corpus.formats.times import ExactTimes, are_floats
from ...corpus.on_disk import checksum
from ...errors import InputError

_ROWS = 1 << 14  # prefixes gathered at once


# --- files ----------------------------------------------------------------------------------------------------------


def load_feat(dataset: Any, filepath: str, source: Any) -> pd.DataFrame | None:
    """Replace ``Dataset._load_feat``: read the columns of a file that the config asks for.

    Tokens are the text of the file, NaN for an empty cell. Times are exact (int64, or float64 that keeps their order);
    other numbers are float64.

    Raises:
        InputError: a file that cannot be read, a malformed row, an empty cell for a user or an item, or users, items
            or times in a column of another type.
    """
    load_col, unload_col = dataset._get_load_and_unload_col(source)
    if load_col == set():
        return None
    file = AtomicFile(filepath, dataset.config["field_separator"], dataset.config["encoding"])
    columns = {
        name: FeatureType(kind)
        for name, kind in file.columns.items()
        if (load_col is None or name in load_col) and (unload_col is None or name not in unload_col)
    }
    if not columns:
        dataset.logger.warning(f"No columns has been loaded from [{source}]")
        return None
    if source != "link":
        _note_columns(dataset, columns, source)
    keys = _keys(dataset, source)
    for name, kind in keys.items():
        if name in columns:
            file.check(name, kind)
    readers = [_reader(dataset, file, name, kind, name in keys) for name, kind in columns.items()]
    for cells, lines in file.rows(list(columns)):
        read_all(*(partial(reader.read, column, lines) for reader, column in zip(readers, cells, strict=True)))
    if not readers[0].parts:
        raise InputError(f"{filepath}: expected at least one row below the header, got none")
    vars(dataset).setdefault("_files", FilesRead()).add(file.path)
    return pd.DataFrame({name: reader.values() for name, reader in zip(columns, readers, strict=True)})


def _note_columns(dataset: Any, columns: dict[str, FeatureType], source: Any) -> None:
    """Tell a dataset its fields, as RecBole does (data/dataset/dataset.py:471)."""
    for name, kind in columns.items():
        dataset.field2source[name] = source
        dataset.field2type[name] = kind
        if not kind.value.endswith("seq"):
            dataset.field2seqlen[name] = 1
        if "float" in kind.value:
            dataset.field2bucketnum[name] = 2


class _Column:
    """The cells of a column, collected chunk by chunk."""

    def __init__(self, file: AtomicFile, name: str) -> None:
        self.file = file
        self.name = name
        self.parts: list[Any] = []

    def read(self, cells: list[str], lines: Sequence[int]) -> None:
        """Add the cells of some rows, with their line numbers."""
        self.parts.append(self.file.floats(self.name, cells, lines))

    def values(self) -> Any:
        """Return all values: here (N,) float64."""
        return np.concatenate(self.parts)


class _Times(_Column):
    parts: list[ExactTimes]

    def read(self, cells: list[str], lines: Sequence[int]) -> None:
        self.parts.append(self.file.times(self.name, cells, lines))

    def values(self) -> Any:
        """Return (N,) int64 or float64, in the order of the times."""
        return self.file.sortable_times(self.parts)


class _Tokens(_Column):
    """Tokens; equal tokens are one Python object."""

    def __init__(self, file: AtomicFile, name: str, needed: bool) -> None:
        super().__init__(file, name)
        self._ids = TokenIds(missing=None if needed else 0)

    def read(self, cells: list[str], lines: Sequence[int]) -> None:
        self.parts.append(self.file.number_tokens(self.name, self._ids, cells, lines))

    def values(self) -> Any:
        """Return (N,) objects, str or NaN."""
        return np.array([np.nan, *self._ids], dtype=object)[np.concatenate(self.parts)]


class _Lists(_Column):
    """Lists of tokens or numbers, cut to ``seq_len``; empty entries between two separators are skipped."""

    def __init__(self, file: AtomicFile, name: str, dataset: Any, of_numbers: bool) -> None:
        super().__init__(file, name)
        self._dataset = dataset
        self._of_numbers = of_numbers
        self._separator = dataset.config["seq_separator"]
        self._ids = TokenIds()

    def read(self, cells: list[str], lines: Sequence[int]) -> None:
        lists = [[part for part in cell.split(self._separator) if part] for cell in cells]
        numbers = [line for line, parts in zip(lines, lists, strict=True) for _ in parts]
        flat = [part for parts in lists for part in parts]
        ends = np.cumsum([len(parts) for parts in lists])[:-1]
        values: npt.NDArray[Any]
        if self._of_numbers:
            values = self.file.floats(self.name, flat, numbers)
        else:
            self.file.number_tokens(self.name, self._ids, flat, numbers)  # only as a check
            values = np.array(flat, dtype=object)
        self.parts += np.split(values, ends)

    def values(self) -> Any:
        """Return N arrays."""
        lists, field2seqlen = self.parts, self._dataset.field2seqlen
        field2seqlen[self.name] = max(map(len, lists))
        limit = (self._dataset.config["seq_len"] or {}).get(self.name)
        if limit:
            lists = [values[:limit] for values in lists]
            field2seqlen[self.name] = min(limit, field2seqlen[self.name])
        return lists


def _keys(dataset: Any, source: Any) -> dict[str, str]:
    """Return the columns of a file for users, items and times, in which no cell may be empty, with their types."""
    user, item, time = {dataset.uid_field: "token"}, {dataset.iid_field: "token"}, {dataset.time_field: "float"}
    keys: dict[Any, dict[str, str]] = {
        FeatureSource.INTERACTION: user | item | time,
        FeatureSource.USER: user,
        FeatureSource.ITEM: item,
    }
    return keys.get(source, {})


def _reader(dataset: Any, file: AtomicFile, name: str, kind: FeatureType, is_key: bool) -> _Column:
    if kind in (FeatureType.TOKEN_SEQ, FeatureType.FLOAT_SEQ):
        return _Lists(file, name, dataset, kind == FeatureType.FLOAT_SEQ)
    if kind == FeatureType.TOKEN:
        return _Tokens(file, name, needed=is_key)
    return _Times(file, name) if is_key else _Column(file, name)


class FilesRead:
    """The files from which a dataset was read; RecBole's ``save_dataset`` and ``save_dataloaders`` pickle it too.

    RecBole takes up what these options have left in ``checkpoint_dir`` without a look at the files, which may have
    changed, or be those of another folder with the same name.
    """

    def __init__(self) -> None:
        self._sums: dict[str, int] = {}
        self._pickled = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Note that the dataset was pickled."""
        self.__dict__.update(state, _pickled=True)

    def add(self, path: Path) -> None:
        """Note a file that has been read."""
        self._sums[path.name] = checksum(path)

    def check(self, folder: str | Path) -> None:
        """Raise InputError if the dataset was pickled, and the folder has other contents in files of these names."""
        for path, found in ((Path(folder) / name, found) for name, found in self._sums.items() if self._pickled):
            if path.is_file() and checksum(path) != found:
                raise InputError(
                    f"dataset: expected {path} as it was when save_dataset or save_dataloaders kept its rows, got "
                    "other contents; remove what they have left in checkpoint_dir"
                )


def files_read(dataset: Any) -> FilesRead:
    """Return the files from which a dataset was read.

    Raises:
        InputError: a dataset that stock RecBole has read (and perhaps saved): its order and tokens may be wrong.
    """
    if not hasattr(dataset, "_files"):
        raise InputError(
            f"dataset: expected {dataset.dataset_name} as read while this package is installed, got it from RecBole "
            "alone; make it anew, and remove what save_dataset and save_dataloaders have left in checkpoint_dir"
        )
    files: FilesRead = dataset._files
    return files


# --- order ----------------------------------------------------------------------------------------------------------


class _ExactTimes:
    """The exact times of a dataset's rows, and RecBole's form of them for its models.

    While a dataset is sorted, cut into prefixes and split, its column of times is exact. Afterwards it is RecBole's
    again, normalised or discretised as RecBole does it.

    Attributes:
        exact: (N,) int64 or float64, the times; their ranks if float64 does not represent them, since RecBole splits
            by time at a percentile in float64 (data/dataset/dataset.py:1757).
    """

    def __init__(self, times: npt.NDArray[Any]) -> None:
        representable = times.dtype == np.float64 or are_floats(times)
        self.exact = times if representable else np.unique(times, return_inverse=True)[1]
        self._unique: Any = None
        self._of_unique: Any = None

    def swap_in(self, rows: Interaction, field: str) -> None:
        """Write the exact times into rows, which are in the order of ``exact``."""
        self._unique, first = np.unique(self.exact, return_index=True)
        self._of_unique = rows[field][torch.from_numpy(first)]
        rows.interaction[field] = torch.from_numpy(self.exact)

    def as_recbole_has_them(self, times: Tensor) -> Tensor:
        """Return RecBole's float32 for exact times of any shape: that shape, or (..., 2) for a numerical feature."""
        places = np.searchsorted(self._unique, times.numpy())
        converted: Tensor = self._of_unique[torch.from_numpy(places)]
        return converted


def fill_nan(original: Any) -> Any:
    """Wrap ``Dataset._fill_nan``; after it RecBole changes values but no longer the set of rows."""

    def wrapped(dataset: Any) -> None:
        field, rows = dataset.time_field, dataset.inter_feat
        dataset._exact_times = None
        if dataset.benchmark_filename_list is None and field in rows and dataset.field2type[field] == FeatureType.FLOAT:
            exact = rows[field].to_numpy()
            dataset._exact_times = _ExactTimes(exact)
            rows[field] = exact.astype(np.float64)
        with np.errstate(over="ignore"):  # for the mean that RecBole fills in
            original(dataset)

    return wrapped


def change_feat_format(original: Any) -> Any:
    """Wrap ``Dataset._change_feat_format``: within :func:`build`, times are exact from here on."""

    def wrapped(dataset: Any) -> None:
        original(dataset)
        if _is_built(dataset) and dataset._exact_times is not None:
            dataset._exact_times.swap_in(dataset.inter_feat, dataset.time_field)

    return wrapped


def build(original: Any) -> Any:
    """Wrap ``Dataset.build``: order and split by exact times; the parts get RecBole's times.

    Raises:
        InputError: a dataset that stock RecBole has read.
    """

    def wrapped(dataset: Any) -> Any:
        files_read(dataset)
        dataset._building = True
        try:
            parts = original(dataset)
        finally:
            dataset._building = False
        times, field = dataset._exact_times, dataset.time_field
        for rows in {id(part.inter_feat): part.inter_feat for part in (dataset, *parts)}.values():  # some share
            if isinstance(rows, PrefixRows):
                rows._building = False  # parts of them are plain RecBole rows from now on
            if times is not None and field in rows:
                rows[field] = times.as_recbole_has_them(rows[field])
        for part in parts:
            part._building = False
        return parts

    return wrapped


def _is_built(dataset: Any) -> bool:
    return bool(getattr(dataset, "_building", False))


def remove_duplication(dataset: Any) -> None:
    """Replace ``Dataset._remove_duplication``, whose sort leaves the order of equal times open."""
    keep = dataset.config["rm_dup_inter"]
    if keep is None:
        return
    dataset._check_field("uid_field", "iid_field")
    rows = dataset.inter_feat
    if dataset.time_field in rows:
        rows.sort_values(by=dataset.time_field, kind="stable", inplace=True)
    else:
        dataset.logger.warning(f"No times are loaded: rm_dup_inter keeps the {keep} one in the order of the file")
    rows.drop_duplicates(subset=[dataset.uid_field, dataset.iid_field], keep=keep, inplace=True)


# --- prefixes -------------------------------------------------------------------------------------------------------


def data_augmentation(dataset: Any) -> None:
    """Replace ``data_augmentation`` of RecBole's sequential datasets: the same rows with less memory.

    One row for every behaviour that follows another of the same user: the behaviour, and lists of the earlier ones.
    """
    dataset._aug_presets()
    dataset._check_field("uid_field", "time_field")
    dataset.sort(by=[dataset.uid_field, dataset.time_field], ascending=True)
    feat = dataset.inter_feat
    prefixes = _Prefixes(feat[dataset.uid_field], int(dataset.config["MAX_ITEM_LIST_LENGTH"]))
    if not len(prefixes.targets):
        raise InputError(f"dataset: expected a user with two interactions or more in {dataset.dataset_name}")
    widens = isinstance(dataset, DIENDataset)  # its lists have the widest type (data/dataset/customized_dataset.py)
    for field in feat:
        if field == dataset.uid_field:
            continue
        values = feat[field]
        if _is_built(dataset) and dataset._exact_times is not None and field == dataset.time_field:
            values = dataset._exact_times.as_recbole_has_them(values)
        if widens:
            values = values.double() if values.is_floating_point() else values.long()
        prefixes.values[getattr(dataset, f"{field}_list_field")] = values
        if widens and field == dataset.iid_field:
            prefixes.values[dataset.neg_item_list_field] = dataset.neg_item_list.long()
    columns = {field: feat[field][prefixes.targets] for field in feat}
    columns[dataset.item_list_length_field] = prefixes.lengths
    dataset.inter_feat = PrefixRows(columns, prefixes, torch.arange(len(prefixes.targets)), _is_built(dataset))


class _Prefixes:
    """The earlier behaviours of each behaviour that follows another of the same user.

    Args:
        users: (N,) of all behaviours; those of a user are adjacent.
        width: the number of newest earlier behaviours that count.

    Attributes:
        targets: (M,) int64, the positions of these behaviours.
        lengths: (M,) int64, from 1 to ``width``.
        values: for each list field, (N, ...): the elements of the lists.
    """

    def __init__(self, users: Tensor, width: int) -> None:
        place = torch.arange(len(users))
        begins = torch.ones(len(users), dtype=torch.bool)
        begins[1:] = users[1:] != users[:-1]
        first = place.masked_fill(~begins, 0).cummax(0).values
        self.targets = place[~begins]
        self._starts = torch.maximum(first[self.targets], self.targets - width)
        self.lengths = self.targets - self._starts
        self._width = width
        self.values: dict[str, Tensor] = {}

    def lists(self, field: str, rows: Tensor) -> Tensor:
        """Gather the lists of some rows, int64 of any shape: (rows, width, ...), padded with 0 at the end."""
        values, numbers, columns = self.values[field], rows.reshape(-1), torch.arange(self._width)
        lists = values.new_zeros(len(numbers), self._width, *values.shape[1:])
        for start in range(0, len(numbers), _ROWS):
            some = numbers[start : start + _ROWS]
            inside = columns < self.lengths[some, None]
            lists[start : start + _ROWS][inside] = values[(self._starts[some, None] + columns)[inside]]
        return lists.reshape(*rows.shape, *lists.shape[1:])


class PrefixRows(Interaction):
    """RecBole's rows of prefixes, whose lists are gathered when rows are asked for.

    RecBole holds ``rows x MAX_ITEM_LIST_LENGTH`` values for every column. Here only a batch has its lists; the dataset
    has the columns from which they are cut. A whole column of lists is gathered, and then kept, if it is asked for.

    Args:
        columns: (M,) or (M, ...), the columns without lists.
        prefixes: the source of the lists.
        numbers: (M,) int64, the rows of ``prefixes``.
        building: whether the rows are still ordered and split: then parts of them are also of this class.
    """

    def __init__(self, columns: dict[str, Tensor], prefixes: _Prefixes, numbers: Tensor, building: bool) -> None:
        super().__init__(columns)
        self._prefixes = prefixes
        self._numbers = numbers
        self._building = building
        self.interaction = _Columns({**columns, **dict.fromkeys(prefixes.values)}, self._lists)

    def _lists(self, field: str) -> Tensor:
        return self._prefixes.lists(field, self._numbers)

    def __getitem__(self, index: Any) -> Any:
        """Return a column by its name, or some rows."""
        if isinstance(index, str):
            return self.interaction[index]
        if isinstance(index, list | range):
            index = torch.tensor(index, dtype=torch.bool if index and isinstance(index[0], bool) else torch.int64)
        elif isinstance(index, np.ndarray):
            index = torch.from_numpy(np.array(index))
        numbers = self._numbers[index]
        there = self.interaction.there()
        columns = {field: values[index] for field, values in there.items()}
        absent = [field for field in self.interaction if field not in there]
        if self._building:
            part = PrefixRows(columns, self._prefixes, numbers, True)
            for field in [field for field in part if field not in self.interaction]:
                del part[field]  # dropped from these rows
            return part
        lists = {field: self._prefixes.lists(field, numbers) for field in absent}
        return Interaction({field: (lists if field in lists else columns)[field] for field in self.interaction})

    def _reindex(self, index: Any) -> None:
        """Put the rows into another order."""
        index = torch.as_tensor(index)
        self._numbers = self._numbers[index]
        for field, values in self.interaction.there().items():
            self.interaction[field] = values[index]


class _Columns(dict[str, Any]):
    """Columns by name; those that are None are computed when first used."""

    def __init__(self, columns: dict[str, Tensor | None], make: Any) -> None:
        super().__init__(columns)
        self._make = make

    def there(self) -> dict[str, Tensor]:
        """Return the columns that are already there."""
        return {field: values for field, values in super().items() if values is not None}

    def __getitem__(self, field: str) -> Tensor:
        values = super().__getitem__(field)
        if values is None:
            values = self[field] = self._make(field)
        return values  # type: ignore[no-any-return]

    def items(self) -> Any:
        """Return all columns, computed."""
        return {field: self[field] for field in self}.items()

    def values(self) -> Any:
        """Return all columns, computed."""
        return {field: self[field] for field in self}.values()

    def __reduce__(self) -> Any:
        return type(self), (dict(super().items()), self._make)


# The replacements, in effect while RecBole is patched.
REPLACEMENTS: tuple[tuple[Any, str, Any], ...] = (
    (Dataset, "_load_feat", load_feat),
    (Dataset, "_fill_nan", fill_nan(Dataset._fill_nan)),
    (Dataset, "_change_feat_format", change_feat_format(Dataset._change_feat_format)),
    (Dataset, "build", build(Dataset.build)),
    (Dataset, "_remove_duplication", remove_duplication),
    (SequentialDataset, "data_augmentation", data_augmentation),
    (DIENDataset, "data_augmentation", data_augmentation),
)
