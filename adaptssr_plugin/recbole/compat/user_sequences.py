"""A RecBole dataset by user: one row per user with the training history, without prefix rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction

from adaptssr_plugin.corpus import BehaviourCorpus, is_corpus, open_corpus
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole.compat.patches import compat_patches
from adaptssr_plugin.recbole.compat.safe_config import one_line

_POSITION = "adaptssr_position"


@dataclass(frozen=True)
class UserSequences:
    """The data on which a user model is pre-trained.

    Attributes:
        corpus: the training history of every user, oldest first, in the order of RecBole's user ids. Item ids are
            RecBole's; ``corpus.item_tokens[i]`` is ``dataset.id2token(item_field, i)``.
        held_out: number of interactions that RecBole's split holds out for validation and test; none is in the corpus.
        left_out: number of users without any interaction in the training part, who are not in the corpus.
    """

    corpus: BehaviourCorpus
    held_out: int
    left_out: int


@compat_patches()
def load_user_sequences(config: Config) -> UserSequences:
    """Load a sequential dataset as one row per user, with RecBole's own filtering, ids and split.

    A memory-mapped corpus (:func:`~adaptssr_plugin.corpus.open_corpus`) is returned whole and unchanged.

    A row is the longest of the prefixes on which RecBole would train, followed by its target, and not cut to
    ``MAX_ITEM_LIST_LENGTH``. RecBole never predicts a user's first interaction, so it is in no part of the split. Here
    it stays; a user with one interaction has only that. If the split is by time over all users (``TS``, or ``RS``
    without grouping), it stays only if it is no later than the newest training target.

    For files that are split beforehand (``benchmark_filename``) a row is the longest list of the first file (the last
    of equally long ones), followed by its target; the list may be empty. All other files are held out.

    Args:
        config: from :func:`~adaptssr_plugin.recbole.build_config`.

    Raises:
        InputError: the files cannot be read, nothing is left after filtering, or the split is not one of RecBole's.
    """
    if is_corpus(config["data_path"]):
        return UserSequences(open_corpus(config["data_path"]), held_out=0, left_out=0)
    try:
        if config["benchmark_filename"]:
            return _PresplitHistories(config).user_sequences()
        return _Histories(config).user_sequences()
    except InputError:
        raise
    except (ValueError, TypeError, NotImplementedError, AssertionError, OSError) as error:  # RecBole's and pandas' own
        raise InputError(f"dataset: cannot load {config['dataset']}: {one_line(error)}") from error


class _Histories(SequentialDataset):
    """RecBole's sequential dataset with rows of single interactions instead of prefix rows."""

    inter_feat: Any

    def data_augmentation(self) -> None:
        """Keep what RecBole could predict, everything except each user's first interaction, for RecBole's split.

        RecBole makes a row with copies of all list fields for each of them (sequential_dataset.py:81), in this order.
        """
        self.sort(by=[self.uid_field, self.time_field], ascending=True)
        users, items = self.inter_feat[self.uid_field], self.inter_feat[self.iid_field]
        self._users, self._items = users.numpy(), items.numpy()
        self._first = np.append(True, self._users[1:] != self._users[:-1])
        times = self.inter_feat[self.time_field]  # exact
        self._times = times.numpy()
        is_target = torch.from_numpy(~self._first)
        if not is_target.any():
            raise InputError(f"dataset: expected a user with two interactions or more in {self.dataset_name}")
        rows = {
            self.uid_field: users[is_target],
            self.iid_field: items[is_target],
            self.time_field: times[is_target],
            _POSITION: is_target.nonzero()[:, 0],
        }
        self.inter_feat = Interaction(rows)

    def _drop_unused_col(self) -> None:
        """Keep ``unused_col``: it names columns that RecBole withholds from its models, and there are none here."""

    def user_sequences(self) -> UserSequences:
        """Split as RecBole does and collect the training part."""
        train, *held_out = self.build()
        targets = train.inter_feat[_POSITION].numpy()
        keep = np.zeros(len(self._users), dtype=bool)
        keep[targets] = True
        newest = self._times[targets].max() if len(targets) else -np.inf
        keep |= self._first if self._grouped_by_user() else self._first & (self._times <= newest)
        users, counts = np.unique(self._users[keep], return_counts=True)
        if len(users) == 0:
            raise InputError(f"eval_args: nothing of {self.dataset_name} is left for training")
        return UserSequences(
            corpus=_corpus(self, self._items[keep], counts, users),
            held_out=sum(len(part.inter_feat) for part in held_out),
            left_out=int(self._first.sum()) - len(users),
        )

    def _grouped_by_user(self) -> bool:
        """Tell whether a split is within each user's interactions, and not by time over all users."""
        arguments = self.config["eval_args"]
        return "LS" in arguments["split"] or ("RS" in arguments["split"] and arguments["group_by"] == "user")


