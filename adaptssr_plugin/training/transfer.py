"""The parameters that pass from one stage to the next, by name."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError, check_kind

# The parts of an encoder, in the paper's words, by the names of their parameters in a UserEncoder. All other parameters
# belong to the part "encoder".
_PARTS: dict[str, tuple[str, ...]] = {
    "item table": ("items.weight",),
    "[MASK]": ("items.mask",),
    "positions": ("positions",),
    "encoder": (),
    "pooling query": ("pooling.*",),
}
# Masked items do not train the pooling query, so ranking starts with a new one.
MLM_TO_RANKING = ("item table", "[MASK]", "positions", "encoder")
WHOLE_ENCODER = tuple(_PARTS)


class TransferReport(NamedTuple):
    """The result of a transfer, as names of parameters."""

    moved: tuple[str, ...]
    left: tuple[str, ...]
    """Parameters of the target that keep their initial values."""


def _part_of(name: str) -> str:
    """Return the part to which a parameter belongs."""
    named = (part for part, patterns in _PARTS.items() if any(fnmatchcase(name, pattern) for pattern in patterns))
    return next(named, "encoder")


@torch.no_grad()
def transfer(source: Mapping[str, Tensor], target: nn.Module, parts: tuple[str, ...]) -> TransferReport:
    """Copy the named parts of an encoder's weights into another encoder.

    Args:
        source: ``state_dict`` of an encoder.
        target: an encoder of the same sizes (dropout may differ).
        parts: names of parts, from :data:`WHOLE_ENCODER`.

    Raises:
        InputError: a parameter that is missing or of another shape.
    """
    check_kind("source", source, Mapping, "the state_dict of an encoder")
    check_kind("target", target, nn.Module, "an encoder")
    moved, left = [], []
    for name, parameter in target.state_dict().items():
        if _part_of(name) not in parts:
            left.append(name)
            continue
        if name not in source:
            raise InputError(f"{name}: expected in the weights, which lack it")
        if source[name].shape != parameter.shape:
            raise InputError(
                f"{name}: expected shape {tuple(parameter.shape)}, got {tuple(source[name].shape)} in the weights"
            )
        parameter.copy_(source[name])
        moved.append(name)
    return TransferReport(tuple(moved), tuple(left))
