"""Item vectors without training: a truncated SVD of the TF-IDF weights of who has which item (LSA).

With X the users-by-items matrix and X ≈ U S Vᵀ its ``dim`` largest components, item i gets row i of V S^½, minus the
mean over all items that occur, scaled to a common length. V and S² are eigenpairs of XᵀX, which is never formed: block
Lanczos with full reorthogonalisation multiplies by it, in blocks of users, so that histories may be on disk.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError, check_count
from .behaviours import BehaviourCorpus, blocks

NORM = 0.8  # of every vector; large enough beside positions of norm .16 to distinguish users, small enough to change
_DEPTH = 8  # blocks of the Krylov space, and passes over the histories
_BEHAVIOURS = 1 << 22  # in a sparse block of users
_QR_ROWS = 1 << 13
_NOISE = 1e-6  # of float32, relative to the largest value

_Matrix = npt.NDArray[np.float32]


def svd_item_vectors(
    corpus: BehaviourCorpus,
    dim: int,
    rows: npt.ArrayLike | None = None,
    max_len: int = 100,
    seed: int = 0,
) -> Tensor:
    """Compute item vectors by a truncated SVD of TF-IDF weights: latent semantic analysis (Deerwester et al., 1990).

    A user's row is the bag of the newest ``max_len`` items, which a stage sees of a user: counts times the smoothed
    inverse document frequency over ``rows``, scaled to length 1 (scikit-learn's ``TfidfTransformer``). The sign of a
    component makes its largest entry positive. The same arguments give the same vectors.

    Memory is some ``48 · n_items · dim`` bytes plus that of a few million behaviours, for any number of users.

    Args:
        corpus: behaviours, in memory or on disk.
        dim: d; components beyond the rank of the matrix are 0.
        rows: (R,) integers, the users that count, at least one; None: all. The rest of the corpus is not used.
        max_len: the number of a user's newest behaviours that count.
        seed: of the start of the iteration.

    Returns:
        (n_items, d) float32 on the CPU, every row of norm .8. Rows are 0 for the padding, for items that occur in no
        history, and if nothing is left after subtracting the mean.

    Raises:
        InputError: rows that the corpus lacks, no rows, or a size below 1.
        ModuleNotFoundError: SciPy is missing; it is not a dependency of the core.
    """
    check_count("dim", dim)
    users = np.arange(len(corpus)) if rows is None else corpus.check_rows(rows)
    if not len(users):
        raise InputError("rows: expected at least one row, got none")
    check_count("max_len", max_len)
    parts = [users[slice(*ends)] for ends in blocks(np.minimum(corpus.lengths[users], max_len), _BEHAVIOURS)]
    frequency = np.zeros(corpus.n_items, dtype=np.int64)  # users who have the item
    for part in parts:
        frequency += np.bincount(item_counts(corpus, part, max_len).indices, minlength=corpus.n_items)
    idf = np.log((1 + len(users)) / (1 + frequency)) + 1

    def gram(vectors: _Matrix) -> _Matrix:
        product = np.zeros_like(vectors)
        for part in parts:
            block = _tfidf(item_counts(corpus, part, max_len), idf)
            product += block.T @ (block @ vectors)
        return product

    occurs = frequency > 0
    values, vectors = _largest_eigenpairs(gram, np.flatnonzero(occurs), corpus.n_items, dim, seed)
    vectors *= np.sqrt(np.sqrt(np.where(values > _NOISE * values[0], values, 0)))  # V S^½
    vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    least = _NOISE * np.linalg.norm(vectors, axis=1).max()
    vectors -= vectors[occurs].mean(axis=0, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=1)
    known = occurs & (norms > least)
    result = np.zeros((corpus.n_items, dim), dtype=np.float32)
    result[known, : vectors.shape[1]] = vectors[known] * (NORM / norms[known, None])
    return torch.from_numpy(result)


@torch.no_grad()
def put_item_vectors(table: Tensor, vectors: Tensor) -> None:
    """Write the vectors of known items into an item table, in place; rows whose vector is 0 are not changed.

    Args:
        table: floating (n, d), on any device; n at least ``len(vectors)``.
        vectors: (n_items, d) of :func:`svd_item_vectors`.

    Raises:
        InputError: a table of fewer rows or of another width.
    """
    if len(table) < len(vectors) or table.shape[1:] != vectors.shape[1:]:
        raise InputError(f"table: expected shape {tuple(vectors.shape)} as the vectors, got {tuple(table.shape)}")
    known = vectors.any(dim=1).nonzero()[:, 0]
    table[known.to(table.device)] = vectors[known].to(table)


def item_counts(corpus: BehaviourCorpus, rows: npt.NDArray[np.int64], max_len: int) -> Any:
    """Count the newest ``max_len`` items of each row: a sparse ``(len(rows), n_items)`` float64 matrix.

    Raises:
        InputError: rows that the corpus lacks, or a ``max_len`` below 1.
        ModuleNotFoundError: SciPy is missing.
    """
    try:
        from scipy.sparse import csr_matrix
    except ModuleNotFoundError:
        needs = 'item counts are sparse and need SciPy: pip install "adaptssr-plugin[recbole]"'
        raise ModuleNotFoundError(needs, name="scipy") from None

    if not hasattr(corpus, "check_rows"):
        raise InputError(f"corpus: expected a BehaviourCorpus, got {type(corpus).__name__}")
    check_count("max_len", max_len)
    rows = corpus.check_rows(rows)
    ends = corpus.offsets[rows + 1]
    lengths = np.minimum(ends - corpus.offsets[rows], max_len)
    indptr = np.concatenate(([0], np.cumsum(lengths)))
    items = corpus._before(ends, lengths)
    counts = csr_matrix((np.ones(len(items)), items, indptr), shape=(len(rows), corpus.n_items))
    counts.sum_duplicates()
    return counts


def _tfidf(counts: Any, idf: npt.NDArray[np.float64]) -> Any:
    """Weight counts, in place, and scale rows to length 1; every row has an entry. Returns a float32 matrix."""
    counts.data *= idf[counts.indices]
    length = np.sqrt(np.add.reduceat(counts.data**2, counts.indptr[:-1]))
    counts.data /= np.repeat(length, np.diff(counts.indptr))
    return counts.astype(np.float32)


def _largest_eigenpairs(
    product: Callable[[_Matrix], _Matrix], support: npt.NDArray[np.int64], size: int, dim: int, seed: int
) -> tuple[npt.NDArray[np.float64], _Matrix]:
    """Find the largest eigenvalues of a positive semidefinite matrix, the largest first, and their eigenvectors.

    Exact if the matrix has at most ``dim · 8`` rows that are not 0; otherwise from a Krylov space of that many
    dimensions, where the smallest of the eigenvalues are the least exact.

    Args:
        product: multiplies ``(size, k)`` by the matrix.
        support: the rows and columns that are not 0.
        size: of the matrix.
        dim: the largest number of eigenvalues.
        seed: of the random start.

    Returns:
        At most ``dim`` eigenvalues ``(c,)``, and vectors ``(size, c)``.
    """
    whole = len(support) <= dim * _DEPTH
    width, depth = (len(support), 1) if whole else (dim, _DEPTH)
    start = np.zeros((size, width), dtype=np.float32)
    start[support] = np.random.default_rng(seed).standard_normal((len(support), width), dtype=np.float32)
    basis = [_orthonormal(start, [])]
    projected = np.zeros((depth * width, depth * width))
    for step in range(depth):
        image = product(basis[-1])
        column = slice(step * width, (step + 1) * width)
        projected[: column.stop, column] = np.concatenate([block.T @ image for block in basis])
        if step + 1 < depth:
            basis.append(_orthonormal(image, basis))
    values, shares = np.linalg.eigh(projected, UPLO="U")
    values, shares = values[: -dim - 1 : -1], shares[:, : -dim - 1 : -1].astype(np.float32)
    vectors = np.zeros((size, len(values)), dtype=np.float32)
    for block, share in zip(basis, _cut(shares, width), strict=True):
        vectors += block @ share
    return values, vectors


def _orthonormal(image: _Matrix, basis: list[_Matrix]) -> _Matrix:
    """Return orthonormal columns that span an image and are orthogonal to a basis, in place.

    Done twice: if the image lies in the basis, the remainder is rounding, in any direction.
    """
    for _ in range(2):
        for block in basis:
            image -= block @ (block.T @ image)
        # QR of parts that fit the cache, then of their triangles: a third of the time of QR of the whole.
        parts = [np.linalg.qr(part) for part in _cut(image, _QR_ROWS)]
        top = np.linalg.qr(np.concatenate([triangle for _, triangle in parts]))[0]
        start = 0
        for part, (columns, triangle) in zip(_cut(image, _QR_ROWS), parts, strict=True):
            np.matmul(columns, top[start : start + len(triangle)], out=part)
            start += len(triangle)
    return image


def _cut(rows: _Matrix, size: int) -> Iterator[_Matrix]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
