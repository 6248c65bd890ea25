"""``ssl_mode: pretrain``: user-level stages before a RecBole model's own training."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..corpus import BatchLoader
from ..errors import InputError
from ..methods.comparison import pairwise_loss
from ..methods.plan import StagePlan
from ..methods.views import UserHistories, make_views
from ..seeding import stream_seed
from ..training import PairwiseStage
from .trainer import StageTrainer
from .training_rows import TrainingRows

if TYPE_CHECKING:
    from .recommender_trainer import RecommenderTrainer


def pretrain_host(trainer: "RecommenderTrainer", train_data: Any, show_progress: bool) -> None:
    """Warm a model up on its own loss, then train it on pairs of views of whole users.

    One row per user, and training interactions only. Several processes share every batch out among themselves, and
    compare with the users of all, as in :func:`~adaptssr_plugin.recbole.pretrain.pretrain`. What the user-level stage
    leaves in the model is also written beside the run's checkpoint, as ``<name>-pretrained.pth``, and can be given to
    other runs as ``pretrained``.

    Args:
        trainer: of the run; its model is trained.
        train_data: the run's loader of training rows.
        show_progress: whether to show bars.

    Raises:
        InputError: too few users.
    """
    assert trainer.term is not None
    settings, config, processes = trainer.term.settings, trainer.config, trainer.processes
    for epoch in range(settings.warmup_epochs):
        loss = trainer._train_epoch(train_data, epoch, show_progress=show_progress)
        trainer.logger.info(f"warm-up epoch {epoch}: loss {loss if isinstance(loss, float) else sum(loss):.4f}")
    rows = TrainingRows(config, train_data._dataset)
    histories = rows.histories()
    seed = int(config["seed"])
    encoder = trainer.term.stage.encoder
    order = np.random.default_rng(stream_seed(seed, "ssl split")).permutation(len(histories))
    n_valid = round(settings.valid_share * len(order))
    if n_valid < 2 or len(order) - n_valid < 2:
        raise InputError(
            f"ssl_valid_share: expected two users or more for training and for validation, got {len(order)} users "
            f"and a share of {settings.valid_share}"
        )
    users = {"train": np.sort(order[n_valid:]), "valid": np.sort(order[:n_valid])}
    views = make_views(settings.method, settings, UserHistories(histories, rows.max_len, users["train"]))
    stage = PairwiseStage(encoder, views, pairwise_loss(settings.loss, settings), "ssl")
    plan = StagePlan("ssl", lambda *_: stage, settings.epochs, settings.learning_rate, 0.0, "best")
    user_trainer = StageTrainer(
        config, stage, plan, None, seed=seed, stopping_step=settings.epochs, together=processes.data_parallel
    )
    loaders = [
        BatchLoader(histories, users[name], batch_size=settings.batch_size, max_len=rows.max_len, seed=seed,
                    name=f"ssl {name}", shuffle=name == "train", part=part, parts=parts)
        for name, part, parts in (("train", processes.rank, processes.number), ("valid", 0, 1))
    ]  # fmt: skip
    user_trainer.run(loaders[0], loaders[1], show_progress)
    best = user_trainer.history[user_trainer.selected_epoch - 1]
    trainer.logger.info(f"user-level stage: epoch {user_trainer.selected_epoch} of {len(user_trainer.history)}, {best}")
    path = Path(trainer.saved_model_file)
    path = path.with_name(f"{path.stem}-pretrained{path.suffix}")
    trainer._save_checkpoint(-1, saved_model_file=str(path))
