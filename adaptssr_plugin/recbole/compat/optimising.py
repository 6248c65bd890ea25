"""One step of the optimiser, as RecBole's own trainer takes it (trainer/trainer.py:259)."""

from typing import Any

import torch
from recbole.trainer import Trainer
from torch import Tensor


def make_capturable(optimizer: torch.optim.Optimizer) -> None:
    """Let a CUDA graph capture the steps of torch's fused Adam or AdamW; a loaded state has the flags of its own run."""
    for group in optimizer.param_groups:
        on_cuda = all(parameter.device.type == "cuda" for parameter in group["params"])
        group["capturable"] = on_cuda  # torch refuses the flag on a CPU


def take_step(trainer: Trainer, loss: Tensor) -> None:
    """Go backward from a loss and move a trainer's model, by its optimiser, scaler and clipping."""
    scaler: Any = trainer.scaler
    scaler.scale(loss).backward()
    if trainer.clip_grad_norm:
        scaler.unscale_(trainer.optimizer)
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), **trainer.clip_grad_norm)
    scaler.step(trainer.optimizer)
    scaler.update()
