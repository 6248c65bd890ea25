"""Heads that turn a user encoding into the scores of a task."""

import torch
from torch import Tensor, nn

from adaptssr_plugin.errors import InputError, check_counts, check_kind


class MLPHead(nn.Module):
    """Two-layer MLP, Linear(dim, hidden) - ReLU - Linear(hidden, n_outputs) (paper; METHODS.md, row 40).

    Weights start from N(0, 0.02²) and biases from 0, as all weights in the authors' code.

    Args:
        dim: width of the user encoding.
        n_outputs: number of scores; for a profile task its number of classes.
        hidden: width of the hidden layer.
        generator: source of the initial weights; PyTorch's default generator if None.
    """

    def __init__(self, dim: int, n_outputs: int, hidden: int = 64, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        check_counts(dim=dim, n_outputs=n_outputs, hidden=hidden)
        self.hidden = nn.Linear(dim, hidden)
        self.output = nn.Linear(hidden, n_outputs)
        for layer in (self.hidden, self.output):
            nn.init.normal_(layer.weight, std=0.02, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, user: Tensor) -> Tensor:
        """Score user encodings ``(..., dim)`` -> ``(..., n_outputs)``."""
        check_kind("user", user, Tensor, "a tensor")
        weight = self.hidden.weight
        if user.shape[-1:] != weight.shape[1:] or user.device != weight.device or not user.is_floating_point():
            came = f"{user.dtype} of shape {tuple(user.shape)} on {user.device}"
            raise InputError(f"user: expected floating (..., {weight.shape[1]}) on {weight.device}, got {came}")
        scores: Tensor = self.output(torch.relu(self.hidden(user)))
        return scores

    def scores_of(self, user: Tensor, outputs: Tensor) -> Tensor:
        """Score user encodings ``(B, dim)`` only for the outputs ``(B, K)`` int64 -> ``(B, K)``."""
        hidden = torch.relu(self.hidden(user))  # (B, hidden)
        weight = nn.functional.embedding(outputs, self.output.weight)  # (B, K, hidden)
        scores: Tensor = (weight @ hidden[:, :, None])[:, :, 0] + self.output.bias[outputs]
        return scores
