"""RecBole's ``run``, which starts the processes of a run itself: ours in the place of its own, which lack our mends."""

import importlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.multiprocessing.spawn import ProcessRaisedException, spawn

from ..errors import InputError, ProcessLostError, TrainingDivergedError, check_count
from ..training.ending import Ending
from ..training.processes import process_group
from .data_parallel import GO_ON

_LINES = {error.__name__: error for error in (InputError, TrainingDivergedError, ProcessLostError)}  # that say it all
_TRACEBACK = 20_000  # characters of one that reach the parent


class _Word(NamedTuple):
    """How a process came to its end: its number, the exception's name or none, and what it said or gives."""

    number: int
    error: str
    content: Any


class Group(NamedTuple):
    """The processes of a run, and which of them are on this machine; what RecBole's ``run`` takes."""

    nproc: int
    world_size: int
    ip: str
    port: str
    group_offset: int


def run_in_processes(
    run: Callable[..., Any],
    model: Any,
    dataset: Any,
    config_file_list: Any,
    config_dict: Any,
    saved: bool,
    nproc: int,
    world_size: int,
    ip: str,
    port: str,
    group_offset: int,
) -> Any:
    """Run as RecBole's ``run`` does, on CPUs by gloo and on GPUs by NCCL.

    Args:
        run: RecBole's own, for one process.
        model: as of all others of RecBole's own.
        dataset: a name or a folder.
        config_file_list: yaml files.
        config_dict: options.
        saved: whether to write checkpoints.
        nproc: processes on this machine.
        world_size: processes on all machines; -1: on this one alone.
        ip: of the machine of the first one.
        port: that is free there.
        group_offset: how many processes other machines have before this one's.

    Returns:
        The first process's result.

    Raises:
        InputError: what the user can put right, of the first process that says so.
        TrainingDivergedError: a loss that is not a number.
        ProcessLostError: a process was killed, or one on another machine ended.
        ProcessRaisedException: torch's, for anything else that a process raised, with the traceback.
    """
    call = {
        "model": model,
        "dataset": dataset,
        "config_file_list": config_file_list,
        "config_dict": config_dict,
        "saved": saved,
    }
    group = _checked(Group(nproc, world_size, str(ip), str(port), group_offset))
    if group.world_size == 1:
        return run(**call)
    told = multiprocessing.get_context("spawn").SimpleQueue()
    started = spawn(_one_of_several, (group, call, told), group.nproc, join=False)  # type: ignore[no-untyped-call]
    processes = started.processes
    try:
        words = _wait(processes, told)
    finally:
        for process in processes:
            process.kill()
    return _outcome(processes, words)


def _checked(group: Group) -> Group:
    """Give the group with the number of all processes filled in; InputError for one that cannot be."""
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


def _one_of_several(number: int, group: Group, call: dict[str, Any], told: Any) -> None:
    """Be one of the processes: find the others as torchrun's do, and tell the parent what came of it."""
    os.environ |= {
        "RANK": str(group.group_offset + number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(group.world_size),
        "MASTER_ADDR": group.ip,
        "MASTER_PORT": group.port,
    }
    if "OMP_NUM_THREADS" not in os.environ:  # threads of their own in every process would be in one another's way
        torch.set_num_threads(max((os.cpu_count() or 1) // group.nproc, 1))
    run_recbole = importlib.import_module(f"{__package__}.run").run_recbole  # whose file imports this one
    try:
        with process_group():
            result = run_recbole(**call)
    except Exception as error:
        line = next((name for name, kind in _LINES.items() if isinstance(error, kind)), "")
        said = str(error) if line else traceback.format_exc()[-_TRACEBACK:]
        told.put(_Word(number, line or type(error).__name__, said))
        raise SystemExit(1) from None
    told.put(_Word(number, "", result if number == 0 else None))


def _wait(processes: Any, told: Any) -> list[_Word]:
    """Wait for all, and give what they told; once one has failed the others have so long and no longer."""
    words: list[_Word] = []
    ending = Ending(processes)
    while any(process.is_alive() for process in processes) or not told.empty():
        while not told.empty():
            words.append(told.get())
        ending.hasten(any(process.exitcode for process in processes))
        time.sleep(0.05)
    return words


def _outcome(processes: Any, words: list[_Word]) -> Any:
    """Give the result, or raise what is most to the point of how the processes ended."""
    words = sorted(words, key=lambda word: word.number)
    _raise_said(words, InputError)
    _raise_said(words, TrainingDivergedError)
    for word in words:
        if word.error and word.error not in _LINES:
            pid = processes[word.number].pid
            raise ProcessRaisedException(f"process {word.number}:\n{word.content}", word.number, pid)
    told = {word.number for word in words}
    for number, process in enumerate(processes):
        if number not in told:
            raise ProcessLostError(
                f"nproc: expected processes that come to an end, got status {process.exitcode} of process {number}; "
                f"{GO_ON}"
            )
    _raise_said(words, ProcessLostError)
    return words[0].content


def _raise_said(words: list[_Word], error: type[Exception]) -> None:
    """Raise what the first process says that ended by such an error."""
    for word in words:
        if word.error == error.__name__:
            raise error(word.content)
