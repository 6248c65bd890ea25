"""Metrics of profile tasks (the paper's T1, T2, T5 and T6), as fractions in [0, 1]; tables multiply them by 100."""

import numpy as np
import torch

from adaptssr_plugin.errors import InputError

Values = torch.Tensor | np.ndarray


def accuracy(scores: Values, labels: Values) -> float:
    """Share of rows whose largest score is that of their label (ties: the first of the largest).

    Args:
        scores: ``(N, C)``, N at least 1; -inf for a class that cannot be chosen.
        labels: ``(N,)`` integers in [0, C).

    Raises:
        InputError: shapes or labels that do not fit, no rows, or a NaN among the scores.
    """
    scores, labels = _checked(scores, labels)
    return float(np.mean(scores.argmax(axis=1) == labels))


def auc(scores: Values, labels: Values) -> float:
    """Area under the ROC curve of the difference of two logits, ties counting one half.

    Args:
        scores: ``(N, 2)`` logits of the two classes; class 1 is the positive one.
        labels: ``(N,)`` integers 0 or 1, both present.

    Raises:
        InputError: shapes or labels that do not fit, scores that are not finite, or one class only.
    """
    from sklearn.metrics import roc_auc_score

    scores, labels = _checked(scores, labels)
    if scores.shape[1] != 2:
        raise InputError(f"scores: expected two logits per row for AUC, got shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise InputError("scores: expected finite logits for AUC, got an infinite one")
    if len(np.unique(labels)) != 2:
        raise InputError(f"labels: expected both classes for AUC, got only class {labels[0]}")
    return float(roc_auc_score(labels, scores[:, 1] - scores[:, 0]))


def _checked(scores: Values, labels: Values) -> tuple[np.ndarray, np.ndarray]:
    """Convert scores to float64 ``(N, C)`` and labels to int64 ``(N,)``, or raise InputError."""
    scores, labels = _as_numpy(scores), _as_numpy(labels)
    if scores.ndim != 2 or 0 in scores.shape:
        raise InputError(f"scores: expected shape (N, C) with at least one row, got {scores.shape}")
    if labels.shape != scores.shape[:1]:
        raise InputError(f"labels: expected shape {scores.shape[:1]} as scores, got {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels: expected integers, got {labels.dtype}")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise InputError(f"labels: expected integers in [0, {scores.shape[1]}), got {labels.min()} to {labels.max()}")
    if scores.dtype.kind not in "fiub":
        raise InputError(f"scores: expected numbers, got {scores.dtype}")
    scores = scores.astype(np.float64)
    if np.isnan(scores).any():
        raise InputError(f"scores: expected numbers, got NaN in {np.isnan(scores).any(axis=1).sum()} rows")
    return scores, labels.astype(np.int64)


def _as_numpy(values: Values) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        if values.is_meta or values.layout != torch.strided:
            raise InputError(
                f"scores, labels: expected dense tensors with values, got {values.device}, {values.layout}"
            )
        values = values.detach().cpu()
        # numpy has no bfloat16.
        return (values.double() if values.is_floating_point() else values).numpy()
    return np.asarray(values)
