"""The checkpoints of a stage's trainer: when they are written, what they contain, and how training resumes.

If several processes train together, the first one reads and writes files and passes on what it has read. About once a
second they ask one another whether a checkpoint is due, or SIGTERM has come to any of them.
"""

import time
from pathlib import Path
from typing import Any

from recbole.trainer import Trainer
from torch import Tensor

from ...errors import InputError, TrainingDivergedError, TrainingStoppedError
from ...methods.plan import StagePlan
from ...training import EpochState, LastTwo, RunFingerprint, Stage, StopRequest, load_checkpoint, write_checkpoint
from ...training.processes import Processes

CHECKPOINT_MINUTES = 5.0  # of training between two checkpoints within an epoch
LOG_EVERY = 50  # steps between two read-backs, and at most between two exchanges with the other processes
_ASK_SECONDS = 1.0  # torchrun and most clusters kill 30 seconds after SIGTERM


class CheckpointingTrainer(Trainer):
    """The part of a stage's trainer that deals with files."""

    stage: Stage
    plan: StagePlan
    processes: Processes
    directory: Path | None
    checkpoints: LastTwo | None
    checkpoint_seconds: float
    fingerprint: RunFingerprint
    history: list[dict[str, float]]
    best_epoch: int
    _best_state: dict[str, Tensor]
    _epoch_state: EpochState | None  # of the epoch in progress, including its validation
    _stop: StopRequest

    _saved_at = 0.0
    _stopping = False  # SIGTERM has come, here or to another process, and all know of it
    _calls_to_ask = 1  # calls of _checkpoint_due until the processes ask one another
    _calls_between = 1
    _asked_at: float | None = None

    # --- when ------------------------------------------------------------------------------------------------

    def _start_clock(self) -> None:
        self._saved_at = time.monotonic()

    def _checkpoint_due(self) -> bool:
        """Whether to write a checkpoint in the middle of an epoch: it is due, or SIGTERM came.

        All processes make the same number of calls and get the same answers.
        """
        if self.checkpoints is None:
            return False
        if self.processes.data_parallel:
            self._calls_to_ask -= 1
            if self._calls_to_ask > 0:
                return False
        return self._ask()

    def _ask(self) -> bool:
        """Ask all processes about SIGTERM, and the first whether a checkpoint is due."""
        now = time.monotonic()
        due = now - self._saved_at >= self.checkpoint_seconds
        between = 1
        if self.processes.data_parallel and self.checkpoint_seconds and self._asked_at is not None:
            seconds = (now - self._asked_at) / self._calls_between  # of one call
            between = min(max(int(_ASK_SECONDS / max(seconds, 1e-6)), 1), LOG_EVERY)
        told = self.processes.gather({"stop": self._stop.noted, "due": due, "between": between})
        self._stopping = any(one["stop"] for one in told)
        self._calls_to_ask = self._calls_between = told[0]["between"]
        self._asked_at = now
        due = told[0]["due"]
        return self._stopping or due

    def _stop_if_asked(self) -> None:
        """Stop at the end of an epoch, after its checkpoint."""
        if self.checkpoints is not None:
            self._ask()
            if self._stopping:
                raise self._stopped()

    # --- writing ---------------------------------------------------------------------------------------------

    def _write_within(self) -> None:
        """Write a checkpoint in the middle of an epoch, whose steps were good so far, and stop if SIGTERM came."""
        assert self._epoch_state is not None
        self._require_finite()
        self._write(self._epoch_state.epoch - 1)
        if self._stopping:
            raise self._stopped()

    def _require_finite(self) -> None:
        raise NotImplementedError

    def _write(self, epoch: int) -> None:
        """Write a checkpoint for the next epoch, or for the rest of this one."""
        assert self.checkpoints is not None
        state = self._state(epoch)
        if self.processes.is_main_process:
            self.checkpoints.write(state)
        self._start_clock()

    def _stopped(self) -> TrainingStoppedError:
        assert self.checkpoints is not None
        place = f"after epoch {len(self.history)}"
        if self._epoch_state is not None:
            place = f"in epoch {self._epoch_state.epoch + 1}, after step {self._epoch_state.steps}"
        return TrainingStoppedError(
            f"stopped by SIGTERM {place}; {self.checkpoints.last} is written, and the same call again goes on from it"
        )

    def _diverged(self, what: str) -> TrainingDivergedError:
        kept = self.checkpoints.newest if self.checkpoints is not None else None
        return TrainingDivergedError(f"{self.plan.name}: {what}; last good checkpoint: {kept or 'none yet'}")

    def _say(self, line: str) -> None:
        if self.processes.is_main_process:
            self.logger.warning(f"{self.plan.name}: {line}")

    def _state(self, epoch: int) -> dict[str, Any]:
        return {
            **self.fingerprint.state_dict(),
            "epoch": epoch,
            "within": None if self._epoch_state is None else self._epoch_states(self._epoch_state),
            "best_epoch": self.best_epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "state_dict": self.stage.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history[: epoch + 1],
        }

    def _epoch_states(self, epoch_state: EpochState) -> dict[str, Any]:
        """Return the state within the epoch; each process's own part of it is under ``processes``."""
        state = epoch_state.state_dict(self.stage)
        if not self.processes.data_parallel:
            return state
        own = {name: state[name] for name in ("totals", "random")}
        return {**state, "processes": self.processes.gather(own)}

    def _selection(self, epoch: int) -> dict[str, Any]:
        """Return the weights of an epoch, with what identifies the run."""
        return {**self.fingerprint.state_dict(), "epoch": epoch, "state_dict": self.stage.state_dict()}

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """Save the weights of the best epoch so far; RecBole calls it when the criterion improves."""
        self.best_epoch = epoch
        if self.directory is None:
            self._best_state = {name: tensor.clone() for name, tensor in self.stage.state_dict().items()}
        elif self.processes.is_main_process:
            write_checkpoint(Path(self.saved_model_file), self._selection(epoch))

    # --- reading ---------------------------------------------------------------------------------------------

    def _resume_from_last(self) -> None:
        """Resume from the newest intact checkpoint, if there is one."""
        checkpoints = self.checkpoints
        if checkpoints is None:
            return

        def read() -> dict[str, Any] | None:
            found = checkpoints.load(self.device, self._say)
            return None if found is None else {"path": str(found[0]), "state": found[1]}

        found = self.processes.by_first(read, self.device)
        if found is not None:
            self._resume(Path(found["path"]), found["state"])

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """Resume where a checkpoint was written.

        Raises:
            InputError: a file that is damaged, or belongs to another stage, run or model.
        """
        self._resume(Path(resume_file), load_checkpoint(Path(resume_file), self.device))

    def _resume(self, path: Path, state: dict[str, Any]) -> None:
        self.fingerprint.check(path, state)
        try:
            self.stage.load_state_dict(state["state_dict"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.start_epoch, self.best_epoch = state["epoch"] + 1, state["best_epoch"]
            self.cur_step, self.best_valid_score = state["cur_step"], state["best_valid_score"]
            self.history = state["history"]
            if state["within"] is not None:
                within = dict(state["within"])
                if self.processes.data_parallel:
                    within |= within["processes"][self.processes.rank]
                self._epoch_state = EpochState(self.start_epoch, self.device)
                self._epoch_state.load_state_dict(within)
        except (KeyError, ValueError, RuntimeError, TypeError, IndexError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()
            raise InputError(f"checkpoint: {path} does not fit this model: {reason}") from None
        if self.plan.select != "last" and self.selected_epoch <= len(self.history):
            # To report damage now, and not when training is over.
            self.processes.agreed(lambda: self._load_selected() if self.processes.is_main_process else None)
        changed = self.fingerprint.changed_versions(state)
        if changed:
            self._say(f"{path} was written with other versions of {', '.join(changed)}; weights may differ slightly")

    # --- the selected epoch ----------------------------------------------------------------------------------

    def _selected_state(self) -> dict[str, Tensor]:
        """Weights of the epoch that the plan selects, if training has reached it."""
        state: dict[str, Tensor] = self.stage.state_dict()
        if self.plan.select == "best" and self.directory is None:
            state = self._best_state or state
        elif self.plan.select != "last":
            selected = self.processes.by_first(self._load_selected, self.device)
            state = selected["state_dict"]
            # best.pt may be of a later epoch than the last checkpoint: a run was killed after writing it, and the
            # epoch, repeated, was not as good, which can happen on a GPU. Then best.pt is the better one.
            self.best_epoch = max(self.best_epoch, selected["epoch"])
        return state

    def _load_selected(self) -> dict[str, Any]:
        """Load the epoch that training has selected so far.

        Raises:
            InputError: a file that is missing, damaged, or of another run or an earlier epoch.
        """
        path = self._selected_file()
        state = load_checkpoint(path, self.device)
        self.fingerprint.check(path, state)
        epoch = self.selected_epoch - 1
        if state["epoch"] < epoch:
            raise InputError(f"checkpoint: expected epoch {epoch + 1} in {path}, got epoch {state['epoch'] + 1}")
        return state

    @property
    def selected_epoch(self) -> int:
        """The epoch, counted from 1, whose weights :meth:`run` leaves in the stage."""
        if self.plan.select == "best":
            return self.best_epoch + 1
        return len(self.history) if self.plan.select == "last" else int(self.plan.select.removeprefix("epoch:"))

    def _selected_file(self) -> Path:
        assert self.directory is not None
        name = "best.pt" if self.plan.select == "best" else f"epoch-{self.plan.select.removeprefix('epoch:')}.pt"
        return self.directory / name
