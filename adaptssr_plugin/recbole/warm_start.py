"""``warm_start: FOLDER``: a finished pre-training as the beginning of another."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..corpus import BehaviourCorpus
from ..errors import InputError
from ..methods import Recipe
from ..training import load_artefact
from .finetune import check_same_items
from .pretrain import load_pretrained


def warm_start_weights(recipe: Recipe, corpus: BehaviourCorpus) -> Mapping[str, Tensor] | None:
    """Give the weights that every stage starts from: the whole encoder of a finished run, the pooling query included.

    (After masked items alone that query is as random as a fresh one; any other run has trained it.)

    Args:
        recipe: its ``warm_start`` and the sizes of its encoder.
        corpus: the behaviours that are about to be trained on.

    Returns:
        A ``state_dict``; None with ``warm_start`` mlm or none.

    Raises:
        InputError: no folder of a finished run, one on other items, or of an encoder of other sizes.
    """
    if recipe.warm_start in ("mlm", "none"):
        return None
    folder = Path(recipe.warm_start)
    if not (folder / "model.json").is_file():
        raise InputError(
            f"warm_start: expected mlm, none or the folder of a finished pre-training, got {recipe.warm_start!r}"
        )
    artefact, model = load_artefact(folder), load_pretrained(folder)
    check_same_items(model, artefact.item_tokens.tolist(), corpus)
    for name, here in recipe.encoder_arguments(corpus.n_items).items():
        there = artefact.encoder_arguments.get(name, "transformer" if name == "kind" else None)
        if there != here:
            raise InputError(f"warm_start: expected a model with {name} {here} as this recipe, got {there} in {folder}")
    return model.encoder.state_dict()
