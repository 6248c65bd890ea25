"""The stages of a pre-training: each starts from the selected epoch of the one before; RecBole's trainer runs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from torch import Tensor

from ...corpus import BehaviourCorpus, put_item_vectors, svd_item_vectors
from ...encoders import UserEncoder, item_table, make_encoder
from ...errors import InputError
from ...methods import Recipe
from ...methods.plan import StagePlan, stage_plans
from ...methods.views import UserHistories
from ...progress import Show
from ...seeding import stream_seed
from ...training import MaskedItemFiller, MaskedItemStage, Stage, transfer
from ...training.processes import Processes
from .trainer import StageTrainer
from .user_split import UserSplit
from .warm_start import WarmStart


@dataclass(frozen=True)
class StageResult:
    """The result of a stage.

    Attributes:
        name: of the stage.
        selected_epoch: the epoch, counted from 1, that was selected.
        history: per epoch the means of the logs, validation numbers and seconds.
    """

    name: str
    selected_epoch: int
    history: list[dict[str, float]]


def fresh_encoder(recipe: Recipe, n_items: int, dropout: float, seed: int) -> UserEncoder:
    """Initialise an encoder; the same seed gives the same weights, whatever was drawn before."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(stream_seed(seed, "init"))
        encoder: UserEncoder = make_encoder(dropout=dropout, **recipe.encoder_arguments(n_items))
        return encoder


def users_of(recipe: Recipe, corpus: BehaviourCorpus) -> UserSplit:
    """Split the users of a pre-training into training users and those that choose the epochs."""
    return UserSplit.draw(corpus, stream_seed(recipe.split_seed, "pretrain split"), recipe.valid_share, "valid_share")


def item_vectors(recipe: Recipe, users: UserSplit) -> Tensor:
    """Compute SVD vectors of items from the training users' behaviours, as far as a stage sees them."""
    seed = stream_seed(recipe.seed, "item_init")
    return svd_item_vectors(users.corpus, recipe.dim, users.train, recipe.max_len, seed)


def untrained_encoder(recipe: Recipe, corpus: BehaviourCorpus) -> UserEncoder:
    """Make the encoder with which the stages of a recipe start, in evaluation mode."""
    encoder = fresh_encoder(recipe, corpus.n_items, recipe.dropout, recipe.seed)
    if recipe.item_init == "svd":
        put_item_vectors(item_table(encoder, "item_init"), item_vectors(recipe, users_of(recipe, corpus)))
    return encoder.eval()


@dataclass(frozen=True)
class PretrainStages:
    """The stages of a recipe, on one split of the users.

    Attributes as the arguments of :func:`~.pretrain.pretrain` and :class:`~.trainer.StageTrainer`. ``start`` are the
    weights from which every stage starts; None: a random initialisation, the item table by ``item_init``.
    """

    config: Config
    recipe: Recipe
    users: UserSplit
    start: WarmStart | None
    processes: Processes
    folder: Path
    manifest: Mapping[str, Any]
    checkpoint_minutes: float
    show_progress: Show

    def run(self) -> tuple[UserEncoder, UserEncoder | None, tuple[StageResult, ...]]:
        """Run all stages, or resume an interrupted run; errors as for :func:`~.pretrain.pretrain`.

        Returns:
            The encoder, the encoder after the warm-up (None if nothing of it was passed on), and the results of the
            stages; encoders on the CPU, in evaluation mode.
        """
        plans = stage_plans(self.recipe)
        histories = UserHistories(self.users.corpus, self.recipe.max_len, self.users.train)
        earlier: UserEncoder | None = None
        encoder = self._initial(plans[0].dropout if plans else self.recipe.dropout)
        results: list[StageResult] = []
        for plan in plans:
            if results:
                earlier, encoder = encoder, self._initial(plan.dropout)
                transfer(earlier.state_dict(), encoder, plan.takes)
            stage, result = self._train(plan, encoder, histories)
            results.append(result)
            if plan.fills:
                histories.filler = _filler(stage, self.recipe)
        warm_up = earlier.cpu().eval() if earlier is not None and plans[-1].takes else None
        return encoder.cpu().eval(), warm_up, tuple(results)

    def _initial(self, dropout: float) -> UserEncoder:
        """Make the encoder with which a stage starts."""
        encoder = fresh_encoder(self.recipe, self.users.corpus.n_items, dropout, self.recipe.seed)
        if self.start is not None:
            self.start.into(encoder)
        if self.recipe.item_init == "svd":
            put_item_vectors(item_table(encoder, "item_init"), self._item_vectors)
        return encoder

    @cached_property
    def _item_vectors(self) -> Tensor:
        """Return :func:`item_vectors`; the first process computes them."""
        return self.processes.by_first(lambda: item_vectors(self.recipe, self.users))

    def _train(self, plan: StagePlan, encoder: UserEncoder, histories: UserHistories) -> tuple[Stage, StageResult]:
        """Train one stage, which then has the weights of its selected epoch."""
        recipe = self.recipe
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(stream_seed(recipe.seed, plan.name, "init"))
            stage = plan.make(encoder, histories)
        trainer = StageTrainer(
            self.config,
            stage,
            plan,
            self.folder / plan.name,
            seed=recipe.seed,
            stopping_step=recipe.stopping_step,
            clip_grad_norm=recipe.clip_grad_norm,
            amp_dtype=recipe.amp_dtype,
            checkpoint_minutes=self.checkpoint_minutes,
            run=self.manifest,
            together=True,
            cuda_graphs=recipe.cuda_graphs,
        )
        train_data, valid_data = self.users.loaders(
            self.processes, batch_size=recipe.batch_size, max_len=recipe.max_len, seed=recipe.seed
        )
        trainer.run(train_data, valid_data, self.show_progress)
        encoder.requires_grad_(True)  # undoes what this stage has frozen
        return stage, StageResult(plan.name, trainer.selected_epoch, trainer.history)


def _filler(stage: Stage, recipe: Recipe) -> MaskedItemFiller:
    """Freeze the model of a stage, for the views of the next one."""
    if not isinstance(stage, MaskedItemStage):
        came = type(stage.encoder).__name__
        raise InputError(f"encoder: expected one that predicts masked items, for {recipe.method}'s views, got {came}")
    return MaskedItemFiller(stage.encoder, stage.head)
