"""Computing cells after those that they need, in this process or in several."""

import multiprocessing
import os
import statistics
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError, TrainingDivergedError
from ...progress import Progress, Show
from .cells import Cell, Pretraining, conditions
from .store import Store

# The cells that results so far allow to name, and how many more will follow.
Wanted = Callable[[], tuple[Sequence[Cell], int]]


@dataclass(frozen=True)
class Part:
    """This machine's share of the work: cells that start from one model stay together.

    A warm-up that several machines need is made by each of them.
    """

    number: int = 1
    of: int = 1

    def takes(self, cell: Cell, fingerprint: str) -> bool:
        """Whether a cell belongs to this machine."""
        own = cell if isinstance(cell, Pretraining) else cell.needs() or cell
        return int(own.key(fingerprint), 16) % self.of == self.number - 1


def run_cells(
    plan: Any,
    store: Store,
    wanted: Wanted,
    jobs: int = 1,
    part: Part | None = None,
    show_progress: Show = True,
) -> int:
    """Compute the wanted unfinished cells, write each result at once, and return their number.

    ``wanted`` is called again after every finished cell, since tuning decides what comes next. Each of the processes
    gets an equal share of the cores.

    Raises:
        InputError: a mistake of the caller that a cell found, or a process that was killed.
        TrainingDivergedError: NaN or infinity in a step; cells in progress are finished first.
    """
    part = part or Part()
    seconds: dict[str, list[float]] = defaultdict(list)  # that cells of a kind have taken
    computed = 0
    with Progress(0, "cells", show_progress, unit="cell", reports=True) as bar, _workers(plan, store, jobs) as submit:
        running: dict[Future[Any], Cell] = {}
        while True:
            cells, later = wanted()
            own = [cell for cell in cells if part.takes(cell, store.fingerprint)]
            missing = _with_needs(own, store)
            under_way = {cell.key(store.fingerprint) for cell in running.values()}
            ready = [cell for cell in missing if _ready(cell, store) and cell.key(store.fingerprint) not in under_way]
            for cell in ready[: max(0, jobs - len(running))]:
                running[submit(cell)] = cell
            bar.total = computed + len(missing) + later
            bar.line(f"{len(missing) + later} left, {_to_go(seconds, missing, later, jobs)} to go")
            if not running:
                return computed  # nothing left, or the rest belongs to other machines
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell = running.pop(future)
                try:
                    result, where = future.result()
                except (InputError, TrainingDivergedError):
                    _let_finish(running, store, jobs)
                    raise
                except BrokenProcessPool:
                    raise InputError(
                        "jobs: expected processes that live, got one that was killed, perhaps for want of memory; the "
                        "same command goes on with what is finished"
                    ) from None
                store.put(cell, result, {**where, "jobs": jobs})
                seconds[cell.kind].append(float(result["seconds"]))
                computed += 1
                bar.update(1)


def _to_go(taken: Mapping[str, Sequence[float]], cells: Sequence[Cell], later: int, jobs: int) -> str:
    """Estimate the time to go from that of cells of each kind."""
    known = {kind: statistics.median(times) for kind, times in taken.items()}
    if not known:
        return "?"
    usual = statistics.median(known.values())
    seconds = sum(known.get(cell.kind, usual) for cell in cells) + later * usual
    minutes = seconds / jobs / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _let_finish(running: Mapping["Future[Any]", Cell], store: Store, jobs: int) -> None:
    """Keep the results of other cells while a run ends."""
    for future, cell in running.items():
        if not future.cancel() and future.exception() is None:
            result, where = future.result()
            store.put(cell, result, {**where, "jobs": jobs})


def _with_needs(cells: Sequence[Cell], store: Store) -> list[Cell]:
    """List the unfinished cells, each after the missing models that it needs."""
    found: dict[str, Cell] = {}

    def visit(cell: Cell) -> None:
        before = cell.needs()
        if before is not None and not store.has_model(before):
            visit(before)
        found.setdefault(cell.key(store.fingerprint), cell)

    for cell in cells:
        if store.get(cell) is None:
            visit(cell)
    return list(found.values())


def _ready(cell: Cell, store: Store) -> bool:
    before = cell.needs()
    return before is None or store.has_model(before)


# --- processes ----------------------------------------------------------------------------------------------------

_Submit = Callable[[Cell], "Future[Any]"]


class _workers:  # noqa: N801 - used as a context manager, like a function
    """Return what runs a cell: this process with one job, otherwise a pool of new processes."""

    def __init__(self, plan: Any, store: Store, jobs: int) -> None:
        self._plan, self._models, self._jobs = plan, store.models, jobs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Submit:
        if self._jobs == 1:
            return self._here
        threads = max(1, (os.cpu_count() or 1) // self._jobs)
        self._pool = ProcessPoolExecutor(
            self._jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(threads,)
        )
        pool = self._pool
        return lambda cell: pool.submit(_compute, self._plan, self._models, cell)

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=error[0] is None, cancel_futures=True)

    def _here(self, cell: Cell) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(_compute(self._plan, self._models, cell))
        except (InputError, TrainingDivergedError) as refused:
            future.set_exception(refused)
        return future


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End as soon as the parent process has ended: nobody would store this one's results."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _compute(plan: Any, models: Path, cell: Cell) -> tuple[dict[str, Any], Mapping[str, Any]]:
    return cell.compute(plan, models), conditions(cell.device(plan))


def part_of(text: str) -> Part:
    """Read ``I/N``.

    Raises:
        InputError: anything else, or I outside 1..N.
    """
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise InputError(f"part: expected I/N with I in 1..N, got {text!r}")
    return Part(int(number), int(of))
