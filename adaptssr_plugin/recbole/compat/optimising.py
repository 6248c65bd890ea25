"""One step of the optimiser, as RecBole's own trainer takes it (trainer/trainer.py:259), or captured."""

from typing import Any

import torch
from recbole.trainer import Trainer
from torch import Tensor

from ...training.processes import Processes


def why_eager(trainer: Trainer, processes: Processes) -> str | None:
    """Say in a few words why a CUDA graph cannot capture a trainer's steps, whatever their loss; None: it may."""
    if processes.data_parallel:
        return f"{processes.number} processes train together"
    if type(trainer.optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
        return f"learner {trainer.learner} is neither adam nor adamw"
    return None


def make_capturable(optimizer: Any) -> None:
    """Make torch's Adam or AdamW one fused kernel whose steps a CUDA graph can capture.

    Call it after a state is loaded: a state holds the flags of the run that saved it, and its counters' device.
    """
    for group in optimizer.param_groups:
        group["fused"], group["foreach"] = True, False
        # torch refuses the flag on a CPU.
        group["capturable"] = all(parameter.device.type == "cuda" for parameter in group["params"])
    optimizer._step_supports_amp_scaling = True  # as torch sets it for a fused one: a GradScaler reads nothing back
    for parameter, state in optimizer.state.items():
        state["step"] = state["step"].to(parameter.device, torch.float32)


def take_step(trainer: Trainer, loss: Tensor) -> None:
    """Go backward from a loss and move a trainer's model, by its optimiser, scaler and clipping."""
    scaler: Any = trainer.scaler
    scaler.scale(loss).backward()
    if trainer.clip_grad_norm:
        scaler.unscale_(trainer.optimizer)
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), **trainer.clip_grad_norm)
    scaler.step(trainer.optimizer)
    scaler.update()
