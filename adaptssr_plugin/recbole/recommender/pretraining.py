"""``ssl_mode: pretrain``: user-level stages before a RecBole model's own training."""

from typing import Any

from recbole.config import Config

from ...methods.options.comparison import pairwise_loss
from ...methods.plan import StagePlan
from ...methods.registry import make_views
from ...methods.views import UserHistories
from ...seeding import stream_seed
from ...training import PairwiseStage
from ..compat.training_rows import TrainingRows
from ..user_model.trainer import StageTrainer
from ..user_model.user_split import UserSplit
from .joint import SelfSupervisedTerm


def pretrain_backbone(term: SelfSupervisedTerm, config: Config, dataset: Any, show_progress: bool) -> None:
    """Train a RecBole model on pairs of views of whole users.

    One row per user, and only training interactions. Several processes share every batch, with negatives from all of
    them, as in :func:`~adaptssr_plugin.recbole.user_model.pretrain.pretrain`.

    Raises:
        InputError: too few users.
    """
    settings, processes, seed = term.settings, term.processes, int(config["seed"])
    rows = TrainingRows(config, dataset)
    users = UserSplit.draw(rows.histories(), stream_seed(seed, "ssl split"), settings.valid_share, "ssl_valid_share")
    views = make_views(settings.method, settings, UserHistories(users.corpus, rows.max_len, users.train))
    stage = PairwiseStage(term.stage.encoder, views, pairwise_loss(settings.loss, settings), "ssl")
    plan = StagePlan("ssl", lambda *_: stage, settings.epochs, settings.learning_rate, 0.0, "best")
    trainer = StageTrainer(
        config, stage, plan, None,
        seed=seed, stopping_step=settings.epochs, together=processes.data_parallel,
        cuda_graphs=bool(config["cuda_graphs"]),
    )  # fmt: skip
    train_data, valid_data = users.loaders(
        processes, batch_size=settings.batch_size, max_len=rows.max_len, seed=seed, prefix="ssl "
    )
    trainer.run(train_data, valid_data, show_progress)
    best = trainer.history[trainer.selected_epoch - 1]
    trainer.logger.info(f"user-level stage: epoch {trainer.selected_epoch} of {len(trainer.history)}, {best}")
