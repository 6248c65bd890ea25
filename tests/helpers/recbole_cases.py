"""A model of RecBole's sequential type and small datasets in RecBole's atomic files, for the tests of its room."""

from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from recbole.model.abstract_recommender import SequentialRecommender
from torch import nn

from adaptssr_plugin.recbole import compat_patches
from adaptssr_plugin.recbole.compat.patches import temporary_attribute
from adaptssr_plugin.recbole.compat.reading import REPLACEMENTS

LEAVE_ONE_OUT = [{"split": {"LS": mode}} for mode in ("valid_and_test", "valid_only", "test_only")]
BY_RATIO_AND_USER = {"split": {"RS": [0.7, 0.2, 0.1]}, "group_by": "user"}
BY_RATIO_AND_TIME = {"split": {"RS": [0.6, 0.2, 0.2]}, "group_by": "none"}
BY_TIME = {"split": {"TS": [0.6, 0.2, 0.2]}}
SPLITS = [*LEAVE_ONE_OUT, BY_RATIO_AND_USER, BY_RATIO_AND_TIME, BY_TIME]


def split_name(eval_args):
    """Name a split for pytest's report."""
    (kind, how), *_ = eval_args["split"].items()
    return f"{kind}-{how if kind == 'LS' else eval_args.get('group_by', 'user')}"


STOCK = [(owner, name, vars(owner)[name]) for owner, name, _ in REPLACEMENTS]


@contextmanager
def stock_reading():
    """RecBole's own reader, order and prefix rows, which run on today's numpy and torch."""
    with compat_patches(), ExitStack() as stack:
        for owner, name, value in STOCK:
            stack.enter_context(temporary_attribute(owner, name, value))
        yield


class MeanOfItems(SequentialRecommender):
    """Scores items against the mean of the history; not a name that RecBole knows."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.embedding = nn.Embedding(self.n_items, 4, padding_idx=0)

    def forward(self, item_seq, item_seq_len):
        return self.embedding(item_seq).sum(1) / item_seq_len[:, None]  # (B, d)

    def calculate_loss(self, interaction):
        user = self(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return nn.functional.cross_entropy(user @ self.embedding.weight.T, interaction[self.POS_ITEM_ID])

    def full_sort_predict(self, interaction):
        user = self(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return user @ self.embedding.weight.T


def write_table(path: Path, header: str, rows) -> None:
    """Write an atomic file: blanks in the header stand for tabs."""
    lines = [header.replace(" ", "\t"), *("\t".join(map(str, row)) for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_odd_dataset(folder: Path) -> Path:
    """Write users of 1, 2, 3 and more interactions, rows out of order, equal times, repeated items, odd tokens."""
    counts = {"ünï": 1, "two": 2, "three": 3, "漢字": 4, "a blank": 5, "7": 12, "007": 25, "late": 1, "later": 3}
    random = np.random.default_rng(7)
    rows = []
    for user, count in counts.items():
        items = random.integers(0, 9, count)
        times = random.integers(0, 40, count) + (100 if user.startswith("late") else 0)
        if user in ("ünï", "漢字"):
            times[:] = 3
        rows += [(user, f"🎬{item}", random.integers(1, 6), time) for item, time in zip(items, times, strict=True)]
    random.shuffle(rows)
    header = "user_id:token item_id:token rating:float timestamp:float"
    write_table(folder / f"{folder.name}.inter", header, rows)
    return folder
