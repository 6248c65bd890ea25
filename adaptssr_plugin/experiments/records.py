"""Results in long form: one record for each value measured, kept as CSV."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from adaptssr_plugin.errors import InputError

# The rows of the paper's Table 2, in its order: the name of a method here, and its name in the paper.
PAPER_NAMES = {
    "none": "None",
    "peterrec": "PeterRec",
    "ptum": "PTUM",
    "clue": "CLUE",
    "ccl": "CCL",
    "idicl": "IDICL",
    "cl4srec": "CL4SRec",
    "coserec": "CoSeRec",
    "duorec": "DuoRec",
    "adaptssr": "AdaptSSR",
}
# Rows that the paper's table lacks: baselines without an encoder, and the start that the methods share.
MAJORITY, TFIDF, LSA, POPULARITY = "Majority class", "TF-IDF + LR", "LSA + LR", "Popularity"
WARM_UP = "MLM warm-up only"
SVD_START = "SVD start"  # the untrained encoder over an item table of a truncated SVD


def paper_name(method: str) -> str:
    """The paper's spelling of a method ("adaptssr" -> "AdaptSSR"); any other name as it is."""
    return PAPER_NAMES.get(method.lower(), method)


def tuned_name(method: str, tuned: str, trained: float) -> str:
    """Name a row after its method and, if not all weights were trained, which ones and what share of them."""
    return paper_name(method) if tuned == "all" else f"{paper_name(method)}, {tuned} ({100 * trained:.1f} % trained)"


@dataclass(frozen=True)
class Record:
    """One value of one metric; fields that do not apply are None.

    Attributes:
        dataset: name of the corpus.
        task: name of the label.
        method: row of the table, e.g. "adaptssr" or "TF-IDF + LR".
        preset: "paper", "official_code" or the name of the recipe used.
        warm_start: "mlm", "none" or the folder of the start.
        rho: augmentation strength.
        tau: temperature.
        seed: seed of the run; None if nothing is random.
        metric: "accuracy" or "AUC".
        split: "train", "valid" or "test".
        value: the metric, a fraction in [0, 1].
        best_epoch: epoch of fine-tuning with this value.
        pretrain_epoch: epoch of pre-training from which fine-tuning started.
        seconds: wall-clock time of the run that gave the value.
        peak_mem: peak memory of that run in MB (10^6 bytes).
        split_seed: seed of the split among repeated ones; None in older files: the first.
        labels: number of training labels that were used; None: all.
    """

    dataset: str
    task: str
    method: str
    preset: str | None
    warm_start: str | None
    rho: float | None
    tau: float | None
    seed: int | None
    metric: str
    split: str
    value: float
    best_epoch: int | None = None
    pretrain_epoch: int | None = None
    seconds: float | None = None
    peak_mem: float | None = None
    split_seed: int | None = None
    labels: int | None = None


COLUMNS = tuple(field.name for field in fields(Record))
_LATER = ("split_seed", "labels")  # missing in older files


def write_records(
    path: str | Path, records: Sequence[Record], further: Mapping[str, str] | Sequence[Mapping[str, str]] = ()
) -> Path:
    """Write records as CSV, one line each, with all digits, so that reading returns the same values.

    Args:
        path: file to write; its folder is created.
        records: what to write.
        further: more columns, e.g. versions of software: the same on every line, or a mapping for each record.

    Raises:
        InputError: a further column that takes a record's own, or mappings for more or fewer records.
    """
    path = Path(path)
    each = [further] * len(records) if isinstance(further, Mapping) else list(further) or [{}] * len(records)
    if len(each) != len(records):
        raise InputError(f"further: expected columns for each of {len(records)} records, got {len(each)}")
    columns = list(dict.fromkeys(name for one in each for name in one))
    if taken := sorted(set(columns) & set(COLUMNS)):
        raise InputError(f"further: expected names other than a record's own columns, got {taken}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *columns], lineterminator="\n")
        writer.writeheader()
        for record, more in zip(records, each, strict=True):
            writer.writerow({**asdict(record), **more})
    return path


def read_records(path: str | Path) -> list[Record]:
    """Read a file of :func:`write_records`; further columns are ignored.

    Raises:
        InputError: the file is missing or lacks a column, or a value cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"records: expected a CSV file, found none at {path}")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (*_LATER, *(reader.fieldnames or ()))]:
            raise InputError(f"records: expected the columns {list(COLUMNS)} in {path}, missing {missing}")
        return [_parse(row, f"line {reader.line_num} of {path}") for row in reader]


_TYPES = get_type_hints(Record)


def _parse(row: Mapping[str, Any], where: str) -> Record:
    values: dict[str, Any] = {}
    for name in COLUMNS:
        text, options = row.get(name), get_args(_TYPES[name]) or (_TYPES[name],)
        if text in ("", None) and NoneType in options:
            values[name] = None
            continue
        try:
            values[name] = options[0](text)
        except (TypeError, ValueError):
            raise InputError(f"{name}: expected {options[0].__name__} in {where}, got {text!r}") from None
    return Record(**values)
