"""Start the processes of one training on this machine by torchrun's agent; report their end in one line."""

import logging
import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch.multiprocessing.spawn import ProcessRaisedException

from ..errors import InputError, ProcessLostError, TrainingDivergedError
from ..progress import lock_threads_only
from .processes import GO_ON

_LINES = {error.__name__: error for error in (InputError, TrainingDivergedError, ProcessLostError)}  # one-line errors
_LOGGERS = ("torch.distributed.elastic", "torch.distributed.launcher", "torch.multiprocessing")
_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")  # the agent passes them on
_LATER = 1.0  # seconds; the agent polls ten times as often


def launch(function: Callable[..., Any], arguments: Sequence[Any], number: int, go_on: str = GO_ON) -> Any:
    """Call a function in several new processes, with torchrun's variables.

    SIGTERM is passed on to all of them; they then have 30 seconds. If one fails, the others are ended the same way.

    Args:
        function: has to be picklable, like its arguments.
        arguments: the same for all.
        number: of processes.
        go_on: for the message: what to do after a process was killed.

    Returns:
        The first process's result.

    Raises:
        InputError: raised by a process; the same holds for the next two.
        TrainingDivergedError: a loss that is not a number.
        ProcessLostError: a process was killed, or one on another machine ended.
        SystemExit: with status 143, after SIGTERM to this process or to one of them.
        KeyboardInterrupt: after SIGINT.
        ProcessRaisedException: torch's, for anything else that a process raised, with the traceback.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="adaptssr-") as folder, _as_it_was():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=number,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            return elastic_launch(config, _in_process)(function, tuple(arguments), number)[0]
        except SignalException as ended:
            if ended.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + ended.sigval) from None
        except ChildFailedError as error:
            _raise(*error.get_first_failure(), go_on)


def _in_process(function: Callable[..., Any], arguments: tuple[Any, ...], number: int) -> Any:
    """Run as one of the processes. The agent receives an exception as the name of its class and a text."""
    lock_threads_only()
    if "OMP_NUM_THREADS" not in os.environ:  # otherwise the threads of all processes compete for the cores
        torch.set_num_threads(max((os.cpu_count() or 1) // number, 1))
    try:
        result = function(*arguments)
    except InputError as error:  # or a subclass
        raise InputError(str(error)) from None
    except ProcessLostError:
        time.sleep(_LATER)  # The agent reports the first process that ends; that should be the lost one.
        raise
    return result if os.environ["LOCAL_RANK"] == "0" else None


def _raise(number: int, failure: Any, go_on: str) -> NoReturn:
    """Raise what a process raised, or an error for its exit status."""
    if isinstance(failure.message, dict):
        name, _, line = failure.message["message"].partition(": ")
        if name in _LINES:
            raise _LINES[name](line)
        trace = failure.message["extraInfo"]["py_callstack"]
        raise ProcessRaisedException(f"process {number}:\n{trace}", number, failure.pid)
    if failure.exitcode == 128 + signal.SIGTERM:
        raise SystemExit(failure.exitcode)
    raise ProcessLostError(
        f"nproc: expected processes that come to an end, got status {failure.exitcode} of process {number}; {go_on}"
    )


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Suppress the agent's log lines with their tracebacks, and restore the signal handlers afterwards."""
    loggers, silence = [logging.getLogger(name) for name in _LOGGERS], logging.NullHandler()
    propagated = [logger.propagate for logger in loggers]
    in_main_thread = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for name in _SIGNALS if (number := getattr(signal, name, None))}
    for logger in loggers:
        logger.addHandler(silence)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, before in zip(loggers, propagated, strict=True):
            logger.removeHandler(silence)
            logger.propagate = before
        for number, handler in handlers.items() if in_main_thread else ():
            signal.signal(number, handler)
