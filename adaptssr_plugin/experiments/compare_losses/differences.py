"""Metrics by user from ranks, and paired tests over users."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...downstream.ranking import hit_at, ndcg_at
from ...downstream.significance import Interval, paired, paired_interval

METRICS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "NDCG@10": lambda ranks: ndcg_at(ranks, 10),
    "NDCG@20": lambda ranks: ndcg_at(ranks, 20),
    "Recall@10": lambda ranks: hit_at(ranks, 10),
    "Recall@20": lambda ranks: hit_at(ranks, 20),
}


def values_of(metric: str, ranks: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Average a metric of ranks (R,) over the rows of each user: float64 (U,), in the order of the ids in ``users``."""
    values = METRICS[metric](torch.tensor(ranks)).numpy()
    _, places, counts = np.unique(users, return_inverse=True, return_counts=True)
    means: np.ndarray = np.bincount(places, weights=values) / counts
    return means


def thirds(values: np.ndarray) -> np.ndarray:
    """Divide (R,) values into three groups, 0, 1 and 2, of nearly equal size; equal values stay together."""
    cuts = np.quantile(values, [1 / 3, 2 / 3], method="inverted_cdf")
    groups: np.ndarray = np.searchsorted(cuts, values, side="left")
    return groups


@dataclass(frozen=True)
class Difference:
    """A row against its reference, on the same users."""

    reference: float  # its mean
    interval: Interval  # the mean difference with its 95 % interval over users
    p: float  # of the two-sided paired t-test over users
    by_seed: tuple[float, ...]  # mean difference of each seed
    n_users: int

    @property
    def percent(self) -> Interval:
        """The interval in percent of the reference; NaN where that is 0."""
        scale = 100 / self.reference if self.reference else math.nan
        return Interval(*(scale * one for one in self.interval))

    @property
    def finding(self) -> str:
        """The conclusion that the difference allows.

        The interval is over users, for the trained models; only the seeds show what another seed would change. So a
        gain or a loss is reported only if the interval and every seed agree.
        """
        if not self.interval.low * self.interval.high > 0:
            return "no difference beyond noise"
        kind = "a gain" if self.interval.mean > 0 else "a loss"
        if len(self.by_seed) == 1:
            return f"{kind} for this seed, which more seeds have to confirm"
        agreeing = sum(one * self.interval.mean > 0 for one in self.by_seed)
        if agreeing < len(self.by_seed):
            return f"no difference beyond noise, since only {agreeing} of {len(self.by_seed)} seeds show {kind}"
        return kind


def difference(
    metric: str, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], users: np.ndarray
) -> Difference | None:
    """Compare the ranks (R,) of each seed with those of the reference, on the same rows of ``users`` (R,).

    None for fewer than two users.
    """
    own, other = (np.stack([values_of(metric, ranks, users) for ranks in runs]) for runs in (ours, theirs))  # (S, U)
    if own.shape[1] < 2:
        return None
    mine, reference = own.mean(0), other.mean(0)
    return Difference(
        float(reference.mean()),
        paired_interval(mine, reference),
        paired(mine, reference),
        tuple(map(float, (own - other).mean(1))),
        own.shape[1],
    )
