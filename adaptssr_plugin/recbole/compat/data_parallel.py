"""A RecBole run in several processes: the config of each, and what RecBole itself would get wrong.

RecBole splits its batches by a ``DistributedSampler``, and so do we. Its trainer would wrap the model in
DistributedDataParallel on one GPU per process, with nccl (config/configurator.py:496, trainer/trainer.py:56), and
average rounded metrics of padded parts, weighted by their number of batches (trainer/trainer.py:630). So the trainer is
told that it is alone; ours exchanges gradients, and every process evaluates all rows.
"""

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from recbole.config import Config
from recbole.trainer import Trainer
from recbole.utils import get_trainer
from torch import nn
from torch.utils.data.distributed import DistributedSampler

from ...errors import InputError
from ...training.processes import Processes

# Options that may differ between processes; all others are equal.
_OWN = {
    *("checkpoint_dir", "data_path", "device", "gpu_id", "local_rank"),
    *("log_wandb", "show_progress", "state", "verbose"),
}


def share_out(config: Any, processes: Processes) -> None:
    """Turn a run's config into that of one of several processes.

    Only the first one prints. RecBole's ``local_rank`` is the rank among all processes, including those of other
    machines: it makes the seeds differ (quick_start/quick_start.py:136).

    Raises:
        InputError: what RecBole can do in one process only.
    """
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])
    if trainer is not Trainer:
        refuse_trainer(trainer, config["model"], processes.number)
    for name in ("save_dataset", "save_dataloaders"):
        if config[name]:
            raise InputError(f"{name}: expected False in several processes, which would write one file, got True")
    if not Path(config["data_path"]).exists():
        raise InputError(
            f"dataset: expected files that are there already, for several processes, got {config['dataset']!r}, which "
            "RecBole would download; run it in one process first"
        )
    final = config.final_config_dict
    final.update(single_spec=False, local_rank=processes.rank, world_size=processes.number)
    final["device"] = device_of_process(config, processes)
    if not processes.is_main_process:
        final.update(state="error", show_progress=False, verbose=False, log_wandb=False)


def device_of_process(config: Config, processes: Processes) -> torch.device:
    """Return the GPU for a process, by its number on its machine, or the CPU if the config says so.

    The number is torchrun's LOCAL_RANK, otherwise the rank. It indexes RecBole's ``gpu_id`` if that names several
    devices, otherwise all devices that the process sees.

    Raises:
        InputError: more processes than devices.
    """
    device: torch.device = config["device"]
    if device.type != "cuda":
        return device
    named = [int(number) for number in str(config["gpu_id"]).split(",") if number.strip().isdecimal()]
    devices = named if len(named) > 1 else list(range(torch.cuda.device_count()))
    number = int(os.environ.get("LOCAL_RANK", processes.rank))
    if number >= len(devices) or devices[number] >= torch.cuda.device_count():
        raise InputError(f"gpu_id: expected a device for each process of this machine, got {len(devices)} devices")
    device = torch.device("cuda", devices[number])
    torch.cuda.set_device(device)
    return device


def refuse_trainer(trainer: type[Any], model: str, number: int) -> NoReturn:
    """Raise InputError for a trainer whose steps cannot be shared."""
    raise InputError(
        f"nproc: expected 1 for {model}, which {trainer.__name__} trains, got {number}: only the steps of RecBole's "
        "plain trainer are shared out"
    )


def alone(config: Any) -> Any:
    """Copy a config, as that of a process that trains alone."""
    config = copy.copy(config)
    config.final_config_dict = {**config.final_config_dict, "single_spec": True}
    return config


def check_shared_out(train_data: Any) -> None:
    """Raise InputError for a loader from a file, which would give every process all training rows."""
    if not isinstance(train_data.sampler, DistributedSampler):
        raise InputError(
            "dataloaders_save_path: expected no saved loaders in several processes, got those of one process"
        )


def with_shared_norms(model: nn.Module, config: Any, processes: Processes) -> nn.Module:
    """Let batch norms use the rows of all processes, as RecBole does.

    Raises:
        InputError: batch norms on a CPU, for which torch has no such version.
    """
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if normed and config["device"].type != "cuda":
        raise InputError(
            f"nproc: expected 1 for {config['model']} on a {config['device'].type}, got {processes.number}: its batch "
            "norm can see the rows of all processes on GPUs only"
        )
    shared: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return shared


def check_alike(processes: Processes, run: Mapping[str, Any]) -> None:
    """Raise InputError, on all processes, unless all have the same run on the same data."""
    run = {name: value for name, value in run.items() if name not in _OWN}
    for number, other in enumerate(processes.gather(run)):
        for name in {**run, **other}:
            if other.get(name) != run.get(name):
                raise InputError(
                    f"{name}: expected the same on every process, got {other.get(name)!r} on process {number}, "
                    f"{run.get(name)!r} on process {processes.rank}"
                )


def mean_over(processes: Processes, losses: Any) -> Any:
    """Average a loss, or a tuple of its parts, over the processes."""
    if not processes.data_parallel:
        return losses
    everybody = torch.tensor(processes.gather(losses), dtype=torch.float64).mean(0)
    return tuple(everybody.tolist()) if isinstance(losses, tuple) else float(everybody)
