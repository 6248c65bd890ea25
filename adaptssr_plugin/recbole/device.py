"""Which device each of several processes of a machine trains on."""

import os

import torch
from recbole.config import Config

from ..errors import InputError
from ..training.processes import Processes


def device_of_process(config: Config, processes: Processes) -> torch.device:
    """Give a process the GPU of its own number on its machine, or the CPU where the config says so.

    The number is torchrun's LOCAL_RANK; without it that of the process. It counts RecBole's ``gpu_id`` where that
    names several devices, and otherwise all that the process sees.

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
