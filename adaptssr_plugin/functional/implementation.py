"""Which implementation of the search for the hardest negative runs: torch, or Triton where it is faster."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import InputError
from . import triton_search

Implementation = Literal["auto", "torch", "triton"]

Search = Callable[[Tensor, int, Tensor | None, int | None], tuple[Tensor, Tensor]]
"""(vectors, stride, user_ids, chunk_size) to the largest similarities and the winners' row numbers."""


def check_implementation(implementation: object) -> None:
    """Raise InputError unless ``implementation`` is "auto", "torch" or "triton", and Triton installed for "triton".

    Triton is looked for, not imported.
    """
    if not isinstance(implementation, str) or implementation not in get_args(Implementation):
        raise InputError(f"implementation: expected 'auto' or 'torch' or 'triton', got {implementation!r}")
    if implementation == "triton" and not triton_search.is_installed():
        raise InputError(triton_search.NOT_INSTALLED)


def choose_search(implementation: Implementation, device: torch.device, dtype: torch.dtype = torch.float32) -> Search:
    """Choose the search for the hardest negative.

    Args:
        implementation: "torch": chunks of the similarity matrix, on any device; "triton": one kernel that holds
            none of it in memory; "auto": the kernel where it was measured to be faster (compute capability 9, no
            float64, Triton installed, not under torch.compile), "torch" everywhere else.
        device: where the encodings are. The kernel needs a CUDA device, or the interpreter.
        dtype: of the encodings.

    Raises:
        InputError: an implementation outside of the above; "triton" where Triton is not installed or the device is
            none of its own.
    """
    # Imported here because the module of the torch search imports this one.
    from .hardest_negative import search

    check_implementation(implementation)
    if implementation == "auto" and not torch.compiler.is_compiling() and triton_search.is_measured(device, dtype):
        return triton_search.search
    if implementation != "triton":
        return search
    if device.type != "cuda" and not (device.type == "cpu" and triton_search.is_interpreted()):
        raise InputError(f"implementation: 'triton' needs encodings on a CUDA device, got {device}")
    return triton_search.search
