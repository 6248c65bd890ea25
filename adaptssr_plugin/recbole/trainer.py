"""A RecBole ``Trainer`` that runs the stages of :mod:`adaptssr_plugin.training`.

RecBole's own ``fit`` turns the crank: epochs, best-epoch selection, early stopping, TensorBoard. What differs
from its training step: no value is read back from the device in a step, gradients are clipped after they are
unscaled, one GradScaler lives as long as the run, and checkpoints are atomic and load with ``weights_only``.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer
from recbole.trainer import trainer as recbole_trainer
from recbole.utils import ModelType
from torch import Tensor

from ..corpus import BatchLoader
from ..errors import InputError, TrainingDivergedError
from ..methods.plan import StagePlan
from ..progress import progress_bar
from ..training import Stage, StepResult, Streams, load_checkpoint, write_checkpoint
from ..training.stage import dropout_seeded
from .mends import mended, tensorboard_into

_LOG_EVERY = 50  # steps between two looks at the device
_FUSED = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
_LEARNERS = (*_FUSED, "sgd", "adagrad", "rmsprop")  # RecBole's, but for sparse_adam, which takes no dense gradients
_AMP_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class UserModel(AbstractRecommender):
    """A stage as RecBole knows models: what its trainer optimises."""

    type = ModelType.SEQUENTIAL

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Compute the loss of a :class:`Batch`, with streams that depend on nothing else."""
        device = next(self.parameters()).device
        return self.stage.step(interaction, Streams(device, ("calculate_loss",))).loss


