"""One RecBole run in a process of its own: ``python -m benchmarks.recbole_process stock|ours JSON``.

``stock`` is RecBole as pip installs it, with only the mends without which it does not start on today's numpy and
torch; this package is not imported. Prints one line of JSON: seconds of every training epoch, losses and metrics.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any


def stock(options: dict[str, Any]) -> Any:
    """Run RecBole, mended just enough to start."""
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
    quick_start = importlib.import_module("recbole.quick_start.quick_start")
    from recbole.trainer import Trainer

    return _timed(Trainer, lambda: quick_start.run_recbole(config_dict=options))


def ours(options: dict[str, Any]) -> Any:
    """Run the same through this package."""
    from adaptssr_plugin.recbole import run_recbole
    from adaptssr_plugin.recbole.recommender_trainer import RecommenderTrainer

    return _timed(RecommenderTrainer, lambda: run_recbole(config_dict=options))


def _timed(trainer: Any, run: Callable[[], Any]) -> dict[str, Any]:
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


if __name__ == "__main__":
    which, text = sys.argv[1:]
    sys.argv = sys.argv[:1]  # RecBole reads the command line of whatever runs it
    print("RESULT " + json.dumps({"stock": stock, "ours": ours}[which](json.loads(text))))
