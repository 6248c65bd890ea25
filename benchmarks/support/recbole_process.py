"""One RecBole run in a separate process: ``python -m benchmarks.support.recbole_process WHICH run|steps JSON``.

WHICH is ``ours``, or ``stock``: RecBole as pip installs it, with only the patches that it needs to start on current
numpy and torch; this package is not imported. ``stock_anomaly_off`` is the same without autograd's anomaly mode, which
one of RecBole's models switches on when it is imported. ``run`` prints one line of JSON: seconds of every training
epoch, losses and metrics. ``steps`` trains a step of the first epoch and then as many as each line of the standard
input says, answers each line with their times in JSON, and ends with the input.
"""

import contextlib
import ctypes
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any


def patch() -> None:
    """Do what RecBole needs to start on current numpy and torch, and nothing else."""
    import numpy as np
    import torch

    ray, tune = ModuleType("ray"), ModuleType("ray.tune")
    ray.tune = tune  # type: ignore[attr-defined]
    sys.modules.update({"ray": ray, "ray.tune": tune})  # ray 2.6.3 does not import today
    for name, kind in {"bool": np.bool_, "int": np.int_, "float": np.float64, "complex": np.complex128,
                       "object": np.object_, "str": np.str_, "long": np.int_, "unicode": np.str_}.items():  # fmt: skip
        if name not in vars(np):
            setattr(np, name, kind)
    from recbole.config import Config

    Config.compatibility_settings = lambda _self: None
    load = torch.load
    torch.load = lambda *args, **kwargs: load(*args, **{**kwargs, "weights_only": False})


def stock(options: dict[str, Any], watch: "Watch") -> Any:
    """Run RecBole, patched just enough to start."""
    patch()
    quick_start = importlib.import_module("recbole.quick_start.quick_start")
    from recbole.trainer import Trainer

    return watch(Trainer, lambda: quick_start.run_recbole(config_dict=options))


def stock_anomaly_off(options: dict[str, Any], watch: "Watch") -> Any:
    """Run RecBole as in :func:`stock`, without autograd's anomaly mode."""
    patch()
    import torch

    importlib.import_module("recbole.model.sequential_recommender.sine")
    torch.autograd.set_detect_anomaly(False)
    return stock(options, watch)


def ours(options: dict[str, Any], watch: "Watch") -> Any:
    """Run the same through this package."""
    from adaptssr_plugin.recbole import run_recbole
    from adaptssr_plugin.recbole.recommender.trainer import RecommenderTrainer

    return watch(RecommenderTrainer, lambda: run_recbole(config_dict=options))


Watch = Callable[[Any, Callable[[], Any]], Any]
"""Takes the class of the trainer and the call that trains; returns what is to be printed."""


def timed_epochs(trainer: Any, run: Callable[[], Any]) -> dict[str, Any]:
    """Run, and note how long each training epoch took and what its loss was."""
    train_epoch = trainer._train_epoch
    epochs: list[dict[str, Any]] = []

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        loss = train_epoch(*args, **kwargs)
        epochs.append({"seconds": time.perf_counter() - started, "loss": loss})
        return loss

    trainer._train_epoch = timed
    result = run()
    return {"epochs": epochs, "valid": result["best_valid_result"], "test": result["test_result"]}


def steps_on_demand(trainer: Any, run: Callable[[], Any]) -> None:
    """Run, but take the first epoch's steps only when they are asked for; never returns."""
    train_epoch = trainer._train_epoch

    def watched(self: Any, train_data: Any, *args: Any, **kwargs: Any) -> Any:
        return train_epoch(self, OnDemand(train_data, self), *args, **kwargs)

    trainer._train_epoch = watched
    run()


class OnDemand:
    """Batches of training, handed out so many at a time as the standard input says, and how long they took."""

    def __init__(self, batches: Any, trainer: Any) -> None:
        self._batches, self._device = batches, trainer.device
        self._losses: list[Any] = []
        calculate_loss = trainer.model.calculate_loss

        def noted(*args: Any, **kwargs: Any) -> Any:
            losses = calculate_loss(*args, **kwargs)
            self._losses.append(losses[0] if isinstance(losses, tuple) else losses)
            return losses

        trainer.model.calculate_loss = noted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        _say({"steps_per_epoch": len(self._batches)})
        batches = iter(self._batches)
        _forget_peak()
        before = _memory_mb("VmRSS")
        for line in sys.stdin:
            yield next(batches)  # after the other runs' turns, memory and caches are cold
            started = self._now()
            for _ in range(int(line)):
                yield next(batches)
            # Asked for the next batch, the trainer is done with the last one.
            seconds = self._now() - started
            losses = [float(loss.detach()) for loss in self._losses]
            _say({"seconds": seconds, "losses": losses, "step_mb": _memory_mb("VmHWM") - before})
            self._losses.clear()
            _give_memory_back()
        os._exit(0)  # what is left of the run is not wanted

    def _now(self) -> float:
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()


def _memory_mb(name: str) -> float:
    """Read what the process holds (VmRSS) or held at most (VmHWM) on Linux; 0 elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # some kernels do not have it
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _give_memory_back() -> None:
    """Let the other runs have what a step has freed."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
        if trim is not None:
            trim(0)


def _say(answer: dict[str, Any]) -> None:
    print("RESULT " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    which, how, text = sys.argv[1:]
    sys.argv = sys.argv[:1]  # RecBole reads the command line of whatever runs it
    watch: Watch = {"run": timed_epochs, "steps": steps_on_demand}[how]
    runs = {"stock": stock, "stock_anomaly_off": stock_anomaly_off, "ours": ours}
    _say(runs[which](json.loads(text), watch))
