"""Return freed memory to the operating system at once: how a command that trains sets up its own process."""

import ctypes
import os
import sys
from pathlib import Path

TRAINING = ("pretrain", "finetune", "run", "compare", "compare-losses", "quickstart")  # the commands
# Bytes. The large tensors of a training step are above it and fill one or two huge pages. Half of it leaves less in the
# heap (40 MB instead of 200, with the paper's model and batches) but makes a step a tenth longer; twice gains little.
MAPPED_FROM = 4 << 20
# How much may lie free at the end of the heap: as much as glibc itself would allow. Setting the other threshold stops
# glibc's own adjustment of both; then this one would be 128 KiB, and every other tensor would need a system call.
FREE_AT_END = 64 << 20

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TORCH_ASKS = "THP_MEM_ALLOC_ENABLE"  # torch reads it when it makes its first tensor
_SET_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def give_freed_memory_back() -> bool:
    """Map large blocks separately, in huge pages, so that they are returned as soon as they are freed.

    By default glibc raises its threshold for this to 32 MiB and takes smaller blocks from one heap. The tensors of a
    training step differ in size from step to step, with the lengths of views. They leave holes that the next ones do
    not fit into, and the heap grows. Mapped blocks instead cost a page fault for every page: half of a step's time
    with pages of 4 KiB, almost nothing with pages of 2 MiB, which torch requests if told to. So both are set, or
    neither.

    It holds for the whole process and cannot be undone. So the owner of the process decides, never a library. Call it
    before torch makes a tensor. Nothing happens if the user has configured malloc by an environment variable or
    switched torch's huge pages off (``THP_MEM_ALLOC_ENABLE=0``), if the system has none, or without glibc.

    Returns:
        Whether anything was set.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _SET_BY_USER) or not _has_huge_pages():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None or os.environ.setdefault(_TORCH_ASKS, "1") != "1":
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM)) and bool(mallopt(_M_TRIM_THRESHOLD, FREE_AT_END))


def _has_huge_pages() -> bool:
    try:
        return "[never]" not in _HUGE_PAGES.read_text(encoding="ascii")
    except (OSError, ValueError):
        return False
