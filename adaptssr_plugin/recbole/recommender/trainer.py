"""RecBole's ``Trainer`` without its slow parts, for any model that it trains by one loss.

The numbers are RecBole's, to the last digit that it prints. Differences: no value is read back from the device in a
step (losses are summed there and read now and then), gradients are clipped after they are unscaled, one GradScaler
lasts for the whole run, and checkpoints hold what a resumed run needs to continue as if never interrupted.
"""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer
from recbole.utils import ModelType
from torch import Tensor, nn

from ...errors import InputError, TrainingDivergedError
from ...progress import Progress, on_terminal
from ...training.graphed_step import GraphedStep, graphed_step
from ...training.processes import Processes
from ...training.stages.base import Streams
from ..compat.data_parallel import alone, check_alike, check_shared_out, mean_over, with_shared_norms
from ..compat.layers import mask_whole_batches
from ..compat.optimising import make_capturable, take_step, why_eager
from ..compat.patches import compat_patches, tensorboard_into
from .checkpoints import load_run, random_states, restore_random_states, save_checkpoint
from .checks import refused_sparse_adam
from .config import plain
from .data import items_state
from .joint import COMPARED_FIELD, SelfSupervisedTerm, check_made_with, self_supervised_term
from .pretraining import pretrain_backbone

_LOOK_EVERY = 50  # steps


