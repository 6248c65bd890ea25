"""``adaptssr reidentify``: find users again across time with a model trained on the older halves alone."""

import time
from collections.abc import Mapping
from pathlib import Path

import torch

from ..corpus import BehaviourCorpus
from ..downstream.reidentification import CHANCE, LSA_COSINE, TFIDF_COSINE, plain_reidentification, reidentify
from ..encoders import UserEncoder
from ..errors import InputError
from ..methods import Recipe
from ..recbole.user_model.pretrain import fresh_encoder, versions
from ..recbole.user_model.warm_start import check_older
from ..training.checkpoints import write_text
from .opened import open_pretrained
from .records import Record, paper_name, write_records
from .tables import Table2, table_2

TASK = "re-identification"
RANDOM = "Random encoder"
PLAIN = (CHANCE, TFIDF_COSINE, LSA_COSINE)


def reidentify_users(folder: Path, dataset: str | None = None) -> tuple[Table2, list[Path]]:
    """Re-identify users with the model in ``folder``, beside chance, TF-IDF, LSA and random weights.

    The folder of a finished pre-training with ``history: older`` gets ``reidentification.csv`` and ``.md``, which are
    returned with the table. ``dataset`` is where that of the pre-training is now; None: where it was.

    Raises:
        MissingDatasetError: no dataset.
        InputError: a folder without a model, a model that has seen the newer halves, a dataset whose older halves are
            not those of the training, or one without a history of two behaviours.
    """
    opened = open_pretrained(folder, {}, dataset)
    check_older(opened.artefact, "model", folder)
    plan, corpus, device = opened.recipe, opened.corpus, opened.config["device"]
    older, newer = corpus.halves()
    if opened.artefact.card.get("histories_crc32") != older.checksum():
        raise InputError(f"dataset: its older halves are not those that the model in {folder} was pre-trained on")
    encoders = {} if plan.method == "none" else {plan.method: opened.model.encoder}
    records, table = reidentification_table(opened.source.name, corpus, (older, newer), plan, encoders, device)
    files = [write_records(folder / "reidentification.csv", records, versions()), folder / "reidentification.md"]
    write_text(files[1], table.markdown() + "\n")
    return table, files


def reidentification_table(
    dataset: str,
    corpus: BehaviourCorpus,
    halves: tuple[BehaviourCorpus, BehaviourCorpus],
    recipe: Recipe,
    encoders: Mapping[str, UserEncoder],
    device: torch.device | str = "cpu",
) -> tuple[list[Record], Table2]:
    """Measure the baselines, the encoder from random weights and others, by method or name of a row.

    ``halves`` are those of the corpus of whole histories; the encoders have been trained on nothing but the older ones.
    """
    older, newer = halves
    started = time.perf_counter()
    plain = plain_reidentification(older, newer, recipe.max_len, recipe.dim)
    records = records_of(dataset, None, plain, None, time.perf_counter() - started)
    rows = {RANDOM: fresh_encoder(recipe, corpus.n_items, recipe.dropout, recipe.seed)}
    rows |= {paper_name(name): encoder for name, encoder in encoders.items()}
    for name, encoder in rows.items():
        started = time.perf_counter()
        found = {name: reidentify(encoder, older, newer, recipe.max_len, device=device)}
        records += records_of(dataset, recipe, found, recipe.seed, time.perf_counter() - started)
    footer = [*conditions(dataset, corpus, recipe), f"Impr against {RANDOM}."]
    return records, table_2(records, (*PLAIN, *rows), footer, RANDOM)


def records_of(
    dataset: str,
    recipe: Recipe | None,
    found: Mapping[str, Mapping[str, float]],
    seed: int | None,
    seconds: float,
) -> list[Record]:
    """Make a record for every row and metric; ``recipe`` and ``seed`` are None for baselines without an encoder."""
    preset, warm_start = (None, None) if recipe is None else (recipe.preset, recipe.warm_start)
    return [
        Record(dataset, TASK, name, preset, warm_start, None, None, seed, metric, "test", value, seconds=seconds)
        for name, values in found.items()
        for metric, value in values.items()
    ]


def conditions(dataset: str, corpus: BehaviourCorpus, recipe: Recipe, runs: str = "") -> list[str]:
    """Describe the data of the measurement: the halves of a corpus."""
    users = int((corpus.lengths > 1).sum())
    left_out = len(corpus) - users
    without = f" ({left_out} with a single behaviour left out)" if left_out else ""
    return [
        f"{dataset}: the newer halves of {users} users' training histories{without} ask for their older halves, newest "
        f"{recipe.max_len} items of each, by cosine, ties pessimistic; {runs}x 100.",
        "Everything fitted has seen the older halves alone.",
    ]