class _PresplitHistories(SequentialDataset):
    """RecBole's sequential dataset over files in which every interaction has a list of its history."""

    def user_sequences(self) -> UserSequences:
        """Take the longest history of every user in the first file, and its target."""
        train, *held_out = self.build()
        corpus = _longest_rows(train, f"{self.iid_field}{self.config['LIST_SUFFIX']}", self.item_list_length_field)
        return UserSequences(corpus, held_out=sum(len(part.inter_feat) for part in held_out), left_out=0)


def histories_of_rows(dataset: SequentialDataset) -> BehaviourCorpus:
    """Restore the histories that a sequential dataset has cut into rows of a prefix and its target.

    Args:
        dataset: the training part, as RecBole passes it to a model: every prefix of a user's training history in
            order of time, each cut to its newest ``MAX_ITEM_LIST_LENGTH`` items; or rows of files that were split
            beforehand, of which each user's longest counts.

    Returns:
        The training history of every user, oldest first, in the order of RecBole's user ids.
    """
    sequence = f"{dataset.iid_field}{dataset.config['LIST_SUFFIX']}"
    length = dataset.config["ITEM_LIST_LENGTH_FIELD"]
    if dataset.config["benchmark_filename"]:
        return _longest_rows(dataset, sequence, length)
    rows = dataset.inter_feat
    users = rows[dataset.uid_field].numpy()
    order = np.argsort(users, kind="stable")
    ids, first, counts = np.unique(users[order], return_index=True, return_counts=True)
    first_rows = rows[order[first]]
    beginnings = first_rows[sequence].numpy()  # (U, L)
    begin = first_rows[length].numpy()
    offsets = np.append(0, np.cumsum(begin + counts))
    items = np.empty(offsets[-1], dtype=np.int64)
    is_target = np.ones(offsets[-1], dtype=bool)
    inside = np.arange(beginnings.shape[1]) < begin[:, None]  # (U, L)
    is_target[(offsets[:-1, None] + np.arange(beginnings.shape[1]))[inside]] = False
    items[~is_target] = beginnings[inside]
    items[is_target] = rows[dataset.iid_field].numpy()[order]
    return _corpus(dataset, items, begin + counts, ids)


def _longest_rows(dataset: SequentialDataset, sequence: str, length: str) -> BehaviourCorpus:
    """Take each user's longest list, from the column ``sequence``, followed by its target."""
    rows = dataset.inter_feat
    users, lengths = rows[dataset.uid_field].numpy(), rows[length].numpy()
    longest = longest_of_users(users, lengths)
    lists = rows[sequence].numpy()[longest]  # (U, L)
    histories = np.zeros((len(longest), lists.shape[1] + 1), dtype=lists.dtype)
    histories[:, :-1] = lists
    counts = lengths[longest]
    histories[np.arange(len(longest)), counts] = rows[dataset.iid_field].numpy()[longest]
    kept = np.arange(histories.shape[1]) <= counts[:, None]
    return _corpus(dataset, histories[kept], counts + 1, users[longest])


def longest_of_users(users: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Find the row of each user with the largest length, the last of equal ones; in the order of users."""
    order = np.lexsort((lengths, users))  # stable
    longest: np.ndarray = order[np.append(users[order][1:] != users[order][:-1], True)]
    return longest


def _corpus(dataset: SequentialDataset, items: np.ndarray, counts: np.ndarray, users: np.ndarray) -> BehaviourCorpus:
    return BehaviourCorpus(
        items=items.astype(np.int32),
        offsets=np.append(0, np.cumsum(counts)).astype(np.int64),
        n_items=int(dataset.item_num),
        user_tokens=dataset.id2token(dataset.uid_field, users),
        item_tokens=dataset.field2id_token[dataset.iid_field],
    )