class StageTrainer(Trainer):
    """Train one stage, with its files in one folder: ``last.pt``, ``best.pt`` and TensorBoard's curves.

    Args:
        config: from :func:`build_config`; RecBole's own switches for device, AMP (``enable_amp``,
            ``enable_scaler``) and optimiser (``learner``, ``weight_decay``) hold.
        stage: what to train.
        plan: epochs, learning rate and selection.
        directory: where the files go; None writes none, and keeps the best epoch in memory.
        seed: of the random streams.
        stopping_step: epochs without a better one after which to stop.
        clip_grad_norm: largest norm of the gradient; 0: no clipping.
        amp_dtype: bfloat16, float16, or auto for torch's default on the device.
    """

    def __init__(
        self,
        config: Config,
        stage: Stage,
        plan: StagePlan,
        directory: Path | None = None,
        *,
        seed: int,
        stopping_step: int = 10,
        clip_grad_norm: float = 0.0,
        amp_dtype: str = "auto",
    ) -> None:
        config = copy.copy(config)
        config.final_config_dict = dict(config.final_config_dict)
        config["epochs"], config["learning_rate"] = plan.epochs, plan.learning_rate
        config["eval_step"], config["valid_metric_bigger"] = 1, stage.bigger_is_better
        # RecBole stops one epoch later than it is told to.
        config["stopping_step"] = stopping_step - 1 if plan.select == "best" else plan.epochs
        config["clip_grad_norm"] = {"max_norm": clip_grad_norm} if clip_grad_norm else None
        config["metrics"] = []  # a stage brings its own; some of RecBole's would ask our loaders for its dataset
        config["checkpoint_dir"] = str(directory or ".")
        self.directory = directory
        with mended(), tensorboard_into(None):
            super().__init__(config, UserModel(stage).to(config["device"]))
        self.stage = stage
        self.plan = plan
        self.seed = seed
        self.amp_dtype = _AMP_DTYPES.get(amp_dtype) or torch.get_autocast_dtype(self.device.type)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=bool(config["enable_scaler"]))
        self.saved_model_file = str(directory / "best.pt") if directory else ""
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self._best_state: dict[str, Tensor] = {}
        self._steps = 0  # of an epoch
        self._bar = progress_bar(0, plan.name, show=False)

    # --- the crank -------------------------------------------------------------------------------------------

    def run(self, train_data: BatchLoader, valid_data: BatchLoader, show_progress: bool = True) -> None:
        """Train to the end, from ``last.pt`` if there is one, and leave the selected epoch's weights in the stage.

        Raises:
            TrainingDivergedError: NaN or infinity in a step.
            InputError: a checkpoint in the folder that is damaged or of another run.
        """
        if self.directory is not None and (self.directory / "last.pt").exists():
            self.resume_checkpoint(self.directory / "last.pt")
        if self.start_epoch < self.epochs and self.cur_step <= self.stopping_step:
            steps = len(train_data) * self.epochs
            with mended(), self._curves(), progress_bar(steps, self.plan.name, show_progress) as self._bar:
                self._bar.update(len(train_data) * self.start_epoch)
                self.fit(train_data, valid_data, verbose=False, saved=True, callback_fn=self._end_of_epoch)
        self.stage.load_state_dict(self._selected_state())

    @contextmanager
    def _curves(self) -> Iterator[None]:
        """Write TensorBoard's files while training, and none for a run that has nothing left to train."""
        with tensorboard_into(self.directory / "tensorboard" if self.directory else None):
            self.tensorboard = recbole_trainer.get_tensorboard(self.logger)
        try:
            yield
        finally:
            self.tensorboard.close()

    def _selected_state(self) -> dict[str, Tensor]:
        """Weights of the epoch that the plan selects, if training came that far."""
        state: dict[str, Tensor] = self.stage.state_dict()
        if self.plan.select == "best":
            state = self._best_state or load_checkpoint(Path(self.saved_model_file), self.device)["state_dict"]
        elif self.plan.select.startswith("epoch:"):
            state = load_checkpoint(self._selected_file(), self.device)["state_dict"]
        return state

    @property
    def selected_epoch(self) -> int:
        """The epoch, counted from 1, whose weights :meth:`run` leaves in the stage."""
        if self.plan.select == "best":
            return self.best_epoch + 1
        return len(self.history) if self.plan.select == "last" else int(self.plan.select.removeprefix("epoch:"))

    def _selected_file(self) -> Path:
        assert self.directory is not None
        return self.directory / f"epoch-{self.plan.select.removeprefix('epoch:')}.pt"

    def _train_epoch(
        self,
        train_data: BatchLoader,
        epoch_idx: int,
        loss_func: Callable[..., Any] | None = None,
        show_progress: bool = False,
    ) -> float:
        """Train one epoch; returns the mean loss of its steps."""
        self.model.train()
        train_data.set_epoch(epoch_idx)
        self.stage.set_epoch(epoch_idx)
        totals = _EpochTotals(self.device)
        self._steps = len(train_data)
        started = time.perf_counter()
        with dropout_seeded(self.device, self.seed, self.plan.name, epoch_idx):
            for step, batch in enumerate(train_data):
                if self.stage.usable(batch):
                    streams = Streams(self.device, (self.seed, self.plan.name, epoch_idx, step))
                    totals.add(step, self._step(batch.to(self.device, non_blocking=True), streams))
                    if (step + 1) % _LOG_EVERY == 0:
                        self._watch(totals, epoch_idx)
                self._bar.update(1)
        self._watch(totals, epoch_idx)
        seconds = time.perf_counter() - started
        means = totals.means()
        self.history.append({"epoch": epoch_idx + 1, "seconds": seconds, **means})
        for name, value in means.items():
            self.tensorboard.add_scalar(f"train/{name}", value, epoch_idx)
        return means.get("loss", 0.0)

    def _step(self, batch: Any, streams: Streams) -> StepResult:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=bool(self.enable_amp)):
            result = self.stage.step(batch, streams)
        self.scaler.scale(result.loss).backward()  # type: ignore[no-untyped-call]
        if self.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), **self.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return result

    def _watch(self, totals: "_EpochTotals", epoch_idx: int) -> None:
        """Look at the device: stop if a step went bad, else show the loss."""
        bad = totals.first_bad_step()
        if bad is not None:
            raise self._diverged(f"the loss was not finite at epoch {epoch_idx + 1}, step {bad + 1}")
        self._bar.set_postfix_str(f"epoch {epoch_idx + 1}/{self.epochs}, loss {totals.means().get('loss', 0.0):.4f}")

    def _diverged(self, what: str) -> TrainingDivergedError:
        kept = "none yet"
        if self.directory is not None and (self.directory / "last.pt").exists():
            kept = str(self.directory / "last.pt")
        return TrainingDivergedError(f"{self.plan.name}: {what}; last good checkpoint: {kept}")

    def _valid_epoch(self, valid_data: BatchLoader, show_progress: bool = False) -> tuple[float, dict[str, float]]:
        """Compute the criterion and all other validation numbers, with the same random streams every epoch."""
        # An epoch whose very last step spoilt the weights has no loss to show it, and must not become last.pt.
        finite = torch.stack([parameter.detach().isfinite().all() for parameter in self.model.parameters()])
        if not finite.all():
            raise self._diverged(f"the weights were not finite after epoch {len(self.history)}, step {self._steps}")
        streams = Streams(self.device, (self.seed, self.plan.name, "valid"))
        result = self.stage.validate((batch.to(self.device) for batch in valid_data), streams)
        for name, value in result.items():
            self.tensorboard.add_scalar(f"valid/{name}", value, len(self.history) - 1)
            self.history[-1][f"valid_{name}"] = value
        score = result[self.stage.criterion]
        if not math.isfinite(score):
            raise self._diverged(f"{self.stage.criterion} was {score} in validation after epoch {len(self.history)}")
        if score == self.best_valid_score:
            # Of equal epochs the earlier is the best (spec §4.2), where RecBole's early_stopping takes the later.
            score = math.nextafter(score, -math.inf if self.valid_metric_bigger else math.inf)
        return score, result

    def _end_of_epoch(self, epoch_idx: int, valid_score: float) -> None:
        """Write what a resumed run needs; RecBole calls it after its own book-keeping of the best epoch."""
        if self.directory is None:
            return
        self.tensorboard.flush()  # so that the curves of a killed run reach as far as its checkpoint
        if self.plan.select == f"epoch:{epoch_idx + 1}":
            write_checkpoint(self._selected_file(), {"state_dict": self.stage.state_dict(), "epoch": epoch_idx})
        write_checkpoint(self.directory / "last.pt", self._state(epoch_idx))

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        """Make RecBole's optimiser, Adam as one fused kernel: faster on a CPU, and no read-back for a GradScaler."""
        learner = str(self.learner).lower()
        if learner not in _LEARNERS:
            raise InputError(f"learner: expected one of {', '.join(_LEARNERS)}, got {self.learner!r}")
        optimizer: torch.optim.Optimizer
        if learner in _FUSED:
            settings = {"lr": self.learning_rate, "weight_decay": self.weight_decay, "fused": True}
            optimizer = _FUSED[learner](self.model.parameters(), **settings)
        else:
            optimizer = super()._build_optimizer(**kwargs)
        return optimizer

    # --- checkpoints -----------------------------------------------------------------------------------------

    def _state(self, epoch: int) -> dict[str, Any]:
        return {
            "stage": self.plan.name,
            "epoch": epoch,
            "best_epoch": self.best_epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "state_dict": self.stage.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history,
        }

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """Keep the weights of the best epoch so far; RecBole calls it when the criterion improves."""
        self.best_epoch = epoch
        if self.directory is None:
            self._best_state = {name: tensor.clone() for name, tensor in self.stage.state_dict().items()}
        else:
            write_checkpoint(Path(self.saved_model_file), {"state_dict": self.stage.state_dict(), "epoch": epoch})

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """Go on after the epoch of a ``last.pt``.

        Raises:
            InputError: a file that is damaged, or of another stage or model.
        """
        state = load_checkpoint(Path(resume_file), self.device)
        if state.get("stage") != self.plan.name:
            raise InputError(f"checkpoint: expected one of stage {self.plan.name} in {resume_file}, got another")
        try:
            self.stage.load_state_dict(state["state_dict"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
        except (KeyError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise InputError(f"checkpoint: {resume_file} does not fit this model: {reason}") from None
        self.start_epoch, self.best_epoch = state["epoch"] + 1, state["best_epoch"]
        self.cur_step, self.best_valid_score = state["cur_step"], state["best_valid_score"]
        self.history = state["history"]


class _EpochTotals:
    """Sums over the steps of an epoch, kept on the device until somebody looks."""

    def __init__(self, device: torch.device) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def add(self, step: int, result: StepResult) -> None:
        """Add the logs of a step, and note it if it is the first whose loss is not finite."""
        for name, value in result.logs.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        bad = ~torch.isfinite(result.loss.detach()) & (self._first_bad < 0)
        self._first_bad = torch.where(bad, step, self._first_bad)
        self._steps += 1

    def first_bad_step(self) -> int | None:
        """Read back the first step whose loss was NaN or infinite; None if there was none."""
        step = int(self._first_bad)
        return None if step < 0 else step

    def means(self) -> dict[str, float]:
        """Read back the means over steps."""
        if not self._sums:
            return {}
        totals: list[float] = torch.stack([total.float() for total in self._sums.values()]).tolist()
        return {name: total / self._steps for name, total in zip(self._sums, totals, strict=True)}