class RecommenderTrainer(Trainer):
    """Train a RecBole model, with or without a self-supervised loss.

    Several processes have the same weights after every step: each takes its part of a batch, and the gradients are
    averaged, as under DistributedDataParallel. All of them evaluate all rows; the first one's numbers count, and only
    it writes files.
    """

    def __init__(self, config: Config, model: Any) -> None:
        self.processes = Processes(together=config["single_spec"] is False)
        if self.processes.data_parallel:
            config = alone(config)
            model = with_shared_norms(model, config, self.processes)
            # Before RecBole does it; several processes at once would interfere.
            Path(config["checkpoint_dir"]).mkdir(parents=True, exist_ok=True)
        with nullcontext() if self.processes.is_main_process else tensorboard_into(None):
            super().__init__(config, model)
        # RecBole puts the time into its name.
        self.saved_model_file: str = self.processes.first(self.saved_model_file)
        self.term = self_supervised_term(model)
        if self.term is not None:
            self.term.apart = True  # so that the log shows both
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=bool(self.enable_scaler))
        self._graphed: GraphedStep[Any] | None = None
        self._kept: dict[str, torch.Generator] = {}
        self._averaging = Processes().averaging(model)  # alone, until fit() sets up all processes
        self._train_data: Any = None
        self._items: dict[str, Any] = {}
        self._resumed_states: dict[str, Any] | None = None
        self._last_valid_result: dict[str, float] | None = None
        self._last_good: str | None = None

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[..., Any] | None = None,
    ) -> Any:
        """Train as RecBole does; arguments and result as in RecBole."""
        self._train_data = train_data
        dataset = getattr(train_data, "_dataset", None)
        self._items = items_state(dataset) if hasattr(dataset, "field2id_token") else {}
        check_made_with(self.config, self.model)  # again: the config may have changed
        self._check_rows()
        if self.config["faster_layers"]:
            part = f", process {self.processes.rank}" if self.processes.data_parallel else ""
            mask_whole_batches(train_data, self.config, f"train{part}")
        with compat_patches():
            self._begin_together()
            if self.config["resume"]:
                self.resume_checkpoint(self.config["resume"])
            if self.config["cuda_graphs"]:
                self._use_graphs()
            begins = self.start_epoch == 0 and not self.config["resume"]
            if begins and self.term is not None and self.term.settings.mode == "pretrain":
                self._pretrain(self.term, train_data, saved, show_progress)
            if self._resumed_states is not None:
                self._restore_random_states(self._resumed_states)
            self._epochs = Progress(self.epochs, "epochs", show=False, done=self.start_epoch)
            return super().fit(train_data, valid_data, verbose, saved, show_progress, callback_fn)

    def _generate_train_loss_output(self, epoch_idx: int, s_time: float, e_time: float, losses: Any) -> str:
        """Write RecBole's line of an epoch, with the number of epochs and the time to go."""
        line = super()._generate_train_loss_output(epoch_idx, s_time, e_time, losses)
        self._epochs.update(1)
        return f"{line}, {self.epochs - epoch_idx - 1} of {self.epochs} epochs and {self._epochs.to_go()} to go"

    def _pretrain(self, term: SelfSupervisedTerm, train_data: Any, saved: bool, show_progress: bool) -> None:
        """Warm the model up on its own loss, then train it on pairs of views of whole users.

        With ``saved`` the resulting model is also written beside the run's checkpoint, as ``<name>-pretrained.pth``,
        which other runs can load as ``pretrained``.
        """
        if self.config["train_neg_sample_args"].get("dynamic", False):
            train_data.get_model(self.model)  # which RecBole does only before its own epochs
        for epoch in range(term.settings.warmup_epochs):
            loss = self._train_epoch(train_data, epoch, show_progress=show_progress)
            loss = loss if isinstance(loss, float) else sum(loss)
            self.logger.info(f"warm-up: epoch {epoch + 1}/{term.settings.warmup_epochs}, loss {loss:.4f}")
        pretrain_backbone(term, self.config, train_data._dataset, show_progress)
        self.optimizer = self._build_optimizer()  # without the moments of another objective
        if saved:
            path = Path(self.saved_model_file)
            self._save_checkpoint(-1, saved_model_file=str(path.with_name(f"{path.stem}-pretrained{path.suffix}")))
        if self._graphed is not None:
            self._use_graphs()
        # The one before has recorded which weights that objective used, and would expect their gradients.
        self._averaging = self.processes.averaging(self.model)

    def _check_rows(self) -> None:
        """Raise InputError for a model whose views come from other rows, such as validation and test rows too."""
        if self.term is None:
            return
        rows = len(self._train_data._dataset)
        if self.term.n_rows != rows:
            raise InputError(
                f"dataset: expected a model made with train_data.dataset, the {rows} training rows, got one made with "
                f"{self.term.n_rows} rows"
            )

    def _use_graphs(self) -> None:
        """Replay steps from here on, if they can be captured; no graph outlives a change of the optimiser's tensors."""
        reason = why_eager(self, self.processes)
        if reason is None and getattr(self.model, "type", None) != ModelType.SEQUENTIAL:
            reason = f"{self.config['model']} is not a sequential model"
        if reason is None and self.term is not None and self.term.settings.mode == "joint":
            reason = self.term.stage.why_eager()
        self._graphed = graphed_step(self.device, reason, self.logger.warning)
        if self._graphed is None:
            return
        make_capturable(self.optimizer)
        self._kept = {}
        if self.term is not None:
            self.term.generators = self._kept
            self.term.few_sizes = True

    def _begin_together(self) -> None:
        """Copy the weights of the first process to all, once they agree on what to train."""
        if self.processes.data_parallel:
            check_shared_out(self._train_data)
            data = {"dataset": self._items.get("items"), "training rows": len(self._train_data._dataset)}
            check_alike(self.processes, {**plain(self.config), **data})
        self._averaging = self.processes.averaging(self.model)

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Callable[..., Any] | None = None, show_progress: bool = False
    ) -> Any:
        """Train one epoch; returns the sum over its steps of the loss, or of each of its parts."""
        self.model.train()
        loss_func = loss_func or self.model.calculate_loss
        if self.term is not None:
            self.term.start_epoch(epoch_idx)
        if self.processes.data_parallel and train_data.shuffle:
            train_data.sampler.set_epoch(epoch_idx)
        totals = _LossTotals(self.device)
        with Progress(len(train_data), f"Train {epoch_idx:>5}", show_progress and on_terminal()) as bar:
            for step, interaction in enumerate(train_data):
                totals.add(step, self._step(loss_func, interaction))
                if (step + 1) % _LOOK_EVERY == 0:
                    self._check(totals, epoch_idx)
                bar.update(1)
        self._check(totals, epoch_idx)
        if self.term is not None:
            for name, value in self.term.logs.items():
                self.tensorboard.add_scalar(f"SSL/{name}", value, epoch_idx)
        return mean_over(self.processes, totals.sums())

    def _step(self, loss_func: Callable[..., Any], interaction: Interaction) -> Any:
        if self.term is not None and self.term.settings.mode == "joint":
            # Here, where the batch is still on the CPU: choosing rows by user id waits for no device.
            interaction.update(Interaction({COMPARED_FIELD: self.term.compared_rows(interaction)}))
        if self._graphed is None:
            return self._take(loss_func, interaction.to(self.device))

        def step(held: dict[str, Tensor]) -> Any:
            return _detached(self._take(loss_func, Interaction(held)))

        if self.term is None:
            return self._graphed(interaction.interaction, step, Streams(self.device, (), self._kept))
        epoch, number = self.term.place
        losses = self._graphed(interaction.interaction, step, self.term.streams(self.device))
        self.term.place = (epoch, number + 1)  # a replay runs no Python code that counts steps
        return losses

    def _take(self, loss_func: Callable[..., Any], interaction: Interaction) -> Any:
        self.optimizer.zero_grad()
        with torch.autocast(device_type=self.device.type, enabled=bool(self.enable_amp)):
            losses = self._averaging(loss_func, interaction)
        loss: Any = sum(losses) if isinstance(losses, tuple) else losses
        take_step(self, loss)
        return losses

    def _check(self, totals: "_LossTotals", epoch_idx: int) -> None:
        bad = [step for step in self.processes.gather(totals.first_bad()) if step is not None]
        if bad:
            raise TrainingDivergedError(
                f"{self.config['model']}: the loss was NaN or infinite at epoch {epoch_idx}, step {min(bad)}; "
                f"last good checkpoint: {self._last_good or 'none yet'}"
            )

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> Any:
        """Validate as RecBole does, and keep the result for a checkpoint that may follow."""
        score, result = super()._valid_epoch(valid_data, show_progress)
        self._last_valid_result = {name: float(value) for name, value in result.items()}
        return score, result

    def evaluate(
        self, eval_data: Any, load_best_model: bool = True, model_file: Any = None, show_progress: bool = False
    ) -> Any:
        """Evaluate as RecBole does; all processes do, and the first one's model and numbers count."""
        show_progress = show_progress and on_terminal()  # a log has RecBole's lines
        if self.config["faster_layers"]:
            mask_whole_batches(eval_data, self.config, "evaluation")
        if not self.processes.data_parallel or not eval_data:
            return super().evaluate(eval_data, load_best_model, model_file, show_progress)
        if load_best_model:
            best = self.processes.by_first(lambda: self._weights_of(model_file or self.saved_model_file), self.device)
            self.model.load_state_dict(best["state_dict"])
            self.model.load_other_parameter(best.get("other_parameter"))
        result = super().evaluate(eval_data, False, None, show_progress)
        numbers = self.processes.first({name: float(value) for name, value in result.items()})
        return result if self.processes.is_main_process else OrderedDict(numbers)

    def _weights_of(self, path: Any) -> dict[str, Any]:
        state = load_run(path, bool(self.config["trusted_files"]))
        return {name: state[name] for name in ("state_dict", "other_parameter") if name in state}

    def _build_optimizer(self, **kwargs: Any) -> Any:
        """Make RecBole's optimiser; with ``faster_layers``, Adam as one fused kernel.

        Raises:
            InputError: ``sparse_adam`` for a model that has a weight other than a sparse embedding.
        """
        optimizer = super()._build_optimizer(**kwargs)
        if isinstance(optimizer, torch.optim.SparseAdam) and not _is_sparse(self.model):
            raise refused_sparse_adam(type(self.model))
        if self.config["faster_layers"] and type(optimizer) in (torch.optim.Adam, torch.optim.AdamW):
            for group in optimizer.param_groups:
                group["fused"] = True
        return optimizer

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """Write a checkpoint that loads without executing code."""
        if epoch < 0:  # RecBole's value for no training; for a resumed run that is already finished, it would undo it
            epoch = self.start_epoch - 1
        path = str(kwargs.get("saved_model_file", self.saved_model_file))
        if self.processes.is_main_process:
            save_checkpoint(self, epoch, verbose, **kwargs)
        else:
            self.more_state()  # a collective call
        self._last_good = path

    def more_state(self) -> dict[str, Any]:
        """Collect what a checkpoint holds in addition to RecBole's: its metrics, the items by id, the random states."""
        state: dict[str, Any] = {"scaler": self.scaler.state_dict(), "best_valid_result": self._last_valid_result}
        if self._train_data is not None:
            states = self.processes.gather(random_states(self._generators()))
            state["random_states"] = states if self.processes.data_parallel else states[0]
        return state | self._items

    def resume_checkpoint(self, resume_file: Any) -> None:
        """Continue after the epoch of a checkpoint.

        Raises:
            InputError: a file that is damaged, would execute code, or belongs to another model.
        """
        state = load_run(resume_file, bool(self.config["trusted_files"]))
        if state["config"]["model"] != self.config["model"]:
            raise InputError(
                f"resume: expected a checkpoint of {self.config['model']}, got one of {state['config']['model']}"
            )
        items = self._items.get("items")
        if items is not None and state.get("items", items) != items:
            raise InputError(f"resume: {resume_file} was trained on other items than those of this dataset")
        states = state.get("random_states")
        number = len(states) if isinstance(states, list) else 1
        if number != self.processes.number:
            raise InputError(
                f"resume: expected a checkpoint of {self.processes.number} processes, as there are here, got one of "
                f"{number} in {resume_file}"
            )
        self.saved_model_file = str(resume_file)
        try:
            self.start_epoch = state["epoch"] + 1
            self.cur_step, self.best_valid_score = state["cur_step"], state["best_valid_score"]
            self.model.load_state_dict(state["state_dict"])
            self.model.load_other_parameter(state.get("other_parameter"))
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state.get("scaler", {}) or self.scaler.state_dict())
        except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()
            raise InputError(f"resume: {resume_file} does not fit this model: {reason}") from None
        self._resumed_states = states[self.processes.rank] if isinstance(states, list) else states
        self._last_valid_result = state.get("best_valid_result")
        if self._last_valid_result is not None:
            self.best_valid_result = OrderedDict(self._last_valid_result)
        self._last_good = str(resume_file)
        self.logger.info(f"Checkpoint loaded. Resume training from epoch {self.start_epoch}")

    def _restore_random_states(self, states: dict[str, Any]) -> None:
        if "order" not in states["generators"]:  # the interrupted run saved its loaders; see below
            self._train_data.generator = self._train_data.sampler.generator = None
        restore_random_states(states, self._generators())

    def _generators(self) -> dict[str, torch.Generator]:
        """Return the generators of the batches; RecBole's ``save_dataloaders`` leaves the loaders without them."""
        sources = {"order": self._train_data, "transform": getattr(self._train_data, "transform", None)}
        generators = {name: getattr(source, "generator", None) for name, source in sources.items()}
        return {name: generator for name, generator in generators.items() if generator is not None}


