"""Finding a dataset among RecBole's atomic files, and its columns, before RecBole reads them."""

import os
from collections.abc import Sequence
from pathlib import Path

import recbole

from adaptssr_plugin.corpus.formats.atomic import AtomicFile
from adaptssr_plugin.errors import MissingDatasetError


def locate(dataset: str, data_path: str | Path, parts: Sequence[str] | None = None) -> tuple[Path, str]:
    """Find a dataset's folder and the name with which its files begin.

    Args:
        dataset: ``ml-100k`` (ships in the RecBole wheel), the name of a folder under ``data_path``, or a folder.
        data_path: RecBole's option of that name.
        parts: RecBole's ``benchmark_filename``: the files are then ``<name>.<part>.inter``, otherwise ``<name>.inter``.

    Raises:
        MissingDatasetError: no such folder, or a folder without exactly one dataset.
    """
    if dataset == "ml-100k":
        return Path(recbole.__file__).parent / "dataset_example" / dataset, dataset
    for folder in (Path(data_path).expanduser() / dataset, Path(dataset).expanduser()):
        if dataset and folder.is_dir():
            return folder, _name_within(folder, list(parts or []))
    raise MissingDatasetError(
        f"dataset: expected ml-100k, a folder under data_path ({str(data_path)!r}) or the path of a folder that "
        f"holds an .inter file, got {dataset!r}"
    )


def inter_endings(parts: Sequence[str]) -> list[str]:
    """Return the suffixes of a dataset's files of interactions; ``parts`` as in :func:`locate`."""
    return [f".{part}.inter" for part in parts] or [".inter"]


def datasets_within(folder: Path, parts: Sequence[str]) -> list[str]:
    """Return the names of the datasets whose files of interactions are in a folder; ``parts`` as in :func:`locate`."""
    first, *others = inter_endings(parts)
    names = sorted(path.name.removesuffix(first) for path in folder.glob(f"*{first}"))
    return [name for name in names if all((folder / f"{name}{ending}").is_file() for ending in (first, *others))]


def _name_within(folder: Path, parts: list[str]) -> str:
    """Return the folder's own name if its files have it, otherwise the only possible name."""
    found = datasets_within(folder, parts)
    own_name = Path(os.path.abspath(folder)).name  # noqa: PTH100 - resolve() would follow a link to another name
    if own_name in found:
        return own_name
    if len(found) == 1:
        return found[0]
    endings = inter_endings(parts)
    wanted = " and ".join(f"{own_name}{ending}" for ending in endings)
    came = ", ".join(name + endings[0] for name in found) or "none"
    raise MissingDatasetError(f"dataset: expected {wanted} or a single dataset of any name in {folder}, found {came}")


def atomic_columns(
    folder: str | Path, name: str, suffix: str, *, separator: str = "\t", encoding: str = "utf-8"
) -> dict[str, str]:
    """Read the columns of an atomic file from its header.

    Args:
        folder: the dataset's folder.
        name: with which its files begin.
        suffix: ``inter``, ``user``, ``item``, or any other that the dataset has.
        separator: RecBole's ``field_separator``.
        encoding: RecBole's ``encoding``.

    Returns:
        Column names in the file's order, each with its type: token, float, token_seq or float_seq.

    Raises:
        InputError: the file is missing or unreadable, or its header does not consist of ``name:type``.
    """
    return AtomicFile(Path(folder) / f"{name}.{suffix}", separator, encoding).columns
