"""Figure 5: how similar a user's encoding is to those of augmented sequences and of other users."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from adaptssr_plugin.augment import ItemCrop, ItemMask
from adaptssr_plugin.corpus.behaviours import BehaviourCorpus
from adaptssr_plugin.downstream.metrics import auc
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.seeding import stream_generator, stream_seed

GRID = np.linspace(-1.0, 1.0, 401)


@dataclass(frozen=True, eq=False)
class SimilarityDistributions:
    """Cosine similarities of one encoder's user encodings, a value in [-1, 1] for each sampled user.

    Attributes:
        masked: ``(n,)`` original against masked.
        cropped: ``(n,)`` original against cropped.
        other: ``(n,)`` original against another user's original.
        mask_ratio: share of the behaviours that was masked.
        crop_ratio: share of the behaviours that cropping kept.
    """

    masked: np.ndarray
    cropped: np.ndarray
    other: np.ndarray
    mask_ratio: float
    crop_ratio: float

    @property
    def curves(self) -> dict[str, np.ndarray]:
        """The three samples by name: masked, cropped, other."""
        return {"masked": self.masked, "cropped": self.cropped, "other": self.other}

    def numbers(self) -> dict[str, dict[str, float]]:
        """Summary numbers of each curve.

        Returns:
            For each of masked, cropped and other its ``mean``, ``p5``, ``p50`` and ``p95``; for the two
            augmented ones also ``overlap``, the area shared with the density of ``other`` (1: the same
            curve, 0: apart), and ``separation``, the probability that an augmented pair is more similar
            than a pair of users (an AUC, ties one half).
        """
        result = {}
        for name, sample in self.curves.items():
            p5, p50, p95 = (float(value) for value in np.percentile(sample, [5, 50, 95]))
            result[name] = {"mean": float(sample.mean()), "p5": p5, "p50": p50, "p95": p95}
        for name, sample in (("masked", self.masked), ("cropped", self.cropped)):
            result[name]["overlap"] = overlap(sample, self.other)
            result[name]["separation"] = separation(sample, self.other)
        return result


def similarity_distributions(
    encoder: nn.Module,
    corpus: BehaviourCorpus,
    *,
    mask_ratio: float = 0.6,
    crop_ratio: float = 0.6,
    n_users: int = 10_000,
    seed: int,
    max_len: int,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
) -> SimilarityDistributions:
    """Sample the three curves of Figure 5 for one encoder.

    Users are drawn without replacement among those with at least two behaviours (a single one cannot be masked); all of
    them if there are no more than ``n_users``. The encoder runs without gradients in evaluation mode, dropout off; the
    modes of its modules are restored afterwards.

    Args:
        encoder: ``encoder(item_seq, item_seq_len) -> (B, d)``, already on ``device``.
        corpus: the behaviours; masked positions carry ``corpus.n_items``.
        mask_ratio: share of the behaviours to mask, in (0, 1].
        crop_ratio: share of the behaviours that cropping keeps, in (0, 1].
        n_users: how many users to draw.
        seed: seed of the users, the augmentations and the pairs of users.
        max_len: the number of newest behaviours that the encoder sees.
        batch_size: users encoded at once; the augmentations drawn depend on it.
        device: where the encoder is.

    Raises:
        InputError: fewer than two users to draw from, or a number out of range.
    """
    for name, value, least in (("n_users", n_users, 2), ("batch_size", batch_size, 1), ("max_len", max_len, 2)):
        if value < least:
            raise InputError(f"{name}: expected an integer of at least {least}, got {value}")
    rng = np.random.default_rng(stream_seed(int(seed), "figure 5"))
    rows = _draw_users(corpus, n_users, rng)
    operators = {
        "masked": ItemMask(ratio=mask_ratio, mask_id=corpus.n_items),
        "cropped": ItemCrop(ratio=crop_ratio),
    }
    generator = stream_generator(device, int(seed), "figure 5", "augmentations")
    originals: list[Tensor] = []
    similarities: dict[str, list[Tensor]] = {name: [] for name in operators}
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(rows), batch_size):
                item_seq, item_seq_len = corpus.padded(rows[start : start + batch_size], max_len)
                item_seq, item_seq_len = item_seq.to(device), item_seq_len.to(device)
                original = encoder(item_seq, item_seq_len)  # (B, d)
                originals.append(original)
                for name, operator in operators.items():
                    augmented = encoder(*operator(item_seq, item_seq_len, generator))
                    similarities[name].append(_cosine(original, augmented))
    finally:
        for module, training in modes.items():
            module.training = training
    users = torch.cat(originals)  # (n, d)
    others = users[torch.from_numpy(derangement(len(rows), rng)).to(users.device)]
    return SimilarityDistributions(
        masked=_to_numpy(torch.cat(similarities["masked"])),
        cropped=_to_numpy(torch.cat(similarities["cropped"])),
        other=_to_numpy(_cosine(users, others)),
        mask_ratio=mask_ratio,
        crop_ratio=crop_ratio,
    )


def derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a permutation ``(n,)`` int64 without fixed points, all of them equally likely.

    Permutations are drawn until one has no fixed point, which takes 2.7 tries (e) on average.
    """
    places = np.arange(n)
    while True:
        order = rng.permutation(n)
        if not (order == places).any():
            return order.astype(np.int64)


