"""The cells of the comparison: one run of RecBole each."""

import base64
import dataclasses
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...recbole.entry_points.measured import device_of_run, measured_run
from ..compare.cells import Cell
from ..compare.memory import watch_memory

_NOT_IN_KEYS = {"use_gpu", "gpu_id", "data_path"}  # the device, and the place of the data


@dataclass(frozen=True)
class RecommenderRun(Cell):
    """A trained and tested model."""

    dataset: str  # the place of the data, which is not part of the key; the data are
    model: str
    options: str  # JSON with sorted keys
    share: float  # of the training users
    kind = "recommender"

    def spec(self) -> dict[str, Any]:
        """Model, options and share."""
        options = {name: value for name, value in json.loads(self.options).items() if name not in _NOT_IN_KEYS}
        return {"model": self.model, "options": options, "share": self.share}

    def device(self, plan: Any) -> torch.device:  # noqa: ARG002 - as every cell's
        """Return where it is computed."""
        return device_of_run(self.model, self.dataset, json.loads(self.options))

    def compute(self, plan: Any, models: Path) -> dict[str, Any]:  # noqa: ARG002
        """Train and test; the ranks are packed."""
        peak_mb = watch_memory(self.device(plan))
        run = measured_run(self.model, self.dataset, json.loads(self.options), self.share)
        numbers = {one.name: getattr(run, one.name) for one in dataclasses.fields(run)}
        return {**numbers, "ranks": pack(run.ranks), "peak_memory_mb": peak_mb()}


def pack(numbers: np.ndarray) -> str:
    """Turn int32 (R,) into text: zlib in base64, about two bytes a number."""
    return base64.b64encode(zlib.compress(numbers.astype("<i4").tobytes(), 9)).decode("ascii")


def unpack(text: str) -> np.ndarray:
    """Turn the text of :func:`pack` back into int32 (R,)."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<i4")
