"""RecBole's training data of a sequential model, as input of view providers and user-level stages."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from recbole.data.interaction import Interaction

from ...augment import SameTargetPair
from ...corpus import BehaviourCorpus
from ...errors import InputError
from .user_sequences import histories_of_rows, longest_of_users

ROW_FIELD = "adaptssr_row"


class TrainingRows:
    """The training part of a sequential dataset: one row per prefix of a user's history, and the item after it.

    Raises:
        InputError: a dataset that is not split yet.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        if not isinstance(getattr(dataset, "inter_feat", None), Interaction):
            raise InputError("dataset: expected the training rows, train_data.dataset of data_preparation, got others")
        self.dataset = dataset
        self.n_items = int(dataset.item_num)
        self._length = config["ITEM_LIST_LENGTH_FIELD"]
        self._sequence = dataset.iid_field + config["LIST_SUFFIX"]
        # RecBole does not cut the lists of files that are split beforehand.
        width = dataset.inter_feat[:1][self._sequence].shape[1]
        self.max_len = max(int(config["MAX_ITEM_LIST_LENGTH"]), width)

    def histories(self) -> BehaviourCorpus:
        """Return the training histories, one row per user."""
        return histories_of_rows(self.dataset)

    def same_target(self) -> SameTargetPair:
        """Return pairs of rows with the same target (as in DuoRec's code: the key is not in the input)."""
        rows = self.dataset.inter_feat
        sequences = rows[self._sequence]  # (N, L)
        return SameTargetPair(
            items=sequences.flatten(),
            starts=torch.arange(len(sequences)) * sequences.shape[1],
            lengths=rows[self._length],
            keys=rows[self.dataset.iid_field],
        )

    def newest_of_users(self) -> npt.NDArray[np.bool_]:
        """Tell which rows hold the longest prefix of their user: ``(N,)``, one True per user, the last of equal length.

        Histories longer than MAX_ITEM_LIST_LENGTH have several rows of that length; RecBole keeps a user's rows in the
        order of time.
        """
        users, lengths = (self.dataset.inter_feat[field].numpy() for field in (self.dataset.uid_field, self._length))
        newest = np.zeros(len(users), dtype=bool)
        newest[longest_of_users(users, lengths)] = True
        return newest

    def number_rows(self) -> None:
        """Add a column with the row number to the dataset, so that batches say which rows they hold."""
        self.dataset.inter_feat[ROW_FIELD] = torch.arange(len(self.dataset.inter_feat))


def item_tokens(dataset: Any) -> list[str]:
    """Return the token of every item id of a RecBole dataset, the padding first."""
    return list(map(str, np.asarray(dataset.field2id_token[dataset.iid_field]).tolist()))


def item_fingerprint(dataset: Any) -> str:
    """Hash the tokens of all items in the order of their ids: equal hashes: equal items by id."""
    digest = hashlib.blake2b(digest_size=16)
    for token in item_tokens(dataset):
        digest.update(token.encode())
        digest.update(b"\0")
    return digest.hexdigest()