def _is_sparse(model: nn.Module) -> bool:
    """Tell whether every weight of a model is an embedding with sparse gradients."""
    embeddings = (module for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag))
    sparse = {id(embedding.weight) for embedding in embeddings if embedding.sparse}
    return all(id(parameter) in sparse for parameter in model.parameters())


def _detached(losses: Any) -> Any:
    return tuple(part.detach() for part in losses) if isinstance(losses, tuple) else losses.detach()


class _LossTotals:
    """Sums over the steps of an epoch, in float64 as in Python, kept on the device until they are read."""

    def __init__(self, device: torch.device) -> None:
        self._dtype = torch.float32 if device.type == "mps" else torch.float64  # mps has no float64
        self._sums: list[Tensor] = []
        self._several = False
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def add(self, step: int, losses: Any) -> None:
        """Add the loss of a step, or its parts."""
        self._several = isinstance(losses, tuple)
        losses = losses if self._several else (losses,)
        # Copies, since a graph writes the next losses into the same tensors. Some of RecBole's have the shape (1,).
        parts = [part.detach().to(self._dtype, copy=True).reshape(()) for part in losses]
        self._sums = [total + part for total, part in zip(self._sums, parts, strict=True)] if self._sums else parts
        bad = ~torch.stack(parts).isfinite().all() & (self._first_bad < 0)
        self._first_bad = torch.where(bad, step, self._first_bad)

    def first_bad(self) -> int | None:
        """Read back the first step whose loss was NaN or infinite; None if there was none."""
        step = int(self._first_bad)
        return None if step < 0 else step

    def sums(self) -> Any:
        """Read back the sums, as RecBole's trainer returns them."""
        if not self._sums:
            return 0.0
        values = torch.stack(self._sums).tolist()
        return tuple(values) if self._several else values[0]
