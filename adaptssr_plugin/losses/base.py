"""What the losses share: which rows are compared, and how the losses of rows are reduced to one."""

from typing import get_args

import torch
from torch import Tensor, nn

from ..distributed import GatheredRows, announce_refusal, gather_rows, sum_over_processes, world_size
from ..errors import InputError, check_choice, check_count
from ..functional import stacked_unit_vectors, unit_vectors
from ..functional.linear_cross_entropy import Reduction
from ..functional.search import Implementation, check_implementation
from ..functional.similarity import full_precision, stacked_vectors
from .arguments import Negatives, check_encodings, check_negatives


class BatchLoss(nn.Module):
    """A loss that compares the rows of a batch with one another.

    Args:
        negatives: "hardest", "all" or the temperature of a soft negative.
        reduction: "mean" over rows that have a negative, "sum", or "none" for ``(B,)``.
        gather: whether rows are compared with those of every process.
        chunk_size: rows of the similarity matrix held at once; None chooses for the device.
        implementation: of the search for the hardest negative, "auto", "torch" or "triton"; see
            :class:`AdaptSSRLoss`.

    Raises:
        InputError: an invalid argument; "triton" with ``gather`` or a soft negative.
    """

    def __init__(
        self,
        negatives: Negatives,
        reduction: Reduction,
        gather: bool,
        chunk_size: int | None,
        implementation: Implementation,
    ) -> None:
        super().__init__()
        negatives = check_negatives(negatives)
        check_choice("reduction", reduction, get_args(Reduction))
        check_count("chunk_size", chunk_size, optional=True)
        check_implementation(implementation)
        if not isinstance(gather, bool):
            raise InputError(f"gather: expected True or False, got {gather!r}")
        if gather and implementation == "triton":
            raise InputError("implementation: expected 'auto' or 'torch' with gather=True, got 'triton'")
        if not isinstance(negatives, str) and implementation == "triton":
            raise InputError(f"implementation: expected 'auto' or 'torch' with negatives={negatives}, got 'triton'")
        self.negatives: Negatives = negatives
        self.reduction = reduction
        self.gather = gather
        self.chunk_size = chunk_size
        self.implementation = implementation

    @property
    def _softness(self) -> float:
        return 0.0 if isinstance(self.negatives, str) else self.negatives

    def _compared(self, user_ids: Tensor | None, unit: bool, **encodings: Tensor) -> GatheredRows:
        """Check m encodings ``(B, d)`` and stack them, for all rows that are compared with one another.

        Args:
            user_ids: as in the losses.
            unit: scale every vector to length 1.
            **encodings: by their names in the call.

        Returns:
            ``(N, m, d)`` in at least float32, the ids of these rows, and which rows are this process's (None: all).

        Raises:
            InputError: on this process, as :func:`check_encodings`; on the others, because this one refuses. Fewer
                than two rows (with ``gather``, over all processes). On every process, if the processes differ.
        """
        if not self.gather:
            check_encodings(user_ids, minimum=2, **encodings)
            stacked = stacked_unit_vectors if unit else stacked_vectors
            return GatheredRows(stacked(*encodings.values()), user_ids, None)
        try:
            check_encodings(user_ids, minimum=0, **encodings)
        except InputError:
            announce_refusal()
            raise
        values = list(encodings.values())
        with full_precision(values[0]):  # the rows are sent in their own dtype
            gathered = gather_rows(torch.stack(values, 1), user_ids, minimum=2)
        return gathered._replace(vectors=unit_vectors(gathered.vectors)) if unit else gathered

    def _reduce(self, loss: Tensor, valid: Tensor | None, n_rows: int) -> Tensor:
        """Reduce the losses of rows, which are 0 where not ``valid``. The mean is over the valid rows.

        With ``gather`` the gradients of all processes add up to that of the whole batch. "mean" is this process's sum,
        times the number of processes, divided by the valid rows of all processes; its average over the processes is
        the mean of the whole batch. "sum" and "none" are over this process's own rows.

        Args:
            loss: ``(B,)``, or ``(B, anchors)`` whose mean is the loss of a row.
            valid: bool ``(B,)``, which rows have a negative; None: all. With ``gather`` one all-reduce counts them.
            n_rows: N, the valid rows of all processes together if ``valid`` is None.
        """
        per_anchor = loss.dim() == 2
        if self.reduction == "none":
            return loss.mean(1) if per_anchor else loss
        total = loss.sum() / loss.shape[1] if per_anchor else loss.sum()
        if self.reduction == "sum":
            return total
        if self.gather:
            total = total * world_size()
        if valid is None:
            return total / n_rows
        return total / (sum_over_processes(valid.sum()) if self.gather else valid.sum()).clamp_min(1)
