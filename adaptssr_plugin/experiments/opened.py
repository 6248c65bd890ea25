"""A finished pre-training, opened with the histories of its training."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..corpus import BehaviourCorpus
from ..errors import InputError
from ..methods import Recipe, recipe
from ..recbole import Config
from ..recbole.compat.user_sequences import load_user_sequences
from ..recbole.user_model.finetune import check_same_items
from ..recbole.user_model.pretrain import PretrainedModel, Source, load_pretrained
from ..training import load_artefact
from ..training.artefacts import Artefact


@dataclass(frozen=True)
class Opened:
    """A model and its data."""

    model: PretrainedModel
    artefact: Artefact
    recipe: Recipe  # of the model, with the caller's options over it
    source: Source
    config: Config
    corpus: BehaviourCorpus  # all training histories, whole, in the model's item ids


def open_pretrained(folder: Path, options: Mapping[str, Any], dataset: str | None = None) -> Opened:
    """Load the model in ``folder``, with ``options`` over its own, and its dataset.

    ``dataset`` is where that of the pre-training is now; None: where it was.

    Raises:
        MissingDatasetError: no dataset.
        InputError: a folder without a model, or a dataset with other items.
    """
    artefact, model = load_artefact(folder), load_pretrained(folder)
    plan = recipe_of(artefact, folder, options)
    source = Source.of_model(folder, artefact.card, advice="--dataset says where it is now")
    if dataset is not None:
        source = dataclasses.replace(source, dataset=dataset, advice="")
    config = source.config(plan.max_len)
    source = source.located(config)
    corpus = load_user_sequences(config).corpus
    check_same_items(model, artefact.item_tokens.tolist(), corpus)
    return Opened(model, artefact, plan, source, config, corpus)


def recipe_of(artefact: Artefact, folder: Path, options: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a model, with ``options`` over it; raises InputError for a card without one."""
    try:
        made_by = artefact.card["recipe"]
        return recipe(made_by["method"], made_by["preset"], {**made_by, **options})
    except (KeyError, TypeError):
        raise InputError(f"model: expected one from adaptssr pretrain, got another model.json in {folder}") from None
