"""``ssl_item_init: svd``: which rows of a RecBole model's item embedding it sets, from which interactions."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from backbone_cases import in_slice, made, run
from recbole.model.sequential_recommender.sasrec import SASRec

from adaptssr_plugin.corpus import BehaviourCorpus, svd_item_vectors
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole import load_data_and_model
from adaptssr_plugin.recbole.recommender import item_init
from adaptssr_plugin.seeding import stream_seed

SVD = {"ssl_item_init": "svd"}


slice_of_ml_100k = in_slice(users=40, newest=12)


def training_histories(dataset):
    """Read all but the newest two interactions of every user from the file, under RecBole's item ids."""
    rows = pd.read_csv("slice/slice.inter", sep="\t", dtype=str)
    rows["time"] = rows["timestamp:float"].astype(float)
    rows = rows.sort_values("time", kind="stable")
    ids = dataset.field2token_id["item_id"]
    users = {token: list(map(ids.get, items)) for token, items in rows.groupby("user_id:token")["item_id:token"]}
    order = [str(token) for token in dataset.field2id_token["user_id"][1:]]
    return BehaviourCorpus.from_lists([users[token][:-2] for token in order], dataset.item_num)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("SASRec", {}),
        ("SASRec", {"ssl_loss": "adaptssr"}),
        ("BERT4Rec", {"ssl_loss": "infonce", "hidden_size": 8}),
        ("GRU4Rec", {"embedding_size": 24}),
        ("STAMP", {}),
        ("CL4SRec", {"ssl_mode": "pretrain"}),
    ],
    ids=str,
)
def test_rows_of_training_items_are_those_of_the_svd(model, options):
    config, loader, plain = made(model, **options)
    _, _, changed = made(model, **options, **SVD)
    before, after = plain.state_dict(), changed.state_dict()
    own = before["item_embedding.weight"]
    corpus = training_histories(loader._dataset)
    vectors = svd_item_vectors(corpus, own.shape[1], max_len=10, seed=stream_seed(config["seed"], "item_init"))
    held_out = ~vectors.any(dim=1)
    assert 100 < held_out.sum() < len(held_out) - 100
    expected = own.clone()
    expected[: len(vectors)][~held_out] = vectors[~held_out]
    torch.testing.assert_close(after.pop("item_embedding.weight"), expected, rtol=0, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_a_run_and_its_checkpoint(tmp_path, monkeypatch):
    result = run("SASRec", checkpoint_dir=str(tmp_path), **SVD)
    assert np.isfinite(result["best_valid_score"])
    monkeypatch.setattr(item_init, "svd_item_vectors", None)  # which a checkpoint does not need
    (file,) = (Path(path) for path in os.scandir(tmp_path) if path.name.endswith(".pth"))
    _, model, *_ = load_data_and_model(str(file))
    saved = torch.load(file, weights_only=True)["state_dict"]
    assert torch.equal(model.item_embedding.weight, saved["item_embedding.weight"])


class Bare(SASRec):
    """A model without an item embedding."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.item_embedding = torch.nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("BPR", {}, "ssl_item_init: expected random for BPR, which is not a sequential model, got svd"),
        (Bare, {}, r"ssl_item_init: expected an item embedding of \d+ rows in Bare, found none"),
        ("SASRec", {"pretrained": "x.pth"}, "ssl_item_init: expected random beside pretrained 'x.pth', got svd"),
        ("SASRec", {"ssl_item_init": "lsa"}, "ssl_item_init: expected random or svd, got 'lsa'"),
    ],
)
def test_what_is_refused(model, options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        run(model, **{**SVD, **options})
