"""Freed memory goes back to the operating system at once: how a command that trains sets up its own process."""

import ctypes
import os
import sys
from pathlib import Path

TRAINING = ("pretrain", "finetune", "run", "compare", "quickstart")  # the commands
# Bytes. A training step's large tensors lie above it, and hold a huge page or two. Half of it leaves less in the heap
# (40 MB for 200, with the paper's model and batches), and makes a step a tenth longer; twice as much gains little.
MAPPED_FROM = 4 << 20
# What may lie free at the end of the heap: as much as glibc would come to by itself. Setting the other threshold ends
# its own adjustment of both, after which this one would be 128 KiB, and every other tensor a call of the system.
FREE_AT_END = 64 << 20

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TORCH_ASKS = "THP_MEM_ALLOC_ENABLE"  # torch's variable, which it looks at when it makes its first tensor
_SET_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def give_freed_memory_back() -> bool:
    """Have large blocks mapped on their own, in huge pages, so that they go back as soon as they are freed.

    Left alone, glibc raises its threshold for that to 32 MiB, and carves smaller blocks out of one heap. A training
    step's tensors have other sizes in every step, since the lengths of views do: holes stay between them that the
    next ones do not fit in, and the heap grows on. Mapped blocks cost a fault for every page in its place, half a
    step's time in pages of 4 KiB; in those of 2 MiB, which torch asks for when it is told to, nothing to speak of. So
    it is both or neither.

    It holds for the whole process, for good: a matter of whoever owns the process, never of a library. To be called
    before torch makes a tensor. Nothing happens where the user has set malloc up by an environment variable, or
    switched torch's huge pages off (``THP_MEM_ALLOC_ENABLE=0``), where the system has none, and without glibc.

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