def density(values: np.ndarray) -> np.ndarray:
    """Gaussian kernel density of a sample on the grid, scaled to area 1 there.

    The bandwidth is Scott's, ``std · n^(-1/5)``, but at least the spacing of the grid: a sample with almost no spread
    gives a peak as thin as the grid can show. The scaling restores the mass of the kernels beyond the grid.

    Args:
        values: ``(n,)`` finite values, n at least 1; those beyond the ends of the grid count at its ends.

    Returns:
        ``(G,)`` float64, not negative, with trapezoid area 1.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise InputError(f"values: expected a list of finite numbers, got shape {values.shape}")
    values = values.clip(GRID[0], GRID[-1])
    scott = float(values.std(ddof=1)) * len(values) ** -0.2 if len(values) > 1 else 0.0
    bandwidth = max(scott, float(np.diff(GRID).max()))
    heights = np.zeros_like(GRID)
    for part in np.array_split(values, len(values) // 4096 + 1):  # a block of (G, 4096), not of (G, n)
        heights += np.exp(-0.5 * ((GRID[:, None] - part) / bandwidth) ** 2).sum(axis=1)
    result: np.ndarray = heights / area(heights)
    return result


def area(heights: np.ndarray) -> float:
    """Area under ``heights (G,)`` over the grid by the trapezoid rule."""
    return float(((heights[1:] + heights[:-1]) / 2 * np.diff(GRID)).sum())


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Overlap coefficient of two samples: the area below both densities, in [0, 1]."""
    return area(np.minimum(density(first), density(second)))


def separation(higher: np.ndarray, lower: np.ndarray) -> float:
    """Probability that a value of ``higher`` exceeds one of ``lower``, ties one half."""
    scores = np.concatenate([higher, lower])
    labels = np.repeat([1, 0], [len(higher), len(lower)])
    return auc(np.stack([np.zeros_like(scores), scores], axis=1), labels)


def _draw_users(corpus: BehaviourCorpus, n_users: int, rng: np.random.Generator) -> np.ndarray:
    """Draw rows of users with at least two behaviours, shortest histories first (less padding)."""
    eligible = np.flatnonzero(corpus.lengths >= 2)
    if len(eligible) < 2:
        raise InputError(f"corpus: expected at least 2 users with 2 behaviours or more, got {len(eligible)}")
    rows = rng.choice(eligible, size=min(n_users, len(eligible)), replace=False)
    ordered: np.ndarray = rows[np.argsort(corpus.lengths[rows], kind="stable")]
    return ordered


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    return functional.cosine_similarity(first.float(), second.float(), dim=1).clamp(-1, 1)


def _to_numpy(values: Tensor) -> np.ndarray:
    array: np.ndarray = values.double().cpu().numpy()
    return array
