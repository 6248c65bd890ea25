"""RecBole's ``run``, which starts the processes of a run. Ours replaces it: RecBole's processes lack our patches."""

import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from ...errors import InputError, check_count
from ...training.launch import launch
from ...training.processes import GO_ON_BY_RESUME, process_group


class Group(NamedTuple):
    """The processes of a run, and which of them are on this machine; the arguments of RecBole's ``run``."""

    nproc: int
    world_size: int
    ip: str
    port: str
    group_offset: int


def run_in_processes(
    run: Callable[..., Any], *, nproc: int, world_size: int, ip: str, port: str, group_offset: int, **call: Any
) -> Any:
    """Run as RecBole's ``run`` does, on CPUs by gloo and on GPUs by NCCL.

    Args:
        run: RecBole's own, for one process.
        nproc: processes on this machine.
        world_size: processes on all machines; -1: only this machine.
        ip: of the first process's machine.
        port: a free port there.
        group_offset: the number of processes on the machines before this one.
        call: RecBole's other arguments, by name.

    Returns:
        The first process's result.

    Raises:
        InputError: a user's mistake, from the first process that reports one.
        TrainingDivergedError: a loss that is not a number.
        ProcessLostError: a process was killed, or one on another machine ended.
        ProcessRaisedException: torch's, for anything else that a process raised, with the traceback.
    """
    group = _checked(Group(nproc, world_size, str(ip), str(port), group_offset))
    if group.world_size == 1:
        return run(**call)
    return launch(_in_process, (group, call), group.nproc, GO_ON_BY_RESUME)


def _checked(group: Group) -> Group:
    """Return the group with the number of all processes filled in; InputError for an impossible one."""
    check_count("nproc", group.nproc)
    if group.world_size <= 0:
        group = group._replace(world_size=group.nproc)
    check_count("world_size", group.world_size, group.nproc)
    check_count("group_offset", group.group_offset, 0)
    if group.group_offset + group.nproc > group.world_size:
        raise InputError(
            f"group_offset: expected {group.world_size - group.nproc} at most, for {group.nproc} of "
            f"{group.world_size} processes, got {group.group_offset}"
        )
    if not group.port.isdecimal():
        raise InputError(f"port: expected a number, got {group.port!r}")
    return group


def _in_process(group: Group, call: dict[str, Any]) -> Any:
    """Run as one of the processes of all machines, which connect at the address given to RecBole's ``run``.

    Each machine has a separate agent: torchrun's own would need the number of machines, not the number of processes
    on the others.
    """
    os.environ |= {
        "RANK": str(group.group_offset + int(os.environ["LOCAL_RANK"])),
        "WORLD_SIZE": str(group.world_size),
        "MASTER_ADDR": group.ip,
        "MASTER_PORT": group.port,
        "TORCHELASTIC_USE_AGENT_STORE": "False",
    }
    run_recbole = importlib.import_module(f"{__package__}.run").run_recbole  # that file imports this one
    with process_group():
        return run_recbole(**call)
