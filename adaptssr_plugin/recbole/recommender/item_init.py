"""``ssl_item_init: svd``: the item embedding of a RecBole model starts with vectors of a truncated SVD."""

from typing import Any

from recbole.utils import ModelType

from ...corpus import put_item_vectors, svd_item_vectors
from ...errors import InputError
from ...seeding import stream_seed
from ..compat.training_rows import TrainingRows
from .backbones import item_embedding


def start_from_svd(model: Any, config: Any, dataset: Any) -> None:
    """Write vectors of :func:`~adaptssr_plugin.corpus.svd_item_vectors` into the item embedding of a new model.

    They are computed from the whole training histories, whose prefixes are the rows. Items that are only held out
    keep the model's own initialisation, and so does the padding.

    Raises:
        InputError: not a sequential model, or no item embedding; a dataset that is not split yet.
    """
    if getattr(model, "type", None) != ModelType.SEQUENTIAL:
        name = type(model).__name__
        raise InputError(f"ssl_item_init: expected random for {name}, which is not a sequential model, got svd")
    rows = TrainingRows(config, dataset)
    table = item_embedding(model, rows.n_items, "ssl_item_init").weight
    histories = rows.histories()
    seed = stream_seed(int(config["seed"]), "item_init")
    vectors = svd_item_vectors(histories, table.shape[1], max_len=int(histories.lengths.max()), seed=seed)
    put_item_vectors(table, vectors)
