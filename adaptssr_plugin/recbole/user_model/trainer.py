"""A RecBole ``Trainer`` that runs the stages of :mod:`adaptssr_plugin.training`.

RecBole's own ``fit`` runs the training: epochs, best-epoch selection, early stopping, TensorBoard. Differences from
its training step: no value is read back from the device in a step, gradients are clipped after they are unscaled, and
one GradScaler lasts for the whole run. Checkpoints are atomic, load with ``weights_only``, and are also written within
an epoch, so that a killed run resumes from a few minutes before and ends with the same weights.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import trainer as recbole_trainer
from recbole.utils import ModelType
from torch import Tensor, nn

from ...corpus import Batch, BatchLoader
from ...encoders import item_table
from ...errors import InputError, TrainingStoppedError
from ...methods.plan import StagePlan
from ...progress import Progress, Show
from ...training import (
    EpochState,
    LastTwo,
    RunFingerprint,
    Stage,
    StepResult,
    StopRequest,
    Streams,
    write_checkpoint,
)
from ...training.epoch_state import Totals, of_all
from ...training.graphed_step import GraphedStep, graphed_step, step_of_stage
from ...training.processes import Processes
from ...training.stages.base import dropout_seeded
from ..compat.optimising import make_capturable, take_step, why_eager
from ..compat.patches import compat_patches, tensorboard_into
from ..versions import versions
from .checkpoints import CHECKPOINT_MINUTES, LOG_EVERY, CheckpointingTrainer

_FUSED = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
_LEARNERS = (*_FUSED, "sgd", "adagrad", "rmsprop")  # RecBole's, except sparse_adam, which needs sparse gradients
_AMP_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class UserModel(AbstractRecommender):
    """A stage in the form of a RecBole model, which its trainer optimises."""

    type = ModelType.SEQUENTIAL

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Compute the loss of a :class:`Batch`, with streams keyed by epoch and step."""
        device = next(self.parameters()).device
        return self.stage.step(interaction, Streams(device, ("calculate_loss",))).loss


