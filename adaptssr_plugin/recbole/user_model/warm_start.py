"""``warm_start: FOLDER``: a finished pre-training as the beginning of another."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...corpus import BehaviourCorpus
from ...encoders import make_encoder
from ...errors import InputError
from ...methods import Recipe
from ...training import load_artefact
from ...training.artefacts import Artefact, encoder_of
from ...training.known_items import KnownItems, known_items


@dataclass(frozen=True)
class WarmStart:
    """The weights that every stage of a run starts from.

    Attributes:
        weights: ``state_dict`` of the finished run's encoder.
        items: the items whose rows are taken, where that run had others; None where it had the same.
        tables: names of the tensors that have a row for every item; empty where the items are the same.
    """

    weights: Mapping[str, Tensor]
    items: KnownItems | None = None
    tables: frozenset[str] = frozenset()

    @torch.no_grad()
    def into(self, encoder: nn.Module) -> None:
        """Copy the weights into a fresh encoder of the same architecture; rows of unknown items stay as they are."""
        if self.items is None:
            encoder.load_state_dict(self.weights)
            return
        for name, tensor in encoder.state_dict().items():
            if name not in self.tables:
                tensor.copy_(self.weights[name])
            elif self.items.fit(tensor, self.weights[name]):
                self.items.copy_rows(tensor, self.weights[name])


def warm_start(recipe: Recipe, corpus: BehaviourCorpus) -> WarmStart | None:
    """Take the whole encoder of a finished run, the pooling query included, as what every stage starts from.

    (After masked items alone that query is as random as a fresh one; any other run has trained it.) Items are known
    by token: where the run had others, those that both have keep their rows, and the rest is initialised afresh.

    Returns:
        The weights; None with ``warm_start`` mlm or none.

    Raises:
        InputError: no folder of a finished run, one without any of these items, or of an encoder of other sizes.
    """
    if recipe.warm_start in ("mlm", "none"):
        return None
    folder = Path(recipe.warm_start)
    if not (folder / "model.json").is_file():
        raise InputError(
            f"warm_start: expected mlm, none or the folder of a finished pre-training, got {recipe.warm_start!r}"
        )
    artefact = load_artefact(folder)
    if recipe.history == "older":
        check_older(artefact, "warm_start", folder)
    weights = encoder_of(artefact, folder).state_dict()
    items = known_items("warm_start", corpus.item_tokens.tolist(), artefact.item_tokens.tolist(), folder)
    arguments = artefact.encoder_arguments
    for name, here in recipe.encoder_arguments(corpus.n_items).items():
        there = arguments.get(name, "transformer" if name == "kind" else None)
        if there != here and name != "n_items":
            raise InputError(f"warm_start: expected a model with {name} {here} as this recipe, got {there} in {folder}")
    return WarmStart(weights) if items is None else WarmStart(weights, items, _item_tables(arguments, weights))


def check_older(artefact: Artefact, argument: str, folder: Path) -> None:
    """Raise InputError for a model that was pre-trained on more than the older halves of histories."""
    history = artefact.card.get("recipe", {}).get("history", "whole")
    if history != "older":
        raise InputError(f"{argument}: expected a model of --history older, got one of --history {history} in {folder}")


def _item_tables(arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> frozenset[str]:
    """Name the tensors that grow with the number of items, by what an encoder of one item more has."""
    with torch.random.fork_rng([]):
        larger: nn.Module = make_encoder(**{**arguments, "n_items": arguments["n_items"] + 1})
    return frozenset(name for name, tensor in larger.state_dict().items() if tensor.shape != weights[name].shape)
