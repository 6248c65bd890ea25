"""An encoder as a graph (:mod:`torch.export`) that torch runs without this package."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..errors import InputError, check_count, check_kind

_TOLERANCE = 1e-5


def export_encoder(encoder: nn.Module, n_items: int, max_len: int) -> ExportedProgram:
    """Trace an encoder for any number of users and any length.

    The graph takes ``item_seq`` and ``item_seq_len`` as the encoder does, with B at least 1 and L from 1 to
    ``max_len``, and gives the same user vectors: this is checked on random sequences, to 1e-5 of the largest number. A
    row of length 0, for which an encoder has no vector, gives zeros. An encoder that torch can trace for one length
    only (:class:`GRUEncoder`) is traced for ``max_len``; its graph pads the input.

    Args:
        encoder: ``(item_seq, item_seq_len) -> (B, d)``, in evaluation mode, on the device that the graph is to run on.
        n_items: items, the padding id 0 included.
        max_len: the longest sequence.

    Raises:
        InputError: an encoder in training mode, one that torch cannot trace, or whose graph gives different numbers.
    """
    check_kind("encoder", encoder, nn.Module, "a torch module")
    check_count("n_items", n_items)
    check_count("max_len", max_len)
    if any(module.training for module in encoder.modules()):
        raise InputError("encoder: expected one in evaluation mode, got one in training mode")
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)

    def batch(n_rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Make random sequences, ``(B, L)`` and ``(B,)``."""
        item_seq_len = torch.randint(1, length + 1, (n_rows,), generator=generator)
        item_seq = torch.randint(1, max(n_items, 2), (n_rows, length), generator=generator)
        item_seq = item_seq.masked_fill(torch.arange(length) >= item_seq_len[:, None], 0)
        return item_seq.to(device), item_seq_len.to(device)

    program = _program(encoder, batch(3, max_len), max_len)
    traced = program.module()
    for n_rows, length in ((1, 1), (5, (max_len + 1) // 2), (2, max_len)):
        _check_same(encoder, traced, *batch(n_rows, length))
    return program


def _program(encoder: nn.Module, example: tuple[Tensor, Tensor], max_len: int) -> ExportedProgram:
    if not any(isinstance(module, nn.RNNBase) for module in encoder.modules()):  # known to need one length
        try:
            return _trace(_Exported(encoder).eval(), example, max_len)
        except Exception:  # torch raises a dozen classes for what it cannot trace
            pass
    try:
        return _trace(_Exported(encoder, max_len).eval(), example, max_len)
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"encoder: expected one that torch.export can trace, got {type(encoder).__name__} ({first})"
        ) from None


def _trace(encoder: nn.Module, example: tuple[Tensor, Tensor], max_len: int) -> ExportedProgram:
    rows = Dim("batch", min=1)
    columns = {1: Dim("length", min=1, max=max_len)} if max_len > 1 else {}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's, on its own recurrent layers
        return torch.export.export(encoder, example, dynamic_shapes=({0: rows, **columns}, {0: rows}), strict=False)


class _Exported(nn.Module):
    """The traced module: the encoder, with zeros for rows of length 0.

    Args:
        encoder: gives the vectors of all other rows.
        width: pad every input to this width, since encodings do not depend on padding; None: keep the width.
    """

    def __init__(self, encoder: nn.Module, width: int | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.width = width

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        if self.width is not None:
            item_seq = F.pad(item_seq, (0, self.width - item_seq.shape[1]))
        vectors: Tensor = self.encoder(item_seq, item_seq_len.clamp(min=1))  # of an empty row: that of its padding
        return vectors.masked_fill(item_seq_len[:, None] < 1, 0)


def _check_same(encoder: nn.Module, traced: nn.Module, item_seq: Tensor, item_seq_len: Tensor) -> None:
    """Compare the graph with the encoder: one that branches on values is traced only for those of the example."""
    with torch.no_grad():
        expected, came = encoder(item_seq, item_seq_len), traced(item_seq, item_seq_len)
    difference = float((came - expected).abs().max()) if came.shape == expected.shape else float("inf")
    if not difference <= _TOLERANCE * max(1.0, float(expected.abs().max())):
        raise InputError(
            f"encoder: expected one whose graph gives its own numbers, got {type(encoder).__name__}, "
            f"off by {difference:.1e} for shape {tuple(item_seq.shape)}"
        )