class StageTrainer(CheckpointingTrainer):
    """Train one stage, with its files in one folder: ``last.pt``, ``previous.pt``, ``best.pt``, TensorBoard's curves.

    The last two checkpoints are kept. One is written at the end of every epoch, every few minutes within one, and when
    SIGTERM comes. A run that is started again in the same folder resumes at the next step.

    Processes that train together have the same weights after every step: the gradients of their parts of the batch are
    averaged. All of them validate, and the first one's numbers count.

    Args:
        config: from :func:`build_config`; RecBole's own switches for device, AMP (``enable_amp``,
            ``enable_scaler``) and optimiser (``learner``, ``weight_decay``) apply.
        stage: what to train.
        plan: epochs, learning rates and selection; an item table with learning rate 0 is frozen from here on.
        directory: where the files go; None: no files, and the best epoch is kept in memory.
        seed: of the random streams.
        stopping_step: epochs without improvement after which to stop.
        clip_grad_norm: largest norm of the gradient; 0: no clipping.
        amp_dtype: bfloat16, float16, or auto for torch's default on the device.
        checkpoint_minutes: of training between two checkpoints within an epoch; 0: after every step.
        run: the options of the run, in named parts of plain values; kept in every checkpoint. A checkpoint of a run
            with other options is refused.
        together: all processes of torch's default group make this trainer and train one stage.
        cuda_graphs: replay steps as CUDA graphs where that is possible; one line says where it is not.
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
        checkpoint_minutes: float = CHECKPOINT_MINUTES,
        run: Mapping[str, Mapping[str, Any]] | None = None,
        together: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        config = copy.copy(config)
        config.final_config_dict = dict(config.final_config_dict)
        config["epochs"], config["learning_rate"] = plan.epochs, plan.learning_rate
        config["eval_step"], config["valid_metric_bigger"] = 1, stage.bigger_is_better
        # RecBole stops one epoch later than it is told.
        config["stopping_step"] = stopping_step - 1 if plan.select == "best" else plan.epochs
        config["clip_grad_norm"] = {"max_norm": clip_grad_norm} if clip_grad_norm else None
        config["metrics"] = []  # a stage has its own metrics; some of RecBole's would ask our loaders for their dataset
        config["train_neg_sample_args"] = {}  # nor have our loaders negatives
        config["checkpoint_dir"] = str(directory or ".")
        self.directory = directory
        if directory is not None:  # before RecBole does it; two processes at once would interfere
            directory.mkdir(parents=True, exist_ok=True)
        self.stage = stage
        self.plan = plan
        if not plan.item_lr_share:
            self._item_table().requires_grad_(False)
        with compat_patches(), tensorboard_into(None):
            super().__init__(config, UserModel(stage).to(config["device"]))
        self.processes = Processes(together)
        if self.processes.data_parallel:
            stage.share_batches()
        self._averaging = self.processes.averaging(self.model)
        self.seed = seed
        self.amp_dtype = _AMP_DTYPES.get(amp_dtype) or torch.get_autocast_dtype(self.device.type)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=bool(config["enable_scaler"]))
        self.saved_model_file = str(directory / "best.pt") if directory else ""
        self.checkpoints = LastTwo(directory) if directory else None
        self.checkpoint_seconds = 60 * checkpoint_minutes
        steps = {"seed": seed, "learning_rate": plan.learning_rate, "item_lr_share": plan.item_lr_share,
                 "clip_grad_norm": clip_grad_norm, "amp_dtype": amp_dtype,
                 "learner": str(config["learner"]), "weight_decay": config["weight_decay"],
                 "enable_amp": bool(config["enable_amp"]), "enable_scaler": bool(config["enable_scaler"])}  # fmt: skip
        self.fingerprint = RunFingerprint(plan.name, {"steps": steps, **(run or {})}, versions())
        self._wants_graphs = cuda_graphs
        self._graphed: GraphedStep[StepResult] | None = None
        self._kept: dict[str, torch.Generator] | None = None
        self._max_len = 1  # of the batches, with graphs
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self._best_state: dict[str, Tensor] = {}
        self._epoch_state: EpochState | None = None
        self._stop = StopRequest(listens=False)
        self._bar = Progress(0, plan.name, show=False)

    # --- training --------------------------------------------------------------------------------------------

    def run(self, train_data: BatchLoader, valid_data: BatchLoader, show_progress: Show = True) -> None:
        """Train to the end, from the last checkpoint if there is one, and load the selected weights into the stage.

        ``show_progress`` is as for :func:`~.pretrain.pretrain`.

        Raises:
            TrainingDivergedError: NaN or infinity in a step.
            TrainingStoppedError: SIGTERM, after a checkpoint; only where it would kill, in the main thread.
            InputError: checkpoints in the folder that are damaged or belong to another run.
            OSError: a full disk or the like; earlier checkpoints are intact.
        """
        self.fingerprint.config["batches"] = {
            "batch_size": train_data.batch_size,
            "max_len": train_data.max_len,
            "order": f"{train_data.name} {train_data.seed}",
            "steps": len(train_data),
            "processes": self.processes.number,
        }
        # Without a folder it is part of a run that has its own checkpoints and its own message about lost processes.
        with self.processes.none_lost() if self.directory is not None else nullcontext():
            self._run(train_data, valid_data, show_progress if self.processes.is_main_process else False)

    def _run(self, train_data: BatchLoader, valid_data: BatchLoader, show_progress: Show) -> None:
        self._resume_from_last()
        if self._wants_graphs:
            self._use_graphs(train_data.max_len)
        if self.start_epoch < self.epochs and self.cur_step <= self.stopping_step:
            try:
                with StopRequest(listens=self.checkpoints is not None) as self._stop:
                    self._fit(train_data, valid_data, show_progress)
                self._stop_if_asked()
            except TrainingStoppedError as stopped:
                self._say(str(stopped))
                self.processes.wait()  # torchrun kills the others as soon as one has ended
                raise
        self.stage.load_state_dict(self._selected_state())

    def _use_graphs(self, max_len: int) -> None:
        """Replay steps from here on, if they can be captured; no graph outlives a change of the optimiser's tensors."""
        reason = why_eager(self, self.processes) or self.stage.why_eager()
        self._graphed = graphed_step(self.device, reason, self._say)
        if self._graphed is not None:
            self._kept, self._max_len = {}, max_len
            make_capturable(self.optimizer)

    def _fit(self, train_data: BatchLoader, valid_data: BatchLoader, show_progress: Show) -> None:
        steps = len(train_data) * self.epochs
        done = len(train_data) * self.start_epoch + (self._epoch_state.steps if self._epoch_state else 0)
        self._bar = Progress(steps, self.plan.name, show_progress, done=done, reports=True)
        with compat_patches(), self._curves(), self._bar:
            self._start_clock()
            self.fit(train_data, valid_data, verbose=False, saved=True, callback_fn=self._end_of_epoch)

    @contextmanager
    def _curves(self) -> Iterator[None]:
        """Write TensorBoard's files while training; none for a run that has nothing left to train."""
        folder = self.directory if self.processes.is_main_process else None
        with tensorboard_into(folder / "tensorboard" if folder else None):
            self.tensorboard = recbole_trainer.get_tensorboard(self.logger)
        try:
            yield
        finally:
            self.tensorboard.close()

    def _train_epoch(
        self,
        train_data: BatchLoader,
        epoch_idx: int,
        loss_func: Callable[..., Any] | None = None,
        show_progress: bool = False,
    ) -> float:
        """Train one epoch, or the rest of one; returns the mean loss of its steps."""
        if self._epoch_state is None or self._epoch_state.epoch != epoch_idx:
            self._epoch_state = EpochState(epoch_idx, self.device)
        epoch_state = self._epoch_state
        self.model.train()
        train_data.set_epoch(epoch_idx)
        self.stage.set_epoch(epoch_idx)
        with dropout_seeded(self.device, self.seed, self.plan.name, epoch_idx, *self.processes.key):
            epoch_state.begin(self.stage)
            for step, batch in enumerate(train_data.from_step(epoch_state.steps), epoch_state.steps):
                if self.stage.usable(batch):
                    key = (self.seed, self.plan.name, epoch_idx, step, *self.processes.key)
                    streams = Streams(self.device, key, self._kept)
                    epoch_state.totals.add(step, self._step(batch, streams))
                    if (step + 1) % LOG_EVERY == 0:
                        self._watch(epoch_state, train_data)
                epoch_state.steps = step + 1
                self._bar.update(1)
                if self._checkpoint_due():
                    self._watch(epoch_state, train_data)
                    self._write_within()
        means = self._watch(epoch_state, train_data)
        self.history.append({"epoch": epoch_idx + 1, "seconds": epoch_state.end(), **means})
        for name, value in means.items():
            self.tensorboard.add_scalar(f"train/{name}", value, epoch_idx)
        return means.get("loss", 0.0)

    def _step(self, batch: Batch, streams: Streams) -> StepResult:
        """Take a step on a batch, which is on the CPU; replayed if its shapes have come before."""
        if self._graphed is None:
            return self._take(batch.to(self.device, non_blocking=True), streams)

        def take(held: Batch) -> StepResult:
            return self._take(held, streams)

        return step_of_stage(self._graphed, self.stage, batch, streams, take, self._max_len)

    def _take(self, batch: Batch, streams: Streams) -> StepResult:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=bool(self.enable_amp)):
            result: StepResult = self._averaging(self.stage.step, batch, streams)
        take_step(self, result.loss)
        return result

    def _watch(self, epoch_state: EpochState, train_data: BatchLoader) -> dict[str, float]:
        """Read back from the device of every process: stop if a step was bad, else show the loss; returns means."""
        epoch = epoch_state.epoch + 1
        totals = of_all([Totals(*read) for read in self.processes.gather(tuple(epoch_state.totals.read()))])
        if totals.first_bad >= 0:
            step, users = totals.first_bad + 1, _named(train_data, totals.first_bad)
            raise self._diverged(f"the loss was not finite at epoch {epoch}, step {step}, users {users}")
        means = totals.means()
        self._bar.note(f"epoch {epoch}/{self.epochs}, loss {means.get('loss', 0.0):.4f}")
        return means

    def _require_finite(self) -> None:
        """Stop before spoilt weights become a checkpoint: the backward pass of the last step has no loss to show it.

        The same for the optimiser: a weight whose second moment in Adam is infinite would never move again.
        """
        weights = [parameter.detach() for parameter in self.model.parameters()]
        kept = [value for state in self.optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
        for what, tensors in (("weights", weights), ("optimiser's moments", kept)):
            finite = _all_finite([tensor for tensor in tensors if tensor.device.type == self.device.type])
            if not all(self.processes.gather(finite)):
                assert self._epoch_state is not None
                epoch, steps = self._epoch_state.epoch + 1, self._epoch_state.steps
                raise self._diverged(f"the {what} were not finite after epoch {epoch}, step {steps}")

    def _valid_epoch(self, valid_data: BatchLoader, show_progress: bool = False) -> tuple[float, dict[str, float]]:
        """Compute the criterion and all other validation numbers, with the same random streams every epoch."""
        self._require_finite()
        streams = Streams(self.device, (self.seed, self.plan.name, "valid"))
        # All take the same decisions then, even where a GPU adds up in another order.
        result = self.processes.first(self.stage.validate(self._valid_batches(valid_data), streams))
        for name, value in result.items():
            self.tensorboard.add_scalar(f"valid/{name}", value, len(self.history) - 1)
            self.history[-1][f"valid_{name}"] = value
        score = result[self.stage.criterion]
        if not math.isfinite(score):
            raise self._diverged(f"{self.stage.criterion} was {score} in validation after epoch {len(self.history)}")
        if score == self.best_valid_score:
            # Of equal epochs the earlier is the best, where RecBole's early_stopping takes the later.
            score = math.nextafter(score, -math.inf if self.valid_metric_bigger else math.inf)
        return score, result

    def _valid_batches(self, valid_data: BatchLoader) -> Iterator[Batch]:
        """Give the batches of a validation; a run that is stopped among them goes on before the first of them."""
        for batch in valid_data:
            if self._checkpoint_due():
                self._write_within()
            yield batch.to(self.device)

    def _end_of_epoch(self, epoch_idx: int, valid_score: float) -> None:
        """Write what a resumed run needs; RecBole calls it after its own book-keeping of the best epoch."""
        self._epoch_state = None
        last, criterion = self.history[-1], f"valid_{self.stage.criterion}"
        self._bar.line(
            f"epoch {epoch_idx + 1}/{self.epochs}, loss {last.get('loss', 0.0):.4f}, "
            f"{criterion} {last[criterion]:.4f}, {last['seconds']:.1f} s, {self._bar.to_go()} to go"
        )
        if self.checkpoints is None:
            return
        self.tensorboard.flush()  # so that the curves of a killed run reach as far as its checkpoint
        if self.plan.select == f"epoch:{epoch_idx + 1}" and self.processes.is_main_process:
            write_checkpoint(self._selected_file(), self._selection(epoch_idx))
        self._write(epoch_idx)
        self._stop_if_asked()

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        """Make RecBole's optimiser, Adam as one fused kernel: faster on a CPU, and no read-back for a GradScaler."""
        learner = str(self.learner).lower()
        if learner not in _LEARNERS:
            raise InputError(f"learner: expected one of {', '.join(_LEARNERS)}, got {self.learner!r}")
        optimizer: torch.optim.Optimizer
        if learner in _FUSED:
            settings = {"lr": self.learning_rate, "weight_decay": self.weight_decay, "fused": True}
            optimizer = _FUSED[learner](self._parameters(), **settings)
        else:
            optimizer = super()._build_optimizer(params=self._parameters(), **kwargs)
        return optimizer

    def _parameters(self) -> Any:
        """Give what the optimiser trains; the item table is a group by itself where its learning rate is."""
        share = self.plan.item_lr_share
        if share in (0, 1):  # a frozen table gets no gradient, so that an optimiser keeps no state of it
            return self.model.parameters()
        table = self._item_table()
        others = [parameter for parameter in self.model.parameters() if parameter is not table]
        return [{"params": others}, {"params": [table], "lr": share * self.learning_rate}]

    def _item_table(self) -> nn.Parameter:
        return item_table(getattr(self.stage, "encoder", None), "item_lr_share")


def _all_finite(tensors: list[Tensor]) -> bool:
    """Whether there is neither NaN nor infinity in any of them; one value is read back."""
    # The largest value is NaN or infinite if any is, and finding it takes no second tensor of that size.
    largest = [torch.linalg.vector_norm(tensor, torch.inf).float() for tensor in tensors if tensor.numel()]
    return not largest or bool(torch.stack(largest).isfinite().all())


def _named(train_data: BatchLoader, step: int, most: int = 5) -> str:
    """Name the users of a batch, as their source calls them."""
    rows = train_data.users_of(step).tolist()
    names = ", ".join(str(train_data.corpus.user_tokens[row]) for row in rows[:most])
    return names if len(rows) <= most else f"{names} and {len(rows) - most} more"
